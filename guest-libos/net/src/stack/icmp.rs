//! ICMP (RFC 792, RFC 1122 3.2.2): echo requests are answered and errors sent, as often as `Config` allows; errors about
//! what we sent go to whom they concern, if they quote something that is on its way.

use core::net::{IpAddr, Ipv4Addr};

use super::Stack;
use super::input::Sender;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::{ConnId, End, Input, SegmentEvents};
use crate::frame::ControlFrame;
use crate::tcp::pairs::Pair;
use crate::tcp::table::FlowKey;
use crate::time::Instant;
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::icmp::{self, IcmpMessage, Problem, Quoted};
use crate::wire::ipv4::{self, Ipv4Header, Protocol};

impl<D: Data> Stack<D> {
    #[cold]
    pub(super) fn icmp_arrives<'f>(
        &mut self,
        now: Instant,
        sender: Sender,
        payload: &'f [u8],
    ) -> Result<Input<'f>, DropReason> {
        match IcmpMessage::parse(payload)? {
            IcmpMessage::EchoRequest { id_and_sequence, data } => {
                if data.len() > usize::from(self.config.mtu) - ipv4::HEADER_BYTES - icmp::HEADER_BYTES {
                    return Err(DropReason::Malformed);
                }
                let next_hop = self.next_hop(sender)?;
                if !self.may_answer_echo(now) {
                    return Ok(Input::Nothing);
                }
                let (mut head, ip) = ([0; icmp::HEADER_BYTES], sender.ip);
                icmp::emit_echo_reply(id_and_sequence, data, &mut head);
                Ok(Input::Reply(self.icmp_frame(next_hop, ip, &head, data)))
            }
            IcmpMessage::FragmentationNeeded { next_mtu, quoted } => {
                self.path_mtu_reduced(now, next_mtu, &quoted)
            }
            IcmpMessage::Problem { problem, quoted } => self.problem_arrives(problem, &quoted),
        }
    }

    /// Counts an echo request as answered, or as one too many.
    pub(super) fn may_answer_echo(&mut self, now: Instant) -> bool {
        let may = self.echo_bucket.take(now, self.config.echo_replies);
        let counter =
            if may { &mut self.counters.echo_replies } else { &mut self.counters.echo_replies_limited };
        *counter += 1;
        may
    }

    /// An error about `packet`, an IPv4 packet that was sent to us alone: what RFC 1122 3.2.2 lets be answered. `None`: not
    /// now, the rate limit says, or never, since it may be an error itself.
    pub(super) fn icmp_error<'f>(
        &mut self,
        now: Instant,
        to: Sender,
        type_and_code: [u8; 2],
        packet: &'f [u8],
    ) -> Option<ControlFrame<'f>> {
        let header_len = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        if packet.get(9) == Some(&Protocol::Icmp.to_wire())
            && packet.get(header_len..).is_none_or(icmp::is_error)
        {
            return None;
        }
        let next_hop = self.next_hop(to).ok()?;
        if !self.error_bucket.take(now, self.config.icmp_errors) {
            self.counters.icmp_errors_limited += 1;
            return None;
        }
        self.counters.icmp_errors_out += 1;
        let quote = &packet[..packet.len().min(icmp::MAX_QUOTE_BYTES)];
        let mut head = [0; icmp::HEADER_BYTES];
        icmp::emit_error(type_and_code, quote, &mut head);
        Some(self.icmp_frame(next_hop, to.ip, &head, quote))
    }

    fn icmp_frame<'f>(
        &self,
        next_hop: MacAddress,
        to: Ipv4Addr,
        head: &[u8; icmp::HEADER_BYTES],
        body: &'f [u8],
    ) -> ControlFrame<'f> {
        ControlFrame::build(body, |out| {
            let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
            self.emit_ethernet(next_hop, EtherType::Ipv4, header);
            let (ip, rest) = rest.split_at_mut(ipv4::HEADER_BYTES);
            if let Ok(out) = ip.try_into() {
                Ipv4Header { source: self.config.ip, destination: to, protocol: Protocol::Icmp }
                    .emit(icmp::HEADER_BYTES + body.len(), out);
            }
            rest[..icmp::HEADER_BYTES].copy_from_slice(head);
            ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + icmp::HEADER_BYTES
        })
    }

    /// An error that says nothing of sizes.
    pub(super) fn problem_arrives<'f>(
        &mut self,
        problem: Problem,
        quoted: &Quoted,
    ) -> Result<Input<'f>, DropReason> {
        match quoted.protocol {
            // Our echo replies are nobody's business.
            Protocol::Icmp => Err(DropReason::Unsupported),
            Protocol::Udp => self.udp_problem(problem, quoted),
            Protocol::Tcp => self.tcp_problem(problem, quoted),
        }
    }

    /// The connection that an ICMP error is about (RFC 9293 3.9.2.2, MUST-54), if what it quotes is on its way: to know
    /// that takes more than guessing ports (RFC 5927 4.1).
    pub(super) fn connection_quoted(&mut self, quoted: &Quoted) -> Result<ConnId, DropReason> {
        let key = self.key_quoted(quoted).ok_or(DropReason::Unacceptable)?;
        let (conn, connection) = self.table.find(key).ok_or(DropReason::Unacceptable)?;
        let send = &connection.send;
        let on_its_way = quoted.sequence.is_within(send.una, send.max.since(send.una));
        let ends = (connection.template.local(), connection.template.peer());
        if ends == (quoted.source, quoted.destination) && on_its_way {
            Ok(conn)
        } else {
            Err(DropReason::Unacceptable)
        }
    }

    fn key_quoted(&self, quoted: &Quoted) -> Option<FlowKey> {
        let (peer_port, local_port) = (quoted.destination_port, quoted.source_port);
        match (quoted.source, quoted.destination) {
            (IpAddr::V4(_), IpAddr::V4(peer)) => Some(FlowKey::new(peer, peer_port, local_port)),
            (IpAddr::V6(local), IpAddr::V6(peer)) => {
                let number = self.table.pairs.find(Pair { local, peer })?;
                Some(FlowKey::of_pair(number, peer_port, local_port))
            }
            _ => None,
        }
    }

    /// Whether `address` is one of ours.
    pub(super) fn is_ours(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.config.is_ours(address),
            IpAddr::V6(address) => {
                self.resolver.ipv6.as_ref().is_some_and(|interface| interface.addresses.is_assigned(address))
            }
        }
    }

    /// RFC 9293 3.9.2.2: a hard error ends a connection that is not synchronized; later any error is advice only
    /// (RFC 5927 5.2), since retransmission finds out whether it was true.
    fn tcp_problem<'f>(&mut self, problem: Problem, quoted: &Quoted) -> Result<Input<'f>, DropReason> {
        let conn = self.connection_quoted(quoted)?;
        let Some(connection) = self.table.get(conn) else { return Ok(Input::Nothing) };
        let (is_open, is_active) = (connection.is_open(), connection.is_active);
        self.counters.problems_in += 1;
        let ends = !is_open && problem.is_hard();
        if ends && is_active {
            self.finish(conn, End::Unreachable);
        } else if ends {
            self.counters.half_open_dropped += 1;
            self.forget(conn);
        }
        if !is_open && !is_active {
            return Ok(Input::Nothing);
        }
        let ended = ends.then_some(End::Unreachable);
        Ok(Input::Segment(SegmentEvents { problem: Some(problem), ended, ..SegmentEvents::none(conn) }))
    }
}
