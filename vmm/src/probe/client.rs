//! The tools' side of a probe: what the machine says, until it is enough.

use super::stream::{Item, ProbeRequest};
use crate::control::protocol::make_harmless;
use crate::control::{Answer, ControlError, Request, Session};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A machine that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A probe that this process has asked for. It goes when this is dropped, or the process ends.
pub struct Client {
    machine: String,
    socket: UnixStream,
    /// What has come and was not looked at.
    bytes: Vec<u8>,
    asked_to_end: bool,
}

/// Why nothing more comes.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection ended without a word.
    #[error("machine {0} has gone without a word")]
    Gone(String),
    /// Nothing comes.
    #[error("machine {0} says nothing any more")]
    Silent(String),
    /// Something else came.
    #[error("machine {0} said something else; are it and this exovm of the same version?")]
    Misunderstood(String),
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// Something from the machine.
    Item(Item),
    /// The time is over, or a signal came; the machine was told so.
    Enough,
}

impl Client {
    /// Asks a machine.
    pub fn open(machine: &str, request: ProbeRequest) -> Result<Self, ControlError> {
        let mut session = Session::open(machine)?;
        match session.ask(&Request::Probe(request))? {
            Answer::Probing => {}
            other => return Err(session.unexpected(&other)),
        }
        let (socket, bytes) = session.into_stream();
        Ok(Self { machine: machine.to_owned(), socket, bytes, asked_to_end: false })
    }

    /// Nothing more is wanted but the last numbers.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.asked_to_end, true) {
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Waits for what comes next: at most until `until`, or until `signal` is readable.
    pub fn next(
        &mut self,
        until: Option<Instant>,
        signal: Option<BorrowedFd<'_>>,
    ) -> Result<Heard, ClientError> {
        let begun = Instant::now();
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                let misunderstood = |_| ClientError::Misunderstood(self.machine.clone());
                let mut value = serde_json::from_slice(&line).map_err(misunderstood)?;
                make_harmless(&mut value);
                return serde_json::from_value(value).map(Heard::Item).map_err(misunderstood);
            }
            let until = until.filter(|_| !self.asked_to_end);
            let over = until.map(|until| until.saturating_duration_since(Instant::now()));
            if over.is_some_and(|over| over.is_zero()) {
                self.end();
                return Ok(Heard::Enough);
            }
            let left = PATIENCE.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(ClientError::Silent(self.machine.clone()));
            }
            let left = over.map_or(left, |over| over.min(left));
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut polled = vec![PollFd::new(&self.socket, PollFlags::IN)];
            polled.extend(
                signal.filter(|_| !self.asked_to_end).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
            );
            let _ = rustix::event::poll(&mut polled, Some(&timeout));
            if polled.get(1).is_some_and(|signal| !signal.revents().is_empty()) {
                self.end();
                return Ok(Heard::Enough);
            }
            if polled[0].revents().is_empty() {
                continue;
            }
            let mut part = [0; 64 << 10];
            match self.socket.read(&mut part) {
                Ok(0) => return Err(ClientError::Gone(self.machine.clone())),
                Ok(count) => self.bytes.extend_from_slice(&part[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(_) => return Err(ClientError::Gone(self.machine.clone())),
            }
        }
    }
}
