//! Which event is wanted, and perf_event_open(2).

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::FromRawFd;

/// `struct perf_event_attr` up to `sample_regs_intr` (PERF_ATTR_SIZE_VER4); what is not named is zero.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    kind: u32,
    size_bytes: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup: u32,
    rest: [u32; 9],
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
}

const _: () = assert!(size_of::<Attributes>() == 104);

/// Whose event it is: `perf_event_attr.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// The processor's, by a generalised number.
    Hardware = 0,
    /// The kernel's own.
    Software = 1,
    /// A tracepoint, by its number in tracefs.
    Tracepoint = 2,
    /// The processor's caches.
    HardwareCache = 3,
}

/// PERF_COUNT_SW_TASK_CLOCK: nanoseconds on a CPU.
#[cfg(test)]
pub(crate) const TASK_CLOCK: u64 = 1;
/// PERF_COUNT_SW_PAGE_FAULTS.
#[cfg(test)]
pub(crate) const PAGE_FAULTS: u64 = 2;
/// PERF_COUNT_SW_DUMMY: counts nothing. Who may not have this may have nothing.
pub(crate) const DUMMY: u64 = 9;

/// PERF_SAMPLE_TIME.
pub(crate) const SAMPLE_TIME: u64 = 1 << 2;
/// PERF_SAMPLE_RAW: what a tracepoint records.
pub(crate) const SAMPLE_RAW: u64 = 1 << 10;

const FORMAT_TIME_ENABLED: u64 = 1 << 0;
const FORMAT_TIME_RUNNING: u64 = 1 << 1;

const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
const WATERMARK: u64 = 1 << 14;
const SAMPLE_ID_ALL: u64 = 1 << 18;
const EXCLUDE_HOST: u64 = 1 << 19;
const USE_CLOCK: u64 = 1 << 25;
const CONTEXT_SWITCH: u64 = 1 << 26;

/// PERF_EVENT_IOC_SET_OUTPUT, `_IO('$', 5)`.
const SET_OUTPUT: libc::c_ulong = 0x2405;

impl Attributes {
    /// Of this number, on this and that side of every border.
    pub(crate) fn new(kind: Kind, config: u64) -> Self {
        Self {
            kind: kind as u32,
            size_bytes: size_of::<Self>() as u32,
            config,
            flags: EXCLUDE_HYPERVISOR,
            ..Self::default()
        }
    }

    /// Not in rings below 3.
    pub(crate) fn without_kernel(mut self) -> Self {
        self.flags |= EXCLUDE_KERNEL;
        self
    }

    /// In guests only.
    pub(crate) fn without_host(mut self) -> Self {
        self.flags |= EXCLUDE_HOST;
        self
    }

    /// Reads tell for how long it was wanted, and for how long it counted.
    pub(crate) fn with_times(mut self) -> Self {
        self.read_format |= FORMAT_TIME_ENABLED | FORMAT_TIME_RUNNING;
        self
    }

    /// Each time is recorded, with [`super::clock`]'s time and, if `sample` says so, more. Nobody is woken for it.
    pub(crate) fn recorded(mut self, sample: u64) -> Self {
        self.sample_period = 1;
        self.sample_type = SAMPLE_TIME | sample;
        self.flags |= WATERMARK | SAMPLE_ID_ALL | USE_CLOCK;
        self.wakeup = u32::MAX;
        self.clock = super::clock::CLOCK;
        self
    }

    /// That the thread leaves a CPU or gets one is recorded, too.
    pub(crate) fn with_context_switches(mut self) -> Self {
        self.flags |= CONTEXT_SWITCH;
        self
    }

    /// Opens it for a thread of this process, wherever that runs; 0 is the calling one. It goes from now on.
    pub(crate) fn open(&self, thread: libc::pid_t) -> Result<File> {
        const ANY: libc::c_int = -1;
        const CLOEXEC: libc::c_ulong = 8;
        // SAFETY: the attributes are readable for the size that they name; the rest goes by value.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const *self, thread, ANY, ANY, CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: a descriptor that was just opened and that nobody else owns.
        Ok(unsafe { File::from_raw_fd(fd as i32) })
    }
}

/// Has an event write its records to the ring of another one of the same thread.
pub(crate) fn record_with(event: &File, other: &File) -> Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: takes two descriptors by value.
    let result = unsafe { libc::ioctl(event.as_raw_fd(), SET_OUTPUT, other.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
