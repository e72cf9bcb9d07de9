//! A guest's log as the test sees it: lines that come from a thread of the machine.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The lines so far; shared with the thread that drains the guest's ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Lines>);

#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Log {
    pub(crate) fn push(&self, line: &str) {
        self.lock().push(line.to_owned());
        self.0.more.notify_all();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// The first line that contains `text`; waits for it.
    pub(crate) fn wait_for(&self, text: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.lock();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return Some(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = self.0.more.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_for_finds_what_is_there_and_what_comes_and_gives_up() {
        let log = Log::default();
        log.push("INFO  first");
        assert_eq!(log.wait_for("first", Duration::ZERO).as_deref(), Some("INFO  first"));
        let writer = log.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            writer.push("INFO  second");
        });
        assert_eq!(log.wait_for("second", Duration::from_secs(20)).as_deref(), Some("INFO  second"));
        thread.join().unwrap();
        assert_eq!(log.wait_for("third", Duration::from_millis(1)), None);
    }
}
