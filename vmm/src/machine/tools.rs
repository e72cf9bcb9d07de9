//! Threads that serve tools which look at the machine. Each ends soon after the machine has; whoever ends the machine waits for
//! that, so that the tools get the last of what they asked for.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// The threads of one machine.
#[derive(Debug, Default)]
pub(crate) struct Tools(Mutex<Vec<JoinHandle<()>>>);

impl Tools {
    /// Has a thread do `body`. It is dropped if there can be none.
    pub(crate) fn start(&self, name: &str, body: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
        let mut threads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        match thread {
            Ok(thread) => threads.push(thread),
            Err(error) => tracing::error!("a tool cannot be served: no thread: {error}"),
        }
    }

    /// Waits until all have ended.
    pub(super) fn end(&self) {
        let threads = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that served a tool panicked");
            }
        }
    }
}
