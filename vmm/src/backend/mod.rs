//! Backends: where a NIC's frames go to and come from, and where a disk's blocks lie ([`disk`]).
//!
//! A NIC's backend moves whole Ethernet frames, each led by the 12 bytes of `struct virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6), straight
//! out of and into the pieces of memory that it is given. It never blocks; who wants to wait polls [`Backend::event_fd`].

use crate::stat::metrics::Metric;
use std::os::fd::RawFd;
use std::time::Instant;

pub mod capture;
pub mod disk;
pub mod filler;
pub mod impair;
pub mod iovec;
pub mod link;
pub mod offload;
pub mod pieces;
pub mod tap;
pub mod user;

#[cfg(test)]
pub(crate) mod fake;

pub use filler::{Filled, Filler, Grant, Lot, Terms};
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
    /// Another thread is at it for some nanoseconds; the same frame must be offered again, and it is worth no sleep.
    Busy,
    /// The backend does not take this frame, now or later.
    Dropped,
}

/// What somebody who is about to sleep waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Frames to be read.
    pub frames: bool,
    /// Room for a frame that found none.
    pub room: bool,
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

    /// What is due by the clock. Called once in each round of device work, before anything is read.
    fn pump(&mut self) {}

    /// When [`Self::pump`], or another offer of a frame that found no room, will have something to do though no event
    /// comes.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// The caller is about to sleep on [`Self::event_fd`]. `true`: what it waits for is there already, and no event may come
    /// for it. Backends whose descriptor tells the state and not a change need not be told.
    fn arm(&mut self, _awaited: Awaited) -> bool {
        false
    }

    /// The caller is awake: events are of no use.
    fn disarm(&mut self) {}

    /// How room shows: by a descriptor that is writable, or by an event that makes it readable.
    fn shows_room_as_writable(&self) -> bool {
        true
    }

    /// The other way to receive, if the backend knows it: into buffers that it was lent.
    fn filler(&mut self) -> Option<&mut dyn Filler> {
        None
    }

    /// Returns when no write into a lent buffer is under way that began before.
    fn settle(&self) {}

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

    fn pump(&mut self) {
        (**self).pump();
    }

    fn due(&self) -> Option<Instant> {
        (**self).due()
    }

    fn arm(&mut self, awaited: Awaited) -> bool {
        (**self).arm(awaited)
    }

    fn disarm(&mut self) {
        (**self).disarm();
    }

    fn shows_room_as_writable(&self) -> bool {
        (**self).shows_room_as_writable()
    }

    fn filler(&mut self) -> Option<&mut dyn Filler> {
        (**self).filler()
    }

    fn settle(&self) {
        (**self).settle();
    }
}
