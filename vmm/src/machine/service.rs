//! The machine's housekeeping thread: drains the log ring, keeps the time page true. An event loop on timers, so that an
//! idle machine costs next to nothing.

use super::{MachineError, Shared, spawn};
use crate::account::ledger::now_tsc;
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
    spawn("exovm-service", move || {
        let housekeeping =
            Housekeeping { shared: Arc::clone(&shared), timer, drain: Drain::new(log), periods: 0 };
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
    drain: Drain,
    periods: u32,
}

impl MutEventSubscriber for Housekeeping {
    fn process(&mut self, events: Events, _: &mut EventOps) {
        if events.fd() == self.timer.as_raw_fd() {
            let _ = self.timer.wait();
            self.periods += 1;
            if self.periods.is_multiple_of(TIME_PERIODS) {
                refresh_time(&self.shared.pages.time, self.shared.tsc_khz);
            }
        }
        self.drain.run(&self.shared.pages.log);
        if self.shared.has_ended() {
            self.drain.flush();
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
    sink: LogSink,
}

impl Drain {
    fn new(sink: LogSink) -> Self {
        Self { read: 0, line: Vec::new(), sink }
    }

    fn run(&mut self, ring: &LogRing) {
        let written = ring.written.load(Ordering::Acquire);
        let behind = written.wrapping_sub(self.read);
        if behind > LOG_BYTES as u64 {
            self.flush();
            (self.sink)(&format!("[{} bytes of log lost]", behind - LOG_BYTES as u64));
            self.read = written.wrapping_sub(LOG_BYTES as u64);
        }
        while self.read != written {
            let byte = ring.text[(self.read % LOG_BYTES as u64) as usize].load(Ordering::Relaxed);
            self.read = self.read.wrapping_add(1);
            if byte == b'\n' || self.line.len() >= LINE_BYTES {
                self.flush();
            }
            if byte != b'\n' {
                self.line.push(byte);
            }
        }
    }

    fn flush(&mut self) {
        if !self.line.is_empty() {
            // A guest must not be able to play with the terminal of whoever reads this.
            let text: String = String::from_utf8_lossy(&self.line)
                .chars()
                .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
                .collect();
            (self.sink)(&text);
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

    fn drain() -> (Drain, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        (Drain::new(Box::new(move |line| sink.lock().expect("lock").push(line.to_owned()))), lines)
    }

    #[test]
    fn lines_come_whole_and_control_characters_do_not() {
        let (ring, (mut drain, lines)) = (ring(), drain());
        write(&ring, b"one\ntw");
        drain.run(&ring);
        write(&ring, b"o\n\x1b[31mred\n");
        drain.run(&ring);
        assert_eq!(*lines.lock().expect("lock"), ["one", "two", "\u{FFFD}[31mred"]);
    }

    #[test]
    fn overrun_is_said_and_the_rest_is_read() {
        let (ring, (mut drain, lines)) = (ring(), drain());
        write(&ring, &vec![b'x'; LOG_BYTES + 100]);
        write(&ring, b"\nlast\n");
        drain.run(&ring);
        let lines = lines.lock().expect("lock");
        assert!(lines[0].contains("106 bytes of log lost"), "{}", lines[0]);
        assert_eq!(lines.last().map(String::as_str), Some("last"));
    }

    #[test]
    fn nonsense_index_does_not_hang() {
        let (ring, (mut drain, lines)) = (ring(), drain());
        ring.written.store(u64::MAX, Ordering::Release);
        drain.run(&ring);
        ring.written.store(5, Ordering::Release);
        drain.run(&ring);
        assert!(lines.lock().expect("lock").iter().any(|line| line.contains("lost")));
    }
}
