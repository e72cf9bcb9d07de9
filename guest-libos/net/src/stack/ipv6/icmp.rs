//! ICMPv6 (RFC 4443): echo requests are answered and errors sent, as often as `Config` allows; errors about what we sent go
//! to whom they concern, if they quote something that is on its way.

use core::net::Ipv6Addr;

use super::super::Stack;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::ipv6::MIN_MTU;
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;
use crate::wire::icmpv6::{self, Icmpv6Message};
use crate::wire::ipv6::{self, Ipv6Header, Packet};

/// Types of the messages about neighbours and routers (RFC 4861 4).
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn icmpv6_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        ip: &Ipv6Header,
        bytes: &'f [u8],
    ) -> Result<Input<'f>, DropReason> {
        if bytes.first().is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind)) {
            return self.neighbour_discovery_arrives(now, sender_mac, ip, bytes);
        }
        if ip.source.is_unspecified() {
            return Err(DropReason::BadSource);
        }
        match Icmpv6Message::parse(ip, bytes)? {
            Icmpv6Message::EchoRequest { id_and_sequence, data } => {
                if data.len() > usize::from(self.config.mtu) - ipv6::HEADER_BYTES - icmpv6::HEADER_BYTES {
                    return Err(DropReason::Malformed);
                }
                let (next_hop, ip) = self.way_back(now, sender_mac, ip.source, ip.destination)?;
                if !self.may_answer_echo(now) {
                    return Ok(Input::Nothing);
                }
                let mut head = [0; icmpv6::HEADER_BYTES];
                icmpv6::emit_echo_reply(&ip, id_and_sequence, data, &mut head);
                Ok(Input::Reply(self.ipv6_frame(next_hop, &ip, &head, data)))
            }
            Icmpv6Message::PacketTooBig { mtu, quoted } => {
                // RFC 8201 4: nobody needs less, so whoever says so lies.
                if mtu < u32::from(MIN_MTU) {
                    return Err(DropReason::Unacceptable);
                }
                self.path_mtu_reduced(now, mtu.min(u32::from(u16::MAX)) as u16, &quoted)
            }
            Icmpv6Message::Problem { problem, quoted } => self.problem_arrives(problem, &quoted),
        }
    }

    /// Where and with which header an answer goes: from the address that was asked, or one of ours for a group.
    pub(super) fn way_back(
        &self,
        now: Instant,
        sender_mac: MacAddress,
        to: Ipv6Addr,
        asked: Ipv6Addr,
    ) -> Result<(MacAddress, Ipv6Header), DropReason> {
        let interface = self.resolver.ipv6.as_deref().ok_or(DropReason::Unsupported)?;
        let addresses = &interface.addresses;
        let source = match asked.is_multicast() {
            true => addresses.source_for(to, now),
            // It may be gone since.
            false => Some(asked).filter(|&asked| addresses.is_assigned(asked)),
        };
        let next_hop = interface.hop_back(sender_mac, to);
        let (source, next_hop) = source.zip(next_hop).ok_or(DropReason::NoRoute)?;
        Ok((next_hop, icmpv6::header(source, to, self.config.time_to_live.get())))
    }

    /// An error about `packet`, if it is one that may be answered, and if the rate limit allows (RFC 4443 2.4 (f)).
    pub(super) fn icmpv6_error_unless<'f>(
        &mut self,
        now: Instant,
        unanswerable: bool,
        sender_mac: MacAddress,
        packet: &Packet<'f>,
        error: icmpv6::Error,
    ) -> Input<'f> {
        if unanswerable {
            return Input::Nothing;
        }
        let quote = &packet.bytes[..packet.bytes.len().min(icmpv6::MAX_QUOTE_BYTES)];
        let (source, destination) = (packet.source, packet.destination);
        let frame = self.icmpv6_error(now, sender_mac, (source, destination), error, quote);
        frame.map_or(Input::Nothing, Input::Reply)
    }

    /// An error to `to` about a packet that was sent to `asked`.
    pub(super) fn icmpv6_error<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        (to, asked): (Ipv6Addr, Ipv6Addr),
        error: icmpv6::Error,
        quote: &'f [u8],
    ) -> Option<ControlFrame<'f>> {
        let (next_hop, ip) = self.way_back(now, sender_mac, to, asked).ok()?;
        if !self.error_bucket.take(now, self.config.icmp_errors) {
            self.counters.icmp_errors_limited += 1;
            return None;
        }
        self.counters.icmp_errors_out += 1;
        let mut head = [0; icmpv6::HEADER_BYTES];
        icmpv6::emit_error(&ip, error, quote, &mut head);
        Some(self.ipv6_frame(next_hop, &ip, &head, quote))
    }
}
