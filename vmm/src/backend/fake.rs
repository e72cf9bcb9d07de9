//! A backend in memory: what the guest sent can be looked at, what it shall receive is put in a list.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::iovec::{gather, scatter};
use super::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};

/// Both ends' view of the wire.
#[derive(Debug, Default)]
pub(crate) struct Wire {
    /// What the guest sent, header first.
    pub(crate) sent: Vec<Vec<u8>>,
    /// What the guest shall receive, header first.
    pub(crate) to_guest: VecDeque<Vec<u8>>,
    /// How many more frames find room; `None`: any number.
    pub(crate) room: Option<usize>,
    /// The next frames are refused.
    pub(crate) refuse: usize,
    /// Reads fail.
    pub(crate) broken: bool,
    /// What the NIC asked for.
    pub(crate) offloads: Option<Offloads>,
    /// Pieces of each read, as offered.
    pub(crate) read_pieces: Vec<usize>,
}

/// The NIC's end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<Wire>>);

impl Fake {
    /// The wire.
    pub(crate) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Fake {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let mut wire = self.wire();
        if wire.room == Some(0) {
            return Written::WouldBlock;
        }
        if wire.refuse > 0 {
            wire.refuse -= 1;
            return Written::Dropped;
        }
        wire.room = wire.room.map(|room| room - 1);
        let mut bytes = vec![0; FRAME_BYTES_MAX + 1];
        let len = gather(frame, 0, &mut bytes);
        bytes.truncate(len);
        wire.sent.push(bytes);
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let mut wire = self.wire();
        if wire.broken {
            return Err(BackendError::System { what: "a test", source: std::io::Error::other("broken") });
        }
        let Some(frame) = wire.to_guest.pop_front() else { return Ok(None) };
        wire.read_pieces.push(buffers.len());
        // As a TAP does: two bytes of the header are the reader's business.
        let mut len = scatter(buffers, 0, &frame[..10]);
        len += scatter(buffers, 12, &frame[12..]) + 2;
        Ok(Some(len))
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.wire().offloads = Some(offloads);
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}
