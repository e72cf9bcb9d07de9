//! The clock of records, CLOCK_MONOTONIC_RAW, on the TSC: it advances with it, and nobody who sets the time bends it. Both are read
//! at one moment, soon after what was recorded, so that an error of the rate is a part of a short time.

use crate::account::ledger::now_tsc;

/// What records are stamped with.
pub(crate) const CLOCK: i32 = libc::CLOCK_MONOTONIC_RAW;

/// How much closer than this the two are read, if the thread is left alone for a moment.
const CLOSE_TICKS: u64 = 2000;
/// How often that is tried.
const TRIES: usize = 4;

/// What both said at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ns: u64,
    tsc: u64,
    tsc_khz: u64,
}

impl Clock {
    /// Now; `tsc_khz` is how many ticks a millisecond has.
    pub(crate) fn now(tsc_khz: u64) -> Self {
        let mut best = Self { ns: 0, tsc: 0, tsc_khz };
        let mut best_gap = u64::MAX;
        for _ in 0..TRIES {
            let before = now_tsc();
            let ns = now_ns();
            let gap = now_tsc().saturating_sub(before);
            if gap < best_gap {
                best_gap = gap;
                best = Self { ns, tsc: before + gap / 2, tsc_khz };
            }
            if gap < CLOSE_TICKS {
                break;
            }
        }
        best
    }

    /// The TSC at a time of the clock.
    pub(crate) fn tsc(&self, ns: u64) -> u64 {
        match ns.checked_sub(self.ns) {
            Some(later) => self.tsc.saturating_add(ticks(later, self.tsc_khz)),
            None => self.tsc.saturating_sub(ticks(self.ns - ns, self.tsc_khz)),
        }
    }
}

/// Nanoseconds as ticks.
pub(crate) fn ticks(ns: u64, tsc_khz: u64) -> u64 {
    u64::try_from(u128::from(ns) * u128::from(tsc_khz) / 1_000_000).unwrap_or(u64::MAX)
}

/// Ticks as nanoseconds.
pub(crate) fn nanoseconds(ticks: u64, tsc_khz: u64) -> u64 {
    u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(tsc_khz.max(1))).unwrap_or(u64::MAX)
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is writable. The clock exists on every kernel that has perf events.
    unsafe { libc::clock_gettime(CLOCK, &raw mut time) };
    (time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)
}

/// Ticks per millisecond, for tests without a machine that knows.
#[cfg(test)]
pub(crate) fn measured_khz() -> u64 {
    let before = Clock::now(1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let after = Clock::now(1);
    (after.tsc - before.tsc) * 1_000_000 / (after.ns - before.ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_lie_on_both_sides() {
        let clock = Clock { ns: 1_000_000, tsc: 50_000_000, tsc_khz: 2_000_000 };
        assert_eq!(clock.tsc(1_000_000), 50_000_000);
        assert_eq!(clock.tsc(1_000_500), 50_001_000);
        assert_eq!(clock.tsc(999_500), 49_999_000);
        assert_eq!((clock.tsc(0), clock.tsc(u64::MAX) > 50_000_000), (48_000_000, true));
    }
}
