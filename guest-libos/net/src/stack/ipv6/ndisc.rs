//! Neighbour discovery (RFC 4861) and address configuration (RFC 4862): messages in and out. What they change is the
//! interface's part.

use core::net::Ipv6Addr;

use super::super::Stack;
use super::super::neighbours::Heard;
use crate::config::Config;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::Transmit;
use crate::events::{ConflictOutcome, Input};
use crate::frame::ControlFrame;
use crate::ipv6::{self, Advertised, Probe, Question, Wish};
use crate::time::Instant;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::icmpv6;
use crate::wire::ipv6::{
    ALL_NODES, ALL_ROUTERS, HEADER_BYTES, Ipv6Header, NextHeader, Packet, multicast_mac, solicited_node,
};
use crate::wire::ndisc::{HOP_LIMIT, Invalid, MESSAGE_BYTES_MAX, Message};
use crate::wire::router;

impl From<Invalid> for DropReason {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Unsupported => Self::Unsupported,
            Invalid::HopLimit => Self::OffLink,
            Invalid::Checksum => Self::Checksum,
            Invalid::Malformed => Self::Malformed,
        }
    }
}

impl From<ipv6::Heard> for Heard {
    fn from(heard: ipv6::Heard) -> Self {
        match heard {
            ipv6::Heard::Nothing => Self::Nothing,
            ipv6::Heard::New => Self::New,
            ipv6::Heard::Moved(before) => Self::Moved(before),
        }
    }
}

impl<D: Data> Stack<D> {
    pub(super) fn neighbour_discovery_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        ip: &Ipv6Header,
        bytes: &[u8],
    ) -> Result<Input<'f>, DropReason> {
        if bytes.first() == Some(&router::ADVERTISEMENT) {
            return self.router_advertises(now, ip, bytes);
        }
        match Message::parse(ip, bytes)? {
            Message::Solicitation { target, source_mac, nonce } => {
                let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return Ok(Input::Nothing) };
                if interface.addresses.is_tentative(target) {
                    // Somebody else finds out about the same address (RFC 4862 5.4.3), unless it is our own question that came
                    // back (RFC 7527 4.2); who has an address and asks is not answered yet.
                    if ip.source.is_unspecified() && !interface.addresses.is_own_probe(target, nonce) {
                        self.address_collides(target, source_mac.unwrap_or(sender_mac), now);
                    }
                    return Ok(Input::Nothing);
                }
                if !interface.addresses.is_assigned(target) {
                    return Err(DropReason::NotForUs);
                }
                if let Some(mac) = source_mac {
                    let heard = interface.neighbours.spoke(ip.source, mac);
                    self.neighbour_heard(ip.source.into(), mac, heard.into());
                }
                if !self.speaks_ipv6() {
                    return Ok(Input::Nothing);
                }
                self.counters.neighbour_advertisements += 1;
                let to = if ip.source.is_unspecified() {
                    (ALL_NODES, multicast_mac(ALL_NODES))
                } else {
                    (ip.source, source_mac.unwrap_or(sender_mac))
                };
                Ok(Input::Reply(advertisement(&self.config, target, to)))
            }
            Message::Advertisement { target, router, solicited, overrides, target_mac } => {
                let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return Ok(Input::Nothing) };
                let by = target_mac.unwrap_or(sender_mac);
                if interface.addresses.is_tentative(target) {
                    self.address_collides(target, by, now);
                    return Ok(Input::Nothing);
                }
                if interface.addresses.is_assigned(target) {
                    // RFC 4862 5.4.4: somebody else has it as well.
                    self.address_is_claimed(now, target, by);
                    return Ok(Input::Nothing);
                }
                let said = Advertised { mac: target_mac, solicited, overrides };
                let heard = interface.neighbours.advertised(target, said, now);
                if !router {
                    interface.routers.is_host(target);
                }
                if let Some(mac) = target_mac {
                    self.neighbour_heard(target.into(), mac, heard.into());
                }
                Ok(Input::Nothing)
            }
        }
    }

    fn speaks_ipv6(&self) -> bool {
        self.resolver.ipv6.as_deref().is_some_and(|interface| interface.speaks)
    }

    /// A packet from an address that we use. Anybody can send that, from anywhere; on this link, only who says that the address
    /// is at another interface counts.
    #[cold]
    pub(super) fn own_source_arrives(&mut self, now: Instant, sender_mac: MacAddress, packet: &Packet<'_>) {
        if packet.next_header != NextHeader::Icmpv6.to_wire() {
            return;
        }
        let message = Message::parse(&packet.header(NextHeader::Icmpv6), packet.payload);
        if let Ok(Message::Advertisement { target, target_mac, .. }) = message {
            self.address_is_claimed(now, target, target_mac.unwrap_or(sender_mac));
        }
    }

    /// Somebody says that `target`, if it is an address that we use, is at `by`; a bridge may send us our own words.
    fn address_is_claimed(&mut self, now: Instant, target: Ipv6Addr, by: MacAddress) {
        let interface = self.resolver.ipv6.as_deref();
        if by != self.config.mac && interface.is_some_and(|interface| interface.addresses.is_assigned(target))
        {
            self.ipv6_address_claimed(now, target, by, ConflictOutcome::Kept);
        }
    }

    fn address_collides(&mut self, address: Ipv6Addr, by: MacAddress, now: Instant) {
        self.ipv6_address_claimed(now, address, by, ConflictOutcome::GivenUp);
        if let Some(interface) = &mut self.resolver.ipv6 {
            interface.addresses.collided(address, now);
        }
        self.follow_addresses(now);
    }

    fn router_advertises<'f>(
        &mut self,
        now: Instant,
        ip: &Ipv6Header,
        bytes: &[u8],
    ) -> Result<Input<'f>, DropReason> {
        let said = router::Advertisement::parse(ip, bytes)?;
        let Some(interface) = self.resolver.ipv6.as_deref_mut() else { return Ok(Input::Nothing) };
        let refused = interface.router_advertises(ip.source, &said, now).ok_or(DropReason::Unsupported)?;
        self.counters.router_advertisements += 1;
        self.counters.prefixes_refused += u64::from(refused);
        if let Some(mac) = said.source_mac {
            let heard = if interface.routers.contains(ip.source) {
                interface.neighbours.router_spoke(ip.source, mac, now)
            } else {
                interface.neighbours.spoke(ip.source, mac)
            };
            self.neighbour_heard(ip.source.into(), mac, heard.into());
        }
        self.link_mtu_advertised(now);
        self.follow_addresses(now);
        Ok(Input::Nothing)
    }

    /// Sends what is due: questions about new addresses, to neighbours, and for routers.
    pub(in crate::stack) fn expire_ipv6<T: Transmit<D>>(&mut self, now: Instant, tx: &mut T) {
        let speaks = self.speaks_ipv6();
        while let Some(wish) = self.resolver.ipv6.as_deref_mut().and_then(|interface| interface.poll(now)) {
            if !speaks {
                continue;
            }
            let frame = match wish {
                Wish::Probe(probe) => {
                    self.join_before_probe(probe.target, now, tx);
                    self.counters.address_probes += 1;
                    probe_frame(&self.config, probe)
                }
                Wish::Ask(question) => {
                    self.counters.neighbour_solicitations += 1;
                    solicitation(&self.config, question)
                }
                Wish::SolicitRouters(source) => {
                    self.counters.router_solicitations += 1;
                    router_solicitation(&self.config, source)
                }
            };
            // What is lost here is as if the link had lost it.
            let _ = tx.transmit_control(&frame);
        }
    }
}

/// A frame with a message about a neighbour.
fn frame(
    config: &Config,
    message: &Message,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    mac: MacAddress,
) -> ControlFrame<'static> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let len = message.emit(source, destination, &mut bytes);
    icmpv6_frame(config, &icmpv6::header(source, destination, HOP_LIMIT), mac, &bytes[..len])
}

fn icmpv6_frame(config: &Config, ip: &Ipv6Header, mac: MacAddress, bytes: &[u8]) -> ControlFrame<'static> {
    ControlFrame::build(&[], |out| {
        if let Some(out) = out.first_chunk_mut() {
            EthernetHeader { destination: mac, source: config.mac, ether_type: EtherType::Ipv6 }.emit(out);
        }
        let rest = &mut out[ethernet::HEADER_BYTES..];
        if let Some(out) = rest.first_chunk_mut() {
            ip.emit(bytes.len(), out);
        }
        rest[HEADER_BYTES..HEADER_BYTES + bytes.len()].copy_from_slice(bytes);
        ethernet::HEADER_BYTES + HEADER_BYTES + bytes.len()
    })
}

/// RFC 4861 7.2.4: we have the target.
fn advertisement(config: &Config, target: Ipv6Addr, to: (Ipv6Addr, MacAddress)) -> ControlFrame<'static> {
    let message = Message::Advertisement {
        target,
        router: false,
        solicited: !to.0.is_multicast(),
        overrides: true,
        target_mac: Some(config.mac),
    };
    frame(config, &message, target, to.0, to.1)
}

/// RFC 4861 7.2.2: who has the target, and where? To its group, or to where it was last.
pub(in crate::stack) fn solicitation(config: &Config, question: Question) -> ControlFrame<'static> {
    let Question { target, mac, source } = question;
    let message = Message::Solicitation { target, source_mac: Some(config.mac), nonce: None };
    let group = solicited_node(target);
    let (destination, mac) = mac.map_or((group, multicast_mac(group)), |mac| (target, mac));
    frame(config, &message, source, destination, mac)
}

/// RFC 4862 5.4.2: has somebody the address that we are about to use?
fn probe_frame(config: &Config, probe: Probe) -> ControlFrame<'static> {
    let group = solicited_node(probe.target);
    let message = Message::Solicitation { target: probe.target, source_mac: None, nonce: Some(probe.nonce) };
    frame(config, &message, Ipv6Addr::UNSPECIFIED, group, multicast_mac(group))
}

/// RFC 4861 6.3.7: which routers are there?
fn router_solicitation(config: &Config, source: Ipv6Addr) -> ControlFrame<'static> {
    let mut bytes = [0; router::SOLICITATION_BYTES];
    router::emit_solicitation(source, config.mac, &mut bytes);
    let ip = icmpv6::header(source, ALL_ROUTERS, HOP_LIMIT);
    icmpv6_frame(config, &ip, multicast_mac(ALL_ROUTERS), &bytes)
}
