//! The heap: the pages of the window, under the `talc` allocator.

use abi::boot::EnvironmentPage;
use abi::layout::WINDOW_VA;
use core::sync::atomic::{AtomicBool, Ordering};
use talc::lock_api::{GuardSend, RawMutex};
use talc::source::Manual;

/// An environment runs on one vCPU at a time and nothing interrupts it, so there is never anybody to wait for; the flag
/// is there to find out if that ever changes.
struct SingleVcpu(AtomicBool);

// SAFETY: `try_lock` succeeds only if the flag was clear, so no two guards exist at once.
unsafe impl RawMutex for SingleVcpu {
    #[allow(clippy::declare_interior_mutable_const)] // what the trait asks for
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        assert!(self.try_lock(), "the heap is used again from inside the heap");
    }

    fn try_lock(&self) -> bool {
        let free = !self.0.load(Ordering::Relaxed);
        if free {
            self.0.store(true, Ordering::Relaxed);
        }
        free
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[global_allocator]
static HEAP: talc::TalcLock<SingleVcpu, Manual> = talc::TalcLock::new(Manual);

/// Gives the allocator every page of the environment.
pub(crate) fn init(environment: &EnvironmentPage) {
    for range in environment.heap.iter().take_while(|range| range.len_bytes != 0) {
        let start = (WINDOW_VA + range.start_gpa) as *mut u8;
        // SAFETY: the VMM mapped the range for this environment alone, and it is claimed once.
        let claimed = unsafe { HEAP.lock().claim(start, range.len_bytes as usize) };
        if claimed.is_none() {
            log::warn!("a heap range of {} bytes is too small to use", range.len_bytes);
        }
    }
}
