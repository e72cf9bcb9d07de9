//! `exovm console`: the bytes of the guest's console, both ways, between it and this terminal or pipe.

use super::Failure;
use super::supervise::Signals;
use crate::channel::AttachRequest;
use crate::control::{Answer, ControlError, RefusalKind, Request, Session, resolve};
use rustix::event::{PollFd, PollFlags};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize,
    tcsetattr,
};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The key that detaches: Ctrl-].
const DETACH: u8 = 0x1D;
/// How long a guest that is just starting may take to open its console.
const OPENING: Duration = Duration::from_secs(2);
/// Bytes that are moved at once.
const PART_BYTES: usize = 16 << 10;

/// Arguments of `console`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
On a terminal, every key goes to the guest, Ctrl-C included (cheetah's console
throws the line away); Ctrl-] detaches, and the machine goes on. What the guest
wrote lately is shown first.

With input from a pipe or file, all of it is sent; the answer is over when the
guest has taken it and wrote nothing for the time of --linger. What no client
has read yet is printed first. Ctrl-C then ends this command, not the machine.

One client at a time. What a guest writes while none is attached is kept, up to
64 KiB; the oldest of more is dropped (and counted by `exovm account`). While a
client is attached nothing is dropped: a guest that writes faster than it reads
has to wait.

Examples:
  exovm console cheetah
  echo help | exovm console cheetah
  exovm console probe < input > output

Exit codes
  0 detached, or the input, the guest's console or the machine has ended;
  1 there is no such machine or console, or another client is attached")]
pub(super) struct ConsoleArguments {
    /// Name of the machine; not needed if only one runs.
    machine: Option<String>,
    /// With input that ends: how many milliseconds of silence end the answer.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    linger: u64,
}

pub(super) fn console(arguments: &ConsoleArguments) -> Result<ExitCode, Failure> {
    let name = resolve(arguments.machine.as_deref())?;
    let terminal = Terminal::of_stdin();
    let size = terminal.as_ref().map(|_| size());
    let request = AttachRequest {
        port: "console".to_owned(),
        terminal: size,
        recent: size.is_some(),
        linger_ms: arguments.linger,
    };
    let (socket, first) = attach(&name, request)?;
    match terminal {
        Some(terminal) => {
            complain!("[console of {name}; Ctrl-] detaches]");
            // In raw mode until the end of this block, whatever ends it.
            let end = {
                let signals = Signals::block()?;
                let _raw = terminal.raw()?;
                converse(&socket, &first, Some(&signals))?
            };
            let how = match end {
                End::Detached => "detached",
                End::Signal => "ended by a signal",
                End::Closed => "the guest's console or its machine has ended",
            };
            complain!("\n[{how}]");
        }
        None => {
            converse(&socket, &first, None)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Attaches to the console; waits a little for a guest that is just starting.
fn attach(name: &str, request: AttachRequest) -> Result<(UnixStream, Vec<u8>), Failure> {
    let deadline = Instant::now() + OPENING;
    let mut session = Session::open(name)?;
    loop {
        match session.ask(&Request::Attach(request.clone())) {
            Ok(Answer::Attached) => break,
            Ok(other) => return Err(session.unexpected(&other).into()),
            Err(ControlError::Refused { refusal, .. })
                if refusal.kind == RefusalKind::PortNotOpen && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(ControlError::Refused { refusal, .. }) if refusal.kind == RefusalKind::PortNotOpen => {
                return Err(format!(
                    "machine {name} has no console: its image does not open one; `exovm logs {name}` prints its log"
                )
                .into());
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(session.into_stream())
}

/// How the conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By the key.
    Detached,
    /// By a signal.
    Signal,
    /// By the machine.
    Closed,
}

/// Moves bytes until one side ends it. Output is waited for: a reader that is slow holds the guest back. `signals`: the input
/// is a person's keys, of which one detaches; else it is bytes up to their end.
fn converse(socket: &UnixStream, first: &[u8], signals: Option<&Signals>) -> Result<End, Failure> {
    socket.set_nonblocking(true)?;
    let mut out = std::io::stdout().lock();
    out.write_all(first)?;
    out.flush()?;
    // Bytes of the input that the machine had no room for yet.
    let mut waiting: Vec<u8> = Vec::new();
    let mut input_open = true;
    loop {
        let mut on_socket = PollFlags::IN;
        if !waiting.is_empty() {
            on_socket |= PollFlags::OUT;
        }
        let in_fd = stdin();
        // What is not waited for must not be in the list: it could be hung up, and end each wait at once.
        let wants_input = input_open && waiting.is_empty();
        let watched = |fd, wanted: bool| match wanted {
            true => PollFd::from_borrowed_fd(fd, PollFlags::IN),
            false => PollFd::new(socket, PollFlags::empty()),
        };
        let mut polled = [
            PollFd::new(socket, on_socket),
            watched(in_fd, wants_input),
            watched(signals.map_or(in_fd, Signals::fd), signals.is_some()),
        ];
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for the machine: {error}").into()),
        }
        if signals.is_some() && !polled[2].revents().is_empty() {
            return Ok(End::Signal);
        }
        // A pipe whose writer has gone is hung up: that is how its end is read.
        let typed = wants_input && !polled[1].revents().is_empty();
        let mut part = [0; PART_BYTES];
        match (&*socket).read(&mut part) {
            Ok(0) => return Ok(End::Closed),
            Ok(count) => {
                match out.write_all(&part[..count]).and_then(|()| out.flush()) {
                    Ok(()) => {}
                    // Nobody reads any more: nothing is left to do.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(End::Closed),
                    Err(error) => return Err(format!("standard output: {error}").into()),
                }
            }
            Err(error) if is_temporary(&error) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(End::Closed),
            Err(error) => return Err(format!("the machine: {error}").into()),
        }
        if typed {
            let count = rustix::io::retry_on_intr(|| rustix::io::read(in_fd, &mut part[..]))
                .map_err(|error| format!("standard input: {error}"))?;
            let bytes = &part[..count];
            if signals.is_some()
                && let Some(at) = bytes.iter().position(|&byte| byte == DETACH)
            {
                let _ = (&*socket).write(&bytes[..at]);
                return Ok(End::Detached);
            }
            if count == 0 {
                input_open = false;
                if signals.is_some() {
                    // The terminal has gone.
                    return Ok(End::Detached);
                }
            }
            waiting.extend_from_slice(bytes);
        }
        if !waiting.is_empty() {
            match (&*socket).write(&waiting) {
                Ok(count) => {
                    waiting.drain(..count);
                }
                Err(error) if is_temporary(&error) => {}
                // What it has said before it went is still to be read.
                Err(_) => waiting.clear(),
            }
        }
        if !input_open && waiting.is_empty() {
            // Said all; a machine that has gone already is noticed by reading.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}

fn is_temporary(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Columns and rows of the terminal; 80 and 24 if it does not say.
fn size() -> (u16, u16) {
    match tcgetwinsize(stdin()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col, size.ws_row),
        _ => (80, 24),
    }
}

/// The terminal on standard input, as it was.
struct Terminal {
    before: Termios,
}

impl Terminal {
    /// `None`: standard input is none, or the output is not for a person to see.
    fn of_stdin() -> Option<Self> {
        if !isatty(stdin()) || !isatty(stdout()) {
            return None;
        }
        Some(Self { before: tcgetattr(stdin()).ok()? })
    }

    /// Every key at once, none echoed and none taken as a signal; line ends of the output are still translated.
    fn raw(self) -> Result<Raw, Failure> {
        let mut raw = self.before.clone();
        raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        raw.input_modes -= InputModes::ICRNL | InputModes::INLCR | InputModes::IGNCR | InputModes::IXON;
        raw.special_codes[SpecialCodeIndex::VMIN] = 1;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(|error| format!("terminal: {error}"))?;
        Ok(Raw { before: self.before })
    }
}

/// A terminal in raw mode. Dropping it sets it back.
struct Raw {
    before: Termios,
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.before);
    }
}
