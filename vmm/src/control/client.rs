//! The tools' side of the control socket.

use super::directory::{Knock, checked_name, knock, names, socket_path};
use super::protocol::{Answer, Request};
use super::{ControlError, RefusalKind};
use rustix::net::sockopt::socket_peercred;
use std::io::{BufRead, BufReader, Error, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A conversation with a machine.
#[derive(Debug)]
pub struct Session {
    name: String,
    pid: u32,
    stream: BufReader<UnixStream>,
    /// What has come of a line that is not complete.
    line: Vec<u8>,
    patience: Option<Duration>,
}

impl Session {
    /// Connects to the machine of this name.
    pub fn open(name: &str) -> Result<Self, ControlError> {
        let name = checked_name(name)?.to_owned();
        let path = socket_path(&name)?;
        let fail = |error| ControlError::Socket { path: path.clone(), error };
        let stream = match knock(&path)? {
            Knock::Alive(Some(stream)) => stream,
            Knock::Alive(None) => {
                let error = Error::new(ErrorKind::WouldBlock, "too many clients wait for it");
                return Err(ControlError::NoAnswer { name, pid: 0, error });
            }
            Knock::Dead | Knock::Missing | Knock::Foreign => return Err(not_running(&name)),
        };
        // Of the process that listens: the kernel noted it then.
        let pid = socket_peercred(&stream).map_err(|error| fail(error.into()))?.pid.as_raw_pid() as u32;
        stream.set_nonblocking(false).map_err(fail)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(fail)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(fail)?;
        let stream = BufReader::new(stream);
        Ok(Self { name, pid, stream, line: Vec::new(), patience: Some(PATIENCE) })
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process of the machine's VMM.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks for one answer.
    pub fn ask(&mut self, request: &Request) -> Result<Answer, ControlError> {
        self.send(request)?;
        self.next_answer()
    }

    /// Sends a request whose answers [`Self::next_answer`] reads.
    pub fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        match self.stream.get_mut().write_all(&request.to_line()) {
            // It does not listen any more; what it said before it closed is why.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            sent => sent.map_err(|error| self.no_answer(error)),
        }
    }

    /// How long an answer may take from now on; `None`: as long as it wants.
    pub fn set_patience(&mut self, patience: Option<Duration>) -> Result<(), ControlError> {
        let patience = patience.map(|time| time.max(Duration::from_millis(1)));
        self.stream.get_mut().set_read_timeout(patience).map_err(ControlError::Host)?;
        self.patience = patience;
        Ok(())
    }

    /// The next answer. A refusal is an error.
    pub fn next_answer(&mut self) -> Result<Answer, ControlError> {
        match self.stream.read_until(b'\n', &mut self.line) {
            Ok(_) if !self.line.ends_with(b"\n") => {
                return Err(ControlError::Gone { name: self.name.clone() });
            }
            Ok(_) => {}
            Err(error) => return Err(self.no_answer(error)),
        }
        let line = std::mem::take(&mut self.line);
        let misunderstood = |what: String| ControlError::Misunderstood { name: self.name.clone(), what };
        match Answer::parse(&line) {
            Ok(Answer::Refused(refusal)) if refusal.kind == RefusalKind::TooManyClients => {
                let (name, pid) = (self.name.clone(), self.pid);
                Err(ControlError::Busy { name, pid, message: refusal.message })
            }
            Ok(Answer::Refused(refusal)) => match refusal.kind {
                RefusalKind::NoSuchPort
                | RefusalKind::PortTaken
                | RefusalKind::PortNotOpen
                | RefusalKind::Unable => Err(ControlError::Refused { name: self.name.clone(), refusal }),
                _ => Err(misunderstood(refusal.message)),
            },
            Ok(answer) => Ok(answer),
            Err(error) => Err(misunderstood(error.to_string())),
        }
    }

    /// The connection itself, after [`Answer::Attached`], and bytes that came right behind that answer.
    pub fn into_stream(self) -> (UnixStream, Vec<u8>) {
        let behind = self.stream.buffer().to_vec();
        (self.stream.into_inner(), behind)
    }

    fn no_answer(&self, error: Error) -> ControlError {
        let error = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                let seconds = self.patience.unwrap_or_default().as_secs_f64();
                Error::new(ErrorKind::TimedOut, format!("nothing came for {seconds:.0} s"))
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                return ControlError::Gone { name: self.name.clone() };
            }
            _ => error,
        };
        ControlError::NoAnswer { name: self.name.clone(), pid: self.pid, error }
    }

    /// What [`ControlError::Misunderstood`] is for: an answer to something else.
    pub fn unexpected(&self, answer: &Answer) -> ControlError {
        let what = String::from_utf8_lossy(&answer.to_line()).chars().take(100).collect();
        ControlError::Misunderstood { name: self.name.clone(), what }
    }
}

/// The machine that is meant: `None` means the only one that runs.
pub fn resolve(name: Option<&str>) -> Result<String, ControlError> {
    if let Some(name) = name {
        return checked_name(name).map(str::to_owned);
    }
    // What killed ones left is for `ps` to find and to say.
    let mut names = names()?;
    match (names.pop(), names.is_empty()) {
        (Some(name), true) => Ok(name),
        (None, _) => Err(ControlError::NoneRuns),
        (Some(last), false) => {
            names.push(last);
            Err(ControlError::WhichOne { names })
        }
    }
}

fn not_running(name: &str) -> ControlError {
    let names = names().unwrap_or_default();
    ControlError::NotRunning { name: name.to_owned(), others: others(name, &names) }
}

/// What runs instead, and which of it may have been meant.
fn others(name: &str, running: &[String]) -> String {
    match running {
        [] => "; nothing is running".to_owned(),
        running => {
            let question = crate::closest::question(name, running.iter().map(String::as_str));
            format!("; running: {}{question}", running.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_name_the_one_that_was_meant() {
        let running = ["cheetah".to_owned(), "hello".to_owned()];
        assert_eq!(others("chetah", &running), "; running: cheetah, hello; did you mean cheetah?");
        assert_eq!(others("hello-2", &running), "; running: cheetah, hello; did you mean hello?");
        assert_eq!(others("xyz", &running), "; running: cheetah, hello");
        assert_eq!(others("xyz", &[]), "; nothing is running");
    }
}
