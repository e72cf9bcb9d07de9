//! The machine's housekeeping thread: drains the log ring, keeps the time page true. An event loop on timers, so that an
//! idle machine costs next to nothing.

use super::{MachineError, Shared, spawn};
use crate::account::ledger::now_tsc;
use crate::guest_log::Level;
use abi::log::{LOG_BYTES, LogRing};
use abi::time::TimePage;
use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use vmm_sys_util::timerfd::TimerFd;

/// Takes complete lines of the guest's log, without their line ends.
pub type LogSink = Box<dyn FnMut(&str) + Send>;

/// How often the log is drained.
const LOG_PERIOD: Duration = Duration::from_millis(50);
/// Every how many log periods the time page is set again.
const TIME_PERIODS: u32 = 20;
/// A line longer than this is cut into several.
const LINE_BYTES: usize = 4096;

/// Starts the thread; it ends with the machine.
pub(super) fn start(shared: Arc<Shared>, log: LogSink) -> Result<JoinHandle<()>, MachineError> {
    let mut timer = TimerFd::new().map_err(|error| MachineError::host("timer")(error.into()))?;
    timer.reset(LOG_PERIOD, Some(LOG_PERIOD)).map_err(|error| MachineError::host("timer")(error.into()))?;
    // Where there can be several, each line says whose it is.
    let prefixed = shared.pages.len() > 1;
    let drains = (0..shared.pages.len()).map(|place| Drain::new(prefixed.then_some(place))).collect();
    spawn("exovm-service", move || {
        let housekeeping = Housekeeping { shared: Arc::clone(&shared), timer, drains, log, periods: 0 };
        let mut manager = match EventManager::new() {
            Ok(manager) => manager,
            Err(error) => return tracing::error!("no event loop for the machine: {error}"),
        };
        manager.add_subscriber(housekeeping);
        loop {
            // Once more after the end, so that the last words of the guest are read.
            let ended = shared.has_ended();
            if let Err(error) = manager.run() {
                return tracing::error!("the machine's event loop ended: {error}");
            }
            if ended {
                return;
            }
        }
    })
}

struct Housekeeping {
    shared: Arc<Shared>,
    timer: TimerFd,
    /// By place.
    drains: Vec<Drain>,
    log: LogSink,
    periods: u32,
}

impl MutEventSubscriber for Housekeeping {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        if events.fd() == self.timer.as_raw_fd() {
            let _ = self.timer.wait();
            self.periods += 1;
            if self.periods.is_multiple_of(TIME_PERIODS) {
                refresh_time(&self.shared.pages[0].time, self.shared.tsc_khz);
            }
        }
        // Taken first: what an environment logged before its fault stands before the report.
        let (reports, dropped) = self.shared.reports.take();
        for (drain, pages) in self.drains.iter_mut().zip(&self.shared.pages) {
            drain.run(&pages.log, &mut self.log);
        }
        for (environment, report) in reports {
            self.report(environment as usize, &report);
        }
        if dropped > 0 {
            (self.log)(&format!("ERROR {dropped} more environments ended by a fault"));
        }
        if self.shared.has_ended() {
            for drain in &mut self.drains {
                drain.flush(&mut self.log);
            }
        }
    }

    fn init(&mut self, ops: &mut EventOps) {
        let timer = ops.add(Events::new(&self.timer, EventSet::IN));
        let end = ops.add(Events::new(&self.shared.end_event, EventSet::IN));
        if let Err(error) = timer.and(end) {
            tracing::error!("the machine's event loop cannot watch its timer: {error}");
        }
    }
}

impl Housekeeping {
    /// An environment has ended by a fault.
    fn report(&mut self, environment: usize, report: &str) {
        if let Some(drain) = self.drains.get_mut(environment) {
            drain.flush(&mut self.log);
        }
        let prefix = prefix(environment);
        for (number, line) in report.trim_end().lines().enumerate() {
            let level = if number == 0 { "ERROR " } else { "" };
            (self.log)(&format!("{level}{prefix}{line}"));
        }
    }
}

/// What a line says first of whose it is.
fn prefix(environment: usize) -> String {
    format!("[{environment}] ")
}

/// Maps the TSC to the host's UTC, from now.
pub(super) fn refresh_time(page: &TimePage, tsc_khz: u64) {
    let before = now_tsc();
    let utc = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tsc = before + (now_tsc() - before) / 2;
    let scale = (1_000_000u128 << 32) / u128::from(tsc_khz.max(1));
    page.set(tsc, utc.as_nanos() as u64, scale as u64);
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
            let text: String = String::from_utf8_lossy(&self.line)
                .chars()
                .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
                .collect();
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
    use std::sync::Mutex;

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
