//! The turn: an environment with nothing to do hands the CPU to the device work.

use crate::{pages, sleep};
use abi::layout::TURN_VA;
use core::sync::atomic::Ordering;

/// Whether the VMM wants a turn when the receive ring is empty. Otherwise device work runs elsewhere: poll a little,
/// then [`crate::kernel::halt`].
#[inline]
pub fn wanted() -> bool {
    pages::host().take_turns.load(Ordering::Relaxed) != 0
}

/// Whether the user wants the machine to end.
#[inline]
pub fn stop_wanted() -> bool {
    pages::host().stop.load(Ordering::Relaxed) != 0
}

/// Takes a turn: returns when the device work brought something or the TSC reached the deadline (0: none). Beside other
/// environments it is they who run meanwhile, and the kernel takes the turn when nobody can; that may return early, and whoever
/// waits for something takes a [`sleep::Watch`] before looking for it, and the turn with that.
#[inline]
pub fn take(deadline_tsc: u64) {
    let _span = exos_trace::span!("turn");
    if !sleep::alone() {
        return sleep::Watch::nap(deadline_tsc);
    }
    // SAFETY: the turn register is mapped for this environment; the write has no effect on its memory but what devices
    // may write anyway.
    unsafe { (TURN_VA as *mut u64).write_volatile(deadline_tsc) }
    exos_trace::guest::ledger().turn_over(exos_trace::parts!(
        "leaving the guest",
        "turn",
        "entering the guest"
    ));
}
