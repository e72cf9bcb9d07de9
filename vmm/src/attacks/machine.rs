//! What surrounds a machine that attacks: a wire that notes what was sent, and a disk in memory.

use crate::backend::disk::{Access, Store, Zeroing};
use crate::backend::iovec::{gather, scatter};
use crate::backend::{Backend, BackendError, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of the disk.
const DISK_BYTES: usize = 4 << 20;
/// What a read of a slow disk takes.
const SLOW: Duration = Duration::from_millis(400);
/// A frame that comes: virtio header, broadcast, local experimental EtherType.
const FRAME: [u8; 12 + 60] = {
    let mut frame = [0; 12 + 60];
    let mut at = 12;
    while at < 18 {
        frame[at] = 0xFF;
        at += 1;
    }
    (frame[24], frame[25]) = (0x88, 0xB5);
    frame
};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The other end.
#[derive(Clone, Debug, Default)]
pub(super) struct Wire {
    pub(super) sent: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(super) frames_come: bool,
}

impl Backend for Wire {
    fn write_frame(&mut self, pieces: &[IoVec<'_>]) -> Written {
        let mut frame = vec![0; FRAME_BYTES_MAX];
        let len = gather(pieces, 0, &mut frame);
        frame.truncate(len);
        lock(&self.sent).push(frame);
        Written::Sent
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        Ok(self.frames_come.then(|| scatter(buffers, 0, &FRAME)))
    }

    fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
        Ok(())
    }

    fn event_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Blocks that nobody may change.
#[derive(Debug)]
pub(super) struct Disk {
    bytes: Mutex<Vec<u8>>,
    is_slow: bool,
}

impl Disk {
    pub(super) fn new(is_slow: bool) -> Self {
        Self { bytes: Mutex::new(Self::content()), is_slow }
    }

    fn content() -> Vec<u8> {
        (0..DISK_BYTES).map(|at| (at / 4096 * 11 + at % 251) as u8).collect()
    }

    pub(super) fn is_unchanged(&self) -> bool {
        *lock(&self.bytes) == Self::content()
    }

    fn change(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        let mut bytes = lock(&self.bytes);
        let range = offset as usize..(offset + len_bytes) as usize;
        bytes.get_mut(range).ok_or(io::ErrorKind::InvalidInput)?.fill(0);
        Ok(())
    }
}

impl Store for Disk {
    fn len_bytes(&self) -> u64 {
        DISK_BYTES as u64
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        if self.is_slow {
            return Ok(None);
        }
        let bytes = lock(&self.bytes);
        Ok(Some(scatter(pieces, 0, bytes.get(offset as usize..).unwrap_or_default())))
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        if self.is_slow {
            std::thread::sleep(SLOW);
        }
        let bytes = lock(&self.bytes);
        Ok(scatter(pieces, 0, bytes.get(offset as usize..).unwrap_or_default()))
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        let mut bytes = lock(&self.bytes);
        Ok(gather(pieces, 0, bytes.get_mut(offset as usize..).unwrap_or_default()))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.change(offset, len_bytes)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, _: Zeroing) -> io::Result<()> {
        self.change(offset, len_bytes)
    }
}
