//! Who is on the link: Ethernet addresses of IPv4 and IPv6 neighbours. ARP (RFC 826) and Neighbor Discovery (RFC 4861) are two ways to
//! say the same; what is known, and who asked for what, is in one place for both.
//!
//! | file | what |
//! | --- | --- |
//! | `resolver` | the neighbours, the questions that are open, and who asked them |
//! | `arp` | IPv4's wire |
//! | `ndisc` | IPv6's wire, and the guardian's own IPv6 address |
//!
//! The wire is not trusted: there are so many neighbours and no more, what is new replaces what was learned longest ago and nobody asks
//! for, and the gateway's entry only the gateway's.

mod arp;
mod ndisc;
mod resolver;

use crate::request::Refusal;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use exos_net::wire::ethernet::{EtherType, EthernetHeader, HEADER_BYTES};
use exos_net::wire::ipv6::LINK_LOCAL_PREFIX_LEN;
use exos_net::wire::ndisc::{Invalid, Nonce};
use exos_net::wire::{WireError, ipv6};
use exos_net::{Duration, Instant, MacAddress};
use ndisc::Ndisc;
use resolver::Resolver;
pub use resolver::{OPEN_MAX, share_of_open};

/// Neighbours at a time, of each family.
pub const NEIGHBOURS_MAX: usize = 48;
/// The guardian as one who asks.
const GUARDIAN: u32 = 0;

/// Whether a neighbour was there a moment ago (RFC 4861 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// It answered in the last 30 seconds.
    Reachable,
    /// It was there once, or says so itself. Good to be used; who asks for it has it looked for.
    Stale,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub ip: IpAddr,
    /// Where it is on the link.
    pub mac: MacAddress,
    /// It said that it is a router (IPv6 only).
    pub router: bool,
    /// Whether it is there.
    pub reachability: Reachability,
}

/// The interface that the guardian guards.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the IPv4 prefix that is on the link.
    pub prefix_len: u8,
    /// Who is asked for all other IPv4 addresses.
    pub gateway: Option<Ipv4Addr>,
}

impl Interface {
    /// Its link-local address.
    pub const fn link_local(&self) -> Ipv6Addr {
        ipv6::link_local(self.mac)
    }

    /// Whether an address is on the link and somebody else's.
    pub fn is_neighbour(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32u32.saturating_sub(self.prefix_len.into())).unwrap_or(0);
                (ip.to_bits() ^ self.ip.to_bits()) & mask == 0 && ip != self.ip && !ip.is_unspecified()
            }
            IpAddr::V6(ip) => {
                let own = self.link_local();
                (ip.to_bits() ^ own.to_bits()) >> (128 - u32::from(LINK_LOCAL_PREFIX_LEN)) == 0 && ip != own
            }
        }
    }
}

/// What has become of the guardian's own IPv6 address (RFC 4862 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressState {
    /// It is being found out whether somebody else has it.
    Tentative,
    /// It is the guardian's.
    Preferred,
    /// Somebody else has it, so it is not used, and nor is IPv6.
    Duplicate,
}

/// What the guardian saw on the link and did not believe. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that contradict themselves.
    pub malformed: u64,
    /// Neighbor Discovery from beyond a router.
    pub hop_limit: u64,
    /// Wrong checksums.
    pub checksum: u64,
    /// Messages that are not handled here.
    pub unsupported: u64,
    /// Packets by which somebody else claims an address of the guardian's.
    pub conflicts: u64,
}

/// Why a packet was not looked at.
enum Rejected {
    Wire(WireError),
    Ndisc(Invalid),
}

impl From<Invalid> for Rejected {
    fn from(invalid: Invalid) -> Self {
        Self::Ndisc(invalid)
    }
}

impl From<WireError> for Rejected {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl Counters {
    fn count(&mut self, why: &Rejected) {
        let counter = match why {
            Rejected::Ndisc(Invalid::HopLimit) => &mut self.hop_limit,
            Rejected::Wire(WireError::Checksum) | Rejected::Ndisc(Invalid::Checksum) => &mut self.checksum,
            Rejected::Wire(WireError::Malformed) | Rejected::Ndisc(Invalid::Malformed) => &mut self.malformed,
            Rejected::Wire(WireError::Unsupported | WireError::Fragment)
            | Rejected::Ndisc(Invalid::Unsupported) => &mut self.unsupported,
        };
        *counter += 1;
    }
}

/// Random bits, of the host's.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// For the solicitation by which the guardian finds out whether its address is somebody else's.
    pub nonce: Nonce,
    /// How long it waits before that; so that many who begin at once do not ask at once.
    pub delay: Duration,
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Frame {
    /// Ethernet, IPv6 and a solicitation with two options.
    const BYTES_MAX: usize = HEADER_BYTES + ipv6::HEADER_BYTES + exos_net::wire::ndisc::MESSAGE_BYTES_MAX;

    /// With this header; `fill` writes what follows, and says how long that is.
    fn build(header: EthernetHeader, fill: impl FnOnce(&mut [u8]) -> usize) -> Self {
        let mut bytes = [0; Self::BYTES_MAX];
        let (head, rest) = bytes.split_at_mut(HEADER_BYTES);
        if let Some(head) = head.first_chunk_mut() {
            header.emit(head);
        }
        let len = HEADER_BYTES + fill(rest).min(Self::BYTES_MAX - HEADER_BYTES);
        Self { bytes, len }
    }

    /// What is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What a frame was good for.
#[derive(Debug, Default)]
pub struct Heard {
    /// What is answered.
    pub reply: Option<Frame>,
    /// Whether there is something new to be shown.
    pub changed: bool,
}

/// All that is known of the link.
#[derive(Debug)]
pub struct Neighbours {
    interface: Interface,
    resolver: Resolver,
    ndisc: Ndisc,
    counters: Counters,
}

impl Neighbours {
    /// Nothing yet. So many environments share what can be asked at a time, the guardian being one of them.
    pub fn new(interface: Interface, environments: usize, random: Random, now: Instant) -> Self {
        let gateway = interface.gateway.map(IpAddr::V4);
        Self {
            interface,
            resolver: Resolver::new(gateway, share_of_open(environments)),
            ndisc: Ndisc::new(interface, random, now),
            counters: Counters::default(),
        }
    }

    /// Looks at a frame. ARP requests are answered by the stack, which has the IPv4 address.
    pub fn hear(&mut self, now: Instant, frame: &[u8]) -> Heard {
        let Ok((header, payload)) = EthernetHeader::parse(frame) else { return Heard::default() };
        let before = (self.counters, self.ndisc.state());
        let heard = match header.ether_type {
            EtherType::Ipv4 => return Heard::default(),
            EtherType::Arp => {
                arp::hear(&self.interface, &mut self.resolver, &mut self.counters, now, payload)
                    .map(|changed| Heard { reply: None, changed })
                    .map_err(Rejected::from)
            }
            EtherType::Ipv6 => self.ndisc.hear(&mut self.resolver, &mut self.counters, now, &header, payload),
        };
        let mut heard = heard.unwrap_or_else(|why| {
            self.counters.count(&why);
            Heard::default()
        });
        heard.changed |= (self.counters, self.ndisc.state()) != before;
        heard
    }

    /// A client wants to know where a neighbour is. `None`: that is being asked on the link; the client is in [`Self::take_told`] when it
    /// is known, or when nobody has answered, and then asks again.
    pub fn ask(&mut self, now: Instant, client: u32, ip: IpAddr) -> Result<Option<MacAddress>, Refusal> {
        if !self.interface.is_neighbour(ip) {
            return Err(Refusal::NotOnLink);
        }
        if ip.is_ipv6() && self.ndisc.state() == AddressState::Duplicate {
            return Err(Refusal::NoIpv6);
        }
        self.resolver.ask(now, client, ip)
    }

    /// What is due: asks on the link, looks for the gateway, gives up. Whether there is something new to be shown.
    pub fn tick(&mut self, now: Instant, mut send: impl FnMut(&Frame)) -> bool {
        if let Some(gateway) = self.interface.gateway.map(IpAddr::V4)
            && !self.resolver.is_unanswered(gateway)
        {
            // Whatever comes of it; the guardian asks again.
            let _ = self.resolver.ask(now, GUARDIAN, gateway);
        }
        let settled = self.ndisc.tick(now, &mut send);
        let (interface, ready) = (&self.interface, self.ndisc.state() == AddressState::Preferred);
        let changed = self.resolver.tick(now, |ip, at| {
            let frame = match ip {
                IpAddr::V4(ip) => arp::request(interface, ip, at),
                IpAddr::V6(ip) if ready => ndisc::solicitation(interface, ip, at),
                IpAddr::V6(_) => return false,
            };
            send(&frame);
            true
        });
        settled | changed
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_due(&self) -> Option<Instant> {
        [self.ndisc.next_due(), self.resolver.next_due()].into_iter().flatten().min()
    }

    /// A client has ended: nobody waits for what it asked.
    pub fn ended(&mut self, client: u32) {
        self.resolver.ended(client);
    }

    /// Clients with open questions, a bit each.
    pub fn askers(&self) -> u64 {
        self.resolver.askers()
    }

    /// Clients whose questions have come to an end since the last call, a bit each.
    pub fn take_told(&mut self) -> u64 {
        self.resolver.take_told() & !(1 << GUARDIAN)
    }

    /// All neighbours.
    pub fn iter(&self) -> impl Iterator<Item = Neighbour> {
        self.resolver.iter()
    }

    /// The guardian's IPv6 address, and what has become of it.
    pub fn address(&self) -> (Ipv6Addr, AddressState) {
        (self.interface.link_local(), self.ndisc.state())
    }

    /// What was not believed.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests;
