//! What comes back of a request: its completion, or, if it was not taken, everything it came with.

use core::fmt;

/// A request that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion<B, K> {
    /// As it was given.
    pub token: K,
    /// As it was given, filled if this was a read that succeeded. After a failed read its bytes are anything. `None` for
    /// requests without one.
    pub buffer: Option<B>,
    /// What became of it.
    pub result: Result<(), Failure>,
}

/// Why a request failed. The queue goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// VIRTIO_BLK_S_IOERR: the disk could not, or the blocks are not the environment's. Of a write, anything between nothing
    /// and all is on the disk.
    Io,
    /// VIRTIO_BLK_S_UNSUPP: the device does not do this.
    Unsupported,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "the disk reported an error, or the blocks are outside of the environment's extents",
            Self::Unsupported => "the device does not support this request",
        })
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Too many requests are on their way. Publish, let the device work, poll, try again.
    Full,
    /// The buffer is empty or not a whole number of blocks, or there is nothing to discard.
    NotWholeBlocks,
    /// The blocks lie, in part or all of them, behind the end of the disk.
    BeyondTheEnd,
    /// More blocks or more pieces than one request may have: [`crate::DiskQueue::transfer_blocks_max`],
    /// [`crate::DiskQueue::pieces_max`], [`crate::DISCARD_BLOCKS_MAX`].
    TooLong,
    /// The disk is read-only.
    ReadOnly,
    /// The device was started without this kind of request.
    NotNegotiated,
    /// The device cannot reach a piece of the buffer: it must lie in the heap.
    Unreachable,
    /// The queue has a [`crate::Fault`].
    Broken,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the disk queue is full; publish, let the device work and poll",
            Self::NotWholeBlocks => "the request is not for one or more whole blocks of 4096 bytes",
            Self::BeyondTheEnd => "the request reaches behind the end of the disk",
            Self::TooLong => "the request has too many blocks or too many pieces; make several of it",
            Self::ReadOnly => "the disk is read-only",
            Self::NotNegotiated => "the device does not do this",
            Self::Unreachable => "the device cannot reach the buffer; take it from the heap",
            Self::Broken => "the queue is stopped after a device fault; close it and open it again",
        })
    }
}

/// A request that was not taken, with what it came with. `B` is the buffer, or `()` for requests without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<B, K> {
    /// Why.
    pub reason: Reason,
    /// As it was given.
    pub buffer: B,
    /// As it was given.
    pub token: K,
}
