//! Frames of one size at the end of the heap. They are given out from the lowest on, those that came back first; none from an address
//! on that was closed, so that what lies behind it empties.

use crate::heap::FRAME_BYTES;

/// The frames. A free one holds the address of the next free one in its first word.
pub(crate) struct Frames {
    start: usize,
    /// The first that was never given out.
    unused: usize,
    /// Nothing is given out from here on.
    end: usize,
    /// What was given back for good begins here.
    given: usize,
    /// The first of those that came back; 0: none.
    free: usize,
    /// Frames in use that lie behind [`Self::end`].
    behind: usize,
}

impl Frames {
    /// No frames.
    pub(crate) const NONE: Self =
        Self { start: usize::MAX, unused: usize::MAX, end: 0, given: 0, free: 0, behind: 0 };

    /// Those between two addresses.
    ///
    /// # Safety
    /// The memory is there and nobody else uses it.
    pub(crate) unsafe fn new(start: usize, end: usize) -> Self {
        let end = if end > start { start + (end - start) / FRAME_BYTES * FRAME_BYTES } else { start };
        Self { start, unused: start, end, given: end, free: 0, behind: 0 }
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Where what is still ours ends.
    pub(crate) fn given_end(&self) -> usize {
        self.given
    }

    pub(crate) fn count(&self) -> usize {
        (self.end - self.start) / FRAME_BYTES
    }

    /// Whether an address lies in a frame.
    #[inline]
    pub(crate) fn holds(&self, address: usize) -> bool {
        (self.start..self.unused).contains(&address)
    }

    /// A frame.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<usize> {
        if self.free != 0 {
            let frame = self.free;
            self.free = next(frame);
            return Some(frame);
        }
        if self.unused >= self.end {
            return None;
        }
        self.unused += FRAME_BYTES;
        Some(self.unused - FRAME_BYTES)
    }

    /// It comes back.
    #[inline]
    pub(crate) fn give(&mut self, frame: usize) {
        if frame >= self.end {
            self.behind -= 1;
            return;
        }
        set_next(frame, self.free);
        self.free = frame;
    }

    /// From now on none is given out from this address on.
    pub(crate) fn close_from(&mut self, address: usize) {
        if address >= self.end {
            return;
        }
        let (mut frame, mut kept, mut free_behind) = (self.free, 0, 0);
        while frame != 0 {
            let following = next(frame);
            if frame >= address {
                free_behind += 1;
            } else {
                set_next(frame, kept);
                kept = frame;
            }
            frame = following;
        }
        self.free = kept;
        let used_behind = self.unused.min(self.end).saturating_sub(address) / FRAME_BYTES;
        self.behind += used_behind - free_behind;
        self.end = address;
    }

    /// How many from a closed address on are in use.
    pub(crate) fn in_use_from(&self, address: usize) -> usize {
        if address <= self.end { self.behind } else { 0 }
    }

    /// What lies from here on was given back for good.
    pub(crate) fn set_given(&mut self, address: usize) {
        self.given = self.given.min(address);
    }
}

fn next(frame: usize) -> usize {
    // SAFETY: a free frame, which nobody else uses.
    unsafe { (frame as *const usize).read() }
}

fn set_next(frame: usize, next: usize) {
    // SAFETY: as in `next`.
    unsafe { (frame as *mut usize).write(next) }
}
