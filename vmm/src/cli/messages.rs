//! The VMM's own tracing: to standard error or the log file of a detached machine, and into the machine's log, where
//! `exovm logs` finds it beside what the guest says.

use super::{detach, log_file, style};
use crate::guest_log::{GuestLog, Level};
use crate::trace::own::{OwnSpans, WhileListenedTo};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The log of this process's machine.
static LOG: OnceLock<Arc<GuestLog>> = OnceLock::new();

/// Begins. `EXOVM_LOG` chooses what is said; warnings and errors by default.
pub(super) fn init() {
    let filter = || EnvFilter::try_from_env("EXOVM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // A detached machine's messages end in a file.
    let ansi = style::colours(&io::stderr()) && !detach::is_child();
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(ansi)
        .with_target(false)
        // The layer would complain on standard error about what it cannot write there, and panic.
        .log_internal_errors(false)
        .with_writer(|| Output);
    tracing_subscriber::registry()
        .with(text.with_filter(filter()))
        .with(IntoLog.with_filter(filter()))
        .with(OwnSpans.with_filter(WhileListenedTo))
        .init();
}

/// From now on messages go into this log as well.
pub(super) fn also_into(log: &Arc<GuestLog>) {
    LOG.get_or_init(|| Arc::clone(log));
}

/// Standard error, or the log file of a detached machine.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match log_file::installed() {
            Some(file) => file.append(&String::from_utf8_lossy(bytes)).map(|()| bytes.len()),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes events into the machine's log.
struct IntoLog;

impl<S: tracing::Subscriber> Layer<S> for IntoLog {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let Some(log) = LOG.get() else { return };
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        log.push_of_vmm(level, text.message + &text.fields);
    }
}

/// An event as text: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
