//! One client of a control socket: bytes in, requests, answers, bytes out, without ever waiting.
//!
//! What a client can make the machine keep is bounded: one line of input, and of output one answer or about
//! [`OUTPUT_BYTES`]. While output waits to be taken, nothing is read and no stream goes on.

use super::http::{self, HttpRequest, More};
use super::protocol::{Answer, Ending, LogRequest, Refusal, RefusalKind, Request};
use super::server::Served;
use crate::debug;
use crate::probe;
use crate::profile;
use crate::stat::pmu::{self, Counting};
use crate::trace::{self, Accounts};
use rustix::event::{PollFd, PollFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::EventSet;

/// A request is never longer.
const LINE_BYTES: usize = 4096;
/// About how much of a stream is made ready at once.
const OUTPUT_BYTES: usize = 64 << 10;
/// Bytes written at once. The host frees what was written piece by piece as it is read, so small ones show that a client
/// reads, however slowly.
const WRITE_BYTES: usize = 4096;
/// Steps for one client before the others have their turn.
const STEPS: usize = 16;

/// What a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These events (and its end, which epoll always tells).
    Watch(EventSet),
    /// Nothing: it is gone.
    Gone,
    /// Nothing: it is somebody else's from now on ([`Connection::hand_over`]).
    HandOver,
}

/// Whom another client may take the place of, the first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Connected, and wants nothing at the moment.
    Idle,
    /// Does not take what it asked for.
    Stuck,
    /// Is being served.
    Busy,
}

/// A stream that goes on.
#[derive(Debug)]
enum Stream {
    /// Lines of the log from `seq`, up to a number or the machine's end.
    Log { seq: u64, until: Option<u64> },
    /// Nothing but the machine's end.
    End,
}

/// Takes a connection over, on the thread of the event loop: whatever takes time it does on a thread of its own.
struct Taker(Box<dyn FnOnce(UnixStream, Vec<u8>) + Send>);

impl std::fmt::Debug for Taker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Taker")
    }
}

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    stream: Option<Stream>,
    /// It said all it had to say, and still listens.
    half_closed: bool,
    /// A request of HTTP that is not complete.
    http: Option<HttpRequest>,
    /// To be closed once its output is taken.
    closing: bool,
    /// Who takes it over once its output is taken.
    taker: Option<Taker>,
    /// The accounts go on while it is there: it has asked for them once.
    accounts: Option<Accounts>,
    /// The same for the processor's counters.
    counting: Option<Counting>,
    moved: Instant,
}

impl Connection {
    /// A client that has just connected.
    pub(super) fn new(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
            stream: None,
            half_closed: false,
            http: None,
            closing: false,
            taker: None,
            accounts: None,
            counting: None,
            moved: Instant::now(),
        })
    }

    /// Says why it is not served, and that is all.
    pub(super) fn turn_away(mut self, refusal: Refusal) {
        self.output = Answer::Refused(refusal).to_line();
        let _ = self.flush();
    }

    /// How long nothing went in or out, and how much that matters. Tries again what did not go out: poll says that there is
    /// room only when much was read, which from somebody slow, or on a host that is busy, can take long.
    pub(super) fn standing(&mut self) -> (Standing, Duration) {
        // A client that has gone is heard of by its event.
        let _ = self.flush();
        let standing = match (&self.stream, self.output.is_empty()) {
            (_, false) => Standing::Stuck,
            (None, true) => Standing::Idle,
            (Some(_), true) => Standing::Busy,
        };
        (standing, self.moved.elapsed())
    }

    /// Whether it waits for lines of the log.
    pub(super) fn follows_log(&self) -> bool {
        matches!(self.stream, Some(Stream::Log { .. }))
    }

    /// Does what can be done without waiting.
    pub(super) fn advance(&mut self, served: &Served) -> Next {
        for _ in 0..STEPS {
            match self.flush() {
                Err(_) => return Next::Gone,
                Ok(false) => return Next::Watch(EventSet::OUT),
                Ok(true) if self.closing => return Next::Gone,
                Ok(true) if self.taker.is_some() => return Next::HandOver,
                Ok(true) => {}
            }
            if self.next_of_stream(served) {
                continue;
            }
            if self.stream.is_none()
                && let Some(line) = self.take_line()
            {
                self.answer(&line, served);
                continue;
            }
            if self.closing {
                continue;
            }
            match self.fill() {
                Fill::Some => {}
                Fill::NothingNow => return Next::Watch(EventSet::IN),
                // Only its end is of interest now.
                Fill::End if self.stream.is_some() => return Next::Watch(EventSet::empty()),
                Fill::End => return Next::Gone,
            }
        }
        // Whatever it is ready for, it is its turn again soon.
        Next::Watch(EventSet::IN | EventSet::OUT)
    }

    /// Writes what waits. Returns whether all of it is written.
    fn flush(&mut self) -> std::io::Result<bool> {
        let mut written = 0;
        let result = loop {
            if written == self.output.len() {
                break Ok(true);
            }
            let end = self.output.len().min(written + WRITE_BYTES);
            match self.socket.write(&self.output[written..end]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(false),
                Err(error) => break Err(error),
            }
        };
        if written > 0 {
            self.moved = Instant::now();
            self.output.drain(..written);
        }
        result
    }

    /// Reads what has come, at most a line's worth. While a stream goes on it is passed over.
    fn fill(&mut self) -> Fill {
        if self.half_closed {
            return Fill::End;
        }
        let mut bytes = [0; LINE_BYTES];
        match self.socket.read(&mut bytes) {
            Ok(0) => {
                self.half_closed = true;
                Fill::End
            }
            Ok(count) => {
                self.moved = Instant::now();
                if self.stream.is_none() {
                    self.input.extend_from_slice(&bytes[..count]);
                }
                Fill::Some
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Fill::Some,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Fill::NothingNow,
            Err(_) => Fill::End,
        }
    }

    /// The next line of the input, without its end. Input that has none and is too long is the end of the connection.
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let end = self.input.iter().position(|&byte| byte == b'\n');
        match end {
            Some(end) if end <= LINE_BYTES => {
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.pop();
                Some(line)
            }
            None if self.input.len() <= LINE_BYTES => None,
            _ => {
                let message = format!("a request is at most {LINE_BYTES} bytes long");
                self.say(&Answer::Refused(Refusal { kind: RefusalKind::TooLong, message }));
                self.input.clear();
                self.closing = true;
                None
            }
        }
    }

    fn answer(&mut self, line: &[u8], served: &Served) {
        if let Some(request) = self.http.take() {
            return self.pass_over(request, line, served);
        }
        self.http = HttpRequest::begin(line);
        if self.http.is_some() {
            return;
        }
        match Request::parse(line) {
            Ok(Request::Info) => self.say(&Answer::Info(Box::new(served.info()))),
            Ok(Request::Account) => {
                self.accounts.get_or_insert_with(|| served.machine().looking.accounts());
                self.say(&Answer::Account(Box::new(served.account())));
            }
            Ok(Request::Stat(request)) => {
                if request.wants(pmu::LAYER) {
                    self.counting.get_or_insert_with(|| served.machine().pmu.hold());
                }
                self.say(&Answer::Stat(Box::new(served.statistics(&request))));
            }
            Ok(Request::Metrics) => self.say(&Answer::Metrics { text: served.metrics() }),
            Ok(Request::Logs(LogRequest { last, since_utc_us, follow })) => {
                let seq = served.log().seek(last, since_utc_us);
                let until = (!follow).then(|| served.log().next_seq());
                self.stream = Some(Stream::Log { seq, until });
            }
            Ok(Request::Stop) => {
                served.stop();
                self.say(&Answer::Stopping);
                self.stream = Some(Stream::End);
            }
            Ok(Request::Attach(request)) => match served.clients().attach(&request) {
                Ok(attached) => {
                    let machine = Arc::clone(served.machine());
                    let start = move |socket, input| {
                        if let Err(error) = machine.clients.start(attached, socket, input) {
                            tracing::error!("a client of the host channel cannot be served: {error}");
                        }
                    };
                    self.hand_over_to(start, &Answer::Attached);
                }
                Err(error) => self.say(&Answer::Refused(error.into())),
            },
            Ok(Request::Trace(request)) => {
                let info = served.info();
                match trace::begin(served.machine(), request, &info.name, &info.image) {
                    Ok((header, serving)) => {
                        let start = move |socket, _| serving.start(socket);
                        self.hand_over_to(start, &Answer::Tracing(Box::new(header)));
                    }
                    Err(message) => {
                        self.say(&Answer::Refused(Refusal { kind: RefusalKind::Unable, message }));
                    }
                }
            }
            Ok(Request::Debug(request)) => match debug::grant(served.machine(), request) {
                Ok(granted) => {
                    self.hand_over_to(move |socket, input| granted.start(socket, input), &Answer::Attached);
                }
                Err(error) => {
                    let message = error.to_string();
                    self.say(&Answer::Refused(Refusal { kind: RefusalKind::Unable, message }));
                }
            },
            Ok(Request::Profile(request)) => match served.machine().profilers.admit(&request) {
                Ok(admitted) => {
                    let machine = Arc::clone(served.machine());
                    let start = move |socket, _| profile::start(machine, admitted, socket);
                    self.hand_over_to(start, &Answer::Profiling);
                }
                Err(message) => {
                    self.say(&Answer::Refused(Refusal { kind: RefusalKind::Unable, message }));
                }
            },
            Ok(Request::Probe(request)) => {
                let machine = Arc::clone(served.machine());
                let start = move |socket, _| probe::start(machine, request, socket);
                self.hand_over_to(start, &Answer::Probing);
            }
            Err(refusal) => self.say(&Answer::Refused(refusal)),
        }
    }

    /// Goes on with a request of HTTP, of which there is one.
    fn pass_over(&mut self, mut request: HttpRequest, line: &[u8], served: &Served) {
        match request.pass(line) {
            More::Comes => self.http = Some(request),
            More::No => self.output.extend(request.answer(|| served.metrics())),
            More::TooMuch => self.output.extend(http::too_large()),
        }
        self.closing = self.http.is_none();
    }

    /// Once `answer` is said, the connection is somebody else's.
    fn hand_over_to(&mut self, taker: impl FnOnce(UnixStream, Vec<u8>) + Send + 'static, answer: &Answer) {
        self.taker = Some(Taker(Box::new(taker)));
        self.say(answer);
    }

    /// Gives it to whom it was promised, with what was said behind the request.
    pub(super) fn hand_over(self) {
        let Self { socket, input, taker: Some(Taker(take)), .. } = self else { return };
        take(socket, input);
    }

    fn say(&mut self, answer: &Answer) {
        self.output.extend(answer.to_line());
    }

    /// Makes the next piece of the stream ready. Returns whether there was one.
    fn next_of_stream(&mut self, served: &Served) -> bool {
        let Some(Stream::Log { seq, until }) = &mut self.stream else { return false };
        let end = until.unwrap_or(u64::MAX);
        if *seq >= end {
            self.stream = None;
            self.say(&Answer::End { machine: None });
            return true;
        }
        let batch = served.log().read(*seq, OUTPUT_BYTES);
        if batch.next_seq == *seq {
            return false;
        }
        *seq = batch.next_seq;
        if batch.lost > 0 {
            self.say(&Answer::Lost { lines: batch.lost });
        }
        for line in batch.lines.into_iter().filter(|line| line.seq < end) {
            self.say(&Answer::Log(line));
        }
        true
    }

    /// The machine has ended: what is left of the stream, and how it ended. Waits a little, until `deadline` at most.
    pub(super) fn finish(mut self, served: &Served, ending: &Ending, deadline: Instant) {
        if let Some(Stream::Log { until: until @ None, .. }) = &mut self.stream {
            *until = Some(served.log().next_seq());
        }
        let mut last_words = self.stream.is_some();
        while Instant::now() < deadline {
            match self.flush() {
                Ok(true) => {}
                Ok(false) => {
                    wait_until_writable(&self.socket, deadline);
                    continue;
                }
                Err(_) => return,
            }
            match &self.stream {
                Some(Stream::Log { seq, until }) if until.is_none_or(|until| *seq < until) => {
                    self.next_of_stream(served);
                }
                _ if last_words => {
                    last_words = false;
                    self.stream = None;
                    self.say(&Answer::End { machine: Some(ending.clone()) });
                }
                _ => return,
            }
        }
    }
}

/// What came of reading.
enum Fill {
    Some,
    NothingNow,
    End,
}

fn wait_until_writable(socket: &UnixStream, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = rustix::event::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    // Whatever comes of it, the next write tells.
    let _ = rustix::event::poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&left));
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_that_reads_slowly_moves_and_one_that_does_not_read_is_stuck() {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let mut client = Connection::new(ours).expect("a client");
        client.output = vec![b'x'; 4 << 20];
        assert!(!client.flush().expect("connected"), "no socket holds that much");
        let long = Duration::from_secs(5);
        client.moved = Instant::now() - long;
        let (standing, still) = client.standing();
        assert!(standing == Standing::Stuck && still >= long, "{still:?}");
        theirs.read_exact(&mut [0; 2 * WRITE_BYTES]).expect("there is more");
        let (standing, still) = client.standing();
        assert!(standing == Standing::Stuck && still < long, "{still:?}");
    }
}
