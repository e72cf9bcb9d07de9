//! The time page: maps the TSC to UTC. The VMM writes it, everybody reads it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// A sequence lock over a linear map: `utc_ns = base_utc_ns + ((tsc - base_tsc) * ns_per_tick) >> 32`.
#[derive(Debug, Default)]
#[repr(C)]
pub struct TimePage {
    /// Odd while being written.
    pub sequence: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// A moment on the TSC ...
    pub base_tsc: AtomicU64,
    /// ... and the same in nanoseconds since 1970-01-01T00:00Z (no leap seconds).
    pub base_utc_ns: AtomicU64,
    /// Nanoseconds a tick, 32.32 fixed point.
    pub ns_per_tick_q32: AtomicU64,
}

impl TimePage {
    /// UTC in nanoseconds at `tsc`. Tries again while the writer is at work.
    pub fn utc_ns(&self, tsc: u64) -> u64 {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let base_tsc = self.base_tsc.load(Ordering::Relaxed);
            let base_ns = self.base_utc_ns.load(Ordering::Relaxed);
            let scale = self.ns_per_tick_q32.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                let ticks = i128::from(tsc) - i128::from(base_tsc);
                let ns = i128::from(base_ns) + ((ticks * i128::from(scale)) >> 32);
                return ns.clamp(0, i128::from(u64::MAX)) as u64;
            }
            core::hint::spin_loop();
        }
    }

    /// Sets the map. One writer at a time.
    pub fn set(&self, base_tsc: u64, base_utc_ns: u64, ns_per_tick_q32: u64) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.base_tsc.store(base_tsc, Ordering::Relaxed);
        self.base_utc_ns.store(base_utc_ns, Ordering::Relaxed);
        self.ns_per_tick_q32.store(ns_per_tick_q32, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_follows_the_tsc_in_both_directions() {
        let page = TimePage::default();
        page.set(1_000_000, 5_000_000_000, (1u64 << 32) / 2); // 2 GHz
        assert_eq!(page.utc_ns(1_000_000), 5_000_000_000);
        assert_eq!(page.utc_ns(1_002_000), 5_000_001_000);
        assert_eq!(page.utc_ns(998_000), 4_999_999_000);
        assert_eq!(page.sequence.load(Ordering::Relaxed) % 2, 0);
    }
}
