//! tracefs, mounted or hidden for the threads of one test, in a mount namespace of its own. Where the test may not have one (it takes
//! root), it has what the host has.

use std::ffi::CStr;
use std::path::Path;

/// Where it belongs, and where it was before.
const PLACES: [&CStr; 2] = [c"/sys/kernel/tracing", c"/sys/kernel/debug/tracing"];

/// Runs `body`, and what threads it makes, with tracefs in its place, if that is possible.
///
/// # Panics
/// If `body` does.
pub fn mounted(body: impl FnOnce() + Send + 'static) {
    in_thread(|| {
        if !is_there() && own_mounts() {
            mount(c"tracefs", PLACES[0]);
        }
        body();
    });
}

/// Runs `body`, and what threads it makes, without tracefs, if that is possible.
///
/// # Panics
/// If `body` does.
pub fn hidden(body: impl FnOnce() + Send + 'static) {
    in_thread(|| {
        if is_there() && own_mounts() {
            PLACES.iter().for_each(|place| mount(c"tmpfs", place));
        }
        body();
    });
}

/// Whether this process may record tracepoints of its threads, found out without exovm: it may read what root may, and the kernel lets
/// it have their data.
pub fn is_ours() -> bool {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_PERFMON: u64 = 1 << 38;
    // In a user namespace of one's own, capabilities are worth nothing here.
    let is_first = std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"));
    let may = is_first && effective & (CAP_SYS_ADMIN | CAP_PERFMON) != 0;
    is_there() && (may || paranoid.trim() == "-1")
}

fn is_there() -> bool {
    let kvm =
        |place: &CStr| Path::new(&*place.to_string_lossy()).join("events/kvm/kvm_userspace_exit/format");
    PLACES.iter().any(|place| std::fs::read(kvm(place)).is_ok())
}

fn in_thread(body: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A mount namespace for the calling thread, whose mounts nobody else sees. Whether there is one.
fn own_mounts() -> bool {
    let (nothing, all) = (std::ptr::null(), libc::MS_REC | libc::MS_PRIVATE);
    // SAFETY: no memory but a constant string; what changes is the calling thread's own.
    unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(nothing, c"/".as_ptr(), nothing, all, std::ptr::null()) == 0
    }
}

/// Mounts a file system by its kind. A place that does not exist stays so.
fn mount(kind: &CStr, place: &CStr) {
    // SAFETY: constant strings.
    unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
}
