//! When a thread was not on a CPU: the context switches of one thread, as the host's kernel records them.
//!
//! An edge: perf_event_open(2), whose records (`PERF_RECORD_SWITCH`) every user may ask for about threads of his own if the host
//! permits it at all (`kernel.perf_event_paranoid` up to 2), and the thread's schedstat file. That something was recorded costs
//! whoever wants to know one load.

use super::ledger::now_tsc;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// `struct perf_event_attr` up to `sample_regs_intr` (PERF_ATTR_SIZE_VER4); what is not named is zero.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size_bytes: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_watermark: u32,
    rest: [u32; 9],
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
}

const PERF_TYPE_SOFTWARE: u32 = 1;
const PERF_COUNT_SW_DUMMY: u64 = 9;
const PERF_SAMPLE_TIME: u64 = 1 << 2;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const WATERMARK: u64 = 1 << 14;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const USE_CLOCK: u64 = 1 << 25;
const CONTEXT_SWITCH: u64 = 1 << 26;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// `struct perf_event_mmap_page`: where `data_head` and `data_tail` lie.
const HEAD_AT: usize = 1024;
const TAIL_AT: usize = 1032;
/// `struct perf_event_header`, and with [`PERF_SAMPLE_TIME`] a time behind it.
const RECORD_WORDS: usize = 2;
const PERF_RECORD_LOST: u32 = 2;
const PERF_RECORD_SWITCH: u32 = 14;
/// In the header's `misc`.
const SWITCH_OUT: u16 = 1 << 13;
const SWITCH_OUT_PREEMPT: u16 = 1 << 14;

const PAGE_BYTES: usize = 4096;
/// Room for 1,000 switches out and in; who is blocked more often than 20,000 times a second while nobody looks loses some, and
/// [`Switches::lost`] says so.
const DATA_BYTES: usize = 8 * PAGE_BYTES;
/// How much closer than this two clocks are read, if the thread is left alone for a moment.
const CLOSE_TICKS: u64 = 2000;

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
    _event: File,
    delay: Delay,
    page: NonNull<u8>,
    tsc_khz: u64,
    /// Left the CPU then, and has not come back as far as it was read.
    out: Option<(u64, bool)>,
    /// Switches of which nothing is known.
    lost: u64,
}

// SAFETY: the mapping belongs to this value alone; the kernel writes it, and it is read through atomics and behind fences.
unsafe impl Send for Switches {}

impl Switches {
    /// Those of the calling thread, from now on.
    pub(super) fn of_this_thread(tsc_khz: u64) -> io::Result<Self> {
        const { assert!(size_of::<Attributes>() == 104) };
        let delay = Delay::of_this_thread(tsc_khz)?;
        let attributes = Attributes {
            kind: PERF_TYPE_SOFTWARE,
            size_bytes: size_of::<Attributes>() as u32,
            config: PERF_COUNT_SW_DUMMY,
            sample_type: PERF_SAMPLE_TIME,
            flags: EXCLUDE_KERNEL
                | EXCLUDE_HYPERVISOR
                | WATERMARK
                | SAMPLE_ID_ALL
                | USE_CLOCK
                | CONTEXT_SWITCH,
            // Nobody is woken for them.
            wakeup_watermark: u32::MAX,
            // Not bent by anybody who sets the time.
            clock: libc::CLOCK_MONOTONIC_RAW,
            ..Attributes::default()
        };
        const THIS_THREAD: libc::c_int = 0;
        const ANY: libc::c_int = -1;
        // SAFETY: the attributes are readable for the size that they name; the rest goes by value.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attributes,
                THIS_THREAD,
                ANY,
                ANY,
                PERF_FLAG_FD_CLOEXEC,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened and that nobody else owns.
        let event = unsafe { File::from_raw_fd(fd as i32) };
        // SAFETY: a new mapping where the kernel likes; it stays when the descriptor is closed.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES + DATA_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let page = NonNull::new(page.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { _event: event, delay, page, tsc_khz: tsc_khz.max(1), out: None, lost: 0 })
    }

    /// The word that changes whenever something is recorded.
    pub(super) fn head(&self) -> NonNull<AtomicU64> {
        // SAFETY: inside the mapping, and aligned.
        unsafe { self.page.add(HEAD_AT).cast() }
    }

    /// Calls `each` with what is new. Gives the word of [`Self::head`] up to which that is.
    pub(super) fn take(&mut self, mut each: impl FnMut(Interval)) -> u64 {
        // SAFETY: inside the mapping, and aligned.
        let (head, tail) = unsafe {
            (
                self.page.add(HEAD_AT).cast::<AtomicU64>().as_ref(),
                self.page.add(TAIL_AT).cast::<AtomicU64>().as_ref(),
            )
        };
        // Whoever sees the head sees the records before it.
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        if at == end {
            return end;
        }
        let clock = Clock::now(self.tsc_khz);
        while at < end {
            let words = [self.word(at), self.word(at + 8)];
            let (kind, misc, bytes) = (words[0] as u32, (words[0] >> 32) as u16, words[0] >> 48);
            if bytes < 8 * RECORD_WORDS as u64 {
                // Not what was asked for: nothing that follows can be told.
                self.lost += 1;
                at = end;
                break;
            }
            match kind {
                PERF_RECORD_SWITCH if misc & SWITCH_OUT != 0 => {
                    self.out = Some((clock.tsc(words[1]), misc & SWITCH_OUT_PREEMPT != 0));
                }
                PERF_RECORD_SWITCH => {
                    if let Some((start, preempted)) = self.out.take() {
                        each(Interval { start, end: clock.tsc(words[1]).max(start), preempted });
                    }
                }
                PERF_RECORD_LOST => {
                    // Its words: an id, and how many.
                    self.lost += self.word(at + 16);
                    self.out = None;
                }
                _ => {}
            }
            at += bytes;
        }
        fence(Ordering::SeqCst);
        tail.store(at, Ordering::Release);
        end
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

    fn word(&self, at: u64) -> u64 {
        let offset = (at as usize % DATA_BYTES) & !7;
        // SAFETY: inside the mapping, whatever the record says of its size, and aligned. The kernel writes it no more until the
        // tail is past it.
        unsafe { self.page.add(PAGE_BYTES + offset).cast::<u64>().read_volatile() }
    }
}

impl Drop for Switches {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which nothing refers any more: a ledger drops its word together with this.
        unsafe { libc::munmap(self.page.as_ptr().cast(), PAGE_BYTES + DATA_BYTES) };
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

/// What two clocks said at one moment.
#[derive(Clone, Copy)]
struct Clock {
    raw_ns: u64,
    tsc: u64,
    tsc_khz: u64,
}

impl Clock {
    fn now(tsc_khz: u64) -> Self {
        let mut best = (u64::MAX, 0, 0);
        for _ in 0..4 {
            let before = now_tsc();
            let raw_ns = raw_ns();
            let gap = now_tsc() - before;
            if gap < best.0 {
                best = (gap, raw_ns, before + gap / 2);
            }
            if gap < CLOSE_TICKS {
                break;
            }
        }
        Self { raw_ns: best.1, tsc: best.2, tsc_khz }
    }

    /// The TSC at a time of CLOCK_MONOTONIC_RAW, which advances with it.
    fn tsc(&self, raw_ns: u64) -> u64 {
        if raw_ns <= self.raw_ns {
            self.tsc.saturating_sub(ticks(self.raw_ns - raw_ns, self.tsc_khz))
        } else {
            self.tsc + ticks(raw_ns - self.raw_ns, self.tsc_khz)
        }
    }
}

/// Nanoseconds as ticks.
pub(super) fn ticks(ns: u64, tsc_khz: u64) -> u64 {
    (u128::from(ns) * u128::from(tsc_khz) / 1_000_000) as u64
}

/// Ticks as nanoseconds.
pub(super) fn nanoseconds(ticks: u64, tsc_khz: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(tsc_khz.max(1))) as u64
}

fn raw_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The word of a ring's head, once there is one: what it costs to ask whether a thread left the CPU.
#[derive(Debug, Default)]
pub(super) struct Head(std::sync::atomic::AtomicPtr<AtomicU64>);

impl Head {
    /// From now on it is that of these switches, which live as long as this.
    pub(super) fn set(&self, switches: &Switches) {
        self.0.store(switches.head().as_ptr(), Ordering::Release);
    }

    /// The word; 0 if there is none.
    #[inline]
    pub(super) fn read(&self) -> u64 {
        let word = self.0.load(Ordering::Acquire);
        // SAFETY: null, or in the mapping of switches that live as long as this.
        unsafe { word.as_ref() }.map_or(0, |word| word.load(Ordering::Relaxed))
    }
}
