//! Copies the guest's log to somewhere, on a thread of its own: whoever does not take it in time (a stopped terminal, a full
//! pipe) loses lines and is told so, and holds up nothing.

use super::Failure;
use super::style::counted;
use crate::guest_log::{GuestLog, Line, Source};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How many bytes of the log are copied at once.
const BATCH_BYTES: usize = 64 << 10;
/// How long the last lines may take to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A copy that goes on.
pub(super) struct Copying {
    log: Arc<GuestLog>,
    done: Receiver<()>,
}

/// A piece of the copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'a> {
    /// So many lines were not taken in time.
    Lost(u64),
    /// A line.
    Line(&'a Line),
}

impl std::fmt::Display for Piece<'_> {
    /// As the guest wrote it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost(lines) => {
                write!(f, "[{} of log lost: they were not taken in time]", counted(*lines, "line", "lines"))
            }
            Self::Line(line) => f.write_str(&line.as_written()),
        }
    }
}

/// Copies all lines of the guest.
pub(super) fn copy(
    log: &Arc<GuestLog>,
    mut to: impl FnMut(Piece<'_>) + Send + 'static,
) -> Result<Copying, Failure> {
    let (say_done, done) = channel();
    let from = Arc::clone(log);
    std::thread::Builder::new().name("exovm-log".to_owned()).spawn(move || {
        let mut seq = 0;
        while let Some(batch) = from.wait(seq, BATCH_BYTES) {
            if batch.lost > 0 {
                to(Piece::Lost(batch.lost));
            }
            // The VMM's own have been printed by themselves.
            let of_guest = batch.lines.iter().filter(|line| line.source == Source::Guest);
            of_guest.map(Piece::Line).for_each(&mut to);
            seq = batch.next_seq;
        }
        // Nobody waits any more if it took too long.
        let _ = say_done.send(());
    })?;
    Ok(Copying { log: Arc::clone(log), done })
}

impl Copying {
    /// No more lines will come: waits until the last one is taken, but not forever.
    pub(super) fn finish(self) {
        self.log.close();
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}
