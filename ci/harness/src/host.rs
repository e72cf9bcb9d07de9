//! What a test needs of the host.

use std::fs::OpenOptions;

/// Fails the test, with one sentence, where no VM can be started. A skipped test would be a promise that nobody checks.
pub fn require() {
    require_device("/dev/kvm", "it boots a virtual machine");
}

/// The same where no TAP can be had.
pub fn require_tap() {
    require_device("/dev/net/tun", "its guest is on a TAP");
}

/// Whether all threads of this process's machines sleep: none runs, or would if it had a CPU (proc(5), stat).
pub(crate) fn machine_threads_sleep() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // One that ends just now cannot be read any more.
    let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
    stats.filter(|stat| stat.contains("(exovm-")).all(|stat| stat.contains(") S "))
}

fn require_device(device: &str, what: &str) {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        panic!("this test needs {device} ({what}), which cannot be opened: {error}");
    }
}
