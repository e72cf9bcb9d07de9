//! The tools' side of a probe: what the machine says, until it is enough.

use super::stream::{Item, ProbeRequest};
use crate::control::{Answer, ControlError, Lines, LinesError, Request, Session};
use crate::text::make_harmless;
use rustix::fd::BorrowedFd;
use std::time::Instant;

/// A probe that this process has asked for. It goes when this is dropped, or the process ends.
pub struct Client {
    machine: String,
    lines: Lines,
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
        Ok(Self { machine: machine.to_owned(), lines: Lines::new(socket, bytes) })
    }

    /// Nothing more is wanted but the last numbers.
    pub fn end(&mut self) {
        self.lines.end();
    }

    /// Waits for what comes next: at most until `until`, or until `signal` is readable.
    pub fn next(
        &mut self,
        until: Option<Instant>,
        signal: Option<BorrowedFd<'_>>,
    ) -> Result<Heard, ClientError> {
        let machine = || self.machine.clone();
        let line = match self.lines.next(until, signal) {
            Ok(crate::control::Heard::Line(line)) => line,
            Ok(crate::control::Heard::Enough) => return Ok(Heard::Enough),
            Err(LinesError::Gone) => return Err(ClientError::Gone(machine())),
            Err(LinesError::Silent) => return Err(ClientError::Silent(machine())),
        };
        let misunderstood = |_| ClientError::Misunderstood(machine());
        let mut value = serde_json::from_slice(line).map_err(misunderstood)?;
        make_harmless(&mut value);
        serde_json::from_value(value).map(Heard::Item).map_err(misunderstood)
    }
}
