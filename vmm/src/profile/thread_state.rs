//! Whether a thread of this process sleeps: a vCPU that is halted does so in KVM, and need not be woken to know.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A thread's line in procfs.
pub(super) struct ThreadState(File);

impl ThreadState {
    /// Of the thread with this id.
    pub(super) fn open(thread: libc::pid_t) -> std::io::Result<Self> {
        File::open(format!("/proc/self/task/{thread}/stat")).map(Self)
    }

    /// Whether it sleeps at this moment. One that has gone does.
    pub(super) fn sleeps(&self) -> bool {
        let mut line = [0; 128];
        match self.0.read_at(&mut line, 0) {
            Ok(count) => is_sleeping(&line[..count]),
            Err(_) => true,
        }
    }
}

/// proc_pid_stat(5): `ID (NAME) STATE ...`; the name may have anything in it.
fn is_sleeping(line: &[u8]) -> bool {
    let name_end = line.iter().rposition(|&byte| byte == b')');
    name_end.and_then(|end| line.get(end + 2)).is_none_or(|&state| state != b'R' && state != b'D')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_read_behind_a_name_with_anything_in_it() {
        for (line, sleeps) in [
            ("7 (exovm-vcpu) R 1 7", false),
            ("7 (exovm-vcpu) S 1 7", true),
            ("7 (a) R (b)) S 1 7", true),
            ("7 (a) S (b)) R 1 7", false),
            ("7 (exovm-vcpu) D 1 7", false),
            ("", true),
            ("7 (exo", true),
        ] {
            assert_eq!(is_sleeping(line.as_bytes()), sleeps, "{line}");
        }
    }

    #[test]
    fn thread_that_computes_does_not_sleep_and_one_that_waits_does() {
        // SAFETY: no arguments, no memory.
        let own = unsafe { libc::gettid() };
        assert!(!ThreadState::open(own).expect("procfs").sleeps());
        let (send, receive) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: as above.
            send.send(unsafe { libc::gettid() }).expect("somebody waits");
            std::thread::park();
        });
        let state = ThreadState::open(receive.recv().expect("a thread")).expect("procfs");
        let asleep = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            state.sleeps()
        });
        thread.thread().unpark();
        thread.join().expect("no panic");
        assert!(asleep && state.sleeps());
    }
}
