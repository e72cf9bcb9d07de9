//! Where the cycles of one VMM thread go. Every transition takes one time stamp that ends a bucket and begins the next,
//! so the buckets add up to the thread's whole life and none is a remainder.
//!
//! A thread does not notice when it is not on a CPU; the host's kernel does ([`switches`](super::switches)). A transition asks
//! with one load whether there was such a stretch of time since the last, and if so takes it out of the bucket that ended.

use super::away::Away;
pub use super::bucket::Bucket;
use super::switches::{Delay, Head, Switches};
use crate::trace::Recorder;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The ledger of one thread. Only that thread calls [`Ledger::enter`]; anybody may read.
#[derive(Debug)]
pub struct Ledger {
    /// When the transition began that is the latest: stored before it changes anything.
    begun_tsc: AtomicU64,
    /// The same, stored when all is changed: who reads this one first and finds the other equal has read what belongs together.
    last_tsc: AtomicU64,
    current: AtomicUsize,
    /// What it does is written down there, while somebody wants that.
    recorder: Recorder,
    /// Up to which head of the records the buckets are right.
    seen: AtomicU64,
    head: Head,
    tsc_khz: AtomicU64,
    delay: OnceLock<Delay>,
    away: Mutex<Option<Away>>,
    buckets: [Tally; Bucket::COUNT],
}

/// One bucket.
#[derive(Debug, Default)]
struct Tally {
    cycles: AtomicU64,
    entries: AtomicU64,
}

/// A bucket's content at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Cycles spent.
    pub cycles: u64,
    /// How often the bucket was entered.
    pub entries: u64,
}

/// All buckets of a thread at one moment.
pub type Sums = [Sum; Bucket::COUNT];

/// What a ledger knows of the time in which its thread was not on a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insight {
    /// Its context switches are recorded, and taken out of the buckets.
    pub switches: bool,
    /// Switches that were not read in time; what they took is in the bucket that ran.
    pub lost: u64,
    /// For how many cycles the thread could have run and had no CPU, in all its life, by the host's own count.
    pub delay_cycles: Option<u64>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            begun_tsc: AtomicU64::new(0),
            last_tsc: AtomicU64::new(0),
            current: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            head: Head::default(),
            tsc_khz: AtomicU64::new(0),
            delay: OnceLock::new(),
            away: Mutex::new(None),
            recorder: Recorder::default(),
            buckets: std::array::from_fn(|_| Tally::default()),
        }
    }
}

impl Tally {
    /// One writer: a plain add is enough, and cheaper than a locked one.
    #[inline]
    fn add(&self, cycles: u64, entries: u64) {
        self.cycles.store(self.cycles.load(Ordering::Relaxed) + cycles, Ordering::Relaxed);
        self.entries.store(self.entries.load(Ordering::Relaxed) + entries, Ordering::Relaxed);
    }
}

impl Ledger {
    /// Ends the current bucket and begins `bucket`. Returns the one that ended, to go back to it.
    #[inline]
    pub fn enter(&self, bucket: Bucket) -> Bucket {
        self.enter_at(bucket).0
    }

    /// The same, and the time stamp.
    #[inline]
    pub fn enter_at(&self, bucket: Bucket) -> (Bucket, u64) {
        // In this order: what happens in between is found by the next transition.
        let now = now_tsc();
        if self.head.read() != self.seen.load(Ordering::Relaxed) {
            return (self.enter_after_switches(bucket, now), now);
        }
        self.begin(now);
        let last = self.last_tsc.load(Ordering::Relaxed);
        let current = self.current.load(Ordering::Relaxed);
        if last != 0 {
            self.buckets[current].add(now.saturating_sub(last), 0);
        }
        self.buckets[bucket.index()].add(0, 1);
        self.current.store(bucket.index(), Ordering::Release);
        self.last_tsc.store(now, Ordering::Release);
        self.recorder.transition(now, bucket);
        (Bucket::at(current), now)
    }

    /// From here on, until `last_tsc` is the same, what others read does not belong together.
    #[inline]
    fn begin(&self, now: u64) {
        self.begun_tsc.store(now, Ordering::Relaxed);
        fence(Ordering::Release);
    }

    /// The thread was not on a CPU for a part of the time.
    #[cold]
    #[inline(never)]
    fn enter_after_switches(&self, bucket: Bucket, now: u64) -> Bucket {
        let mut away = self.away();
        self.begin(now);
        let current = Bucket::at(self.current.load(Ordering::Relaxed));
        let last = self.last_tsc.load(Ordering::Relaxed);
        let elapsed = if last == 0 { 0 } else { now.saturating_sub(last) };
        let mut left = elapsed;
        if let Some(away) = away.as_mut() {
            let head = away.take_records();
            away.read_delay(now);
            let seen = if away.leave(current, now, &mut left, |bucket, cycles, entries| {
                self.buckets[bucket.index()].add(cycles, entries);
            }) {
                // Something lies behind `now`: the next transition has to look again.
                !head
            } else {
                head
            };
            self.seen.store(seen, Ordering::Relaxed);
        }
        self.buckets[current.index()].add(left, 0);
        self.buckets[bucket.index()].add(0, 1);
        self.current.store(bucket.index(), Ordering::Release);
        self.last_tsc.store(now, Ordering::Release);
        self.recorder.transition(now, bucket);
        current
    }

    /// Said before its thread begins: TSC ticks per millisecond.
    pub fn set_clock(&self, tsc_khz: u64) {
        self.tsc_khz.store(tsc_khz, Ordering::Relaxed);
    }

    /// Called once by the ledger's thread, as the first: from now on the time in which it is not on a CPU is taken out of the buckets.
    /// Where the host does not permit that, or no clock was set, it stays in them, and [`Self::insight`] says so.
    pub fn begin_thread(&self) {
        let tsc_khz = self.tsc_khz.load(Ordering::Relaxed);
        if tsc_khz == 0 {
            return;
        }
        if let Ok(delay) = Delay::of_this_thread(tsc_khz) {
            let _ = self.delay.set(delay);
        }
        if let Err(error) = self.watch_switches(tsc_khz) {
            tracing::debug!("this thread's context switches are not recorded: {error}");
        }
    }

    fn watch_switches(&self, tsc_khz: u64) -> io::Result<()> {
        let switches = Switches::of_this_thread(tsc_khz)?;
        let mut away = self.away();
        if away.is_none() {
            let away = away.insert(Away::new(switches));
            self.head.set(away.switches());
        }
        Ok(())
    }

    /// Reads what was recorded, so that there is room for more. By anybody, now and then.
    pub fn make_room(&self) {
        if let Some(away) = self.away().as_mut() {
            away.take_records();
        }
    }

    /// Cycles in [`Bucket::OffCpu`] up to the last transition.
    #[inline]
    pub(crate) fn off_cpu_cycles(&self) -> u64 {
        self.buckets[const { Bucket::OffCpu.index() }].cycles.load(Ordering::Relaxed)
    }

    /// What it knows of the time in which its thread was not on a CPU.
    pub fn insight(&self) -> Insight {
        let away = self.away();
        Insight {
            switches: away.is_some(),
            lost: away.as_ref().map_or(0, Away::lost),
            delay_cycles: self.delay.get().and_then(Delay::read),
        }
    }

    /// Since when its thread has been able to run and had no CPU, if that is so now.
    pub(super) fn preempted_since(&self) -> Option<u64> {
        let mut away = self.away();
        let away = away.as_mut()?;
        away.take_records();
        away.preempted_since()
    }

    /// TSC ticks per millisecond; 0: nobody said.
    pub(crate) fn tsc_khz(&self) -> u64 {
        self.tsc_khz.load(Ordering::Relaxed)
    }

    /// When the current bucket began.
    #[inline]
    pub fn since_tsc(&self) -> u64 {
        self.last_tsc.load(Ordering::Relaxed)
    }

    /// The thread's records.
    #[inline]
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// What the thread is at; `None`: it has not begun.
    pub fn current(&self) -> Option<Bucket> {
        let begun = self.last_tsc.load(Ordering::Relaxed) != 0;
        begun.then(|| Bucket::at(self.current.load(Ordering::Relaxed)))
    }

    /// What lies in each bucket now, the running one included.
    pub fn read(&self) -> Sums {
        // While this is locked the thread goes through no transition of which something is to be taken out.
        let mut away = self.away();
        if let Some(away) = away.as_mut() {
            away.take_records();
        }
        let (mut sums, current, last) = self.consistent();
        let now = now_tsc();
        let mut left = if last == 0 { 0 } else { now.saturating_sub(last) };
        if let Some(away) = away.as_ref() {
            let mut until_now = away.copy_until(now);
            until_now.leave(current, now, &mut left, |bucket, cycles, entries| {
                sums[bucket.index()].cycles += cycles;
                sums[bucket.index()].entries += entries;
            });
        }
        sums[current.index()].cycles += left;
        sums
    }

    /// The buckets between two transitions, if one can be had in between.
    fn consistent(&self) -> (Sums, Bucket, u64) {
        let mut sums = [Sum::default(); Bucket::COUNT];
        for attempt in 0..1000 {
            if attempt >= 16 {
                // It lost its CPU in between; perhaps to this thread.
                std::thread::yield_now();
            }
            let last = self.last_tsc.load(Ordering::Acquire);
            let current = self.current.load(Ordering::Acquire);
            for (sum, tally) in sums.iter_mut().zip(&self.buckets) {
                sum.cycles = tally.cycles.load(Ordering::Acquire);
                sum.entries = tally.entries.load(Ordering::Acquire);
            }
            if self.begun_tsc.load(Ordering::Relaxed) == last {
                return (sums, Bucket::at(current), last);
            }
        }
        (sums, Bucket::at(self.current.load(Ordering::Relaxed)), self.last_tsc.load(Ordering::Relaxed))
    }

    fn away(&self) -> MutexGuard<'_, Option<Away>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `read` reads, in one go if the host lets it: numbers that belong together are not read with a pause between them. Of
/// several attempts the one that took least.
pub(crate) fn at_once<T>(tsc_khz: u64, mut read: impl FnMut() -> T) -> T {
    const ATTEMPTS: usize = 8;
    const LONG_US: u64 = 100;
    let mut timed = || {
        let start = now_tsc();
        let numbers = read();
        (now_tsc() - start, numbers)
    };
    let mut best = timed();
    for _ in 1..ATTEMPTS {
        if best.0 < LONG_US * tsc_khz / 1000 {
            break;
        }
        let next = timed();
        if next.0 < best.0 {
            best = next;
        }
    }
    best.1
}

/// The time stamp counter.
#[inline]
pub fn now_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory effects.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
