//! A frame arrives: Ethernet and IPv4 by RFC 1122's rules for hosts, then TCP for ports we listen on and for nobody
//! (RFC 9293 3.10.7.1, 3.10.7.2). What a segment means for its connection is `tcp::receive`'s part.

use core::net::Ipv4Addr;

use super::Stack;
use crate::counters::DropReason;
use crate::data::Data;
use crate::driver::{RxChecksum, RxMeta};
use crate::events::{ConnId, End, Happened, Input, SegmentEvents};
use crate::frame::ControlFrame;
use crate::tcp::connection::{Connection, PeerSyn, State};
use crate::tcp::negotiation::is_small;
use crate::tcp::pairs::Pair;
use crate::tcp::receive::Verdict;
use crate::tcp::table::FlowKey;
use crate::tcp::template::{Fields, HeaderTemplate, PayloadSum};
use crate::tcp::timewait::TimeWaitAnswer;
use crate::tcp::{Context, Seq};
use crate::time::Instant;
use crate::wire::ethernet::{EtherType, EthernetHeader, MacAddress};
use crate::wire::icmp;
use crate::wire::igmp;
use crate::wire::ipv4::{self, Ipv4Fragment, Ipv4Header, Protocol, Verify};
use crate::wire::ipv6::{Ipv6Header, NextHeader};
use crate::wire::tcp::{Control, Segment, flags};
use crate::wire::{Ecn, WireError};

/// Where a datagram came from.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) mac: MacAddress,
    pub(super) ip: Ipv4Addr,
}

impl<D: Data> Stack<D> {
    /// Takes one received Ethernet frame. Nothing of it is kept, and data is lent from it.
    #[inline]
    pub fn input<'f>(&mut self, now: Instant, frame: &'f [u8], meta: RxMeta) -> Input<'f> {
        self.counters.frames_in += 1;
        match self.segment_in(frame, meta) {
            Ok(Some((sender_mac, key, segment))) => self.segment_arrives(now, sender_mac, key, &segment),
            Ok(None) => {
                self.other_frame_arrives(now, frame, meta).unwrap_or_else(|reason| self.dropped(reason))
            }
            Err(reason) => self.dropped(reason),
        }
    }

    #[cold]
    pub(super) fn dropped<'f>(&mut self, reason: DropReason) -> Input<'f> {
        self.counters.count_drop(reason);
        Input::Nothing
    }

    /// The segment in a frame with TCP over IPv4 for us alone, who sent it, and whose it is. `None`: something else.
    #[inline]
    fn segment_in<'f>(
        &self,
        frame: &'f [u8],
        meta: RxMeta,
    ) -> Result<Option<(MacAddress, FlowKey, Segment<'f>)>, DropReason> {
        let (ethernet, bytes) = EthernetHeader::parse(frame)?;
        if ethernet.destination != self.config.mac || ethernet.ether_type != EtherType::Ipv4 {
            return Ok(None);
        }
        if !ethernet.source.is_unicast() || ethernet.source == self.config.mac {
            return Err(DropReason::BadSource);
        }
        let verify = if meta.checksum == RxChecksum::AllValid { Verify::Done } else { Verify::Here };
        let Ok((ip, payload)) = Ipv4Header::parse(bytes, verify) else { return Ok(None) };
        if ip.protocol != Protocol::Tcp || !self.config.is_ours(ip.destination) {
            return Ok(None);
        }
        if !ipv4::is_host(ip.source) || ip.source == self.config.ip {
            return Err(DropReason::BadSource);
        }
        let verify = (meta.checksum == RxChecksum::Unknown).then_some(&ip);
        let mut segment = Segment::parse(payload, verify)?;
        segment.ecn = Ecn::of(bytes[1]);
        let key = FlowKey::new(ip.source, segment.source_port, segment.destination_port);
        Ok(Some((ethernet.source, key, segment)))
    }

    /// Not a segment over IPv4 for us alone. Apart from these, so that their way stays short.
    #[inline(never)]
    fn other_frame_arrives<'f>(
        &mut self,
        now: Instant,
        frame: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        let (ethernet, payload) = EthernetHeader::parse(frame)?;
        let to_us = ethernet.destination == self.config.mac;
        // Groups of IPv6 are its own to tell, if we speak it.
        let is_ipv6 = ethernet.ether_type == EtherType::Ipv6 && self.resolver.ipv6.is_some();
        let to_all = ethernet.destination == MacAddress::BROADCAST;
        let to_group = ethernet.ether_type == EtherType::Ipv4 && ethernet.destination.is_group();
        if !(to_us || is_ipv6 || to_all || to_group) {
            return Err(DropReason::NotForUs);
        }
        if !ethernet.source.is_unicast() || ethernet.source == self.config.mac {
            return Err(DropReason::BadSource);
        }
        match ethernet.ether_type {
            EtherType::Ipv4 if to_us => self.other_datagram_arrives(now, ethernet.source, payload, meta),
            EtherType::Ipv4 if to_all => self.broadcast_arrives(now, ethernet.source, payload, meta),
            EtherType::Ipv4 => {
                self.group_datagram_arrives(now, (ethernet.source, ethernet.destination), payload, meta)
            }
            EtherType::Arp => self.arp_arrives(now, payload),
            EtherType::Ipv6 => self.ipv6_arrives(now, &ethernet, payload, meta),
        }
    }

    /// A header that says something else than that it is the whole of a datagram.
    #[cold]
    fn unusual_datagram_arrives<'f>(
        &mut self,
        now: Instant,
        source_mac: MacAddress,
        bytes: &'f [u8],
        error: WireError,
    ) -> Result<Input<'f>, DropReason> {
        match error {
            WireError::Fragment => self.fragment_arrives(now, source_mac, bytes),
            WireError::Unsupported => self.unknown_protocol_arrives(now, source_mac, bytes),
            error => Err(error.into()),
        }
    }

    /// A datagram that is not for us, not TCP, or not whole.
    fn other_datagram_arrives<'f>(
        &mut self,
        now: Instant,
        source_mac: MacAddress,
        bytes: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        let verify = if meta.checksum == RxChecksum::AllValid { Verify::Done } else { Verify::Here };
        let (ip, payload) = match Ipv4Header::parse(bytes, verify) {
            Ok(parsed) => parsed,
            Err(error) => return self.unusual_datagram_arrives(now, source_mac, bytes, error),
        };
        if ip.destination.is_multicast() {
            return self.group_datagram_arrives(now, (source_mac, self.config.mac), bytes, meta);
        }
        if !self.config.is_ours(ip.destination) {
            return self.offer_arrives(&ip, payload, meta);
        }
        if !ipv4::is_host(ip.source) || ip.source == self.config.ip {
            return Err(DropReason::BadSource);
        }
        let sender = Sender { mac: source_mac, ip: ip.source };
        match ip.protocol {
            Protocol::Icmp => self.icmp_arrives(now, sender, payload),
            // For us it went another way.
            Protocol::Tcp => Err(DropReason::NotForUs),
            Protocol::Udp => {
                let verify = meta.checksum == RxChecksum::Unknown;
                self.udp_arrives(now, sender, &ip, payload, bytes, verify)
            }
        }
    }

    /// RFC 1122 3.3.6: what was broadcast on the link but not to a broadcast address is dropped; and to a broadcast address
    /// nobody talks TCP, and echo requests there are left unanswered.
    #[cold]
    fn broadcast_arrives<'f>(
        &mut self,
        now: Instant,
        source_mac: MacAddress,
        bytes: &'f [u8],
        meta: RxMeta,
    ) -> Result<Input<'f>, DropReason> {
        let verify = if meta.checksum == RxChecksum::AllValid { Verify::Done } else { Verify::Here };
        let (ip, payload) = Ipv4Header::parse(bytes, verify)?;
        if ip.protocol != Protocol::Udp || !self.config.is_broadcast(ip.destination) {
            return Err(DropReason::NotForUs);
        }
        if !ipv4::is_host(ip.source) || ip.source == self.config.ip {
            return Err(DropReason::BadSource);
        }
        let sender = Sender { mac: source_mac, ip: ip.source };
        self.udp_arrives(now, sender, &ip, payload, bytes, meta.checksum == RxChecksum::Unknown)
    }

    /// RFC 1122 3.2.2.1: nobody speaks this here.
    #[cold]
    fn unknown_protocol_arrives<'f>(
        &mut self,
        now: Instant,
        source_mac: MacAddress,
        bytes: &'f [u8],
    ) -> Result<Input<'f>, DropReason> {
        let packet = Ipv4Fragment::parse(bytes)?;
        if Protocol::from_wire(packet.protocol).is_some() {
            // It was something else in the header that is not handled.
            return Err(DropReason::Unsupported);
        }
        if packet.destination.is_multicast() {
            let ends = (source_mac, self.config.mac);
            return self.group_datagram_arrives(now, ends, bytes, RxMeta { checksum: RxChecksum::AllValid });
        }
        if !self.config.is_ours(packet.destination) {
            return Err(DropReason::NotForUs);
        }
        if packet.protocol == igmp::PROTOCOL {
            return self.igmp_arrives(now, &packet);
        }
        if !ipv4::is_host(packet.source) || packet.source == self.config.ip {
            return Err(DropReason::BadSource);
        }
        let sender = Sender { mac: source_mac, ip: packet.source };
        self.counters.count_drop(DropReason::Unsupported);
        let error = self.icmp_error(now, sender, icmp::PROTOCOL_UNREACHABLE, packet.packet);
        Ok(error.map_or(Input::Nothing, Input::Reply))
    }

    /// A segment, with what its addresses and ports are found by.
    #[inline]
    pub(super) fn segment_arrives<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        key: FlowKey,
        segment: &Segment<'f>,
    ) -> Input<'f> {
        let Some((conn, connection)) = self.table.find(key) else {
            return self.segment_for_nobody(now, sender_mac, key, segment);
        };
        self.counters.segments_in += 1;
        self.counters.data_segments_in += u64::from(!segment.payload.is_empty());
        if connection.state == State::SynSent
            && (!connection.send.has_sent_syn() || connection.is_cancelled())
        {
            return self.segment_without_syn(sender_mac, key, segment);
        }
        let mut ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        let mut happened = Happened::default();
        let verdict = if connection.state == State::SynSent {
            connection.segment_arrives_in_syn_sent(segment, &mut happened, &mut ctx)
        } else {
            connection.segment_arrives(segment, &mut happened, &mut ctx)
        };
        if !matches!(verdict, Verdict::Events) {
            return self.unusual_verdict(now, conn, verdict, &happened);
        }
        // The peer (or the router in between) has a new address on the link: follow a segment that was in the window, as
        // ARP would follow an announcement.
        if connection.template.next_hop() != sender_mac
            && self.resolver.is_on_link(&self.config, connection.template.peer())
        {
            connection.template.set_next_hop(sender_mac);
        }
        if key.pair().is_some() && happened.acked_bytes > 0 {
            self.resolver.confirm_peer(&self.config, connection.template.peer(), sender_mac, now);
        }
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        self.spare_backlogs.collect(&mut connection.send.queue);
        if happened.opened {
            self.opened(conn, now);
        }
        Input::Segment(happened.on(conn))
    }

    /// A segment that leaves nothing but an answer, or ends its connection.
    #[inline(never)]
    fn unusual_verdict<'f>(
        &mut self,
        now: Instant,
        conn: ConnId,
        verdict: Verdict,
        happened: &Happened<'f>,
    ) -> Input<'f> {
        match verdict {
            Verdict::Events => Input::Segment(happened.on(conn)),
            Verdict::Ended(end, last_ack) => {
                if happened.opened {
                    self.opened(conn, now);
                }
                self.end_by_segment(conn, end, now);
                Input::Segment(SegmentEvents { ended: Some(end), last_ack, ..happened.on(conn) })
            }
            Verdict::Reply(frame) => {
                self.arm(conn);
                Input::Reply(frame)
            }
            Verdict::Reset(sequence) => {
                let reset = Fields {
                    sequence,
                    acknowledgment: Seq::new(0),
                    flags: flags::RST,
                    window: 0,
                    timestamps: None,
                };
                self.counters.segments_out += 1;
                self.counters.resets_out += 1;
                self.arm(conn);
                self.table
                    .get(conn)
                    .map_or(Input::Nothing, |connection| Input::Reply(connection.control_frame(&reset)))
            }
            Verdict::Forget => {
                self.counters.half_open_dropped += 1;
                self.forget(conn);
                Input::Nothing
            }
            Verdict::Silence => Input::Nothing,
            Verdict::Drop(reason) => self.dropped(reason),
        }
    }

    /// Brings the timer of a connection in line with what it waits for.
    fn arm(&mut self, conn: ConnId) {
        if let Some(connection) = self.table.get(conn) {
            self.wheel.arm(conn.index, connection.deadline(&self.config));
        }
    }

    /// A handshake is over.
    fn opened(&mut self, conn: ConnId, now: Instant) {
        self.apply_path_mtu(conn, now);
        let Some(connection) = self.table.get(conn) else { return };
        self.established += u32::from(matches!(connection.state, State::Established | State::CloseWait));
        self.counters.opened += 1;
        if !connection.is_active {
            self.half_open -= 1;
            return;
        }
        self.opening -= 1;
        if let Some(hop) = self.resolver.hop_to(&self.config, connection.template.peer()) {
            self.resolver.confirm(hop, connection.template.next_hop(), now);
        }
    }

    fn end_by_segment(&mut self, conn: ConnId, end: End, now: Instant) {
        let in_time_wait = self.table.get(conn).is_some_and(|gone| gone.state == State::TimeWait);
        if end == End::Closed && in_time_wait {
            self.remember(conn, now);
        }
        self.finish(conn, end);
    }

    /// There is no connection: a TIME-WAIT record (RFC 9293 3.10.7.4), a listening port (3.10.7.2), or nothing
    /// (3.10.7.1).
    fn segment_for_nobody<'f>(
        &mut self,
        now: Instant,
        sender_mac: MacAddress,
        key: FlowKey,
        segment: &Segment<'f>,
    ) -> Input<'f> {
        let next_hop = match self.hop_back(sender_mac, key) {
            Ok(next_hop) => next_hop,
            Err(reason) => return self.dropped(reason),
        };
        match self.cookie_returns(now, next_hop, key, segment) {
            Ok(false) => {}
            Ok(true) => return self.segment_arrives(now, sender_mac, key, segment),
            Err(reason) => return self.dropped(reason),
        }
        self.counters.segments_in += 1;
        self.counters.data_segments_in += u64::from(!segment.payload.is_empty());
        let mut isn_floor = None;
        let flow = self.table.pairs.flow(key);
        match self.time_wait.segment_arrives(flow, segment, now, &self.config) {
            None => {}
            Some(TimeWaitAnswer::Ignore) => return Input::Nothing,
            Some(TimeWaitAnswer::Acknowledge { sequence, acknowledgment, timestamps }) => {
                self.counters.pure_acks_out += 1;
                let fields = Fields { sequence, acknowledgment, flags: flags::ACK, window: 0, timestamps };
                return self.reply(next_hop, key, &fields);
            }
            Some(TimeWaitAnswer::Reopen { after }) => {
                self.counters.time_wait_reused += 1;
                isn_floor = Some(after);
            }
        }
        match (segment.control, segment.acknowledgment) {
            // "If the RST bit is set, ... ignored."
            (Control::Rst, _) => self.dropped(DropReason::Unacceptable),
            (Control::Syn, None) if self.is_listening(key) => {
                self.syn_arrives(now, next_hop, key, segment, isn_floor)
            }
            (_, Some(sequence)) => {
                self.counters.resets_out += 1;
                let fields = Fields {
                    sequence,
                    acknowledgment: Seq::new(0),
                    flags: flags::RST,
                    window: 0,
                    timestamps: None,
                };
                self.reply(next_hop, key, &fields)
            }
            (_, None) => {
                self.counters.resets_out += 1;
                let acknowledgment = segment.sequence + segment.sequence_len();
                let flags = flags::RST | flags::ACK;
                let fields =
                    Fields { sequence: Seq::new(0), acknowledgment, flags, window: 0, timestamps: None };
                self.reply(next_hop, key, &fields)
            }
        }
    }

    fn syn_arrives<'f>(
        &mut self,
        now: Instant,
        next_hop: MacAddress,
        key: FlowKey,
        syn: &Segment<'f>,
        isn_floor: Option<Seq>,
    ) -> Input<'f> {
        if self.table.len() >= self.config.max_connections as usize {
            return self.dropped(DropReason::ConnectionsFull);
        }
        // A cookie cannot lie beyond the sequence numbers of the connection before it.
        if isn_floor.is_none() && self.answers_by_cookie() {
            return self.answer_by_cookie(now, next_hop, key, syn);
        }
        let flow = self.table.pairs.flow(key);
        let mut isn = self.isn.next(flow, now);
        if let Some(floor) = isn_floor
            && !isn.is_after(floor)
        {
            // The old connection sent faster than the clock ticks: stay clear of its last window.
            isn = floor + 65_536;
        }
        let template = self.template(next_hop, key);
        let peer = PeerSyn::of(syn, &self.config);
        self.counters.small_mss_in += u64::from(is_small(&peer.options));
        let ctx = Context {
            config: &self.config,
            counters: &mut self.counters,
            samples: &mut self.samples,
            buffered_bytes: &mut self.buffered_bytes,
            now,
        };
        // Without timestamps there is no clock to show.
        let timestamp_offset = peer.options.timestamps.map_or(0, |_| self.isn.timestamp_offset(flow));
        let (conn, connection) =
            self.table.insert(key, || Connection::accept(key, &peer, isn, timestamp_offset, template, &ctx));
        self.wheel.arm(conn.index, connection.deadline(&self.config));
        let syn_ack = connection.syn_ack(&self.config, now);
        self.counters.half_opened += 1;
        self.counters.segments_out += 1;
        self.half_open_begins(conn);
        Input::Reply(syn_ack)
    }

    /// The headers of what is sent to the other end of a flow.
    pub(super) fn template(&self, next_hop: MacAddress, key: FlowKey) -> HeaderTemplate {
        let (ours, theirs) = (key.local_port(), key.peer_port());
        let mut template = match self.table.pairs.get(key) {
            None => {
                let (source, destination) = (self.config.ip, key.peer_v4());
                let ip = Ipv4Header { source, destination, protocol: Protocol::Tcp };
                HeaderTemplate::new(self.config.mac, next_hop, &ip, ours, theirs)
            }
            Some(Pair { local: source, peer: destination }) => {
                let ip = Ipv6Header { source, destination, next_header: NextHeader::Tcp, hop_limit: 0 };
                HeaderTemplate::new_v6(self.config.mac, next_hop, &ip, ours, theirs)
            }
        };
        template.set_time_to_live(self.config.time_to_live);
        template.set_dscp(self.config.dscp);
        template
    }

    /// The Ethernet address to answer a segment of a flow at.
    pub(super) fn hop_back(&self, sender_mac: MacAddress, key: FlowKey) -> Result<MacAddress, DropReason> {
        let Some(pair) = self.table.pairs.get(key) else {
            return self.next_hop(Sender { mac: sender_mac, ip: key.peer_v4() });
        };
        let interface = self.resolver.ipv6.as_deref();
        interface.and_then(|interface| interface.hop_back(sender_mac, pair.peer)).ok_or(DropReason::NoRoute)
    }

    /// A segment without a connection.
    #[cold]
    pub(super) fn reply<'f>(&mut self, next_hop: MacAddress, key: FlowKey, fields: &Fields) -> Input<'f> {
        self.counters.segments_out += 1;
        let template = self.template(next_hop, key);
        Input::Reply(ControlFrame::build(&[], |out| template.fill(out, fields, &[], 0, PayloadSum::Known(0))))
    }
}
