//! Queries on their way: whom they were sent to, with which identifier and from which port, how often, and what came of it.

use core::fmt;
use core::net::{IpAddr, SocketAddr};

use alloc::boxed::Box;
use alloc::vec::Vec;

use domain::dep::octseq::Array;
use exos_net::{Duration, Instant};

use crate::cache::Cache;
use crate::message::{Answer, Family, Host, MAX_QUERY_BYTES, answer, parse_name, query as question};

/// The port that servers listen on.
const DNS_PORT: u16 = 53;
/// Source ports are drawn from these (RFC 6335 6, RFC 5452 9.2).
const FIRST_PORT: u16 = 49_152;
/// The most aliases that are followed with questions of their own.
const MAX_FOLLOWED: u8 = 8;

/// What the resolver must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The recursive servers, asked in turn.
    pub servers: [Option<IpAddr>; 2],
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
    /// Two servers at most, with the usual bounds and timeouts.
    pub const fn new(servers: [Option<IpAddr>; 2]) -> Self {
        Self {
            servers,
            timeout: Duration::from_secs(2),
            attempts: 3,
            max_queries: 16,
            max_cached: 256,
            max_ttl: Duration::from_secs(86_400),
        }
    }
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
    /// The answer does not fit a datagram.
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
            Self::Truncated => f.write_str("the answer does not fit a datagram; use an address"),
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
    port: u16,
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
    /// Questions sent for `target`.
    sent: u8,
    followed: u8,
    waiting: Option<Waiting>,
    /// A port of an earlier question.
    unbind: Option<u16>,
    /// The response code of the last server that would not say.
    refused: Option<u8>,
    done: Option<Result<Vec<IpAddr>, Failure>>,
}

impl Query {
    /// No answer is expected to the last question any more.
    fn give_up_question(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            self.unbind = Some(waiting.port);
        }
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
    pub fn set_servers(&mut self, servers: [Option<IpAddr>; 2]) {
        self.config.servers = servers;
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
            unbind: None,
            refused: None,
            done: None,
        });
        Ok(Lookup::Asked(id))
    }

    /// What there is to do at `now`; to be called until it returns `None`. `random` must be fresh with each call: it becomes
    /// identifier and port of a question.
    pub fn poll(&mut self, now: Instant, random: u64) -> Option<Event> {
        for index in 0..self.queries.len() {
            let query = &mut self.queries[index];
            if query.waiting.is_some_and(|waiting| waiting.until <= now) {
                query.give_up_question();
            }
            if let Some(port) = query.unbind.take() {
                return Some(Event::Unbind(port));
            }
            if query.done.is_some() {
                let query = self.queries.swap_remove(index);
                let result = query.done.unwrap_or(Err(Failure::Broken));
                return Some(Event::Done { id: query.id, result });
            }
            if query.waiting.is_none() {
                return Some(self.ask(index, now, random));
            }
        }
        None
    }

    /// The next question of a query, or its end if there was one too many.
    fn ask(&mut self, index: usize, now: Instant, random: u64) -> Event {
        let servers = self.config.servers.iter().flatten().count();
        let taken = |port: u16| {
            self.queries.iter().any(|query| query.waiting.is_some_and(|waiting| waiting.port == port))
        };
        let mut port = FIRST_PORT + (random >> 16) as u16 % (u16::MAX - FIRST_PORT);
        while taken(port) {
            port = if port == u16::MAX { FIRST_PORT } else { port + 1 };
        }
        let query = &mut self.queries[index];
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
            let failure = query.refused.map_or(Failure::TimedOut, Failure::Refused);
            let query = self.queries.swap_remove(index);
            return Event::Done { id: query.id, result: Err(failure) };
        };
        query.sent += 1;
        let wait = self.config.timeout.as_nanos().saturating_mul(1 << round.min(6));
        let until = now + Duration::from_nanos(wait);
        query.waiting = Some(Waiting { server, id, port, until });
        Event::Send(Box::new(Outgoing { from_port: port, to: SocketAddr::new(server, DNS_PORT), bytes }))
    }

    /// A datagram arrived at a port that an [`Outgoing`] named. What came of it is said by [`Self::poll`].
    pub fn receive(&mut self, now: Instant, from: SocketAddr, to_port: u16, bytes: &[u8]) {
        let asked = self.queries.iter_mut().find_map(|query| {
            let waiting = query.waiting.filter(|waiting| waiting.port == to_port)?;
            (from == SocketAddr::new(waiting.server, DNS_PORT)).then_some((waiting, query))
        });
        let answer = asked.and_then(|(waiting, query)| {
            answer(bytes, waiting.id, &query.target, query.family).map(|answer| (query, answer))
        });
        let Some((query, answer)) = answer else {
            self.ignored += 1;
            return;
        };
        query.give_up_question();
        let (result, ttl_secs) = match answer {
            Answer::Addresses { addresses, ttl_secs } => (Ok(addresses), ttl_secs),
            Answer::NoSuchName { ttl_secs } => (Err(Failure::NoSuchName), ttl_secs),
            Answer::NoAddress { ttl_secs } => (Err(Failure::NoAddress), ttl_secs),
            Answer::Truncated => (Err(Failure::Truncated), 0),
            Answer::Alias { target } if query.followed < MAX_FOLLOWED => {
                query.followed += 1;
                query.sent = 0;
                query.target = *target;
                return;
            }
            Answer::Alias { .. } | Answer::Broken => (Err(Failure::Broken), 0),
            Answer::Refused(code) => {
                // Perhaps the other server knows.
                query.refused = Some(code);
                return;
            }
        };
        let ttl = Duration::from_secs(u64::from(ttl_secs)).min(self.config.max_ttl);
        query.done = Some(result.clone());
        let (name, family) = (query.name.clone(), query.family);
        self.cache.insert(now, name, family, result, ttl);
    }

    /// A question from `port` did not reach its server, an ICMP error says: the next one is asked.
    pub fn unreachable(&mut self, port: u16) {
        for query in &mut self.queries {
            if query.waiting.is_some_and(|waiting| waiting.port == port) {
                query.give_up_question();
            }
        }
    }

    /// When [`Self::poll`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadline = |query: &Query| match query.waiting {
            Some(waiting) if query.unbind.is_none() => waiting.until,
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
