//! When a thread was not on a CPU: the context switches of one thread, as the host's kernel records them (`PERF_RECORD_SWITCH`),
//! and its schedstat file.
//!
//! Every user may ask for those of threads of his own if the host permits it at all (`kernel.perf_event_paranoid` up to 2). That
//! something was recorded costs whoever wants to know one load.

use crate::perf_events::Attributes;
use crate::perf_events::attributes::{DUMMY, Kind};
use crate::perf_events::clock::{Clock, ticks};
use crate::perf_events::ring::{Entry, Ring};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

const PERF_RECORD_SWITCH: u32 = 14;
/// In the header's `misc`.
const SWITCH_OUT: u16 = 1 << 13;
const SWITCH_OUT_PREEMPT: u16 = 1 << 14;

/// Room for 1,000 switches out and in; who is blocked more often than 20,000 times a second while nobody looks loses some, and
/// [`Switches::lost`] says so.
const PAGES: usize = 8;

/// A stretch of time in which a thread was not on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// TSC.
    pub(super) start: u64,
    /// TSC.
    pub(super) end: u64,
    /// It could have gone on: the CPU was taken from it. Otherwise it was blocked.
    pub(super) preempted: bool,
}

/// The records of one thread.
#[derive(Debug)]
pub(super) struct Switches {
    ring: Ring,
    _event: File,
    delay: Delay,
    tsc_khz: u64,
    /// Left the CPU then, and has not come back as far as it was read.
    out: Option<(u64, bool)>,
    /// Switches of which nothing is known.
    lost: u64,
}

impl Switches {
    /// Those of the calling thread, from now on.
    pub(super) fn of_this_thread(tsc_khz: u64) -> io::Result<Self> {
        const THIS_THREAD: libc::pid_t = 0;
        let delay = Delay::of_this_thread(tsc_khz)?;
        let attributes =
            Attributes::new(Kind::Software, DUMMY).recorded(0).without_kernel().with_context_switches();
        let event = attributes.open(THIS_THREAD)?;
        let ring = Ring::new(&event, PAGES)?;
        Ok(Self { ring, _event: event, delay, tsc_khz: tsc_khz.max(1), out: None, lost: 0 })
    }

    /// Calls `each` with what is new. Gives the word of the ring's head up to which that is.
    pub(super) fn take(&mut self, mut each: impl FnMut(Interval)) -> u64 {
        let Self { ring, out, lost, tsc_khz, .. } = self;
        let mut clock = None;
        ring.read(|entry| match entry {
            Entry::Record(PERF_RECORD_SWITCH, misc, &[ns, ..]) => {
                let tsc = clock.get_or_insert_with(|| Clock::now(*tsc_khz)).tsc(ns);
                if misc & SWITCH_OUT != 0 {
                    *out = Some((tsc, misc & SWITCH_OUT_PREEMPT != 0));
                } else if let Some((start, preempted)) = out.take() {
                    each(Interval { start, end: tsc.max(start), preempted });
                }
            }
            Entry::Record(..) => {}
            Entry::Lost(more) => {
                *lost += more;
                *out = None;
            }
        })
    }

    /// TSC ticks per millisecond.
    pub(super) fn tsc_khz(&self) -> u64 {
        self.tsc_khz
    }

    /// When it left the CPU, if it has not come back, and whether it could go on.
    pub(super) fn out(&self) -> Option<(u64, bool)> {
        self.out
    }

    /// Records of which nothing is known, because nobody read in time.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// For how many ticks the thread has been able to run without having a CPU, in all its life: the host's own count. Besides what
    /// it was preempted for, that is what passed between its being woken and its running.
    pub(super) fn delay_ticks(&self) -> Option<u64> {
        self.delay.read()
    }
}

/// The host's own count of how long a thread could have run and had no CPU.
#[derive(Debug)]
pub(super) struct Delay {
    file: File,
    tsc_khz: u64,
}

impl Delay {
    pub(super) fn of_this_thread(tsc_khz: u64) -> io::Result<Self> {
        // The link is followed now: whoever reads the file, it is this thread's.
        Ok(Self { file: File::open("/proc/thread-self/schedstat")?, tsc_khz })
    }

    /// In ticks; `None`: the host's kernel does not count it.
    pub(super) fn read(&self) -> Option<u64> {
        let mut text = [0; 64];
        let len = self.file.read_at(&mut text, 0).ok()?;
        // Nanoseconds on a CPU, nanoseconds waiting for one, slices.
        let delay_ns: u64 = std::str::from_utf8(&text[..len]).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some(ticks(delay_ns, self.tsc_khz))
    }
}

/// The word of a ring's head, once there is one: what it costs to ask whether a thread left the CPU.
#[derive(Debug, Default)]
pub(super) struct Head(std::sync::atomic::AtomicPtr<AtomicU64>);

impl Head {
    /// From now on it is that of these switches, which live as long as this.
    pub(super) fn set(&self, switches: &Switches) {
        self.0.store(switches.ring.head().as_ptr(), Ordering::Release);
    }

    /// The word; 0 if there is none.
    #[inline]
    pub(super) fn read(&self) -> u64 {
        let word = self.0.load(Ordering::Acquire);
        // SAFETY: null, or in the mapping of switches that live as long as this.
        unsafe { word.as_ref() }.map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
