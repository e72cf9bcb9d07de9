//! Neighbor Discovery (RFC 4861) for one link-local address: finds out whether it is somebody else's, answers for it, and turns what
//! others say into evidence. The address is made of the Ethernet address, so two machines that were given the same one find out here.

use super::resolver::{Advertised, Resolver};
use super::{AddressState, Counters, Frame, Heard, Interface, Random, Rejected};
use core::net::{IpAddr, Ipv6Addr};
use exos_net::wire::WireError;
use exos_net::wire::ethernet::{EtherType, EthernetHeader};
use exos_net::wire::ipv6::{ALL_NODES, HEADER_BYTES, Ipv6Header, NextHeader, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, MESSAGE_BYTES_MAX, Message, Nonce};
use exos_net::{Duration, Instant, MacAddress};

/// How long nobody may object (RFC 4861 10, RETRANS_TIMER; there is one probe, RFC 4862 5.1).
const OBJECTION: Duration = Duration::from_secs(1);

/// The guardian's address.
#[derive(Debug)]
pub(super) struct Ndisc {
    interface: Interface,
    address: Ipv6Addr,
    nonce: Nonce,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Asks then whether somebody has it.
    Waiting(Instant),
    /// Has it then, if nobody objects.
    Asked(Instant),
    Preferred,
    Duplicate,
}

impl Ndisc {
    pub(super) fn new(interface: Interface, random: Random, now: Instant) -> Self {
        let step = Step::Waiting(now + random.delay);
        Self { interface, address: interface.link_local(), nonce: random.nonce, step }
    }

    pub(super) fn state(&self) -> AddressState {
        match self.step {
            Step::Waiting(_) | Step::Asked(_) => AddressState::Tentative,
            Step::Preferred => AddressState::Preferred,
            Step::Duplicate => AddressState::Duplicate,
        }
    }

    /// Goes on with finding out; whether that is over.
    pub(super) fn tick(&mut self, now: Instant, send: &mut impl FnMut(&Frame)) -> bool {
        match self.step {
            Step::Waiting(at) if at <= now => {
                let message =
                    Message::Solicitation { target: self.address, source_mac: None, nonce: Some(self.nonce) };
                let group = solicited_node(self.address);
                send(&frame(&self.interface, Ipv6Addr::UNSPECIFIED, group, multicast_mac(group), message));
                self.step = Step::Asked(now + OBJECTION);
                false
            }
            Step::Asked(until) if until <= now => {
                self.step = Step::Preferred;
                true
            }
            _ => false,
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        match self.step {
            Step::Waiting(at) | Step::Asked(at) => Some(at),
            Step::Preferred | Step::Duplicate => None,
        }
    }

    /// Looks at a packet.
    pub(super) fn hear(
        &mut self,
        resolver: &mut Resolver,
        counters: &mut Counters,
        now: Instant,
        ethernet: &EthernetHeader,
        payload: &[u8],
    ) -> Result<Heard, Rejected> {
        let group = solicited_node(self.address);
        let listens = |ip: Ipv6Addr| ip == self.address || ip == group || ip == ALL_NODES;
        let own_mac = [self.interface.mac, multicast_mac(group), multicast_mac(ALL_NODES)];
        if !own_mac.contains(&ethernet.destination) {
            return Ok(Heard::default());
        }
        let (ip, bytes) = Ipv6Header::parse(payload)?;
        if !listens(ip.destination) {
            return Ok(Heard::default());
        }
        if !ethernet.source.is_unicast() {
            return Err(Rejected::Wire(WireError::Malformed));
        }
        match Message::parse(&ip, bytes)? {
            Message::Solicitation { target, source_mac, nonce } if target == self.address => {
                if self.state() != AddressState::Preferred {
                    // Somebody else finds out about the same address (RFC 4862 5.4.3), or it is our own question that came back
                    // (RFC 7527 4.2); who has an address and asks is not answered yet.
                    if ip.source.is_unspecified() && nonce != Some(self.nonce) {
                        self.taken(counters);
                    }
                    return Ok(Heard::default());
                }
                Ok(self.asked(resolver, now, ip.source, source_mac, ethernet.source))
            }
            Message::Solicitation { .. } => Ok(Heard::default()),
            Message::Advertisement { target, .. } if target == self.address => {
                self.taken(counters);
                Ok(Heard::default())
            }
            Message::Advertisement { target, router, solicited, overrides, target_mac: mac } => {
                let neighbour = IpAddr::V6(target);
                let changed = self.interface.is_neighbour(neighbour)
                    && resolver.advertised(now, neighbour, Advertised { mac, router, solicited, overrides });
                Ok(Heard { reply: None, changed })
            }
        }
    }

    /// Somebody else has the address. Once it is the guardian's it stays so, and people can see it (RFC 4862 5.4 has nothing to say
    /// then; RFC 5227 2.4 is the same for IPv4).
    fn taken(&mut self, counters: &mut Counters) {
        counters.conflicts += 1;
        if self.state() == AddressState::Tentative {
            self.step = Step::Duplicate;
        }
    }

    /// Answers who asks for the address (RFC 4861 7.2.3, 7.2.4).
    fn asked(
        &self,
        resolver: &mut Resolver,
        now: Instant,
        source: Ipv6Addr,
        source_mac: Option<MacAddress>,
        frame_mac: MacAddress,
    ) -> Heard {
        let solicited = !source.is_unspecified();
        let mut changed = false;
        let (destination, to) = if solicited {
            let neighbour = IpAddr::V6(source);
            if let Some(mac) = source_mac.filter(|_| self.interface.is_neighbour(neighbour)) {
                changed = resolver.introduced(now, neighbour, mac, true);
            }
            // Without the option it asked at our Ethernet address, and is where its frame came from.
            (source, source_mac.unwrap_or(frame_mac))
        } else {
            (ALL_NODES, multicast_mac(ALL_NODES))
        };
        let message = Message::Advertisement {
            target: self.address,
            router: false,
            solicited,
            overrides: true,
            target_mac: Some(self.interface.mac),
        };
        Heard { reply: Some(frame(&self.interface, self.address, destination, to, message)), changed }
    }
}

/// The question where somebody is, to its group or to where it was last.
pub(super) fn solicitation(interface: &Interface, target: Ipv6Addr, at: Option<MacAddress>) -> Frame {
    let message = Message::Solicitation { target, source_mac: Some(interface.mac), nonce: None };
    let group = solicited_node(target);
    let (destination, to) = at.map_or((group, multicast_mac(group)), |mac| (target, mac));
    frame(interface, interface.link_local(), destination, to, message)
}

fn frame(
    interface: &Interface,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    to: MacAddress,
    message: Message,
) -> Frame {
    let header = EthernetHeader { destination: to, source: interface.mac, ether_type: EtherType::Ipv6 };
    Frame::build(header, |out| {
        let Some((head, rest)) = out.split_first_chunk_mut::<HEADER_BYTES>() else { return 0 };
        let Some(rest) = rest.first_chunk_mut::<MESSAGE_BYTES_MAX>() else { return 0 };
        let len = message.emit(source, destination, rest);
        Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit: HOP_LIMIT }
            .emit(len, head);
        HEADER_BYTES + len
    })
}
