//! The `log` crate over the log ring: text goes to the VMM without an exit.

use abi::layout::LOG_VA;
use abi::log::{LOG_BYTES, LogRing};
use core::fmt::Write;
use core::sync::atomic::Ordering;

struct Ring;

impl log::Log for Ring {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            print_line(format_args!("{:<5} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

fn ring() -> &'static LogRing {
    // SAFETY: mapped for the environment's whole life; the VMM reads it, so all fields are atomics.
    unsafe { &*(LOG_VA as *const LogRing) }
}

/// Writes a line as it is. [`crate::say`] is for calling it.
pub fn print_line(text: core::fmt::Arguments<'_>) {
    let ring = ring();
    let mut line = Line { ring, at: ring.written.load(Ordering::Relaxed) };
    // Cannot fail: the ring takes everything.
    let _ = writeln!(line, "{text}");
    ring.written.store(line.at, Ordering::Release);
}

struct Line {
    ring: &'static LogRing,
    at: u64,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            self.ring.text[(self.at % LOG_BYTES as u64) as usize].store(byte, Ordering::Relaxed);
            self.at += 1;
        }
        Ok(())
    }
}

/// Makes `log` write to the ring.
pub(crate) fn init() {
    static LOGGER: Ring = Ring;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
