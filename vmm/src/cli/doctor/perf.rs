//! One hardware counter of this thread, by perf_event_open(2). An edge: system calls and nothing else.

use std::fs::File;
use std::io::{Error, Read, Result};
use std::os::fd::FromRawFd;

/// `struct perf_event_attr` in its oldest published size, of which everything but these fields is zero.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size_bytes: u32,
    config: u64,
    unused: [u64; 3],
    flags: u64,
    rest: [u64; 2],
}

/// PERF_ATTR_SIZE_VER0.
const SIZE_BYTES: u32 = 64;
const PERF_TYPE_HARDWARE: u32 = 0;
const PERF_COUNT_HW_CPU_CYCLES: u64 = 0;
const EXCLUDE_KERNEL: u64 = 1 << 5;
const EXCLUDE_HYPERVISOR: u64 = 1 << 6;

/// Cycles that this thread spends in `work`, in user mode, by the processor's counter.
pub(super) fn cycles_of(work: impl FnOnce()) -> Result<u64> {
    const { assert!(size_of::<Attributes>() == SIZE_BYTES as usize) };
    let attributes = Attributes {
        kind: PERF_TYPE_HARDWARE,
        size_bytes: SIZE_BYTES,
        config: PERF_COUNT_HW_CPU_CYCLES,
        flags: EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR,
        ..Attributes::default()
    };
    const THIS_THREAD: libc::c_int = 0;
    const ANY: libc::c_int = -1;
    const CLOEXEC: libc::c_ulong = 8;
    // SAFETY: the attributes are readable for the size that they name; the rest goes by value.
    let fd = unsafe {
        libc::syscall(libc::SYS_perf_event_open, &raw const attributes, THIS_THREAD, ANY, ANY, CLOEXEC)
    };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: a descriptor that was just opened and that nobody else owns.
    let mut counter = unsafe { File::from_raw_fd(fd as i32) };
    let mut count = [0; 8];
    counter.read_exact(&mut count)?;
    let before = u64::from_ne_bytes(count);
    work();
    counter.read_exact(&mut count)?;
    Ok(u64::from_ne_bytes(count) - before)
}
