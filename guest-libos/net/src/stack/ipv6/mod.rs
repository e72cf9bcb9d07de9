//! IPv6 packets in (RFC 8200), to us or to a group that we are in: what they carry goes to the same TCP and UDP as IPv4's.

mod icmp;
mod ndisc;
mod reassembly;

pub(super) use ndisc::solicitation;

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use alloc::borrow::Cow;

use super::Stack;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::{RxChecksum, RxMeta};
use crate::events::{Datagram, Input};
use crate::frame::ControlFrame;
use crate::ipv6::{Ipv6Address, is_host};
use crate::tcp::pairs::Pair;
use crate::tcp::table::FlowKey;
use crate::time::Instant;
use crate::wire::ethernet::{self, EtherType, EthernetHeader, MacAddress};
use crate::wire::icmpv6;
use crate::wire::ipv6::{self, ALL_NODES, Ipv6Header, NextHeader, Packet, multicast_mac};
use crate::wire::ipv6_extensions::{self, Refused, UNKNOWN_NEXT_HEADER, Walk};
use crate::wire::mld;
use crate::wire::tcp::Segment;
use crate::wire::udp::UdpDatagram;

impl<D: Data> Stack<D> {
    #[inline]
    pub(super) fn ipv6_arrives<'f>(
        &mut self,
        now: Instant,
        ethernet: &EthernetHeader,
        bytes: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        let interface = self.resolver.ipv6.as_deref().ok_or(DropReason::Unsupported)?;
        let packet = Packet::parse(bytes)?;
        let (to, to_us) = (packet.destination, ethernet.destination == self.config.mac);
        let is_for_us = if to.is_multicast() {
            // RFC 4291 2.7: what does not leave a host does not come from another one.
            let is_ours = || self.groups.has_joined_v6(to) && to.octets()[1] & 0x0f > 1;
            (to == ALL_NODES || interface.addresses.is_listening(to) || is_ours())
                && (to_us || ethernet.destination == multicast_mac(to))
        } else {
            to_us && interface.addresses.is_assigned(to)
        };
        if !is_for_us {
            return Err(DropReason::NotForUs);
        }
        // Who has no address yet asks neighbours only.
        let from_nobody =
            packet.source.is_unspecified() && packet.next_header == NextHeader::Icmpv6.to_wire();
        if !(is_host(packet.source) || from_nobody) {
            return Err(DropReason::BadSource);
        }
        if interface.addresses.is_assigned(packet.source) {
            self.own_source_arrives(now, ethernet.source, &packet);
            return Err(DropReason::BadSource);
        }
        let verify = meta.checksum == RxChecksum::Unknown;
        if NextHeader::from_wire(packet.next_header).is_some() {
            return self.upper_arrives(
                now,
                ethernet.source,
                &packet,
                (packet.next_header, packet.payload),
                verify,
            );
        }
        self.extensions_arrive(now, ethernet.source, &packet, verify)
    }

    /// A packet with headers of which RFC 8200 4 knows, or with something that nobody speaks here.
    #[cold]
    fn extensions_arrive<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        packet: &Packet<'f>,
        verify: bool,
    ) -> Result<Input<'f>, DropReason> {
        match ipv6_extensions::walk(packet) {
            Ok(Walk::Upper(number, upper)) => {
                self.upper_arrives(now, sender_mac, packet, (number, upper), verify)
            }
            Ok(Walk::Fragment(part)) => self.fragment6_arrives(now, sender_mac, packet, &part),
            Err(Refused::Malformed) => Err(DropReason::Malformed),
            Err(Refused::Dropped) => Err(DropReason::Unsupported),
            Err(Refused::Problem { code, pointer, to_groups }) => {
                self.counters.count_drop(DropReason::Unsupported);
                let error = icmpv6::Error::ParameterProblem(code, pointer);
                let unanswerable = icmpv6::is_unanswerable(packet, None, to_groups);
                Ok(self.icmpv6_error_unless(now, unanswerable, sender_mac, packet, error))
            }
        }
    }

    /// What a packet carries.
    fn upper_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        packet: &Packet<'f>,
        (number, upper): (u8, &'f [u8]),
        verify: bool,
    ) -> Result<Input<'f>, DropReason> {
        let Some(next_header) = NextHeader::from_wire(number) else {
            self.counters.count_drop(DropReason::Unsupported);
            if ipv6_extensions::is_empty(number) {
                return Ok(Input::Nothing);
            }
            // Where the number stands in the last header is not known here if there are several.
            let pointer = if packet.next_header == number { 6 } else { ipv6::HEADER_BYTES as u32 };
            let error = icmpv6::Error::ParameterProblem(UNKNOWN_NEXT_HEADER, pointer);
            let unanswerable = icmpv6::is_unanswerable(packet, None, false);
            return Ok(self.icmpv6_error_unless(now, unanswerable, sender_mac, packet, error));
        };
        let ip = packet.header(next_header);
        match next_header {
            NextHeader::Icmpv6 if mld::is_message(upper) => self.mld_arrives(now, packet, upper),
            NextHeader::Icmpv6 => self.icmpv6_arrives(now, sender_mac, &ip, upper),
            NextHeader::Tcp if packet.destination.is_multicast() => Err(DropReason::NotForUs),
            NextHeader::Tcp => {
                let segment = Segment {
                    ecn: packet.ecn(),
                    ..Segment::parse_summed(upper, verify.then(|| ip.pseudo_sum(0)))?
                };
                Ok(self.segment6_arrives(now, sender_mac, &ip, &segment))
            }
            NextHeader::Udp => self.udp6_arrives(now, sender_mac, packet, upper, verify),
        }
    }

    /// A segment. While it is looked at, its addresses have a number that keys can be made of.
    #[inline]
    fn segment6_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        ip: &Ipv6Header,
        segment: &Segment<'f>,
    ) -> Input<'f> {
        let number = self.table.pairs.hold(Pair { local: ip.destination, peer: ip.source });
        let key = FlowKey::of_pair(number, segment.source_port, segment.destination_port);
        let input = self.segment_arrives(now, sender_mac, key, segment);
        self.table.pairs.remove_user(key);
        input
    }

    fn udp6_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        packet: &Packet<'f>,
        upper: &'f [u8],
        verify: bool,
    ) -> Result<Input<'f>, DropReason> {
        let ip = packet.header(NextHeader::Udp);
        let datagram = self.readable(UdpDatagram::parse_v6(upper, &ip, verify))?;
        if self.is_bound_udp(datagram.destination_port, ip.destination) {
            let (from, to) = (datagram.source_port, datagram.destination_port);
            return Ok(Input::Datagram(self.datagram6(&ip, from, to, Cow::Borrowed(datagram.payload))));
        }
        self.counters.count_drop(DropReason::NoPort);
        let unanswerable = icmpv6::is_unanswerable(packet, None, false);
        Ok(self.icmpv6_error_unless(now, unanswerable, sender_mac, packet, icmpv6::Error::PortUnreachable))
    }

    fn datagram6<'f>(
        &mut self,
        ip: &Ipv6Header,
        source_port: u16,
        port: u16,
        payload: Cow<'f, [u8]>,
    ) -> Datagram<'f> {
        self.counters.datagrams_in += 1;
        Datagram {
            from: SocketAddr::new(IpAddr::V6(ip.source), source_port),
            to: SocketAddr::new(IpAddr::V6(ip.destination), port),
            payload,
        }
    }

    /// A finished frame with an IPv6 packet: its head, and what follows it.
    fn ipv6_frame<'f>(
        &self,
        next_hop: MacAddress,
        ip: &Ipv6Header,
        head: &[u8],
        body: &'f [u8],
    ) -> ControlFrame<'f> {
        ControlFrame::build(body, |out| {
            let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
            self.emit_ethernet(next_hop, EtherType::Ipv6, header);
            if let Some(out) = rest.first_chunk_mut() {
                ip.emit(head.len() + body.len(), out);
            }
            rest[ipv6::HEADER_BYTES..ipv6::HEADER_BYTES + head.len()].copy_from_slice(head);
            ethernet::HEADER_BYTES + ipv6::HEADER_BYTES + head.len()
        })
    }

    /// The interface's IPv6 addresses: the link-local one, those that were given, and those of advertised prefixes.
    pub fn ipv6_addresses(&self, now: Instant) -> impl Iterator<Item = Ipv6Address> + '_ {
        self.resolver.ipv6.iter().flat_map(move |interface| interface.addresses.iter(now))
    }

    /// Whether nothing is being found out about them: each is used or somebody else's, and routers, where they are believed,
    /// have answered or kept silent for some seconds. True without IPv6.
    pub fn ipv6_is_settled(&self) -> bool {
        self.resolver.ipv6.as_ref().is_none_or(|interface| interface.is_settled())
    }

    /// The servers that routers say may be asked for names (RFC 8106), those known first before others. Anybody on the link can say
    /// that; one that is link-local is on this interface's link.
    pub fn ipv6_name_servers(&self, now: Instant) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.resolver.ipv6.iter().flat_map(move |interface| interface.name_servers.iter(now))
    }

    /// Another number each time that [`Self::ipv6_addresses`], [`Self::ipv6_name_servers`] or [`Self::ipv6_is_settled`] may answer
    /// something else.
    #[inline]
    pub fn ipv6_changes(&self) -> u32 {
        self.resolver.ipv6.as_ref().map_or(0, |interface| interface.changes())
    }

    /// The address from which packets to `destination` leave (RFC 6724 5).
    pub fn ipv6_source_for(&self, destination: Ipv6Addr, now: Instant) -> Option<Ipv6Addr> {
        self.resolver.ipv6.as_ref()?.addresses.source_for(destination, now)
    }
}
