//! One version of IP: the address that clients of it connect to, the server that they are led to, and their connections.

use crate::address::{Address, Own, REQUEST_BYTES, addresses};
use crate::config::{Config, ConfigError, Mac, Network, check_network, next_hop};
use crate::counters::{Counters, Reason};
use crate::flows::{Flows, State};
use crate::forwarder::{HEAD_BYTES, Meta, Verdict, seconds};
use crate::neighbour::Neighbour;
use crate::wire::{ETHERNET_BYTES, IP, PROTOCOL_TCP, is_station, mac_at};
use core::time::Duration;

/// Connections that one call forgets at most.
const EXPIRE_MAX: usize = 64;
/// Errors of its own that it sends in a second (RFC 1812 4.3.2.8, RFC 4443 2.4 f).
const ERRORS_PER_SECOND: u32 = 100;

/// An IP packet for us in a frame: no options, no fragment, a right header checksum.
pub(crate) struct Packet<'a, A> {
    /// The frame's first bytes.
    pub(crate) head: &'a mut [u8; HEAD_BYTES],
    /// The rest of the frame.
    pub(crate) tail: &'a [u8],
    /// How many of `head` are the packet's.
    pub(crate) head_bytes: usize,
    /// Of the IP packet.
    pub(crate) total_bytes: usize,
    pub(crate) source: A,
    pub(crate) meta: Meta,
}

impl<A: Address> Packet<'_, A> {
    pub(crate) fn sender_mac(&self) -> Mac {
        mac_at(&*self.head, 6)
    }

    /// Addresses the frame.
    #[inline(always)]
    pub(crate) fn send_to(&mut self, mac: Mac, own: Own<A>) {
        self.head[..6].copy_from_slice(&mac);
        self.head[6..12].copy_from_slice(&own.mac);
    }

    /// The packet's bytes behind the IP header.
    pub(crate) fn transport(&self) -> (&[u8], &[u8]) {
        let (first, rest) = self.first(self.total_bytes);
        (&first[A::HEADER_BYTES..], rest)
    }

    /// The packet's first bytes, of which there are so many: in the head, and behind it.
    pub(crate) fn first(&self, bytes: usize) -> (&[u8], &[u8]) {
        let end = (IP + bytes).min(self.head_bytes);
        let rest = (IP + bytes).saturating_sub(self.head_bytes);
        (&self.head[IP..end], &self.tail[..rest.min(self.tail.len())])
    }

    pub(crate) fn hop_limit(&self) -> u8 {
        self.head[IP + A::HOP_LIMIT]
    }
}

/// What all versions of IP share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) mac: Mac,
    pub(crate) listen: u16,
    pub(crate) counters: Counters,
    established_s: u32,
    transitory_s: u32,
    /// The second in which errors are counted, and how many there were.
    errors: (u32, u32),
}

impl Common {
    pub(crate) fn new(config: &Config) -> Self {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1);
        Self {
            mac: config.mac,
            listen: config.listen,
            counters: Counters::default(),
            established_s: seconds(config.established_timeout),
            transitory_s: seconds(config.transitory_timeout),
            errors: (0, 0),
        }
    }

    /// Whether another error of its own may go out now.
    pub(crate) fn may_complain(&mut self, now: Duration) -> bool {
        let now_s = seconds(now);
        if self.errors.0 != now_s {
            self.errors = (now_s, 0);
        }
        self.errors.1 += 1;
        self.errors.1 <= ERRORS_PER_SECOND
    }

    fn timeouts(&self) -> impl Fn(State) -> u32 + use<> {
        let (established_s, transitory_s) = (self.established_s, self.transitory_s);
        move |state| if state == State::Established { established_s } else { transitory_s }
    }
}

/// Where connections go.
#[derive(Debug)]
pub(crate) struct Server<A> {
    pub(crate) address: A,
    pub(crate) port: u16,
    pub(crate) next_hop: Neighbour<A>,
    pub(crate) flows: Flows<A>,
}

/// One version of IP.
#[derive(Debug)]
pub(crate) struct Path<A> {
    pub(crate) own: Own<A>,
    /// The address is ours.
    pub(crate) is_used: bool,
    /// `None`: connections are refused.
    pub(crate) server: Option<Server<A>>,
}

impl<A: Address> Path<A> {
    /// Takes all its memory.
    pub(crate) fn new(config: &Config, network: &Network<A>) -> Result<Self, ConfigError> {
        check_network(network)?;
        let server = match network.to {
            None => None,
            Some((address, port)) => Some(Server {
                address,
                port,
                next_hop: Neighbour::new(next_hop(network, address)?),
                flows: Flows::new(config.max_connections, config.listen, &config.secret),
            }),
        };
        Ok(Self { own: Own { mac: config.mac, address: network.address }, is_used: true, server })
    }

    pub(crate) fn next_hop(&mut self) -> Option<&mut Neighbour<A>> {
        self.server.as_mut().map(|server| &mut server.next_hop)
    }

    /// Writes a question for the next hop if it is time for one, and gives back its bytes.
    pub(crate) fn ask(&mut self, now: Duration, frame: &mut [u8; REQUEST_BYTES]) -> Option<usize> {
        let (own, is_used) = (self.own, self.is_used);
        self.next_hop().filter(|_| is_used)?.ask(now, own, frame)
    }

    /// Connections in each state, and how many can be remembered.
    pub(crate) fn connections(&self) -> ([u32; 3], u32) {
        let states = [State::HalfOpen, State::Established, State::Closing];
        self.server
            .as_ref()
            .map_or(([0; 3], 0), |Server { flows, .. }| (states.map(|state| flows.count(state)), flows.max()))
    }

    /// Forgets connections whose time is over.
    pub(crate) fn expire(&mut self, common: &mut Common, now: Duration) {
        let Some(server) = &mut self.server else { return };
        let (now_s, timeout_s) = (seconds(now), common.timeouts());
        for _ in 0..EXPIRE_MAX {
            if !server.flows.expire(now_s, &timeout_s) {
                break;
            }
            common.counters.expired += 1;
        }
    }

    /// When something is due by itself.
    pub(crate) fn deadline(&self, common: &Common) -> Option<Duration> {
        let Server { flows, next_hop, .. } = self.server.as_ref()?;
        let expiry = flows.next_expiry_s(common.timeouts()).map(|at_s| Duration::from_secs(at_s.into()));
        let asking = if self.is_used { next_hop.deadline() } else { Duration::MAX };
        Some(expiry.map_or(asking, |expiry| expiry.min(asking)))
    }

    /// Looks at an IP packet.
    #[inline(always)]
    pub(crate) fn input(
        &mut self,
        common: &mut Common,
        now: Duration,
        (head, head_bytes, tail): (&mut [u8; HEAD_BYTES], usize, &[u8]),
        meta: Meta,
    ) -> Result<Verdict, Reason> {
        let parsed = A::parse(head, head_bytes, head_bytes + tail.len())?;
        let (source, destination) = addresses::<A>(&head[IP..]);
        if destination != self.own.address || !self.is_used {
            return Err(Reason::NotForUs);
        }
        if !is_station(mac_at(head, 6)) || !source.is_host() || source == self.own.address {
            return Err(Reason::BadSource);
        }
        if parsed.is_fragment {
            return Err(Reason::Fragment);
        }
        // What follows the packet is Ethernet's padding.
        let head_bytes = head_bytes.min(ETHERNET_BYTES + parsed.total_bytes);
        let packet = Packet { head, tail, head_bytes, total_bytes: parsed.total_bytes, source, meta };
        match parsed.protocol {
            PROTOCOL_TCP => self.segment(common, now, packet),
            protocol if protocol == A::ICMP.protocol => self.icmp(common, packet),
            _ => Err(Reason::Unsupported),
        }
    }
}
