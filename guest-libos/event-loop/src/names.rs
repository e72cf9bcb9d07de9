//! Names for services: `exos-dns` on the stack of the loop, over UDP, and over TCP where an answer does not fit a datagram; one name
//! at a time.

use crate::Interface;
use crate::random::Random;
use crate::transmit::Sender;
use crate::unsent::Unsent;
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use exos_dns::{Config, Event, Failure, Family, Lookup, Outcome, QueryId, Resolver, Streams, first_host};
use exos_net::{AddressState, ConnId, Data, DatagramError, Instant, Problem, SegmentEvents, Stack};

/// Why the addresses of a name are not known, as the user of an image can mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameFailure(pub Failure);

impl fmt::Display for NameFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Failure::NoServer => f.write_str(
                "no name server is known; say one (dns=ADDRESS of --net; --net user,outbound has the host's), or give an address \
                 instead of the name",
            ),
            Failure::TimedOut => f.write_str(
                "no name server answered; look whether dns= of --net, the DHCP server or the IPv6 router says the right one, and for the way there (gw= of --net, \
                 for servers beyond the link)",
            ),
            Failure::Truncated => {
                f.write_str("the answer does not fit a datagram, and was not to be had over TCP: the name server did not give it, something stops TCP to its port 53, or no connection was to spare; say another server (dns=ADDRESS of --net), or give an address instead of the name")
            }
            failure => write!(f, "{failure}"),
        }
    }
}

/// What is known of a name's addresses of one family.
#[derive(Debug)]
enum Answer {
    /// Nothing yet.
    Awaited(QueryId),
    Known(Result<Vec<IpAddr>, Failure>),
}

/// A resolver, and the name that is asked for.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Resolver,
    random: Random,
    unsent: Unsent,
    streams: Streams,
    /// The user has said which servers are asked; what DHCP servers and routers say does not count.
    are_servers_given: bool,
    /// Servers of the lease.
    leased: Vec<IpAddr>,
    /// Of the stack's IPv6, so much is known.
    ipv6_changes: u32,
    /// Servers that routers advertise.
    advertised: Vec<IpAddr>,
    /// IPv6's answer and IPv4's, while somebody waits for them.
    asked: Option<[Answer; 2]>,
}

impl Names {
    pub(crate) fn new(interface: &Interface) -> Self {
        let servers = interface.name_servers();
        let are_servers_given = servers.clone().next().is_some();
        let resolver = Resolver::new(Config { streams: true, ..Config::new(servers) });
        let (random, unsent, streams) = (Random::new(interface), Unsent::default(), Streams::default());
        let (leased, ipv6_changes, advertised) = (Vec::new(), 0, Vec::new());
        Self {
            resolver,
            random,
            unsent,
            streams,
            are_servers_given,
            leased,
            ipv6_changes,
            advertised,
            asked: None,
        }
    }

    /// A DHCP server says whom to ask.
    pub(crate) fn leased(&mut self, servers: impl IntoIterator<Item = Ipv4Addr>) {
        self.leased = servers.into_iter().map(IpAddr::V4).collect();
        self.choose_servers();
    }

    /// Routers say whom to ask (RFC 8106), if that is news.
    #[inline]
    pub(crate) fn hear_routers<D: Data>(&mut self, now: Instant, stack: &Stack<D>) {
        if stack.ipv6_changes() != self.ipv6_changes {
            self.ipv6_changes = stack.ipv6_changes();
            self.advertised = stack.ipv6_name_servers(now).map(IpAddr::V6).collect();
            self.choose_servers();
        }
    }

    /// The user's word alone counts; else a DHCP server's comes before what routers advertise (RFC 8106 5.3.1).
    fn choose_servers(&mut self) {
        if !self.are_servers_given {
            self.resolver.set_servers(self.leased.iter().chain(&self.advertised).copied());
        }
    }

    /// Begins with a name, and gives up the one before: its addresses are asked for of each family that we have an address of.
    pub(crate) fn begin<D: Data>(&mut self, now: Instant, name: &str, stack: &Stack<D>) {
        for answer in self.asked.take().into_iter().flatten() {
            if let Answer::Awaited(id) = answer {
                self.resolver.cancel(id);
            }
        }
        let has_ipv4 = stack.address().is_some();
        // Without either there is a link-local address, from which a server on the link can be asked at least.
        let has_ipv6 = !has_ipv4 || has_global_ipv6(now, stack);
        self.asked = Some([(Family::V6, has_ipv6), (Family::V4, has_ipv4)].map(|(family, has)| {
            if !has {
                return Answer::Known(Ok(Vec::new()));
            }
            match self.resolver.lookup(now, name, family) {
                Ok(Lookup::Known(addresses)) => Answer::Known(Ok(addresses)),
                Ok(Lookup::Asked(id)) => Answer::Awaited(id),
                Err(failure) => Answer::Known(Err(failure)),
            }
        }));
        self.leave_out();
    }

    /// A datagram came to a port.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, port: u16, payload: &[u8]) {
        self.resolver.receive(now, from, port, payload);
    }

    /// Whether a connection is one to a name server.
    #[inline]
    pub(crate) fn has_stream(&self, connection: ConnId) -> bool {
        self.streams.contains(connection)
    }

    /// A segment came on such a connection.
    #[cold]
    pub(crate) fn segment<D: Data>(
        &mut self,
        now: Instant,
        events: &SegmentEvents<'_>,
        stack: &mut Stack<D>,
        sender: &mut Sender<'_, D>,
    ) {
        let outcome = self.streams.segment(now, events, stack, sender);
        self.hear(now, outcome);
    }

    /// A timer ended a connection; `false`: it is not one to a name server.
    pub(crate) fn stream_ended(&mut self, now: Instant, connection: ConnId) -> bool {
        let Some(outcome) = self.streams.ended(connection) else { return false };
        self.hear(now, outcome);
        true
    }

    fn hear(&mut self, now: Instant, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Answered(id, answer)) => {
                self.resolver.receive_stream(now, id, answer.message().unwrap_or_default());
            }
            Some(Outcome::Failed(id)) => self.resolver.stream_failed(id),
            None => {}
        }
    }

    /// An ICMP error came about a datagram. Anybody can make one up, and a way may be there again soon: only that nobody is at the
    /// server's port ends a question.
    pub(crate) fn problem_arrives(&mut self, error: &DatagramError) {
        if matches!(error.problem, Problem::PortUnreachable | Problem::ProtocolUnreachable) {
            self.resolver.unreachable(error.port, error.to);
        }
    }

    /// Does what is due; answers the first address of the name, or why there is none, once all is known. `message` makes data of a
    /// question over TCP.
    pub(crate) fn work<D: Data>(
        &mut self,
        now: Instant,
        stack: &mut Stack<D>,
        tx: &mut Sender<'_, D>,
        mut message: impl FnMut(&[u8]) -> Option<D>,
    ) -> Option<Result<IpAddr, NameFailure>> {
        self.unsent.retry(now, stack, tx);
        self.streams.expire(now, stack, tx);
        while self.resolver.next_deadline().is_some_and(|at| at <= now)
            && let Some(event) = self.resolver.poll(now, self.random.next())
        {
            match event {
                Event::Send(query) => {
                    let (from, bytes) = (query.from_port, query.bytes());
                    let sent = stack.bind_udp(from).is_ok()
                        && self.unsent.send(now, from, query.to, bytes, stack, tx).is_ok();
                    if !sent {
                        self.resolver.unreachable(from, query.to);
                    }
                }
                Event::Unbind(port) => {
                    stack.unbind_udp(port);
                }
                Event::Stream(query) => {
                    let question = message(query.framed());
                    if !self.streams.ask(now, &query, question, stack, tx) {
                        self.resolver.stream_failed(query.id);
                    }
                }
                Event::Hangup(id) => self.streams.hang_up(id, stack, tx),
                Event::Done { id, result } => self.answered(id, result),
            }
        }
        let (ipv6, ipv4) = match self.asked.take()? {
            [Answer::Known(ipv6), Answer::Known(ipv4)] => (ipv6, ipv4),
            awaited => {
                self.asked = Some(awaited);
                return None;
            }
        };
        let addresses = exos_dns::merge(ipv6, ipv4);
        let first = addresses.and_then(|addresses| first_host(&addresses));
        Some(first.map_err(NameFailure))
    }

    fn answered(&mut self, id: QueryId, result: Result<Vec<IpAddr>, Failure>) {
        let mut answers = self.asked.iter_mut().flatten();
        if let Some(answer) =
            answers.find(|answer| matches!(answer, Answer::Awaited(awaited) if *awaited == id))
        {
            *answer = Answer::Known(result);
        }
        self.leave_out();
    }

    /// Where IPv6's answer has a host's address, IPv4's is not waited for.
    fn leave_out(&mut self) {
        if let Some([Answer::Known(Ok(addresses)), ipv4]) = &mut self.asked
            && first_host(addresses).is_ok()
            && let Answer::Awaited(id) = *ipv4
        {
            self.resolver.cancel(id);
            *ipv4 = Answer::Known(Ok(Vec::new()));
        }
    }

    /// When [`Self::work`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.unsent.next_deadline(), self.resolver.next_deadline(), self.streams.next_deadline()];
        deadlines.into_iter().flatten().min()
    }
}

/// Whether we have an IPv6 address that others than neighbours can answer to.
fn has_global_ipv6<D: Data>(now: Instant, stack: &Stack<D>) -> bool {
    let is_used = |state| matches!(state, AddressState::Preferred | AddressState::Deprecated);
    stack.ipv6_addresses(now).any(|address| is_used(address.state) && !address.ip.is_unicast_link_local())
}
