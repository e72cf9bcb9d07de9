//! Waiting beside other environments: what happened to whose queues makes the kernel go on with us.

use crate::{kernel, pages};
use abi::boot::DEVICE_NET;
use abi::call::sleep;
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use abi::queue::{QUEUES_PER_DEVICE, RingLayout, owner_index};
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// Terms of one sleep.
const TERMS: usize = 4;
/// Longest sleep if there are more queues than two for each term, or no watch.
const UNWATCHED_MS: u64 = 20;

/// A bound queue: its number plus one in the owner table (0: free), and its used index.
struct Bound {
    number: AtomicU16,
    used_va: AtomicU64,
}

impl Bound {
    /// Its number and how far the device is with it.
    fn used(&self) -> Option<(u32, u16)> {
        let number = self.number.load(Ordering::Relaxed).checked_sub(1)?;
        let used = self.used_va.load(Ordering::Relaxed) as *const AtomicU16;
        // SAFETY: the used ring of a bound queue, which stays where it is until it is unbound; the device writes it, so it is
        // read as an atomic.
        Some((u32::from(number), unsafe { (*used).load(Ordering::Acquire) }))
    }
}

/// What is bound and brings something: received frames, completed reads. That something was sent nobody waits for.
static BOUND: [Bound; 16] = [const { Bound { number: AtomicU16::new(0), used_va: AtomicU64::new(0) } }; 16];

/// Remembers a queue that was bound.
pub(crate) fn bound(device: u32, queue: u32, base_gpa: u64, size: u16) {
    let network =
        pages::environment().devices.get(device as usize).is_some_and(|device| device.kind == DEVICE_NET);
    let sends = network && queue % 2 == 1;
    let (Some(number), Some(layout)) = (owner_index(device, queue), RingLayout::new(size)) else { return };
    let free = BOUND.iter().find(|bound| bound.number.load(Ordering::Relaxed) == 0);
    let Some(free) = free.filter(|_| !sends) else { return };
    // `struct virtq_used`: flags, index.
    free.used_va.store(WINDOW_VA + base_gpa + layout.used_offset() + 2, Ordering::Relaxed);
    free.number.store(number as u16 + 1, Ordering::Relaxed);
}

/// Forgets one that was given back.
pub(crate) fn unbound(device: u32, queue: u32) {
    let number = owner_index(device, queue).map_or(0, |number| number as u16 + 1);
    for bound in BOUND.iter().filter(|bound| number != 0 && bound.number.load(Ordering::Relaxed) == number) {
        bound.number.store(0, Ordering::Relaxed);
    }
}

/// Whether no other environment runs on this vCPU.
#[inline]
pub fn alone() -> bool {
    pages::kernel().alone.load(Ordering::Relaxed) != 0
}

/// How far the devices were with each queue at some moment. Take it, look whether there is something to do, then sleep: what
/// comes in between ends the sleep at once.
#[derive(Debug)]
pub struct Watch {
    terms: [u64; TERMS],
    all: bool,
}

impl Watch {
    /// Now.
    pub fn now() -> Self {
        let mut watch = Self { terms: [sleep::NONE; TERMS], all: true };
        let mut bound = BOUND.iter().filter_map(Bound::used);
        for term in &mut watch.terms {
            let Some(one) = bound.next() else { return watch };
            *term = bound.next().map_or(sleep::queue(one.0, one.1), |other| sleep::queues(one, other));
        }
        watch.all = bound.next().is_none();
        watch
    }

    /// The same, and a message ends the sleep, too.
    #[must_use]
    pub fn with_messages(self) -> Self {
        self.and(sleep::MESSAGE)
    }

    /// A term of one's own besides, of [`abi::call::sleep`].
    #[must_use]
    pub fn and(mut self, term: u64) -> Self {
        match self.terms.iter_mut().find(|place| **place == sleep::NONE) {
            Some(place) => *place = term,
            None => self.all = false,
        }
        self
    }

    /// Waits as [`crate::turn::take`] does, for what the watch does not show yet.
    #[inline]
    pub fn take_turn(&self, deadline_tsc: u64) {
        if alone() { crate::turn::take(deadline_tsc) } else { self.sleep(deadline_tsc) }
    }

    /// A sleep that begins now, of somebody who took no watch before looking for something to do: what came in between is not
    /// noticed, so it does not last.
    pub(crate) fn nap(deadline_tsc: u64) {
        Self { all: false, ..Self::now() }.sleep(deadline_tsc);
    }

    /// Sleeps until one of the queues has moved, somebody wakes us, or the TSC reaches the deadline (0: none).
    pub fn sleep(&self, deadline_tsc: u64) {
        let mut deadline = deadline_tsc;
        if !self.all {
            let soon = crate::clock::tsc() + crate::clock::Scale::new().ticks(UNWATCHED_MS * 1_000_000);
            deadline = if deadline == 0 { soon } else { deadline.min(soon) };
        }
        kernel::sleep(deadline, self.terms);
    }
}

const _: () = assert!(QUEUES_PER_DEVICE < u16::MAX as usize && PAGE_BYTES == 4096);
