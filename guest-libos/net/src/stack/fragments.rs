//! IPv4 fragments in, whole datagrams on (RFC 791 3.2, RFC 1122 3.3.2), and what is larger than the MTU out in fragments.
//! What a whole datagram holds belongs to nobody's frame: text goes to its connection's buffer, UDP's payload to whoever
//! takes it, and an answer that refers to it waits for the next `expire`.

use core::net::{IpAddr, Ipv6Addr};

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::Stack;
use super::input::Sender;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::Transmit;
use crate::events::{Datagram, Input};
use crate::frame::ControlFrame;
use crate::ip::reassembly::{self, Fragment, Key, Outcome, Whole};
use crate::tcp::isn;
use crate::tcp::table::FlowKey;
use crate::time::Instant;
use crate::wire::Ecn;
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::icmp::{self, IcmpMessage};
use crate::wire::ipv4::{self, FragmentPlace, Ipv4Fragment, Ipv4Header, Protocol};
use crate::wire::ipv6::Packet;
use crate::wire::tcp::Segment;
use crate::wire::udp::{self, UdpDatagram};

/// The most frames that wait for the next `expire`: one of the largest datagrams in fragments of 1,500 bytes fits.
pub(super) const MAX_WAITING: usize = 64;

/// Frames that nobody could send when they were made.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<Vec<u8>>,
}

impl Outbox {
    pub(super) fn push(&mut self, frame: &ControlFrame<'_>) {
        if self.frames.len() < MAX_WAITING {
            self.frames.push_back([frame.head(), frame.body()].concat());
        }
    }

    /// Sends what waits; what a full driver does not take goes on waiting.
    pub(super) fn send<D: Data, T: Transmit<D>>(&mut self, tx: &mut T) {
        while let Some(bytes) = self.frames.front() {
            if tx.transmit_control(&ControlFrame::build(bytes, |_| 0)).is_err() {
                return;
            }
            self.frames.pop_front();
        }
    }

    /// The address is gone that they are from.
    pub(super) fn forget_ipv4(&mut self) {
        self.frames.retain(|frame| frame[12..14] == EtherType::Ipv6.to_wire().to_be_bytes());
    }

    /// Of IPv6, those stay that are from such an address.
    pub(super) fn retain_ipv6(&mut self, stays: impl Fn(Ipv6Addr) -> bool) {
        self.frames.retain(|frame| {
            let (ethernet, packet) = frame.split_at(ethernet::HEADER_BYTES);
            ethernet[12..] != EtherType::Ipv6.to_wire().to_be_bytes()
                || Packet::parse(packet).is_ok_and(|packet| stays(packet.source))
        });
    }

    #[cfg(feature = "check")]
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// When there is something to send.
    pub(super) fn next_deadline(&self) -> Instant {
        if self.frames.is_empty() { Instant::NEVER } else { Instant::ZERO }
    }
}

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn fragment_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        bytes: &'f [u8],
    ) -> Result<Input<'f>, DropReason> {
        let part = Ipv4Fragment::parse(bytes)?;
        if !self.is_for_us(part.destination) {
            return Err(DropReason::NotForUs);
        }
        if !ipv4::is_host(part.source) || part.source == self.config.ip {
            return Err(DropReason::BadSource);
        }
        let protocol = Protocol::from_wire(part.protocol).ok_or(DropReason::Unsupported)?;
        let header_len = part.packet.len() - part.payload.len();
        // RFC 1858 3.2.2: nobody cuts within the first sixteen bytes of a TCP header but to deceive filters.
        let is_tiny = protocol == Protocol::Tcp && part.offset == 8;
        if is_tiny || !reassembly::is_possible(part.offset, part.payload.len(), part.more, header_len) {
            return Err(DropReason::Fragment);
        }
        let key = Key {
            source: IpAddr::V4(part.source),
            destination: IpAddr::V4(part.destination),
            protocol: part.protocol,
            identification: u32::from(part.identification),
        };
        let fragment = Fragment {
            offset: part.offset,
            more: part.more,
            next_header: part.protocol,
            payload: part.payload,
            packet: part.packet,
            sender: sender_mac,
            ecn: Ecn::of(part.packet[1]),
        };
        let Some(whole) = self.reassemble(now, key, &fragment)? else { return Ok(Input::Nothing) };
        let ip = Ipv4Header { source: part.source, destination: part.destination, protocol };
        self.whole_arrives(now, &ip, whole)
    }

    /// Puts a fragment of either family to the others, and returns their datagram if it was the last one.
    pub(super) fn reassemble(
        &mut self,
        now: Instant,
        key: Key,
        fragment: &Fragment<'_>,
    ) -> Result<Option<Whole>, DropReason> {
        self.counters.reassembly_required += 1;
        let outcome = self.reassembly.insert(now, &self.config, key, fragment);
        self.counters.reassembly_fails = self.reassembly.fails;
        match outcome {
            Outcome::Kept => Ok(None),
            Outcome::Refused | Outcome::Ignored => Err(DropReason::Fragment),
            Outcome::Complete(whole) => {
                self.counters.reassembly_ok += 1;
                Ok(Some(whole))
            }
        }
    }

    fn whole_arrives<'f>(
        &mut self,
        now: Instant,
        ip: &Ipv4Header,
        whole: Whole,
    ) -> Result<Input<'f>, DropReason> {
        let sender = Sender { mac: whole.sender, ip: ip.source };
        let is_group = ip.destination.is_multicast();
        if is_group && ip.protocol != Protocol::Udp {
            return Err(DropReason::NotForUs);
        }
        match ip.protocol {
            Protocol::Tcp => {
                let segment = Segment { ecn: whole.ecn, ..Segment::parse(&whole.payload, Some(ip))? };
                let key = FlowKey::new(sender.ip, segment.source_port, segment.destination_port);
                self.set_lends(key, false);
                let input = self.segment_arrives(now, sender.mac, key, &segment);
                self.set_lends(key, true);
                Ok(self.without_loans(input))
            }
            Protocol::Udp => {
                let datagram = self.readable(UdpDatagram::parse(&whole.payload, Some(ip)))?;
                let (source_port, port) = (datagram.source_port, datagram.destination_port);
                if !self.is_bound_udp(port, ip.destination) {
                    if is_group {
                        return Err(DropReason::NoPort);
                    }
                    if let Some(error) = self.nobody_at_port(now, sender, whole.quote.bytes()) {
                        self.outbox.push(&error);
                    }
                    return Ok(Input::Nothing);
                }
                let len = datagram.payload.len();
                let mut payload = whole.payload;
                payload.drain(..udp::HEADER_BYTES);
                payload.truncate(len);
                Ok(Input::Datagram(self.datagram(ip, source_port, port, Cow::Owned(payload))))
            }
            Protocol::Icmp => match IcmpMessage::parse(&whole.payload)? {
                IcmpMessage::EchoRequest { id_and_sequence, data } => {
                    let next_hop = self.next_hop(sender)?;
                    if self.may_answer_echo(now) {
                        let mut head = [0; icmp::HEADER_BYTES];
                        icmp::emit_echo_reply(id_and_sequence, data, &mut head);
                        self.echo_in_fragments(next_hop, sender, &[&head, data].concat());
                    }
                    Ok(Input::Nothing)
                }
                _ => {
                    let input = self.icmp_arrives(now, sender, &whole.payload)?;
                    Ok(self.without_loans(input))
                }
            },
        }
    }

    pub(super) fn set_lends(&mut self, key: FlowKey, lends: bool) {
        if let Some((_, connection)) = self.table.find(key) {
            connection.receive.lends = lends;
        }
    }

    /// What came of a datagram, without anything that is lent from it.
    pub(super) fn without_loans<'f>(&mut self, input: Input<'_>) -> Input<'f> {
        match input {
            Input::Nothing => Input::Nothing,
            Input::Segment(events) => Input::Segment(events.without_data()),
            Input::Datagram(Datagram { from, to, payload }) => {
                Input::Datagram(Datagram { from, to, payload: Cow::Owned(payload.into_owned()) })
            }
            Input::DatagramError(error) => Input::DatagramError(error),
            Input::Reply(reply) => {
                self.outbox.push(&reply);
                Input::Nothing
            }
        }
    }

    /// An echo reply as the request came. What does not fit the link's MTU goes in fragments; if there is no room for all
    /// of them, none is sent.
    fn echo_in_fragments(&mut self, next_hop: MacAddress, to: Sender, message: &[u8]) {
        let ip = Ipv4Header { source: self.config.ip, destination: to.ip, protocol: Protocol::Icmp };
        let per_fragment = fragment_bytes(self.config.mtu);
        if self.outbox.frames.len() + message.len().div_ceil(per_fragment) > MAX_WAITING {
            return;
        }
        let identification = self.next_identification(to.ip.into()) as u16;
        for (index, part) in message.chunks(per_fragment).enumerate() {
            let offset = index * per_fragment;
            let place = FragmentPlace { identification, offset, more: offset + part.len() < message.len() };
            let frame = ControlFrame::build(part, |out| {
                let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
                self.emit_ethernet(next_hop, EtherType::Ipv4, header);
                if let Some(out) = rest.first_chunk_mut() {
                    ip.emit_fragment(part.len(), place, out);
                }
                ethernet::HEADER_BYTES + ipv4::HEADER_BYTES
            });
            self.outbox.push(&frame);
        }
    }

    /// Identifies the fragments of a datagram to `peer`.
    pub(super) fn next_identification(&mut self, peer: IpAddr) -> u32 {
        self.identification = self.identification.wrapping_add(1);
        isn::identification(self.config.secret, peer, self.identification)
    }

    /// Gives up datagrams whose fragments are missing for too long, and tells their senders (RFC 792, time exceeded).
    pub(super) fn expire_fragments<T: Transmit<D>>(&mut self, now: Instant, tx: &mut T) {
        while let Some(timed_out) = self.reassembly.expire(now) {
            self.counters.reassembly_fails = self.reassembly.fails;
            let Some(timed_out) = timed_out else { continue };
            let frame = match timed_out.source {
                _ if timed_out.destination.is_multicast() => None,
                IpAddr::V4(ip) => {
                    let to = Sender { mac: timed_out.sender, ip };
                    self.icmp_error(now, to, icmp::REASSEMBLY_TIME_EXCEEDED, timed_out.quote.bytes())
                }
                IpAddr::V6(ip) => self.reassembly6_timed_out(now, ip, &timed_out),
            };
            if let Some(frame) = frame {
                // Nobody waits for it.
                let _ = tx.transmit_control(&frame);
            }
        }
    }

    /// Datagrams that wait for fragments.
    pub fn reassemblies(&self) -> usize {
        self.reassembly.len()
    }

    /// What their fragments take, against `Config::max_reassembly_bytes`.
    pub fn reassembly_bytes(&self) -> usize {
        self.reassembly.cost_bytes()
    }
}

/// Payload bytes of a fragment that is not the last: a multiple of eight.
pub(super) fn fragment_bytes(mtu: u16) -> usize {
    (usize::from(mtu) - ipv4::HEADER_BYTES) / 8 * 8
}
