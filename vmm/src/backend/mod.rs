//! Backends: where a NIC's frames go to and come from, and where a disk's blocks lie ([`disk`]).
//!
//! A NIC's backend moves whole Ethernet frames, each led by the 12 bytes of `struct virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6), straight
//! out of and into the pieces of memory that it is given. It never blocks; who wants to wait polls [`Backend::event_fd`].

use crate::stat::metrics::Metric;
use std::os::fd::RawFd;

pub mod disk;
pub mod iovec;
pub mod pieces;
pub mod tap;
pub mod user;

#[cfg(test)]
pub(crate) mod fake;

pub use iovec::{IoVec, IoVecMut, PieceList, PinnedMemory};
pub use pieces::{Gather, Scatter};

/// Bytes of the header before each frame.
pub const HEADER_BYTES: usize = 12;
/// Longest frame, with its header: the largest IP packet behind an Ethernet and a VLAN header.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + 18 + 65535;
/// Most pieces of memory that one call takes (`UIO_MAXIOV`).
pub const SEGMENTS_MAX: usize = 1024;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is on its way.
    Sent,
    /// There is no room now; the same frame must be offered again.
    WouldBlock,
    /// The backend does not take this frame, now or later.
    Dropped,
}

/// What the reader of the frames that a backend delivers can cope with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums may be left to it.
    pub checksum: bool,
    /// TCP segments over IPv4 may be larger than the MTU.
    pub tso4: bool,
    /// TCP segments over IPv6 may be larger than the MTU.
    pub tso6: bool,
}

/// Why a backend does not deliver.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A system call failed.
    #[error("{what} failed: {source}; check that the interface still exists and is up")]
    System {
        /// Which one.
        what: &'static str,
        /// How.
        source: std::io::Error,
    },
}

/// A source and sink of frames.
pub trait Backend: Send {
    /// Sends the frame that lies in these pieces, header first.
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written;

    /// Puts the next frame into these pieces, header first, and returns its length; `None`: there is none now. A frame
    /// that is longer than the pieces together is cut, and the length returned is then all they hold.
    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError>;

    /// Says what the reader of [`Self::read_frame`] can cope with.
    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError>;

    /// Becomes readable when a frame can be read. `None`: poll.
    fn event_fd(&self) -> Option<RawFd>;

    /// What the backend counts of its own, for accounts and statistics.
    fn counters(&self) -> Vec<Metric> {
        Vec::new()
    }
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        (**self).write_frame(frame)
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        (**self).read_frame(buffers)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        (**self).set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        (**self).event_fd()
    }

    fn counters(&self) -> Vec<Metric> {
        (**self).counters()
    }
}
