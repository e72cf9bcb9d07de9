//! The thread of a debugger: bytes of the remote protocol from its socket, news from the vCPUs, until one of them ends.

use super::hub::Hub;
use super::session::{Reason, Session};
use crate::machine::{AskError, End, Shared};
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStub, GdbStubError};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a debugger may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a machine that was asked to end may take, for its debugger to be told how it did.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that are kept until they are written.
const OUTPUT_BYTES: usize = 16 << 10;
/// Bytes that are read at once.
const PART_BYTES: usize = 4096;

type State = GdbStubStateMachine<'static, Session, Socket>;
type Failure = GdbStubError<AskError, std::io::Error>;

/// The debugger's socket, with what is to be written at once.
pub(super) struct Socket {
    stream: UnixStream,
    output: Vec<u8>,
}

impl Connection for Socket {
    type Error = std::io::Error;

    fn write(&mut self, byte: u8) -> Result<(), Self::Error> {
        self.output.push(byte);
        // However much is asked for, no more than that is kept.
        if self.output.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        let output = std::mem::take(&mut self.output);
        Write::write_all(&mut self.stream, &output)
    }
}

/// Serves one debugger to its end. `first` are bytes that were read from it already.
pub(super) fn serve(hub: &Arc<Hub>, machine: &Arc<Shared>, stream: UnixStream, first: &[u8]) {
    let begun = Session::begin(Arc::clone(hub), Arc::clone(machine));
    let Ok(mut session) = begun.inspect_err(|error| tracing::info!("no debugger is attached: {error}"))
    else {
        return;
    };
    tracing::info!("a debugger is attached");
    let ended = converse(&mut session, stream, first);
    drop(session);
    match ended {
        Ok(()) => tracing::info!("the debugger has gone"),
        Err(error) => tracing::info!("the debugger is let go: {error}"),
    }
}

fn converse(session: &mut Session, stream: UnixStream, first: &[u8]) -> Result<(), Failure> {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_write_timeout(Some(WRITE_PATIENCE));
    let Ok(reader) = stream.try_clone() else { return Ok(()) };
    let mut state = GdbStub::new(Socket { stream, output: Vec::new() }).run_state_machine(session)?;
    state = feed(state, session, first)?;
    loop {
        state = match state {
            GdbStubStateMachine::Disconnected(_) => return Ok(()),
            GdbStubStateMachine::Running(running) => match session.take_ready() {
                Some(reason) => running.report_stop(session, reason)?,
                None => running.into(),
            },
            other => other,
        };
        if session.hub.is_ending() {
            return last_words(state, session);
        }
        let timeout = session.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let (from_debugger, hung_up) = wait(&reader, session, timeout);
        if !session.is_halted() && session.look().is_err() {
            // It has ended: what is said about that comes with the news.
            continue;
        }
        if from_debugger {
            let mut part = [0; PART_BYTES];
            match (&reader).read(&mut part) {
                Ok(0) => return Ok(()),
                Ok(count) => state = feed(state, session, &part[..count])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(()),
            }
        } else if hung_up {
            return Ok(());
        }
    }
}

/// Bytes of the debugger's.
fn feed(mut state: State, session: &mut Session, bytes: &[u8]) -> Result<State, Failure> {
    for &byte in bytes {
        state = match state {
            GdbStubStateMachine::Idle(idle) => idle.incoming_data(session, byte)?,
            GdbStubStateMachine::Running(running) => running.incoming_data(session, byte)?,
            other => return Ok(other),
        };
        if let GdbStubStateMachine::CtrlCInterrupt(interrupt) = state {
            if !session.is_halted() && session.interrupt().is_err() {
                return interrupt.interrupt_handled(session, None::<Reason>);
            }
            let reason = session.take_ready();
            state = interrupt.interrupt_handled(session, reason)?;
        }
    }
    Ok(state)
}

/// The machine ends: the debugger goes first, so that the guest can finish, and is told how that was if it waits for something.
fn last_words(state: State, session: &mut Session) -> Result<(), Failure> {
    let GdbStubStateMachine::Running(running) = state else { return Ok(()) };
    session.end();
    let deadline = Instant::now() + END_PATIENCE;
    let reason = loop {
        match session.machine_end() {
            Some(End::PowerOff { status }) => break Reason::Exited(status as u8),
            Some(End::Fault { .. }) => break Reason::Terminated(Signal::SIGABRT),
            Some(End::Stopped) => break Reason::Terminated(Signal::SIGTERM),
            None if Instant::now() >= deadline => return Ok(()),
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    running.report_stop(session, reason).map(drop)
}

/// Waits for the debugger, or for news. Whether there is something to read, and whether there will be nothing any more.
fn wait(socket: &UnixStream, session: &Session, timeout: Option<Duration>) -> (bool, bool) {
    // SAFETY: the session keeps the descriptor open while it is borrowed.
    let news = unsafe { BorrowedFd::borrow_raw(session.hub.news.as_raw_fd()) };
    let mut polled = [PollFd::new(socket, PollFlags::IN), PollFd::from_borrowed_fd(news, PollFlags::IN)];
    let timeout =
        timeout.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() });
    // Interrupted or not: the next look tells.
    let _ = rustix::event::poll(&mut polled, timeout.as_ref());
    let events = polled[0].revents();
    (events.contains(PollFlags::IN), events.intersects(PollFlags::HUP | PollFlags::ERR))
}
