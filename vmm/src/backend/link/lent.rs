//! Buffers that a port's reader has lent, and into which senders put frames. An edge: they lie in a guest's memory, which the
//! grant keeps mapped.

use crate::backend::filler::put;
use crate::backend::{Grant, IoVec, Lot, Scatter, Terms};
use std::collections::VecDeque;
use std::fmt;

/// Buffers, and pieces of them, that there is room for from the start: more than a NIC lends at once.
pub(super) const LENT_BUFFERS: usize = 1024;

/// Why a frame was not put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotPut {
    /// The buffers are too few now.
    NoRoom,
    /// It is longer than the reader takes, or than its buffers will ever be.
    NeverFits,
    /// A buffer may not be written any more.
    Foreign(u64, u32),
}

/// The buffers, in the order in which they are filled.
pub(super) struct Lent {
    grant: Box<dyn Grant>,
    pieces: Scatter,
    /// Pieces and bytes of each buffer.
    buffers: VecDeque<(u16, u32)>,
    bytes: usize,
    terms: Terms,
}

impl fmt::Debug for Lent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lent").field("buffers", &self.buffers.len()).finish_non_exhaustive()
    }
}

impl Lent {
    /// The first lot.
    ///
    /// # Safety
    /// As for [`crate::backend::Filler::lend`].
    pub(super) unsafe fn new(lot: Lot<'_>) -> Self {
        let mut lent = Self {
            grant: (lot.grant)(),
            pieces: Scatter::with_capacity(LENT_BUFFERS),
            buffers: VecDeque::with_capacity(LENT_BUFFERS),
            bytes: 0,
            terms: lot.terms,
        };
        // SAFETY: as the caller says.
        unsafe { lent.append(lot) };
        lent
    }

    /// Another lot, in the same memory.
    ///
    /// # Safety
    /// As for [`Self::new`].
    pub(super) unsafe fn append(&mut self, lot: Lot<'_>) {
        // SAFETY: the grant keeps the memory mapped, and lives as long as the list.
        unsafe { self.pieces.append_from(lot.pieces, lot.first) };
        for (pieces, bytes) in lot.buffers {
            self.buffers.push_back((pieces, bytes));
            self.bytes += bytes as usize;
        }
        self.terms = lot.terms;
    }

    /// Whether what comes is still for these buffers.
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        self.grant.is_current()
    }

    /// Copies a frame into the first buffers, which then are the frame's.
    #[inline]
    pub(super) fn put(&mut self, frame: &[IoVec<'_>], frame_bytes: usize) -> Result<(), NotPut> {
        let Terms { merging, bytes_max, is_all } = self.terms;
        if frame_bytes > bytes_max {
            return Err(NotPut::NeverFits);
        }
        let room = match (merging, self.buffers.front()) {
            (true, _) => self.bytes,
            (false, Some(&(_, bytes))) if (bytes as usize) < frame_bytes => return Err(NotPut::NeverFits),
            (false, first) => first.map_or(0, |&(_, bytes)| bytes as usize),
        };
        if room < frame_bytes {
            return Err(if is_all { NotPut::NeverFits } else { NotPut::NoRoom });
        }
        let (mut count, mut pieces, mut bytes) = (0, 0, 0);
        for buffer in &self.buffers {
            if bytes >= frame_bytes {
                break;
            }
            (count, pieces, bytes) = (count + 1, pieces + usize::from(buffer.0), bytes + buffer.1 as usize);
        }
        let grant = &self.grant;
        self.pieces
            .check_first(pieces, |gpa, len| grant.allows(gpa, len))
            .map_err(|(gpa, len)| NotPut::Foreign(gpa, len))?;
        put(frame, &self.pieces);
        self.buffers.drain(..count);
        self.pieces.consume(pieces);
        self.bytes -= bytes;
        Ok(())
    }
}
