//! TCP segments: which connection's they are, and their other ends.

use crate::checksum::Difference;
use crate::counters::{Reason, Way};
use crate::flows::{Client, Evicted};
use crate::forwarder::{Forwarder, Meta, Offload, Outgoing, Packet, Verdict, seconds};
use crate::icmp::{HOST_UNREACHABLE, TIME_EXCEEDED};
use crate::neighbour::Known;
use crate::state::{self, Event, Segment};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::wire::{
    ETHERNET_BYTES, IP, IP_BYTES, TCP_BYTES, TRANSPORT, ip, put_u16, put_u32, tcp, u16_at, u32_at,
};
use core::time::Duration;

/// Addresses and ports of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: u32,
    pub(crate) source_port: u16,
    pub(crate) destination: u32,
    pub(crate) destination_port: u16,
}

impl Forwarder {
    #[inline(always)]
    pub(crate) fn segment(&mut self, now: Duration, packet: Packet<'_>) -> Result<Verdict, Reason> {
        let segment_bytes = packet.total_bytes - IP_BYTES;
        if segment_bytes < TCP_BYTES {
            return Err(Reason::Malformed);
        }
        let header = &packet.head[TRANSPORT..];
        let header_bytes = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
        let flags = header[tcp::FLAGS];
        let is_nonsense = flags & SYN != 0 && flags & (FIN | RST) != 0;
        if header_bytes < TCP_BYTES || header_bytes > segment_bytes || is_nonsense {
            return Err(Reason::Malformed);
        }
        let offload = offload(packet.meta)?;
        let seen = Segment {
            flags,
            sequence: u32_at(header, tcp::SEQUENCE),
            acknowledgment: u32_at(header, tcp::ACKNOWLEDGMENT),
        };
        let source_port = u16_at(header, tcp::SOURCE);
        let port = u16_at(header, tcp::DESTINATION);
        let outgoing = Outgoing {
            headers_bytes: TRANSPORT + header_bytes,
            len_bytes: ETHERNET_BYTES + packet.total_bytes,
            offload,
        };
        if port == self.listen {
            self.client_segment(now, packet, Client { address: 0, port: source_port }, seen, outgoing)
        } else {
            self.server_segment(now, packet, (source_port, port), seen, outgoing)
        }
    }

    #[inline(always)]
    fn client_segment(
        &mut self,
        now: Duration,
        mut packet: Packet<'_>,
        client: Client,
        seen: Segment,
        outgoing: Outgoing,
    ) -> Result<Verdict, Reason> {
        let client = Client { address: packet.source, ..client };
        if client.port == 0 {
            return Err(Reason::BadSource);
        }
        let known = self.flows.find(client);
        if known.is_none() && seen.flags & (SYN | ACK) != SYN {
            return Err(Reason::NoFlow);
        }
        let Known::At(mac) = self.next_hop.known() else {
            let is_gone = self.next_hop.known() == Known::Gone;
            return self.complain(now, packet, Reason::Unresolved, HOST_UNREACHABLE, is_gone);
        };
        if packet.head[IP + ip::TTL] <= 1 {
            return self.complain(now, packet, Reason::TimeToLive, TIME_EXCEEDED, true);
        }
        let sender_mac = packet.sender_mac();
        let now_s = seconds(now);
        let port = match known {
            Some(port) => port,
            None => {
                let (port, evicted) =
                    self.flows.insert(client, sender_mac, now_s).ok_or(Reason::TableFull)?;
                self.counters.opened += 1;
                self.counters.evicted_half_open += u64::from(evicted == Evicted::HalfOpen);
                self.counters.evicted_closing += u64::from(evicted == Evicted::Closing);
                port
            }
        };
        let mut event = Event::Nothing;
        self.flows.seen(port, now_s, |flow| {
            flow.client_mac = sender_mac;
            event = state::from_client(flow, seen);
        });
        self.counters.opened += u64::from(event == Event::Opened);
        self.counters.established += u64::from(event == Event::Established);
        let ends = Ends {
            source: self.own.address,
            source_port: port,
            destination: self.server,
            destination_port: self.server_port,
        };
        packet.send_to(mac, self.own);
        rewrite(&mut packet, ends);
        count(&mut self.counters.to_server, outgoing);
        Ok(Verdict::Send(outgoing))
    }

    #[inline(always)]
    fn server_segment(
        &mut self,
        now: Duration,
        mut packet: Packet<'_>,
        (source_port, port): (u16, u16),
        seen: Segment,
        outgoing: Outgoing,
    ) -> Result<Verdict, Reason> {
        let is_server = packet.source == self.server && source_port == self.server_port;
        let Some(flow) = self.flows.at(port).copied().filter(|_| is_server) else {
            return Err(if seen.flags & (SYN | ACK) == SYN { Reason::NotListened } else { Reason::NoFlow });
        };
        if packet.head[IP + ip::TTL] <= 1 {
            return self.complain(now, packet, Reason::TimeToLive, TIME_EXCEEDED, true);
        }
        self.flows.seen(port, seconds(now), |flow| {
            state::from_server(flow, seen);
        });
        let ends = Ends {
            source: self.own.address,
            source_port: self.listen,
            destination: flow.client.address,
            destination_port: flow.client.port,
        };
        packet.send_to(flow.client_mac, self.own);
        rewrite(&mut packet, ends);
        count(&mut self.counters.to_client, outgoing);
        Ok(Verdict::Send(outgoing))
    }
}

fn count(way: &mut Way, outgoing: Outgoing) {
    way.frames += 1;
    way.data_bytes += (outgoing.len_bytes - outgoing.headers_bytes) as u64;
}

/// What the device must be told of the frame again (VIRTIO 1.3 5.1.6.2: segments are cut only where it completes checksums).
#[inline(always)]
fn offload(Meta { is_partial, segment_bytes }: Meta) -> Result<Offload, Reason> {
    let (start, offset) = (TRANSPORT as u16, tcp::CHECKSUM as u16);
    match (is_partial, segment_bytes) {
        (false, None) => Ok(Offload::None),
        (true, None) => Ok(Offload::Checksum { start, offset }),
        (true, Some(mss)) if mss > 0 => Ok(Offload::Segment { start, offset, mss }),
        _ => Err(Reason::Offload),
    }
}

/// Gives a segment other ends, and takes one off its time to live.
#[inline(always)]
fn rewrite(packet: &mut Packet<'_>, ends: Ends) {
    let is_partial = packet.meta.is_partial;
    let header = &mut packet.head[IP..];
    let addresses = Difference::default()
        .address(u32_at(header, ip::SOURCE), ends.source)
        .address(u32_at(header, ip::DESTINATION), ends.destination);
    put_u32(header, ip::SOURCE, ends.source);
    put_u32(header, ip::DESTINATION, ends.destination);
    decrement_ttl(header, addresses);
    let header = &mut header[IP_BYTES..];
    let sum = u16_at(header, tcp::CHECKSUM);
    let sum = if is_partial {
        // The pseudo header has no ports (RFC 9293 3.1).
        addresses.of_sum(sum)
    } else {
        addresses
            .word(u16_at(header, tcp::SOURCE), ends.source_port)
            .word(u16_at(header, tcp::DESTINATION), ends.destination_port)
            .of_checksum(sum)
    };
    put_u16(header, tcp::CHECKSUM, sum);
    put_u16(header, tcp::SOURCE, ends.source_port);
    put_u16(header, tcp::DESTINATION, ends.destination_port);
}

/// Takes one off an IP header's time to live, and brings its checksum up to date with that and with other `changes`.
#[inline(always)]
pub(crate) fn decrement_ttl(header: &mut [u8], changes: Difference) {
    let old = u16_at(header, ip::TTL);
    let new = old - 0x100;
    put_u16(header, ip::TTL, new);
    let checksum = changes.word(old, new).of_checksum(u16_at(header, ip::CHECKSUM));
    put_u16(header, ip::CHECKSUM, checksum);
}
