//! The terminal: taken, drawn to, read from, and given back as it was, whether this ends by a key, a signal, an error or a panic.

use super::Failure;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::{DefaultTerminal, Frame};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Somebody wants this process to end. A handler can reach nothing but a static.
static END: AtomicBool = AtomicBool::new(false);

/// What came from the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A key.
    Key(KeyEvent),
    /// It has another size now.
    Resized,
    /// A signal to end.
    End,
    /// Nothing in time.
    Nothing,
}

/// The terminal while it is ours.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    /// Takes it. Panics restore it before they print.
    pub(super) fn take() -> Result<Self, Failure> {
        extern "C" fn end(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            END.store(true, Ordering::Relaxed);
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            vmm_sys_util::signal::register_signal_handler(signal, end)
                .map_err(|error| format!("signal {signal}: {error}"))?;
        }
        let terminal =
            ratatui::try_init().map_err(|error| format!("the terminal cannot be taken: {error}"))?;
        Ok(Self { terminal })
    }

    /// Draws a frame; only what differs from the last one is written.
    pub(super) fn draw(&mut self, frame: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        self.terminal.draw(frame).map_err(|error| format!("the terminal cannot be drawn to: {error}"))?;
        Ok(())
    }

    /// What comes within a time.
    pub(super) fn input(&self, within: Duration) -> Result<Input, Failure> {
        let ready = event::poll(within);
        if END.load(Ordering::Relaxed) {
            return Ok(Input::End);
        }
        match ready {
            Ok(false) => Ok(Input::Nothing),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Input::Nothing),
            Err(error) => Err(format!("the terminal cannot be read: {error}").into()),
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Ok(Input::Key(key)),
                Ok(Event::Resize(..)) => Ok(Input::Resized),
                Ok(_) => Ok(Input::Nothing),
                Err(error) => Err(format!("the terminal cannot be read: {error}").into()),
            },
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}
