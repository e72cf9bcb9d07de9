//! The environments' log rings, as lines for whoever wants them. Drained now and then by the housekeeping thread, and by the
//! vCPU's before a ring is cleared for the next environment.

use super::boot::pages::SharedPages;
use crate::guest_log::Level;
use crate::tables::shared::Shared;
use abi::log::{LOG_BYTES, LogRing};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes complete lines of the guest's log, without their line ends.
pub type LogSink = Box<dyn FnMut(&str) + Send>;

/// A line longer than this is cut into several.
const LINE_BYTES: usize = 4096;

/// The rings of a machine and where their lines go.
pub(crate) struct Logs(Mutex<Inner>);

struct Inner {
    /// By place.
    rings: Vec<(Shared<LogRing>, Drain)>,
    sink: LogSink,
}

impl Logs {
    /// Those of the environments in these places. Where there can be several, each line says whose it is.
    pub(crate) fn new(pages: &[SharedPages], sink: LogSink) -> Self {
        let several = pages.len() > 1;
        let ring =
            |(place, pages): (usize, &SharedPages)| (pages.log.clone(), Drain::new(several.then_some(place)));
        Self(Mutex::new(Inner { rings: pages.iter().enumerate().map(ring).collect(), sink }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lines that are complete.
    pub(crate) fn drain(&self) {
        let Inner { rings, sink } = &mut *self.lock();
        rings.iter_mut().for_each(|(ring, drain)| drain.run(ring, sink));
    }

    /// Takes what is not complete: there will be no more.
    pub(crate) fn flush(&self) {
        let Inner { rings, sink } = &mut *self.lock();
        rings.iter_mut().for_each(|(_, drain)| drain.flush(sink));
    }

    /// An environment has ended by a fault: what it logged before, then the report, an error of several lines.
    pub(crate) fn report(&self, environment: u32, report: &str) {
        let Inner { rings, sink } = &mut *self.lock();
        if let Some((ring, drain)) = rings.get_mut(environment as usize) {
            drain.run(ring, sink);
            drain.flush(sink);
        }
        for (number, line) in report.trim_end().lines().enumerate() {
            let level = if number == 0 { "ERROR " } else { "" };
            sink(&format!("{level}{}{line}", prefix(environment as usize)));
        }
    }
}

/// What a line says first of whose it is.
fn prefix(environment: usize) -> String {
    format!("[{environment}] ")
}

/// Turns the bytes of the log ring into lines. The guest may write anything, at any speed: what was overwritten before
/// it was read is said to be lost.
struct Drain {
    read: u64,
    line: Vec<u8>,
    /// Said of each line.
    prefix: String,
}

impl Drain {
    /// `environment`: whose lines these are, if they are to say so.
    fn new(environment: Option<usize>) -> Self {
        Self { read: 0, line: Vec::new(), prefix: environment.map_or(String::new(), prefix) }
    }

    fn run(&mut self, ring: &LogRing, sink: &mut LogSink) {
        let written = ring.written.load(Ordering::Acquire);
        if written < self.read {
            // Another environment began in this place, with an empty ring.
            self.flush(sink);
            self.read = 0;
        }
        let behind = written.wrapping_sub(self.read);
        if behind > LOG_BYTES as u64 {
            self.flush(sink);
            sink(&format!("{}[{} bytes of log lost]", self.prefix, behind - LOG_BYTES as u64));
            self.read = written.wrapping_sub(LOG_BYTES as u64);
        }
        while self.read != written {
            let byte = ring.text[(self.read % LOG_BYTES as u64) as usize].load(Ordering::Relaxed);
            self.read = self.read.wrapping_add(1);
            if byte == b'\n' || self.line.len() >= LINE_BYTES {
                self.flush(sink);
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn flush(&mut self, sink: &mut LogSink) {
        if !self.line.is_empty() {
            // A guest must not be able to play with the terminal of whoever reads this.
            let text = crate::text::harmless(&String::from_utf8_lossy(&self.line));
            // The level stays first: by it a line is filtered.
            let (_, rest) = Level::split(&text);
            let level = &text[..text.len() - rest.len()];
            sink(&format!("{level}{}{rest}", self.prefix));
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn ring() -> Box<LogRing> {
        // Atomics of zero, built in place: the ring is too large for the stack of a test in a debug build.
        let text: Vec<_> = (0..LOG_BYTES).map(|_| std::sync::atomic::AtomicU8::new(0)).collect();
        let text: Box<[_; LOG_BYTES]> = text.into_boxed_slice().try_into().expect("the length is right");
        Box::new(LogRing { written: 0.into(), padding: Default::default(), text: *text })
    }

    fn write(ring: &LogRing, bytes: &[u8]) {
        for &byte in bytes {
            let at = ring.written.load(Ordering::Relaxed);
            ring.text[(at % LOG_BYTES as u64) as usize].store(byte, Ordering::Relaxed);
            ring.written.store(at + 1, Ordering::Release);
        }
    }

    fn sink() -> (LogSink, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        (Box::new(move |line| sink.lock().expect("lock").push(line.to_owned())), lines)
    }

    #[test]
    fn lines_come_whole_and_control_characters_do_not() {
        let (ring, mut drain, (mut sink, lines)) = (ring(), Drain::new(None), sink());
        write(&ring, b"one\ntw");
        drain.run(&ring, &mut sink);
        write(&ring, b"o\n\x1b[31mred\n");
        drain.run(&ring, &mut sink);
        assert_eq!(*lines.lock().expect("lock"), ["one", "two", "\u{FFFD}[31mred"]);
    }

    #[test]
    fn overrun_is_said_and_the_rest_is_read() {
        let (ring, mut drain, (mut sink, lines)) = (ring(), Drain::new(None), sink());
        write(&ring, &vec![b'x'; LOG_BYTES + 100]);
        write(&ring, b"\nlast\n");
        drain.run(&ring, &mut sink);
        let lines = lines.lock().expect("lock");
        assert!(lines[0].contains("106 bytes of log lost"), "{}", lines[0]);
        assert_eq!(lines.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn nonsense_index_does_not_hang() {
        let (ring, mut drain, (mut sink, lines)) = (ring(), Drain::new(None), sink());
        ring.written.store(u64::MAX, Ordering::Release);
        drain.run(&ring, &mut sink);
        ring.written.store(5, Ordering::Release);
        drain.run(&ring, &mut sink);
        assert!(lines.lock().expect("lock").iter().any(|line| line.contains("lost")));
    }

    #[test]
    fn line_of_one_of_several_says_whose_it_is_after_its_level() {
        let (ring, mut drain, (mut sink, lines)) = (ring(), Drain::new(Some(3)), sink());
        write(&ring, b"hello\nWARN  odd\nINFORMAL\n");
        drain.run(&ring, &mut sink);
        assert_eq!(*lines.lock().expect("lock"), ["[3] hello", "WARN  [3] odd", "[3] INFORMAL"]);
    }

    #[test]
    fn ring_that_begins_anew_is_read_from_its_start() {
        let (ring, mut drain, (mut sink, lines)) = (ring(), Drain::new(None), sink());
        write(&ring, b"of the first\nunfinished");
        drain.run(&ring, &mut sink);
        ring.written.store(0, Ordering::Release);
        write(&ring, b"of the next\n");
        drain.run(&ring, &mut sink);
        assert_eq!(*lines.lock().expect("lock"), ["of the first", "unfinished", "of the next"]);
    }
}
