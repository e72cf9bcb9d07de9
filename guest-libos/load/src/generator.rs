//! The closed loop: as many requests under way as the plan says, each on a connection of its own; who is answered asks again.
//! It ends by itself: no request may take longer than the plan's timeout, and no connection stays whose work is done.

mod place;

use crate::plan::Reuse;
use crate::report::Progress;
use crate::{Answer, ErrorKind, Errors, Histogram, Packets, Plan, Report};
use alloc::vec::Vec;
use place::{Place, Work};

/// Connections begun in one go. More at once would only overflow the server's backlog.
const BURST: u32 = 64;
/// After a connection that could not be made, nobody tries in its place for so long.
const RETRY_NS: u64 = 100_000_000;
/// The same where only a place or a port was missing.
const ROOM_NS: u64 = 1_000_000;
/// How long a server may take to close a connection that is done with.
const CLOSE_NS: u64 = 1_000_000_000;
/// How often it is looked who is late.
const SCAN_NS: u64 = 50_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What the generator needs of TCP. Calls for connections that have ended do nothing.
pub trait Network {
    /// A connection.
    type Connection: Copy + PartialEq;

    /// A small number that no other living connection has.
    fn place(connection: Self::Connection) -> usize;

    /// Begins a connection to the target.
    fn connect(&mut self) -> Result<Self::Connection, NotConnected>;

    /// Queues the request, also on a connection that is not open yet.
    fn request(&mut self, connection: Self::Connection);

    /// Nothing more is sent.
    fn close(&mut self, connection: Self::Connection);

    /// Ends a connection at once; [`Generator::ended`] is not told.
    fn abort(&mut self, connection: Self::Connection);
}

/// Why no connection was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// No place or port is free at the moment.
    NoRoom,
    /// There is no way to the target.
    Unreachable,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// In order.
    Closed,
    /// The server does not take it.
    Refused,
    /// Nobody has the address, or there is no way to it.
    Unreachable,
    /// By the server's reset.
    Reset,
    /// The server was silent.
    TimedOut,
}

impl Ended {
    /// What that is to a request that was not answered.
    fn error(self) -> ErrorKind {
        match self {
            Self::Closed => ErrorKind::CutShort,
            Self::Refused => ErrorKind::Refused,
            Self::Unreachable => ErrorKind::Unreachable,
            Self::Reset => ErrorKind::Reset,
            Self::TimedOut => ErrorKind::TimedOut,
        }
    }
}

/// Where in its run a generator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was asked yet.
    Ready,
    Asking,
    /// No more is asked; what was is waited for.
    Finishing,
    /// All is answered; the last connections are being closed.
    Closing,
    Over,
}

/// A run of a plan. Times are in nanoseconds of one clock.
#[derive(Debug)]
pub struct Generator<C> {
    plan: Plan,
    places: Vec<Place<C>>,
    stage: Stage,
    start_ns: u64,
    /// When the last request was answered or failed.
    last_ns: u64,
    /// Requests under way.
    under_way: u32,
    /// Connections that have not ended.
    open: u32,
    /// Requests not asked until `retry_ns`, since there is no connection for them.
    held: u32,
    retry_ns: u64,
    scan_ns: u64,
    asked: u64,
    answered: u64,
    bytes: u64,
    body_bytes: u64,
    latency_ns: Histogram,
    errors: Errors,
    connections: u64,
    /// When the next second of progress is full, and what there was at the beginning of this one.
    second_ns: u64,
    before: (u64, u64, u64),
}

impl<C: Copy + PartialEq> Generator<C> {
    /// A run that begins with the first [`Self::expired`], on a network with so many places.
    pub fn new(plan: Plan, places: usize) -> Self {
        Self {
            plan,
            places: (0..places).map(|_| Place::default()).collect(),
            stage: Stage::Ready,
            start_ns: 0,
            last_ns: 0,
            under_way: 0,
            open: 0,
            held: 0,
            retry_ns: 0,
            scan_ns: 0,
            asked: 0,
            answered: 0,
            bytes: 0,
            body_bytes: 0,
            latency_ns: Histogram::new(),
            errors: Errors::default(),
            connections: 0,
            second_ns: 0,
            before: (0, 0, 0),
        }
    }

    /// Places that a network needs for a plan: connections that are being closed have one, too.
    pub fn places_for(plan: &Plan) -> u32 {
        2 * plan.connections + 64
    }

    /// Everything is done and nothing is open.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// When [`Self::expired`] and [`Self::progress`] are to be called at the latest. 0: as soon as possible.
    #[inline]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let at_once = match self.stage {
            Stage::Ready => true,
            Stage::Asking => !self.has_more() || self.under_way + self.held < self.plan.connections,
            Stage::Finishing => self.under_way == 0,
            Stage::Closing => self.open == 0,
            Stage::Over => return None,
        };
        if at_once {
            return Some(0);
        }
        let retry_ns = if self.held > 0 { self.retry_ns } else { u64::MAX };
        let end_ns = if self.stage == Stage::Asking { self.end_ns() } else { u64::MAX };
        let second_ns = if self.stage == Stage::Closing { u64::MAX } else { self.second_ns };
        Some(self.scan_ns.min(retry_ns).min(end_ns).min(second_ns))
    }

    fn end_ns(&self) -> u64 {
        self.plan.duration_ns.map_or(u64::MAX, |duration| self.start_ns.saturating_add(duration))
    }

    /// Whether the plan has more requests, as far as their number goes.
    #[inline]
    fn has_more(&self) -> bool {
        self.plan.requests.is_none_or(|requests| self.asked < requests)
    }

    #[inline]
    fn may_ask(&self, now_ns: u64) -> bool {
        self.stage == Stage::Asking && self.has_more() && now_ns < self.end_ns()
    }

    /// Time has passed: begins what is to begin, and gives up what has taken too long.
    pub fn expired<N: Network<Connection = C>>(&mut self, network: &mut N, now_ns: u64) {
        if self.stage == Stage::Ready {
            self.stage = Stage::Asking;
            (self.start_ns, self.last_ns, self.scan_ns) = (now_ns, now_ns, now_ns);
            (self.second_ns, self.before) = (now_ns + SECOND_NS, (now_ns, 0, 0));
        }
        if now_ns >= self.scan_ns {
            self.scan(network, now_ns);
            self.scan_ns = now_ns + SCAN_NS.min(self.plan.timeout_ns / 4).max(1);
        }
        if now_ns >= self.retry_ns {
            self.held = 0;
        }
        if self.stage == Stage::Asking && !self.may_ask(now_ns) {
            self.stage = Stage::Finishing;
        }
        self.fill(network, now_ns);
        if self.stage == Stage::Finishing && self.under_way == 0 {
            self.stage = Stage::Closing;
        }
        if self.stage == Stage::Closing && self.open == 0 {
            self.stage = Stage::Over;
        }
    }

    /// What the last second brought, once a second while there are requests.
    pub fn progress(&mut self, now_ns: u64) -> Option<Progress> {
        if now_ns < self.second_ns || !matches!(self.stage, Stage::Asking | Stage::Finishing) {
            return None;
        }
        let (since_ns, answered, bytes) =
            core::mem::replace(&mut self.before, (now_ns, self.answered, self.bytes));
        self.second_ns = now_ns - (now_ns - self.second_ns) % SECOND_NS + SECOND_NS;
        Some(Progress {
            elapsed_ns: now_ns - self.start_ns,
            interval_ns: now_ns - since_ns,
            // What was taken back since may be more than what came.
            answered: self.answered.saturating_sub(answered),
            bytes: self.bytes - bytes,
            errors: self.errors.total(),
            connections: self.open,
        })
    }

    /// What has come of it.
    pub fn report(&self, packets: Packets) -> Report<'_> {
        Report {
            plan: &self.plan,
            elapsed_ns: self.last_ns - self.start_ns,
            asked: self.asked,
            answered: self.answered,
            bytes: self.bytes,
            body_bytes: self.body_bytes,
            latency_ns: &self.latency_ns,
            errors: self.errors,
            connections: self.connections,
            packets,
        }
    }

    /// A connection is open.
    pub fn opened<N: Network<Connection = C>>(&mut self, connection: C) {
        if let Some(place) = self.places.get_mut(N::place(connection))
            && place.connection == Some(connection)
        {
            self.connections += 1;
            if place.work == Work::Connecting {
                place.work = Work::Asked;
            }
        }
    }

    /// Bytes came. Returns how many are done with; the rest is to come again with what follows it.
    #[inline]
    pub fn input<N: Network<Connection = C>>(
        &mut self,
        network: &mut N,
        connection: C,
        bytes: &[u8],
        now_ns: u64,
    ) -> usize {
        let at = N::place(connection);
        let Some(place) = self.places.get_mut(at).filter(|place| place.connection == Some(connection)) else {
            return bytes.len();
        };
        if !place.work.is_under_way() {
            self.more_than_was_said(network, at, bytes.len());
            return bytes.len();
        }
        match place.counter.input(bytes) {
            Ok(counted) => {
                self.bytes += counted.bytes as u64;
                let Some(answer) = counted.answer else { return counted.bytes };
                if counted.bytes == bytes.len() {
                    self.answered(network, at, answer, now_ns);
                    return bytes.len();
                }
                self.bytes += (bytes.len() - counted.bytes) as u64;
            }
            Err(_) => self.bytes += bytes.len() as u64,
        }
        self.failed(at, ErrorKind::BadResponse, now_ns);
        network.abort(connection);
        self.release(at);
        self.fill(network, now_ns);
        bytes.len()
    }

    /// The server sends no more.
    pub fn peer_closed<N: Network<Connection = C>>(&mut self, network: &mut N, connection: C, now_ns: u64) {
        let at = N::place(connection);
        let Some(place) = self.places.get_mut(at).filter(|place| place.connection == Some(connection)) else {
            return;
        };
        if place.work.is_under_way() {
            match place.counter.end() {
                Some(answer) => self.answered(network, at, answer, now_ns),
                None => {
                    self.failed(at, ErrorKind::CutShort, now_ns);
                    self.fill(network, now_ns);
                }
            }
        }
        network.close(connection);
    }

    /// A connection has ended. Another one in its place is begun with [`Self::expired`].
    pub fn ended<N: Network<Connection = C>>(&mut self, connection: C, how: Ended, now_ns: u64) {
        let at = N::place(connection);
        let Some(place) = self.places.get(at).filter(|place| place.connection == Some(connection)) else {
            return;
        };
        let work = place.work;
        if work.is_under_way() {
            self.failed(at, how.error(), now_ns);
        }
        if work == Work::Connecting {
            self.hold(now_ns);
        }
        self.release(at);
    }

    /// Begins connections until as many requests are under way as should be.
    fn fill<N: Network<Connection = C>>(&mut self, network: &mut N, now_ns: u64) {
        let mut burst = BURST;
        while self.under_way + self.held < self.plan.connections && burst > 0 && self.may_ask(now_ns) {
            burst -= 1;
            match network.connect() {
                Ok(connection) => {
                    let Some(place) = self.places.get_mut(N::place(connection)) else {
                        // More places than were said: nobody could be told what comes of it.
                        return network.abort(connection);
                    };
                    *place = Place::begin(connection, now_ns);
                    self.open += 1;
                    self.under_way += 1;
                    self.asked += 1;
                    network.request(connection);
                }
                Err(NotConnected::NoRoom) => {
                    self.held = self.plan.connections - self.under_way;
                    self.retry_ns = now_ns + ROOM_NS;
                }
                Err(NotConnected::Unreachable) => {
                    self.asked += 1;
                    self.errors.add(ErrorKind::Unreachable);
                    self.last_ns = now_ns;
                    self.hold(now_ns);
                }
            }
        }
    }

    /// One request less is under way for a while.
    fn hold(&mut self, now_ns: u64) {
        if self.held == 0 {
            self.retry_ns = now_ns + RETRY_NS;
        }
        self.held += 1;
    }

    /// A response is complete.
    #[inline]
    fn answered<N: Network<Connection = C>>(
        &mut self,
        network: &mut N,
        at: usize,
        answer: Answer,
        now_ns: u64,
    ) {
        let place = &mut self.places[at];
        let is_good = matches!(answer.status, 200..300);
        self.body_bytes += answer.body_bytes;
        self.last_ns = now_ns;
        if is_good {
            self.answered += 1;
            self.latency_ns.record(now_ns.saturating_sub(place.since_ns));
        } else {
            self.errors.add(ErrorKind::Status);
        }
        place.since_ns = now_ns;
        let Some(connection) = place.connection else { return };
        if answer.keeps_alive && self.plan.reuse == Reuse::KeepAlive && self.may_ask(now_ns) {
            self.asked += 1;
            network.request(connection);
            return;
        }
        self.places[at].work = if is_good { Work::Answered } else { Work::Failed };
        self.under_way -= 1;
        if answer.keeps_alive {
            network.close(connection);
        }
        // Otherwise the server closes first, and TIME-WAIT is its own (RFC 9112 9.6).
        self.fill(network, now_ns);
    }

    /// A request will not be answered.
    fn failed(&mut self, at: usize, kind: ErrorKind, now_ns: u64) {
        self.errors.add(kind);
        self.last_ns = now_ns;
        self.under_way -= 1;
        let place = &mut self.places[at];
        place.work = Work::Failed;
        place.since_ns = now_ns;
    }

    /// Bytes behind a response that was complete, and perhaps counted as answered.
    fn more_than_was_said<N: Network<Connection = C>>(&mut self, network: &mut N, at: usize, bytes: usize) {
        self.bytes += bytes as u64;
        let place = &self.places[at];
        if place.work == Work::Answered {
            self.answered -= 1;
            self.errors.add(ErrorKind::BadResponse);
        }
        if let Some(connection) = place.connection {
            network.abort(connection);
        }
        self.release(at);
    }

    fn release(&mut self, at: usize) {
        self.places[at] = Place::default();
        self.open -= 1;
    }

    /// Gives up who is late.
    fn scan<N: Network<Connection = C>>(&mut self, network: &mut N, now_ns: u64) {
        for at in 0..self.places.len() {
            let Place { connection: Some(connection), since_ns, work, .. } = self.places[at] else {
                continue;
            };
            let waited_ns = now_ns.saturating_sub(since_ns);
            if work.is_under_way() {
                if waited_ns < self.plan.timeout_ns {
                    continue;
                }
                self.failed(at, ErrorKind::TimedOut, now_ns);
                if work == Work::Connecting {
                    self.hold(now_ns);
                }
            } else if waited_ns < CLOSE_NS {
                continue;
            }
            network.abort(connection);
            self.release(at);
        }
    }
}
