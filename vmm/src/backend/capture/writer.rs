//! The thread that writes, and the buffer before it.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that wait to be written.
const BUFFER_BYTES: usize = 4 << 20;
/// How long the end of a capture waits for a reader that takes nothing.
const GRACE: Duration = Duration::from_secs(1);

/// What happens when the buffer is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The machine waits.
    Wait,
    /// The frame is left out.
    LeaveOut,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    /// Nothing comes any more.
    ended: bool,
    /// Nothing is written any more.
    over: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// The machine's side.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    full: Full,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins with these bytes.
    pub(super) fn start(file: File, path: PathBuf, full: Full, beginning: Vec<u8>) -> io::Result<Self> {
        let state = State { bytes: beginning, ended: false, over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("exovm-pcap".into()).spawn(move || run(&shared, file, &path))?
        };
        Ok(Self { shared, full, thread: Some(thread) })
    }

    /// Has a block written, whole. `false`: it is left out.
    pub(super) fn write(&self, block: &[u8]) -> bool {
        let mut state = self.shared.lock();
        while !state.over && state.bytes.len() + block.len() > BUFFER_BYTES {
            if self.full == Full::LeaveOut {
                return false;
            }
            state = self.shared.wait(state);
        }
        if state.over {
            return false;
        }
        let was_empty = state.bytes.is_empty();
        state.bytes.extend_from_slice(block);
        drop(state);
        if was_empty {
            self.shared.changed.notify_all();
        }
        true
    }
}

impl Drop for Writer {
    /// Everything is written when this returns, unless nobody reads it.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        self.shared.changed.notify_all();
        if self.full == Full::LeaveOut {
            let waited = self.shared.changed.wait_timeout_while(state, GRACE, |state| !state.over);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !state.over {
                // The thread hangs in a write to a pipe that nobody reads; it ends with the pipe or with the process.
                return;
            }
        }
        drop(state);
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, the capture is all that suffers.
            let _ = thread.join();
        }
    }
}

/// The thread's life.
fn run(shared: &Shared, mut file: File, path: &Path) {
    let mut bytes = Vec::with_capacity(BUFFER_BYTES / 4);
    loop {
        let mut state = shared.lock();
        while state.bytes.is_empty() && !state.ended {
            state = shared.wait(state);
        }
        bytes.clear();
        mem::swap(&mut state.bytes, &mut bytes);
        let failed = if bytes.is_empty() {
            None
        } else {
            drop(state);
            shared.changed.notify_all();
            let failed = file.write_all(&bytes).err();
            state = shared.lock();
            failed
        };
        if let Some(error) = &failed {
            tracing::warn!(
                "the capture {} ends here: {error}; the machine goes on without it",
                path.display()
            );
        }
        if failed.is_some() || (state.ended && state.bytes.is_empty()) {
            state.over = true;
            state.bytes = Vec::new();
            drop(state);
            shared.changed.notify_all();
            return;
        }
    }
}
