//! ICMP: echo (RFC 792), path MTU (RFC 1191), errors about our segments (RFC 9293 3.9.2.2). Other messages are dropped
//! and counted.

use core::net::Ipv4Addr;

use super::Stack;
use super::input::Sender;
use crate::config::IP_TCP_HEADER_BYTES;
use crate::counters::DropReason;
use crate::data::Data;
use crate::events::{ConnId, End, Input, SegmentEvents};
use crate::frame::ControlFrame;
use crate::tcp::Context;
use crate::tcp::table::FlowKey;
use crate::time::Instant;
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::icmp::{self, IcmpMessage, Problem, QuotedSegment};
use crate::wire::ipv4::{self, Ipv4Header, Protocol};

/// The least path MTU that an ICMP message can make us believe in: IPv4's minimum for receivers (RFC 791) guards against
/// forgeries that would have us send headers only.
const MIN_PATH_MTU: u16 = 576;

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
                self.counters.echo_replies += 1;
                Ok(Input::Reply(self.echo_reply(next_hop, sender.ip, id_and_sequence, data)))
            }
            IcmpMessage::FragmentationNeeded { next_mtu, quoted } => {
                self.path_mtu_reduced(now, next_mtu, &quoted)
            }
            IcmpMessage::Problem { problem, quoted } => self.problem_arrives(problem, &quoted),
        }
    }

    fn echo_reply<'f>(
        &self,
        next_hop: MacAddress,
        to: Ipv4Addr,
        id_and_sequence: u32,
        data: &'f [u8],
    ) -> ControlFrame<'f> {
        ControlFrame::build(data, |out| {
            let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
            self.emit_ethernet(next_hop, EtherType::Ipv4, header);
            let (ip, rest) = rest.split_at_mut(ipv4::HEADER_BYTES);
            if let Ok(out) = ip.try_into() {
                Ipv4Header { source: self.config.ip, destination: to, protocol: Protocol::Icmp }
                    .emit(icmp::HEADER_BYTES + data.len(), out);
            }
            if let Some(out) = rest.first_chunk_mut() {
                icmp::emit_echo_reply(id_and_sequence, data, out);
            }
            ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + icmp::HEADER_BYTES
        })
    }

    /// The connection that an ICMP error is about (RFC 9293 3.9.2.2, MUST-54), if what it quotes is on its way: to know
    /// that takes more than guessing ports (RFC 5927 4.1).
    fn connection_quoted(&mut self, quoted: &QuotedSegment) -> Result<ConnId, DropReason> {
        let key = FlowKey::new(quoted.destination, quoted.destination_port, quoted.source_port);
        let (conn, connection) = self.table.find(key).ok_or(DropReason::Unacceptable)?;
        let send = &connection.send;
        let on_its_way = quoted.sequence.is_within(send.una, send.max.since(send.una));
        if quoted.source == self.config.ip && on_its_way { Ok(conn) } else { Err(DropReason::Unacceptable) }
    }

    /// RFC 9293 3.9.2.2: a hard error ends a connection that is not synchronized; later any error is advice only
    /// (RFC 5927 5.2), since retransmission finds out whether it was true.
    fn problem_arrives<'f>(
        &mut self,
        problem: Problem,
        quoted: &QuotedSegment,
    ) -> Result<Input<'f>, DropReason> {
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

    /// RFC 1191 6.3, believed only if it quotes what is on its way (RFC 5927 7.2).
    fn path_mtu_reduced<'f>(
        &mut self,
        now: Instant,
        next_mtu: u16,
        quoted: &QuotedSegment,
    ) -> Result<Input<'f>, DropReason> {
        let conn = self.connection_quoted(quoted)?;
        let connection = self.table.get_mut(conn).ok_or(DropReason::Unacceptable)?;
        if !connection.state.is_synchronized() {
            return Err(DropReason::Unacceptable);
        }
        let send = &mut connection.send;
        let headers = IP_TCP_HEADER_BYTES + connection.agreed.option_bytes();
        let mss = u32::from(next_mtu.max(MIN_PATH_MTU) - headers);
        if mss >= send.mss {
            return Err(DropReason::Unacceptable);
        }
        send.reduce_mss(mss);
        self.counters.path_mtu_reduced += 1;
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        send.update_timer(&ctx);
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        Ok(Input::Segment(SegmentEvents { output_due: true, ..SegmentEvents::none(conn) }))
    }
}
