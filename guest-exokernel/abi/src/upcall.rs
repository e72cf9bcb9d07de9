//! Upcalls: the kernel tells an environment that it faulted, that its slice is over, or that something is asked back.
//!
//! The kernel leaves what happened and the interrupted registers in the environment's own page and lets it go on at the entry
//! for that, on its upcall stack, with vector registers as they were. To go back the environment loads the registers itself.
//! While [`UpcallPage::busy`] is not zero there is no upcall; the environment clears it
//! when it can take the next.

use core::sync::atomic::AtomicU64;

/// [`UpcallPage::reason`]: an exception; vector, error code and address say which.
pub const FAULT: u64 = 1;
/// [`UpcallPage::reason`]: the slice is over; [`UpcallPage::address`] has the TSC when the timer's interrupt came.
pub const SLICE_END: u64 = 2;
/// [`UpcallPage::reason`]: something is asked back; [`UpcallPage::address`] has the bits of the asks that stand. It comes in the
/// place of a slice's end, with the same grace.
pub const REVOKE: u64 = 3;

/// At [`crate::layout::UPCALL_VA`]: the environment's own memory, read and written by both.
#[derive(Debug, Default)]
#[repr(C)]
pub struct UpcallPage {
    /// Where it goes on after a fault; 0: a fault ends it.
    pub fault_va: AtomicU64,
    /// Where it goes on when its slice is over, to save what is to be kept and yield within the grace period; 0: it ends if it
    /// has not given the CPU away by itself.
    pub slice_end_va: AtomicU64,
    /// Stack pointer for both.
    pub stack_va: AtomicU64,
    /// Set by the kernel for an upcall, cleared by the environment. A fault meanwhile ends it.
    pub busy: AtomicU64,
    /// [`FAULT`], [`SLICE_END`] or [`REVOKE`].
    pub reason: AtomicU64,
    /// Exception vector.
    pub vector: AtomicU64,
    /// Its error code, or 0.
    pub error_code: AtomicU64,
    /// For a page fault, the address; see the other reasons.
    pub address: AtomicU64,
    /// General registers, in the order of [`crate::fault::REGISTER_NAMES`].
    pub registers: [AtomicU64; 15],
    /// As the processor pushes it: `rip`, `cs`, `rflags`, `rsp`, `ss`.
    pub frame: [AtomicU64; 5],
    /// Where it goes on to answer an ask ([`crate::revocation`]) that it has not been told of; 0: it finds that by itself.
    pub revoke_va: AtomicU64,
}
