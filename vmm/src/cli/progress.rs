//! A line that shows how far long work is: redrawn on a terminal, now and then a new one otherwise. Nothing for work that is
//! over within a second.

use super::disk_image::human_bytes;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Work that takes longer shows itself.
const AFTER: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(100);
const NEW_LINE: Duration = Duration::from_secs(5);

/// Progress of one piece of work.
pub(super) struct ProgressLine {
    started: Instant,
    printed: Option<Instant>,
    is_terminal: bool,
}

impl ProgressLine {
    pub(super) fn new() -> ProgressLine {
        ProgressLine { started: Instant::now(), printed: None, is_terminal: std::io::stderr().is_terminal() }
    }

    /// How long the work has been going on.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows `what` with how much is done, if it is time to.
    pub(super) fn bytes(&mut self, what: &str, done_bytes: u64, total_bytes: u64) {
        let every = if self.is_terminal { REDRAW } else { NEW_LINE };
        let due = match self.printed {
            None => self.elapsed() >= AFTER,
            Some(printed) => printed.elapsed() >= every,
        };
        if due {
            let percent = (done_bytes.min(total_bytes) * 100).checked_div(total_bytes).unwrap_or(100);
            let rate = done_bytes as f64 / self.elapsed().as_secs_f64() / 1e6;
            let (done, total) = (human_bytes(done_bytes), human_bytes(total_bytes));
            self.print(&format!("{what}: {percent:>3} %  {done} of {total}  {rate:.0} MB/s"));
        }
    }

    /// Shows a stage of which nobody knows how far it is.
    pub(super) fn stage(&mut self, what: &str) {
        if self.elapsed() >= AFTER || self.is_terminal {
            self.print(what);
        }
    }

    fn print(&mut self, text: &str) {
        self.printed = Some(Instant::now());
        let mut stderr = std::io::stderr().lock();
        // Nobody reading it is no reason to stop the work.
        let _ = match self.is_terminal {
            true => write!(stderr, "\r\x1b[K{text}"),
            false => writeln!(stderr, "{text}"),
        };
        let _ = stderr.flush();
    }
}

impl Drop for ProgressLine {
    /// Leaves an empty line on a terminal, for what comes next.
    fn drop(&mut self) {
        if self.is_terminal && self.printed.is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
