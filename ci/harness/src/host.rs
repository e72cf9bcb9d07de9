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

fn require_device(device: &str, what: &str) {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        panic!("this test needs {device} ({what}), which cannot be opened: {error}");
    }
}
