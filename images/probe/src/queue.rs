//! A queue without a driver: descriptors of one's own choice, in one's own queue or in that of a child.

use crate::binding::pages_for;
use abi::call::{Call, Error};
use abi::capability::Handle;
use abi::layout::{DOORBELL_VA, PAGE_BYTES, WINDOW_VA};
use abi::queue::RingLayout;
use core::sync::atomic::{AtomicBool, Ordering};
use exos_runtime::{clock, kernel, pages, sleep, turn};

/// Of every queue here.
pub(crate) const RING_ENTRIES: u16 = 64;
/// VIRTQ_DESC_F_NEXT.
pub(crate) const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE.
pub(crate) const WRITE: u16 = 2;
/// How long the device gets.
const PATIENCE_MS: u64 = 100;
/// Pages of the rings.
pub(crate) const RING_PAGES: u64 = match RingLayout::new(RING_ENTRIES) {
    Some(layout) => layout.len_bytes() / PAGE_BYTES,
    None => 0,
};

/// A bound queue.
pub(crate) struct Queue {
    environment: Handle,
    queues: Handle,
    number: u64,
    base_gpa: u64,
    layout: RingLayout,
    /// Its doorbell can be rung from here.
    rings: AtomicBool,
}

impl Queue {
    /// One of our own, of device 0.
    pub(crate) fn new(number: u32) -> Option<Self> {
        let layout = RingLayout::new(RING_ENTRIES)?;
        let queues = pages::environment().capabilities.queues[0];
        let base_gpa = pages_for(layout.len_bytes())?;
        Some(Self {
            environment: Handle::NONE,
            queues,
            number: number.into(),
            base_gpa,
            layout,
            rings: false.into(),
        })
    }

    /// One that is bound for another environment, by a capability of its: the number counts all devices' queues, and the rings
    /// lie in [`RING_PAGES`] of its pages, which we see in our window.
    pub(crate) fn of(environment: Handle, queues: Handle, number: u64, base_gpa: u64) -> Option<Self> {
        let layout = RingLayout::new(RING_ENTRIES)?;
        Some(Self { environment, queues, number, base_gpa, layout, rings: false.into() })
    }

    pub(crate) fn bind(&self) -> Result<(), Error> {
        let arguments =
            [self.environment.0, self.queues.0, self.number, self.base_gpa, u64::from(RING_ENTRIES)];
        kernel::raw(Call::QueueBind, arguments).map(drop)?;
        self.rings.store(self.environment == Handle::NONE, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn unbind(&self) -> Result<(), Error> {
        self.rings.store(false, Ordering::Relaxed);
        kernel::raw(Call::QueueUnbind, [self.environment.0, self.queues.0, self.number, 0, 0]).map(drop)
    }

    fn store<T>(&self, offset: u64, value: T) {
        // SAFETY: offsets are inside the block, which is this queue's for good; the device may read it at any time, and
        // has a copy of its own of what it checks.
        unsafe { ((WINDOW_VA + self.base_gpa + offset) as *mut T).write_volatile(value) }
    }

    fn load(&self, offset: u64) -> u16 {
        // SAFETY: as for `store`.
        unsafe { ((WINDOW_VA + self.base_gpa + offset) as *const u16).read_volatile() }
    }

    pub(crate) fn descriptor(&self, index: u16, gpa: u64, len_bytes: u32, flags: u16, next: u16) {
        let at = self.layout.descriptors_offset() + 16 * u64::from(index);
        self.store(at, gpa);
        self.store(at + 8, len_bytes);
        self.store(at + 12, flags);
        self.store(at + 14, next);
    }

    /// Offers chain `head`, in all slots, and sets the index.
    pub(crate) fn offer(&self, head: u16, index: u16) {
        let at = self.layout.available_offset();
        for slot in 0..u64::from(RING_ENTRIES) {
            self.store(at + 4 + 2 * slot, head);
        }
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.store(at + 2, index);
    }

    /// Rings its doorbell.
    pub(crate) fn ring(&self) {
        // SAFETY: mapped while the queue is bound.
        unsafe { ((DOORBELL_VA + self.number * PAGE_BYTES) as *mut u16).write_volatile(self.number as u16) }
    }

    /// Takes turns until the device has used as many chains as given, or long enough. Where there are none, it rings.
    pub(crate) fn used(&self, wanted: u16) -> u16 {
        if !sleep::alone() && self.rings.load(Ordering::Relaxed) {
            self.ring();
        }
        let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
        loop {
            turn::take(clock::tsc() + 1_000_000);
            let used = self.load(self.layout.used_offset() + 2);
            if used >= wanted || clock::tsc() > end {
                return used;
            }
        }
    }
}
