//! Where the cycles of one VMM thread go. Every transition takes one time stamp that ends a bucket and begins the next,
//! so the buckets add up to the thread's whole life and none is a remainder.

use crate::trace::Recorder;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a VMM thread can be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Bucket {
    /// Starting, stopping, and whatever is not named below.
    Other,
    /// Inside KVM_RUN: guest code, and what KVM does for it.
    Guest,
    /// Handling an exit that is not a turn.
    Exit,
    /// Device work of the NIC, transmit side: rings, translation, checks.
    NetTransmit,
    /// Device work of the NIC, receive side: rings, translation, checks, flow look-up.
    NetReceive,
    /// System calls that write to the backend.
    BackendWrite,
    /// System calls that read from the backend.
    BackendRead,
    /// Device work of the host channel, both ways.
    Channel,
    /// Device work of the disks: rings, translation, checks, completions.
    Disk,
    /// System calls that read from a disk image.
    DiskRead,
    /// System calls that write to a disk image, or discard.
    DiskWrite,
    /// System calls that make a disk image durable.
    DiskFlush,
    /// Polling: ready to work and nothing there.
    Poll,
    /// Blocked until something happens.
    Wait,
    /// What tools that look at the machine cost it.
    Tools,
}

impl Bucket {
    /// All of them, in the order of their numbers.
    pub const ALL: [Bucket; 15] = [
        Bucket::Other,
        Bucket::Guest,
        Bucket::Exit,
        Bucket::NetTransmit,
        Bucket::NetReceive,
        Bucket::BackendWrite,
        Bucket::BackendRead,
        Bucket::Channel,
        Bucket::Disk,
        Bucket::DiskRead,
        Bucket::DiskWrite,
        Bucket::DiskFlush,
        Bucket::Poll,
        Bucket::Wait,
        Bucket::Tools,
    ];

    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Other => "vmm other",
            Bucket::Guest => "guest",
            Bucket::Exit => "exit handling",
            Bucket::NetTransmit => "net transmit",
            Bucket::NetReceive => "net receive",
            Bucket::BackendWrite => "backend write",
            Bucket::BackendRead => "backend read",
            Bucket::Channel => "channel",
            Bucket::Disk => "disk requests",
            Bucket::DiskRead => "disk read",
            Bucket::DiskWrite => "disk write",
            Bucket::DiskFlush => "disk flush",
            Bucket::Poll => "poll",
            Bucket::Wait => "wait",
            Bucket::Tools => "tools",
        }
    }
}

/// The ledger of one thread. Only that thread calls [`Ledger::enter`]; anybody may read.
#[derive(Debug, Default)]
pub struct Ledger {
    last_tsc: AtomicU64,
    current: AtomicUsize,
    /// What it does is written down there, while somebody wants that.
    recorder: Recorder,
    buckets: [Tally; Bucket::ALL.len()],
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

impl Ledger {
    /// Ends the current bucket and begins `bucket`. Returns the one that ended, to go back to it.
    #[inline]
    pub fn enter(&self, bucket: Bucket) -> Bucket {
        let now = now_tsc();
        let last = self.last_tsc.swap_relaxed(now);
        let current = self.current.load(Ordering::Relaxed);
        if last != 0 {
            let tally = &self.buckets[current];
            // One writer: a plain add is enough, and cheaper than a locked one.
            tally
                .cycles
                .store(tally.cycles.load(Ordering::Relaxed) + now.saturating_sub(last), Ordering::Relaxed);
        }
        let tally = &self.buckets[bucket as usize];
        tally.entries.store(tally.entries.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.current.store(bucket as usize, Ordering::Relaxed);
        self.recorder.transition(now, bucket);
        Bucket::ALL[current]
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
        begun.then(|| Bucket::ALL[self.current.load(Ordering::Relaxed)])
    }

    /// What lies in each bucket now, the running one included.
    pub fn read(&self) -> [Sum; Bucket::ALL.len()] {
        let mut sums = [Sum::default(); Bucket::ALL.len()];
        for (sum, tally) in sums.iter_mut().zip(&self.buckets) {
            sum.cycles = tally.cycles.load(Ordering::Relaxed);
            sum.entries = tally.entries.load(Ordering::Relaxed);
        }
        let last = self.last_tsc.load(Ordering::Relaxed);
        if last != 0 {
            sums[self.current.load(Ordering::Relaxed)].cycles += now_tsc().saturating_sub(last);
        }
        sums
    }
}

/// A store by the only writer that gives back what was there.
trait SwapRelaxed {
    fn swap_relaxed(&self, value: u64) -> u64;
}

impl SwapRelaxed for AtomicU64 {
    #[inline]
    fn swap_relaxed(&self, value: u64) -> u64 {
        let old = self.load(Ordering::Relaxed);
        self.store(value, Ordering::Relaxed);
        old
    }
}

/// The time stamp counter.
#[inline]
pub fn now_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory effects.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_land_in_the_bucket_that_ran() {
        let ledger = Ledger::default();
        ledger.enter(Bucket::NetReceive);
        let start = now_tsc();
        while now_tsc() - start < 2_000_000 {}
        let before = ledger.enter(Bucket::Wait);
        let sums = ledger.read();
        assert_eq!(before, Bucket::NetReceive);
        let cycles = sums[Bucket::NetReceive as usize].cycles;
        assert!((2_000_000..40_000_000).contains(&cycles), "{cycles}");
        assert_eq!(sums[Bucket::NetTransmit as usize], Sum::default());
        assert_eq!(sums[Bucket::Wait as usize].entries, 1);
    }
}
