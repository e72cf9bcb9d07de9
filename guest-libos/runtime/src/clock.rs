//! Time: the TSC is the clock, the time page maps it to UTC.

use crate::pages;

/// The time stamp counter, the same that host and kernel read.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: RDTSC has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Converts between TSC ticks and nanoseconds by multiplication.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    ns_per_tick_q32: u64,
    ticks_per_ns_q32: u64,
}

impl Scale {
    /// The scale of this machine.
    pub fn new() -> Self {
        let khz = pages::environment().tsc_khz.max(1);
        Self {
            ns_per_tick_q32: ((1_000_000u128 << 32) / u128::from(khz)) as u64,
            ticks_per_ns_q32: ((u128::from(khz) << 32) / 1_000_000) as u64,
        }
    }

    /// Nanoseconds for a TSC value or difference.
    #[inline]
    pub fn ns(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.ns_per_tick_q32)) >> 32) as u64
    }

    /// TSC ticks for nanoseconds.
    #[inline]
    pub fn ticks(self, ns: u64) -> u64 {
        ((u128::from(ns) * u128::from(self.ticks_per_ns_q32)) >> 32) as u64
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::new()
    }
}

/// Seconds since 1970-01-01T00:00Z.
pub fn unix_seconds() -> u64 {
    pages::time().utc_ns(tsc()) / 1_000_000_000
}
