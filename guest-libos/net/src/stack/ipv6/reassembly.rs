//! IPv6 fragments in, whole packets on (RFC 8200 4.5, RFC 5722, RFC 7112). None are sent: what is too large for its path
//! is refused to whoever sends it.

use core::net::{IpAddr, Ipv6Addr};

use alloc::borrow::Cow;

use super::super::Stack;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::Input;
use crate::frame::ControlFrame;
use crate::ip::reassembly::{self, Fragment, Key, TimedOut, Whole};
use crate::tcp::pairs::Pair;
use crate::tcp::table::FlowKey;
use crate::time::Instant;
use crate::wire::ethernet::MacAddress;
use crate::wire::icmpv6;
use crate::wire::ipv6::{HEADER_BYTES, NextHeader, Packet};
use crate::wire::ipv6_extensions::{
    ERRONEOUS_FIELD, INCOMPLETE_HEADER_CHAIN, Part, Walk, has_all_headers, walk_whole,
};
use crate::wire::tcp::Segment;
use crate::wire::udp::{self, UdpDatagram};

/// Offset of the length in IPv6's header.
const PAYLOAD_LENGTH_AT: u32 = 4;

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn fragment6_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        packet: &Packet<'f>,
        part: &Part<'f>,
    ) -> Result<Input<'f>, DropReason> {
        let is_group = packet.destination.is_multicast();
        if is_group && !self.groups.has_joined_v6(packet.destination) {
            return Err(DropReason::Fragment);
        }
        let headers = packet.payload.len() - part.payload.len();
        let problem = if part.offset == 0 && !has_all_headers(part, packet.destination) {
            Some((INCOMPLETE_HEADER_CHAIN, (HEADER_BYTES + headers) as u32 - 8))
        } else if part.more && !part.payload.len().is_multiple_of(8) {
            Some((ERRONEOUS_FIELD, PAYLOAD_LENGTH_AT))
        } else if !reassembly::is_possible(part.offset, part.payload.len(), part.more, headers - 8) {
            Some((ERRONEOUS_FIELD, (HEADER_BYTES + headers) as u32 - 6))
        } else {
            None
        };
        if let Some((code, pointer)) = problem {
            self.counters.count_drop(DropReason::Fragment);
            let error = icmpv6::Error::ParameterProblem(code, pointer);
            return Ok(self.icmpv6_error_unless(now, is_group, sender_mac, packet, error));
        }
        let key = Key {
            source: IpAddr::V6(packet.source),
            destination: IpAddr::V6(packet.destination),
            // RFC 8200 4.5: what they carry does not tell one packet from another.
            protocol: 0,
            identification: part.identification,
        };
        let fragment = Fragment {
            offset: part.offset,
            more: part.more,
            next_header: part.next_header,
            payload: part.payload,
            packet: packet.bytes,
            sender: sender_mac,
            ecn: packet.ecn(),
        };
        let Some(whole) = self.reassemble(now, key, &fragment)? else { return Ok(Input::Nothing) };
        self.whole6_arrives(now, packet, whole)
    }

    fn whole6_arrives<'f>(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        whole: Whole,
    ) -> Result<Input<'f>, DropReason> {
        let upper = match walk_whole(&whole.payload, whole.next_header, packet.destination) {
            Ok(Walk::Upper(number, upper)) => Some((number, upper)),
            _ => None,
        };
        let (number, upper) = upper.ok_or(DropReason::Unsupported)?;
        let next_header = NextHeader::from_wire(number).ok_or(DropReason::Unsupported)?;
        let ip = packet.header(next_header);
        if packet.destination.is_multicast() && next_header != NextHeader::Udp {
            return Err(DropReason::NotForUs);
        }
        match next_header {
            NextHeader::Tcp => {
                let segment =
                    Segment { ecn: whole.ecn, ..Segment::parse_summed(upper, Some(ip.pseudo_sum(0)))? };
                let number = self.table.pairs.hold(Pair { local: ip.destination, peer: ip.source });
                let key = FlowKey::of_pair(number, segment.source_port, segment.destination_port);
                self.set_lends(key, false);
                let input = self.segment_arrives(now, whole.sender, key, &segment);
                self.set_lends(key, true);
                self.table.pairs.remove_user(key);
                Ok(self.without_loans(input))
            }
            NextHeader::Udp => {
                let datagram = self.readable(UdpDatagram::parse_v6(upper, &ip, true))?;
                let (from, port, len) =
                    (datagram.source_port, datagram.destination_port, datagram.payload.len());
                if !self.is_bound_udp(port, packet.destination) {
                    self.counters.count_drop(DropReason::NoPort);
                    if packet.destination.is_multicast() {
                        return Ok(Input::Nothing);
                    }
                    let ends = (packet.source, packet.destination);
                    let (error, quote) = (icmpv6::Error::PortUnreachable, whole.quote.bytes());
                    if let Some(frame) = self.icmpv6_error(now, whole.sender, ends, error, quote) {
                        self.outbox.push(&frame);
                    }
                    return Ok(Input::Nothing);
                }
                let start = whole.payload.len() - upper.len() + udp::HEADER_BYTES;
                let mut payload = whole.payload;
                payload.drain(..start);
                payload.truncate(len);
                Ok(Input::Datagram(self.datagram6(&ip, from, port, Cow::Owned(payload))))
            }
            // RFC 6980: neighbours and routers do not speak in fragments; an echo that does not fit is not sent back whole.
            NextHeader::Icmpv6 if matches!(upper.first(), Some(133..=137)) => Err(DropReason::Fragment),
            NextHeader::Icmpv6 => {
                let input = self.icmpv6_arrives(now, whole.sender, &ip, upper)?;
                Ok(self.without_loans(input))
            }
        }
    }

    /// RFC 8200 4.5: fragments were missing for too long, and the first is there.
    pub(in crate::stack) fn reassembly6_timed_out<'t>(
        &mut self,
        now: Instant,
        source: Ipv6Addr,
        timed_out: &'t TimedOut,
    ) -> Option<ControlFrame<'t>> {
        let IpAddr::V6(destination) = timed_out.destination else { return None };
        let (error, quote) = (icmpv6::Error::ReassemblyTimeExceeded, timed_out.quote.bytes());
        self.icmpv6_error(now, timed_out.sender, (source, destination), error, quote)
    }
}
