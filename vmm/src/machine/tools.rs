//! Threads that serve tools which look at the machine. Each ends soon after the machine has; whoever ends the machine waits for
//! that, so that the tools get the last of what they asked for.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long all that is left may take once the machine has ended.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The threads of one machine.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// When the machine was first seen to have ended.
    ended: OnceLock<Instant>,
}

impl Tools {
    /// Has a thread do `body`. It is dropped if there can be none.
    pub(crate) fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::error!("a tool cannot be served: no thread: {error}"),
        }
    }

    /// Whether it is too late to go on.
    pub(super) fn is_late(&self, has_ended: bool) -> bool {
        has_ended && self.ended.get_or_init(Instant::now).elapsed() > LAST_WORDS
    }

    /// Waits until all have ended.
    pub(super) fn end(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that served a tool panicked");
            }
        }
    }
}
