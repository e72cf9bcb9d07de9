//! One connection: received bytes in, responses out, in the order of the requests (RFC 9112 9.3.2).
//!
//! The bytes stay where they are, in the receive buffer of the transport. The connection says how many it is done
//! with; the rest, the beginning of a request that is not complete, it wants to see again with more behind it. For
//! that the transport keeps up to [`MAX_HEAD_BYTES`](crate::MAX_HEAD_BYTES) bytes.

use crate::body::{Body, Discarded};
use crate::request::{Malformed, Method, Progress, RequestParser};
use crate::serve::{self, Answer};
use crate::{Files, Response, Site, Then, Ticket};

/// Takes responses. A transport implements it.
pub trait Responses<S: Files> {
    /// How many responses it takes now. With none, requests stay unread in the receive buffer, whose window then
    /// holds the client back.
    fn room(&self) -> usize;

    /// Takes a response; called only when there is room. Its bytes go out behind those of the response before.
    fn push(&mut self, response: Response<S::File>, files: &mut S);
}

/// What an input came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// So many bytes are done with and must not be given again.
    pub bytes: usize,
    /// What the connection waits for.
    pub next: Next,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More bytes than it was given.
    Input,
    /// Room for a response: then it is given the rest again, even if no more bytes have come.
    Room,
    /// The files: when the ticket completes it is given the rest again, which begins with the request that waits.
    Files(Ticket),
    /// Nothing: its last response has been pushed. It consumes what still comes, so that the client reads the
    /// response before it sees the connection closed (RFC 9112 9.6).
    Close,
}

/// Where a connection is, for whoever decides how long it may stay there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Between two requests, or before the first.
    Idle,
    /// In the middle of a request's line and fields.
    Head,
    /// In the middle of a request's body.
    Body,
    /// Behind the last response.
    Closing,
}

/// Empty lines before a request that are passed over. RFC 9112 2.2 asks for at least one.
const MAX_EMPTY_LINES: u8 = 8;

/// The state of one connection. While a request waits for the files, it stays unread in the receive buffer, with all
/// that follows it; so there is no state for it here.
#[derive(Clone, Debug)]
pub struct HttpConnection<F> {
    parser: RequestParser,
    phase: Phase<F>,
    empty_lines: u8,
}

#[derive(Clone, Debug)]
enum Phase<F> {
    Idle,
    Head,
    /// The response waits for the end of the body, which may still turn out to be malformed or too large.
    Body {
        body: Body,
        method: Method,
        response: Response<F>,
    },
    Closing,
}

impl<F> Default for HttpConnection<F> {
    fn default() -> HttpConnection<F> {
        HttpConnection::new()
    }
}

impl<F> HttpConnection<F> {
    /// A connection that has been accepted.
    pub fn new() -> HttpConnection<F> {
        HttpConnection { parser: RequestParser::default(), phase: Phase::Idle, empty_lines: 0 }
    }

    /// Where the connection is.
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Idle => Stage::Idle,
            Phase::Head => Stage::Head,
            Phase::Body { .. } => Stage::Body,
            Phase::Closing => Stage::Closing,
        }
    }
}

impl<F: crate::File> HttpConnection<F> {
    /// Answers all requests that are complete in `bytes`: those that the input before left, and what has come since.
    /// The time goes into the responses' dates.
    pub fn input<S: Files<File = F>>(
        &mut self,
        bytes: &[u8],
        site: &mut Site<S>,
        now_unix_seconds: u64,
        out: &mut impl Responses<S>,
    ) -> Consumed {
        site.set_time(now_unix_seconds);
        let mut done = 0;
        loop {
            if matches!(self.phase, Phase::Closing) {
                return Consumed { bytes: bytes.len(), next: Next::Close };
            }
            let rest = &bytes[done..];
            if rest.is_empty() {
                return Consumed { bytes: done, next: Next::Input };
            }
            // Each step pushes one response at most.
            if out.room() == 0 {
                return Consumed { bytes: done, next: Next::Room };
            }
            let (step_bytes, step) = match self.phase {
                Phase::Body { .. } => self.body(rest, site, out),
                _ => self.head(rest, site, out),
            };
            done += step_bytes;
            match step {
                Step::Done => {}
                Step::NeedInput => return Consumed { bytes: done, next: Next::Input },
                Step::NeedFiles(ticket) => return Consumed { bytes: done, next: Next::Files(ticket) },
            }
        }
    }

    #[inline]
    fn head<S: Files<File = F>>(
        &mut self,
        rest: &[u8],
        site: &mut Site<S>,
        out: &mut impl Responses<S>,
    ) -> (usize, Step) {
        if matches!(self.phase, Phase::Idle) && rest[0] == b'\r' && self.empty_lines < MAX_EMPTY_LINES {
            match rest.get(1) {
                Some(b'\n') => {
                    self.empty_lines += 1;
                    return (2, Step::Done);
                }
                Some(_) => {}
                None => return (0, Step::NeedInput),
            }
        }
        match self.parser.parse(rest) {
            Progress::NeedMore => {
                self.phase = Phase::Head;
                (0, Step::NeedInput)
            }
            Progress::Complete { request, bytes } => {
                self.empty_lines = 0;
                let method = request.method();
                let response_and_body = Body::new(request.body_length())
                    .and_then(|body| Ok((serve::respond(&request, site)?, body)));
                match response_and_body {
                    Err(malformed) => self.refuse(malformed, Some(method), site, out),
                    Ok((Answer::Pending(ticket), _)) => {
                        self.phase = Phase::Head;
                        return (0, Step::NeedFiles(ticket));
                    }
                    // A response that closes the connection does not wait for the body.
                    Ok((Answer::Now(response), Some(body))) if response.then == Then::KeepAlive => {
                        self.phase = Phase::Body { body, method, response };
                    }
                    Ok((Answer::Now(response), _)) => self.push(response, site, out),
                }
                (bytes, Step::Done)
            }
            Progress::Malformed(malformed) => {
                self.refuse(malformed, self.parser.method(), site, out);
                (0, Step::Done)
            }
        }
    }

    fn body<S: Files<File = F>>(
        &mut self,
        rest: &[u8],
        site: &mut Site<S>,
        out: &mut impl Responses<S>,
    ) -> (usize, Step) {
        let Phase::Body { body, method, response } = &mut self.phase else { return (0, Step::Done) };
        match body.discard(rest) {
            Ok(Discarded::All) => (rest.len(), Step::NeedInput),
            Ok(Discarded::Ended { bytes }) => {
                let response = response.clone();
                self.push(response, site, out);
                (bytes, Step::Done)
            }
            Err(malformed) => {
                let method = *method;
                self.refuse(malformed, Some(method), site, out);
                (0, Step::Done)
            }
        }
    }

    #[inline]
    fn push<S: Files<File = F>>(
        &mut self,
        response: Response<F>,
        site: &mut Site<S>,
        out: &mut impl Responses<S>,
    ) {
        self.phase = match response.then {
            Then::KeepAlive => Phase::Idle,
            Then::Close => Phase::Closing,
        };
        site.count(&response);
        out.push(response, site.files_mut());
    }

    #[cold]
    fn refuse<S: Files<File = F>>(
        &mut self,
        malformed: Malformed,
        method: Option<Method>,
        site: &mut Site<S>,
        out: &mut impl Responses<S>,
    ) {
        let response = serve::refuse(malformed, method, site);
        self.push(response, site, out);
    }
}

enum Step {
    Done,
    NeedInput,
    NeedFiles(Ticket),
}
