//! An event that counts, read now and then. Where more of them are wanted than the processor has counters, the kernel lets them
//! take turns; then what was counted is scaled up to the time in which it was wanted, stretch by stretch, so that the sum only grows.

use super::attributes::{Attributes, Kind};
use std::fs::File;
use std::io::{Read, Result};

/// An event of one thread, since it was opened.
#[derive(Debug)]
pub(crate) struct Counter {
    event: File,
    last: Reading,
    sum: Sum,
}

/// `struct read_format`, as [`Attributes::with_times`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    value: u64,
    enabled_ns: u64,
    running_ns: u64,
}

/// What was counted up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    /// How often it happened, by extrapolation if it was not counted all the time.
    pub(crate) value: u64,
    /// For how long it was wanted, in the thread's own time.
    pub(crate) enabled_ns: u64,
    /// For how long it was counted.
    pub(crate) running_ns: u64,
}

impl Sum {
    /// This and another.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            value: self.value.saturating_add(other.value),
            enabled_ns: self.enabled_ns.saturating_add(other.enabled_ns),
            running_ns: self.running_ns.saturating_add(other.running_ns),
        }
    }

    /// Adds what lies between two readings. Gives the reading from which the next stretch goes: one in which nothing was counted
    /// is told by the part of it that comes later.
    fn add(&mut self, last: Reading, now: Reading) -> Reading {
        let enabled_ns = now.enabled_ns.saturating_sub(last.enabled_ns);
        let running_ns = now.running_ns.saturating_sub(last.running_ns);
        if running_ns == 0 {
            return last;
        }
        let counted = now.value.saturating_sub(last.value);
        let scaled = if running_ns >= enabled_ns {
            counted
        } else {
            let scaled = u128::from(counted) * u128::from(enabled_ns) / u128::from(running_ns);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        *self = self.plus(Self { value: scaled, enabled_ns, running_ns });
        now
    }
}

impl Counter {
    /// Counts an event of a thread from now on.
    pub(crate) fn open(kind: Kind, config: u64, thread: libc::pid_t, whose: Whose) -> Result<Self> {
        let attributes = Attributes::new(kind, config).with_times();
        let attributes = match whose {
            Whose::Guest => attributes.without_host(),
            Whose::GuestRing3 => attributes.without_host().without_kernel(),
            Whose::Ring3 => attributes.without_kernel(),
        };
        Ok(Self { event: attributes.open(thread)?, last: Reading::default(), sum: Sum::default() })
    }

    /// What was counted up to now.
    pub(crate) fn read(&mut self) -> Result<Sum> {
        let mut bytes = [0; 24];
        self.event.read_exact(&mut bytes)?;
        let [value, enabled_ns, running_ns] = zerocopy::transmute!(bytes);
        self.last = self.sum.add(self.last, Reading { value, enabled_ns, running_ns });
        Ok(self.sum)
    }
}

/// Of whom it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of a guest that the thread runs, in all rings.
    Guest,
    /// The same in ring 3: all that one may have whom the host does not trust with its kernel.
    GuestRing3,
    /// Of the thread in ring 3, no matter whether that is a guest's.
    Ring3,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf_events::attributes::TASK_CLOCK;
    use std::time::{Duration, Instant};

    /// The kernel's own count of nanoseconds on a CPU goes the way of the processor's counters, and every host has it.
    fn task_clock() -> Counter {
        Counter::open(Kind::Software, TASK_CLOCK, 0, Whose::Ring3).expect("software events")
    }

    fn burn(time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn time_on_a_cpu_is_counted_and_time_asleep_is_not() {
        let mut counter = task_clock();
        burn(Duration::from_millis(30));
        let burnt = counter.read().expect("a reading");
        std::thread::sleep(Duration::from_millis(200));
        let slept = counter.read().expect("a reading");
        assert!((5_000_000..5_000_000_000).contains(&burnt.value), "{burnt:?}");
        let asleep_ns = slept.value - burnt.value;
        assert!(asleep_ns < 100_000_000, "{burnt:?} {slept:?}");
        assert!(slept.running_ns > 0 && slept.running_ns <= slept.enabled_ns, "{slept:?}");
    }

    #[test]
    fn guests_counter_of_a_thread_without_a_guest_is_refused_or_stands_still() {
        // What the host does with it depends on its processor; that its answer is one of these does not.
        match Counter::open(Kind::Hardware, 0, 0, Whose::GuestRing3) {
            Ok(mut counter) => {
                burn(Duration::from_millis(10));
                assert_eq!(counter.read().expect("a reading").value, 0);
            }
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }

    fn reading(value: u64, enabled_ns: u64, running_ns: u64) -> Reading {
        Reading { value, enabled_ns, running_ns }
    }

    #[test]
    fn what_was_counted_half_of_the_time_is_scaled_up() {
        let mut sum = Sum::default();
        let last = sum.add(Reading::default(), reading(100, 1000, 1000));
        assert_eq!(sum.value, 100);
        // Half of this stretch, all of the next: each is scaled by itself.
        let last = sum.add(last, reading(150, 2000, 1500));
        assert_eq!(sum.value, 200);
        sum.add(last, reading(250, 3000, 2500));
        assert_eq!(sum, Sum { value: 300, enabled_ns: 3000, running_ns: 2500 });
    }

    #[test]
    fn stretch_in_which_nothing_was_counted_is_told_by_the_next() {
        let mut sum = Sum::default();
        let last = sum.add(Reading::default(), reading(0, 1000, 0));
        assert_eq!((sum, last), (Sum::default(), Reading::default()));
        sum.add(last, reading(100, 2000, 500));
        assert_eq!(sum, Sum { value: 400, enabled_ns: 2000, running_ns: 500 });
    }

    #[test]
    fn readings_that_cannot_be_overflow_nothing() {
        let mut sum = Sum::default();
        let last = sum.add(reading(9, 9, 9), reading(u64::MAX, u64::MAX, 10));
        assert_eq!(sum.value, u64::MAX);
        sum.add(last, reading(0, 0, 11));
        assert_eq!(sum.value, u64::MAX);
    }
}
