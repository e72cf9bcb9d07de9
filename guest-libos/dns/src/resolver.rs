//! Queries on their way: whom they were sent to, with which identifier and from which port, how often, and what came of it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;
use alloc::vec::Vec;

use domain::dep::octseq::Array;
use exos_net::{Duration, Instant};

use crate::cache::Cache;
use crate::message::{Answer, Family, Host, MAX_QUERY_BYTES, answer, parse_name, query as question};
use crate::stream::StreamQuery;

/// The port that servers listen on.
const DNS_PORT: u16 = 53;
/// Source ports are drawn from these (RFC 6335 6, RFC 5452 9.2).
const FIRST_PORT: u16 = 49_152;
/// The most servers: three from each of two sources (RFC 8106 5.3.1).
pub const MAX_SERVERS: usize = 6;
/// The most aliases that are followed with questions of their own.
const MAX_FOLLOWED: u8 = 8;
/// How many times as long as for a datagram an answer over TCP is waited for.
const STREAM_TIMEOUTS: u64 = 3;

/// What the resolver must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The recursive servers, asked in turn.
    pub servers: [Option<IpAddr>; MAX_SERVERS],
    /// Whether an answer that does not fit a datagram is asked for again over TCP (RFC 7766 5); else it is a failure.
    pub streams: bool,
    /// How long the first answer is waited for; with each round through the servers it doubles.
    pub timeout: Duration,
    /// How often each server is asked.
    pub attempts: u8,
    /// Queries at the same time.
    pub max_queries: u16,
    /// Names whose addresses, or lack of them, are remembered.
    pub max_cached: u16,
    /// The longest that anything is remembered.
    pub max_ttl: Duration,
}

impl Config {
    /// The first of these servers, with the usual bounds and timeouts, without TCP.
    pub fn new(servers: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            servers: first_servers(servers),
            streams: false,
            timeout: Duration::from_secs(2),
            attempts: 3,
            max_queries: 16,
            max_cached: 256,
            max_ttl: Duration::from_secs(86_400),
        }
    }
}

fn first_servers(servers: impl IntoIterator<Item = IpAddr>) -> [Option<IpAddr>; MAX_SERVERS] {
    let mut servers = servers.into_iter().fuse();
    [(); MAX_SERVERS].map(|()| servers.next())
}

/// A query; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryId(u32);

/// What [`Resolver::lookup`] knows.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It was asked before, or the text was an address.
    Known(Vec<IpAddr>),
    /// It is being asked: an [`Event::Done`] follows.
    Asked(QueryId),
}

/// Why there are no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The text is not a name.
    BadName,
    /// No server is configured.
    NoServer,
    /// `Config::max_queries` are on their way.
    TooMany,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The name has no addresses of this family.
    NoAddress,
    /// Its addresses are none that a host could have ([`crate::first_host`]).
    NotAHost,
    /// The answer does not fit a datagram, and could not be had otherwise.
    Truncated,
    /// No server would say; the response code of the last.
    Refused(u8),
    /// No server answered.
    TimedOut,
    /// The answers contradict themselves, or lead through too many names.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadName => f.write_str("that is not a name; write it like www.example.org"),
            Self::NoServer => f.write_str("no DNS server is known; configure one, or use an address"),
            Self::TooMany => f.write_str("too many names are being asked for; wait, or raise max_queries"),
            Self::NoSuchName => f.write_str("there is no such name; look for a mistake in it"),
            Self::NoAddress => f.write_str("the name has no address of this kind; try the other family"),
            Self::NotAHost => f.write_str(
                "the name has only addresses that no other host can have, as 0.0.0.0 or 127.0.0.1; look whether a filter made them",
            ),
            Self::Truncated => {
                f.write_str("the answer does not fit a datagram and is not to be had over TCP; look whether something stops TCP to port 53 of the DNS servers, or use an address")
            }
            Self::Refused(code) => {
                write!(f, "the DNS servers will not say (response code {code}); try another server")
            }
            Self::TimedOut => f.write_str("no DNS server answered; check their addresses and the way there"),
            Self::Broken => f.write_str("the DNS server's answer makes no sense; try another server"),
        }
    }
}

impl core::error::Error for Failure {}

/// A query to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The port to send it from, to be bound until [`Event::Unbind`] names it.
    pub from_port: u16,
    /// The server.
    pub to: SocketAddr,
    bytes: Array<MAX_QUERY_BYTES>,
}

impl Outgoing {
    /// The message.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

/// What there is to do.
#[derive(Clone, Debug)]
pub enum Event {
    /// Send this.
    Send(Box<Outgoing>),
    /// Ask this over TCP: [`Resolver::receive_stream`] or [`Resolver::stream_failed`] says what came of it.
    Stream(Box<StreamQuery>),
    /// No answer is expected over the connection of this query any more: it is to be closed.
    Hangup(QueryId),
    /// No answer is expected at this port any more.
    Unbind(u16),
    /// A query is over.
    Done {
        /// Which.
        id: QueryId,
        /// Its addresses, or why there are none.
        result: Result<Vec<IpAddr>, Failure>,
    },
}

/// Where an answer is expected from.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    server: IpAddr,
    id: u16,
    /// Our port; `None`: a connection's.
    port: Option<u16>,
    until: Instant,
}

#[derive(Debug)]
struct Query {
    id: QueryId,
    /// What was asked for.
    name: Host,
    /// What is asked now: the name, or what it is an alias of.
    target: Host,
    family: Family,
    /// Questions sent in datagrams, without those that an alias was the answer to.
    sent: u8,
    followed: u8,
    waiting: Option<Waiting>,
    /// Where an earlier question was asked from: a port, or `None`, a connection.
    abandoned: Option<Option<u16>>,
    /// Who has more to say than a datagram holds.
    truncated: Option<IpAddr>,
    /// Servers that have been asked over TCP, which brought nothing: they are not asked that way again.
    without_tcp: Vec<IpAddr>,
    /// Why there is nothing if nobody else knows more: what the last server said, if one did.
    failure: Option<Failure>,
    done: Option<Result<Vec<IpAddr>, Failure>>,
    /// Nobody wants to know.
    is_cancelled: bool,
}

impl Query {
    /// No answer is expected to the last question any more.
    fn give_up_question(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.abandoned = Some(waiting.port);
        }
    }

    /// The last question brought nothing.
    fn lose_question(&mut self) {
        if let Some(Waiting { server, port: None, .. }) = self.waiting {
            self.without_tcp.push(server);
        }
        self.give_up_question();
    }
}

/// The resolver.
#[derive(Debug)]
pub struct Resolver {
    config: Config,
    queries: Vec<Query>,
    cache: Cache,
    next_id: u32,
    ignored: u64,
}

impl Resolver {
    /// A resolver that knows nothing.
    pub fn new(config: Config) -> Self {
        let cache = Cache::new(usize::from(config.max_cached));
        Self { config, queries: Vec::new(), cache, next_id: 0, ignored: 0 }
    }

    /// Other servers, after a new lease, say.
    pub fn set_servers(&mut self, servers: impl IntoIterator<Item = IpAddr>) {
        self.config.servers = first_servers(servers);
    }

    /// The addresses of a name, or of the text if it is one.
    pub fn lookup(&mut self, now: Instant, text: &str, family: Family) -> Result<Lookup, Failure> {
        if let Ok(address) = text.parse::<IpAddr>() {
            let fits = address.is_ipv4() == (family == Family::V4);
            return if fits { Ok(Lookup::Known(Vec::from([address]))) } else { Err(Failure::NoAddress) };
        }
        let name = parse_name(text).ok_or(Failure::BadName)?;
        if let Some(known) = self.cache.find(now, &name, family) {
            return known.clone().map(Lookup::Known);
        }
        if self.config.servers.iter().all(Option::is_none) || self.config.attempts == 0 {
            return Err(Failure::NoServer);
        }
        if self.queries.len() >= usize::from(self.config.max_queries) {
            return Err(Failure::TooMany);
        }
        let id = QueryId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.queries.push(Query {
            id,
            target: name.clone(),
            name,
            family,
            sent: 0,
            followed: 0,
            waiting: None,
            abandoned: None,
            truncated: None,
            without_tcp: Vec::new(),
            failure: None,
            done: None,
            is_cancelled: false,
        });
        Ok(Lookup::Asked(id))
    }

    /// What there is to do at `now`; to be called until it returns `None`. `random` must be fresh with each call: it becomes
    /// identifier and port of a question.
    pub fn poll(&mut self, now: Instant, random: u64) -> Option<Event> {
        let mut index = 0;
        while index < self.queries.len() {
            let query = &mut self.queries[index];
            if query.waiting.is_some_and(|waiting| waiting.until <= now) {
                query.lose_question();
            }
            if let Some(from) = query.abandoned.take() {
                return Some(from.map_or(Event::Hangup(query.id), Event::Unbind));
            }
            if query.is_cancelled {
                self.queries.swap_remove(index);
                continue;
            }
            if query.done.is_some() {
                let query = self.queries.swap_remove(index);
                let result = query.done.unwrap_or(Err(Failure::Broken));
                return Some(Event::Done { id: query.id, result });
            }
            if query.waiting.is_none() {
                return Some(self.ask(index, now, random));
            }
            index += 1;
        }
        None
    }

    /// The next question of a query, or its end if there was one too many.
    fn ask(&mut self, index: usize, now: Instant, random: u64) -> Event {
        let servers = self.config.servers.iter().flatten().count();
        let taken = |port: u16| {
            self.queries.iter().any(|query| query.waiting.is_some_and(|waiting| waiting.port == Some(port)))
        };
        let mut port = FIRST_PORT + (random >> 16) as u16 % (u16::MAX - FIRST_PORT);
        while taken(port) {
            port = if port == u16::MAX { FIRST_PORT } else { port + 1 };
        }
        let query = &mut self.queries[index];
        if let Some(server) = query.truncated.take() {
            let id = random as u16;
            if let Some(bytes) = question(id, &query.target, query.family) {
                // A connection takes a round trip more, and answers of this size may be made for the occasion.
                let until = now
                    + Duration::from_nanos(self.config.timeout.as_nanos().saturating_mul(STREAM_TIMEOUTS));
                query.waiting = Some(Waiting { server, id, port: None, until });
                let to = SocketAddr::new(server, DNS_PORT);
                return Event::Stream(Box::new(StreamQuery::new(query.id, to, bytes.as_ref())));
            }
        }
        let round = usize::from(query.sent).checked_div(servers);
        let server = self.config.servers.iter().flatten().nth(usize::from(query.sent) % servers.max(1));
        let id = random as u16;
        let message = match (round, server) {
            (Some(round), Some(&server)) if round < usize::from(self.config.attempts) => {
                question(id, &query.target, query.family).map(|bytes| (round, server, bytes))
            }
            _ => None,
        };
        let Some((round, server, bytes)) = message else {
            let failure = query.failure.unwrap_or(Failure::TimedOut);
            let query = self.queries.swap_remove(index);
            return Event::Done { id: query.id, result: Err(failure) };
        };
        query.sent += 1;
        let wait = self.config.timeout.as_nanos().saturating_mul(1 << round.min(6));
        let until = now + Duration::from_nanos(wait);
        query.waiting = Some(Waiting { server, id, port: Some(port), until });
        Event::Send(Box::new(Outgoing { from_port: port, to: SocketAddr::new(server, DNS_PORT), bytes }))
    }

    /// A datagram arrived at a port that an [`Outgoing`] named. What came of it is said by [`Self::poll`].
    pub fn receive(&mut self, now: Instant, from: SocketAddr, to_port: u16, bytes: &[u8]) {
        let asked = self.queries.iter_mut().find_map(|query| {
            let waiting = query.waiting.filter(|waiting| waiting.port == Some(to_port))?;
            (from == SocketAddr::new(waiting.server, DNS_PORT)).then_some((waiting, query))
        });
        let answer = asked.and_then(|(waiting, query)| {
            answer(bytes, waiting.id, &query.target, query.family).map(|answer| (query, answer))
        });
        match answer {
            Some((query, answer)) => Self::answered(&self.config, &mut self.cache, now, query, answer),
            None => self.ignored += 1,
        }
    }

    /// A server answered over the connection that a [`StreamQuery`] asked for.
    pub fn receive_stream(&mut self, now: Instant, id: QueryId, bytes: &[u8]) {
        let Some((waiting, query)) = Self::waiting_for_stream(&mut self.queries, id) else { return };
        match answer(bytes, waiting.id, &query.target, query.family) {
            // There is no more than what a connection brings.
            None | Some(Answer::Truncated) => {
                self.ignored += 1;
                query.lose_question();
            }
            Some(answer) => Self::answered(&self.config, &mut self.cache, now, query, answer),
        }
    }

    /// There was no connection, or no answer on it: the next server is asked.
    pub fn stream_failed(&mut self, id: QueryId) {
        if let Some((_, query)) = Self::waiting_for_stream(&mut self.queries, id) {
            query.lose_question();
        }
    }

    fn waiting_for_stream(queries: &mut [Query], id: QueryId) -> Option<(Waiting, &mut Query)> {
        let query = queries.iter_mut().find(|query| query.id == id)?;
        query.waiting.filter(|waiting| waiting.port.is_none()).map(|waiting| (waiting, query))
    }

    /// Nobody wants to know any more; no [`Event::Done`] follows.
    pub fn cancel(&mut self, id: QueryId) {
        if let Some(query) = self.queries.iter_mut().find(|query| query.id == id) {
            query.give_up_question();
            query.is_cancelled = true;
        }
    }

    fn answered(config: &Config, cache: &mut Cache, now: Instant, query: &mut Query, answer: Answer) {
        let server = query.waiting.map(|waiting| waiting.server);
        query.give_up_question();
        let (result, ttl_secs) = match answer {
            Answer::Addresses { addresses, ttl_secs } => (Ok(addresses), ttl_secs),
            Answer::NoSuchName { ttl_secs } => (Err(Failure::NoSuchName), ttl_secs),
            Answer::NoAddress { ttl_secs } => (Err(Failure::NoAddress), ttl_secs),
            Answer::Truncated if config.streams => {
                query.truncated = server.filter(|server| !query.without_tcp.contains(server));
                query.failure = Some(Failure::Truncated);
                return;
            }
            Answer::Truncated => (Err(Failure::Truncated), 0),
            Answer::Alias { target } if query.followed < MAX_FOLLOWED => {
                query.followed += 1;
                // Who has said so is asked in the same round: a query has as many rounds with aliases as without.
                query.sent = query.sent.saturating_sub(1);
                query.target = *target;
                return;
            }
            Answer::Alias { .. } | Answer::Broken => (Err(Failure::Broken), 0),
            Answer::Refused(code) => {
                // Perhaps the other server knows.
                query.failure = Some(Failure::Refused(code));
                return;
            }
        };
        let ttl = Duration::from_secs(u64::from(ttl_secs)).min(config.max_ttl);
        query.done = Some(result.clone());
        let (name, family) = (query.name.clone(), query.family);
        cache.insert(now, name, family, result, ttl);
    }

    /// What was sent from a port to `to` does not arrive: if that is a question, the next server is asked.
    pub fn unreachable(&mut self, from_port: u16, to: SocketAddr) {
        for query in &mut self.queries {
            let is_it = |waiting: Waiting| {
                waiting.port == Some(from_port) && to == SocketAddr::new(waiting.server, DNS_PORT)
            };
            if query.waiting.is_some_and(is_it) {
                query.give_up_question();
            }
        }
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |query: &Query| match query.waiting {
            Some(waiting) if query.abandoned.is_none() => waiting.until,
            _ => Instant::ZERO,
        };
        self.queries.iter().map(deadline).min()
    }

    /// Queries on their way.
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Names that are remembered.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    /// Datagrams that answered no question of ours.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}
