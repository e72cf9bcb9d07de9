//! A machine's lines to a tool that has taken its connection over: until they end, the tool has enough, or a signal comes.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// A machine that says nothing for so long, or nothing of an end so long after it was asked to, hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const PART_BYTES: usize = 64 << 10;

/// The lines of one connection.
pub struct Lines {
    socket: UnixStream,
    /// What has come, of which the first `taken` bytes were looked at, and up to `searched` there is no end of a line.
    bytes: Vec<u8>,
    taken: usize,
    searched: usize,
    heard: Instant,
    asked_to_end: Option<Instant>,
}

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A line, without its end.
    Line(&'a [u8]),
    /// The time is over, or a signal came. The machine was told so, and has its last words.
    Enough,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinesError {
    /// The connection ended without a word.
    Gone,
    /// Nothing comes any more.
    Silent,
}

impl Lines {
    /// Of a connection from which some bytes were read.
    pub fn new(socket: UnixStream, bytes: Vec<u8>) -> Self {
        Self { socket, bytes, taken: 0, searched: 0, heard: Instant::now(), asked_to_end: None }
    }

    /// Nothing more is wanted but the last words.
    pub fn end(&mut self) {
        if self.asked_to_end.is_none() {
            self.asked_to_end = Some(Instant::now());
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    /// Waits for what comes next: at most until `until`, or until `signal` is readable. Both end it once.
    pub fn next(
        &mut self,
        until: Option<Instant>,
        signal: Option<BorrowedFd<'_>>,
    ) -> Result<Heard<'_>, LinesError> {
        let (until, signal) = match self.asked_to_end {
            None => (until, signal),
            Some(_) => (None, None),
        };
        loop {
            let over = until.map(|until| until.saturating_duration_since(Instant::now()));
            if over.is_some_and(|over| over.is_zero()) {
                self.end();
                return Ok(Heard::Enough);
            }
            if let Some(end) = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line = self.taken..self.searched + end;
                (self.taken, self.searched) = (line.end + 1, line.end + 1);
                return Ok(Heard::Line(&self.bytes[line]));
            }
            let since = self.asked_to_end.unwrap_or(self.heard);
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(LinesError::Silent);
            }
            let left = over.map_or(left, |over| over.min(left));
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
            let mut polled = vec![PollFd::new(&self.socket, PollFlags::IN)];
            polled.extend(signal.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let _ = rustix::event::poll(&mut polled, Some(&timeout));
            let has_signal = polled.get(1).is_some_and(|signal| !signal.revents().is_empty());
            let has_bytes = !polled[0].revents().is_empty();
            if has_signal {
                self.end();
                return Ok(Heard::Enough);
            }
            if has_bytes {
                self.read()?;
            }
        }
    }

    fn read(&mut self) -> Result<(), LinesError> {
        self.bytes.drain(..self.taken);
        (self.taken, self.searched) = (0, self.bytes.len());
        self.bytes.resize(self.searched + PART_BYTES, 0);
        let read = self.socket.read(&mut self.bytes[self.searched..]);
        let count = match read {
            Ok(0) => Err(LinesError::Gone),
            Ok(count) => Ok(count),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Ok(0),
            Err(_) => Err(LinesError::Gone),
        };
        self.bytes.truncate(self.searched + count.unwrap_or(0));
        if count? > 0 {
            self.heard = Instant::now();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn pair(first: &[u8]) -> (UnixStream, Lines) {
        let (machine, tool) = UnixStream::pair().expect("sockets");
        (machine, Lines::new(tool, first.to_vec()))
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let (mut machine, mut lines) = pair(b"one\ntw");
        assert_eq!(lines.next(None, None), Ok(Heard::Line(b"one")));
        machine.write_all(b"o\n\nthr").expect("sent");
        assert_eq!(lines.next(None, None), Ok(Heard::Line(b"two")));
        assert_eq!(lines.next(None, None), Ok(Heard::Line(b"")));
        let long = vec![b'x'; 3 * PART_BYTES];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                machine.write_all(&long).and_then(|()| machine.write_all(b"\nlast\nno end")).expect("sent");
                drop(machine);
            });
            let Ok(Heard::Line(line)) = lines.next(None, None) else { panic!("a line") };
            assert_eq!(line.len(), 3 + long.len());
        });
        assert_eq!(lines.next(None, None), Ok(Heard::Line(b"last")));
        assert_eq!(lines.next(None, None), Err(LinesError::Gone));
    }

    #[test]
    fn time_and_signals_end_it_once_and_the_last_words_are_heard_even_of_a_machine_that_never_stops() {
        for by_signal in [false, true] {
            let (mut machine, mut lines) = pair(b"");
            machine.write_all(&b"line\n".repeat(1000)).expect("sent");
            let (mut to_signal, signal) = UnixStream::pair().expect("sockets");
            let until = Instant::now() + Duration::from_millis(if by_signal { 60_000 } else { 50 });
            if by_signal {
                // Lines that are there come first, as the machine wrote them before.
                to_signal.write_all(b"!").expect("sent");
            }
            let mut before = 0;
            while lines.next(Some(until), Some(signal.as_fd())) != Ok(Heard::Enough) {
                before += 1;
            }
            assert!(before <= 1000, "{before}");
            assert_eq!(machine.read(&mut [0; 8]).expect("an end"), 0, "it was told");
            machine.write_all(b"last words\n").expect("sent");
            drop(machine);
            let mut last = Vec::new();
            while let Ok(Heard::Line(line)) = lines.next(Some(until), Some(signal.as_fd())) {
                last = line.to_vec();
            }
            assert_eq!(last, b"last words");
        }
    }
}
