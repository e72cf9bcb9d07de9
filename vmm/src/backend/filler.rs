//! The other way to receive: the reader lends the backend its buffers, and whoever has a frame for it puts the frame there, on
//! whatever thread. So a frame is copied once, and nobody waits.

use super::iovec;
use super::pieces::Scatter;

/// The right to write into lent buffers. It keeps them mapped, and is asked at each use: it may have been revoked.
pub trait Grant: Send {
    /// Whether this range may be written now.
    fn allows(&self, gpa: u64, len_bytes: usize) -> bool;

    /// Whether every frame still belongs into these buffers; if not, they are given up.
    fn is_current(&self) -> bool;
}

/// What holds for all lent buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A frame may go into several buffers (VIRTIO_NET_F_MRG_RXBUF).
    pub merging: bool,
    /// Longest frame, with its header.
    pub bytes_max: usize,
    /// The driver has lent all that it can: what does not fit into these buffers never will.
    pub is_all: bool,
}

/// Buffers to be lent, behind those that were lent before.
pub struct Lot<'a> {
    /// Makes the grant, if the backend has none yet.
    pub grant: &'a dyn Fn() -> Box<dyn Grant>,
    /// The pieces of all buffers; those from `first` on are new.
    pub pieces: &'a Scatter,
    /// See `pieces`.
    pub first: usize,
    /// Of each new buffer: how many pieces, how many bytes.
    pub buffers: &'a mut dyn Iterator<Item = (u16, u32)>,
    /// For these, and those lent before.
    pub terms: Terms,
}

/// What became of the lent buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// The next frame of so many bytes lies in the first of them.
    Frame(usize),
    /// No frame now.
    Nothing,
    /// Frames wait for [`super::Backend::read_frame`]; until they are read, none goes into lent buffers.
    Queued,
    /// A buffer may not be written any more: where, and how many bytes.
    Foreign(u64, u32),
}

/// A backend that fills buffers which it was lent.
pub trait Filler {
    /// Lends buffers. `false`: not now; the caller keeps them, and asks again.
    ///
    /// # Safety
    /// The pieces must lie in memory that the grant keeps mapped.
    unsafe fn lend(&mut self, lot: Lot<'_>) -> bool;

    /// Tells the next frame.
    fn filled(&mut self) -> Filled;

    /// Gives up all buffers: none is written any more when this returns. Frames that are in some of them already are still to
    /// be had by [`Self::filled`].
    fn recall(&mut self);

    /// Gives up all buffers and the frames in them, which count as lost.
    fn forget(&mut self);
}

/// Copies a frame into the first pieces of a list.
#[inline]
pub(super) fn put(frame: &[super::IoVec<'_>], pieces: &Scatter) -> usize {
    iovec::copy(frame, pieces.pieces())
}
