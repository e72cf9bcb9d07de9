//! The window of a receive queue: buffers that were taken from the available ring and translated, kept from call to call,
//! so that a small frame costs one new buffer and not a rebuilt list.

use std::collections::VecDeque;

use super::super::queue::{Limits, QueueError, Virtqueue};
use crate::backend::iovec::scatter;
use crate::backend::{Filler, Grant, HEADER_BYTES, IoVecMut, Lot, PinnedMemory, Scatter, Terms};
use vm_memory::Permissions;

/// No more buffers are taken when there are so many pieces; a chain has at most so many.
const SEGMENTS: usize = 511;
/// What a buffer may have: more than a frame has is of no use, but allowed.
const LIMITS: Limits = Limits { bytes: u32::MAX, segments: SEGMENTS };

/// One buffer: a chain of the queue.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    head: u16,
    segments: u16,
    bytes: u32,
}

/// Whether a frame may go into several buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merging {
    /// VIRTIO_NET_F_MRG_RXBUF.
    Allowed,
    /// One frame, one buffer.
    Forbidden,
}

/// The buffers, in the order in which they came.
#[derive(Debug)]
pub(super) struct Window {
    pieces: Scatter,
    buffers: VecDeque<Buffer>,
    bytes: usize,
    /// How many of them, and of their pieces, the backend was lent: the first ones.
    lent_buffers: usize,
    lent_pieces: usize,
}

impl Window {
    pub(super) fn new(queue_size: u16) -> Self {
        Self {
            pieces: Scatter::with_capacity(2 * SEGMENTS),
            buffers: VecDeque::with_capacity(usize::from(queue_size) + 1),
            bytes: 0,
            lent_buffers: 0,
            lent_pieces: 0,
        }
    }

    /// Asks the domain again about what was translated in an earlier batch.
    pub(super) fn check<M: PinnedMemory>(&self, queue: &Virtqueue<M>) -> Result<(), QueueError> {
        let foreign = |(gpa, len)| QueueError::Foreign { gpa, len, writable: true };
        self.pieces.check(queue.memory()).map_err(foreign)
    }

    /// Takes buffers until there is room for `bytes`, or there are no more.
    #[inline]
    pub(super) fn fill<M: PinnedMemory>(
        &mut self,
        queue: &mut Virtqueue<M>,
        bytes: usize,
    ) -> Result<(), QueueError> {
        while self.bytes < bytes && self.pieces.len() <= SEGMENTS {
            let before = self.pieces.len();
            let Some(chain) = queue.next_chain(LIMITS, self.pieces.refill(SEGMENTS))? else { break };
            // 5.1.6.3.1: each buffer holds at least the header.
            if (chain.bytes as usize) < HEADER_BYTES {
                return Err(QueueError::TooShort { bytes: chain.bytes, min: HEADER_BYTES as u32 });
            }
            queue.advance();
            let segments = (self.pieces.len() - before) as u16;
            self.buffers.push_back(Buffer { head: chain.head, segments, bytes: chain.bytes });
            self.bytes += chain.bytes as usize;
        }
        Ok(())
    }

    /// Whether the driver gave more than the backend was lent.
    pub(super) fn has_unlent(&self) -> bool {
        self.buffers.len() > self.lent_buffers
    }

    /// Lends the backend what it was not lent yet, by a grant for the queue's memory. `false`: it does not want it now.
    pub(super) fn lend<M: PinnedMemory>(
        &mut self,
        queue: &Virtqueue<M>,
        (merging, bytes_max): (Merging, usize),
        grant: &dyn Fn() -> Box<dyn Grant>,
        filler: &mut dyn Filler,
    ) -> bool {
        let is_all = self.buffers.len() >= usize::from(queue.size()) || self.pieces.len() > SEGMENTS;
        let mut buffers =
            self.buffers.iter().skip(self.lent_buffers).map(|buffer| (buffer.segments, buffer.bytes));
        let lot = Lot {
            grant,
            pieces: &self.pieces,
            first: self.lent_pieces,
            buffers: &mut buffers,
            terms: Terms { merging: merging == Merging::Allowed, bytes_max, is_all },
        };
        // SAFETY: the pieces were translated in the queue's memory, of which the grant has a clone.
        let lent = unsafe { filler.lend(lot) };
        if lent {
            (self.lent_buffers, self.lent_pieces) = (self.buffers.len(), self.pieces.len());
        }
        lent
    }

    /// The backend has given up what it was lent.
    pub(super) fn take_back(&mut self) {
        (self.lent_buffers, self.lent_pieces) = (0, 0);
    }

    /// Asks the domain again about the first piece, in which a frame's header lies.
    pub(super) fn check_first<M: PinnedMemory>(&self, queue: &Virtqueue<M>) -> Result<(), QueueError> {
        let allows = |gpa, len| queue.memory().still_allows(gpa, len, Permissions::Write);
        let foreign = |(gpa, len)| QueueError::Foreign { gpa, len, writable: true };
        self.pieces.check_first(1, allows).map_err(foreign)
    }

    /// How long a frame may be.
    #[inline]
    pub(super) fn room(&self, merging: Merging) -> usize {
        match merging {
            Merging::Allowed => self.bytes,
            Merging::Forbidden => self.buffers.front().map_or(0, |buffer| buffer.bytes as usize),
        }
    }

    /// How many buffers there are.
    pub(super) fn buffers(&self) -> usize {
        self.buffers.len()
    }

    /// Reads a frame straight into the buffers, the rest of it into `overflow` (only looked at if the buffers have room
    /// for less than `enough` bytes). Returns what `read` returns.
    #[inline]
    pub(super) fn read<R>(
        &mut self,
        merging: Merging,
        enough: usize,
        overflow: &mut [u8],
        read: impl FnOnce(&[IoVecMut<'_>]) -> R,
    ) -> R {
        let count = match merging {
            Merging::Allowed => self.pieces.len(),
            Merging::Forbidden => self.buffers.front().map_or(0, |buffer| usize::from(buffer.segments)),
        };
        if self.room(merging) >= enough {
            read(&self.pieces.pieces()[..count])
        } else {
            self.pieces.read_with_overflow(count, overflow, read)
        }
    }

    /// Copies what was read into the buffers out of them again.
    pub(super) fn copy_out(&self, bytes: &mut [u8]) {
        let mut done = 0;
        for piece in self.pieces.pieces() {
            done += piece.copy_to(&mut bytes[done..]);
        }
    }

    /// Copies a frame into the buffers; there is room for it.
    pub(super) fn copy_in(&self, frame: &[u8]) {
        scatter(self.pieces.pieces(), 0, frame);
    }

    /// Gives the driver the buffers that hold the first `bytes` bytes: a frame. Not yet published.
    #[inline]
    pub(super) fn complete<M: PinnedMemory>(&mut self, queue: &mut Virtqueue<M>, bytes: usize) {
        let mut count = 0u16;
        let mut counted = 0;
        for buffer in &self.buffers {
            if counted >= bytes {
                break;
            }
            counted += buffer.bytes as usize;
            count += 1;
        }
        // `num_buffers` (5.1.6.4.1).
        scatter(self.pieces.pieces(), 10, &count.to_le_bytes());
        let mut rest = bytes as u32;
        let mut segments = 0;
        for buffer in self.buffers.drain(..usize::from(count)) {
            let written = rest.min(buffer.bytes);
            queue.complete(buffer.head, written);
            rest -= written;
            segments += usize::from(buffer.segments);
            self.bytes -= buffer.bytes as usize;
        }
        self.pieces.consume(segments);
        self.lent_buffers = self.lent_buffers.saturating_sub(usize::from(count));
        self.lent_pieces = self.lent_pieces.saturating_sub(segments);
    }
}
