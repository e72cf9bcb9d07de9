//! Visible revocation: what an environment is asked to give back, and what was taken from it. Both lie in the
//! [`KernelPage`](crate::environment::KernelPage) of the one whose they are.
//!
//! An ask ([`crate::call::Call::CapabilityAsk`]) is for the tail of one capability's range, by whom it was derived from. It is
//! answered by [`crate::call::Call::CapabilityTrim`] or [`crate::call::Call::CapabilityDrop`], with whatever the holder moved
//! out of the way before. What was not given back by the deadline the kernel takes, and says so in a [`Loss`].

use core::sync::atomic::AtomicU64;

/// Asks that an environment can have at a time. One capability is asked for once.
pub const ASKS: usize = 4;
/// Records of losses that are kept.
pub const LOSSES: usize = 32;
/// The least time that an ask gives, in milliseconds: some slices, so that whoever is asked hears of it.
pub const GRACE_MIN_MS: u64 = 100;
/// The most, so that an ask is over some day.
pub const GRACE_MAX_MS: u64 = 60_000;

/// An ask. It stands while its bit in [`KernelPage::asked`](crate::environment::KernelPage::asked) is set.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Ask {
    /// The holder's handle of the capability.
    pub capability: AtomicU64,
    /// How many of its range it may keep, from the first on; 0: none, it is to be dropped.
    pub keep: AtomicU64,
    /// When the kernel takes the rest.
    pub deadline_tsc: AtomicU64,
    /// Zero.
    pub reserved: AtomicU64,
}

/// What was taken from an environment. Number `n` lies at `n % LOSSES`, and
/// [`KernelPage::lost`](crate::environment::KernelPage::lost) counts all there ever were: whoever reads too late sees by that
/// how many it missed.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Loss {
    /// Its handle of the capability.
    pub capability: AtomicU64,
    /// The first of the range that was taken.
    pub start: AtomicU64,
    /// How many.
    pub count: AtomicU64,
    /// The [`Kind`](crate::capability::Kind) in the lowest byte, in the next one of [`why`].
    pub what: AtomicU64,
}

/// Why something was taken.
pub mod why {
    /// It was asked for and not given back by the deadline, or it was derived from such.
    pub const NOT_GIVEN: u64 = 1;
    /// Whoever it came from took it back without asking, gave it back, or ended.
    pub const REVOKED: u64 = 2;
}
