//! The used ring: completions are written as they come and shown by one store of the index for a whole batch, followed by
//! the one question whether the driver wants to be told (VIRTIO 1.3 2.7.7, 2.7.8).

use super::RingFeatures;
use super::rings::{AVAILABLE_NO_INTERRUPT, Rings};

/// What came of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// Nothing was there to be shown.
    Nothing,
    /// Shown; the driver wants an interrupt.
    Notify,
    /// Shown; the driver wants none.
    Quiet,
}

/// The device's place in the used ring.
#[derive(Debug, Default)]
pub(super) struct UsedRing {
    /// Where the next completion goes.
    next: u16,
    /// The index that the driver sees.
    published: u16,
}

impl UsedRing {
    /// How many completions there were, as indices count.
    #[inline]
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// Writes a completion where the driver does not look yet.
    #[inline]
    pub(super) fn push(&mut self, rings: &Rings, head: u16, written: u32) {
        rings.set_used(self.next, head, written);
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the completions.
    #[inline]
    pub(super) fn publish(&mut self, rings: &Rings, features: RingFeatures) -> Publication {
        if self.next == self.published {
            return Publication::Nothing;
        }
        let old = std::mem::replace(&mut self.published, self.next);
        // The index is visible before we look at what the driver wants, as the driver writes what it wants before it looks
        // at the index.
        rings.set_used_index(self.next);
        let wanted = if features.event_index {
            // `vring_need_event`: the event lies in [old, next).
            self.next.wrapping_sub(rings.used_event()).wrapping_sub(1) < self.next.wrapping_sub(old)
        } else {
            rings.available_flags() & AVAILABLE_NO_INTERRUPT == 0
        };
        if wanted { Publication::Notify } else { Publication::Quiet }
    }
}
