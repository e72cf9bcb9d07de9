//! TCP segments: which connection's they are, and their other ends.

use crate::address::{Address, decrement_hop_limit, readdress};
use crate::counters::{Reason, Way};
use crate::flows::{Client, Evicted};
use crate::forwarder::{Meta, Offload, Outgoing, Verdict, seconds};
use crate::neighbour::Known;
use crate::path::{Common, Packet, Path, Server};
use crate::state::{self, Event, Segment};
use crate::wire::tcp::{ACK, FIN, RST, SYN};
use crate::wire::{ETHERNET_BYTES, IP, TCP_BYTES, put_u16, tcp, u16_at, u32_at};
use core::time::Duration;

/// Addresses and ports of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends<A> {
    pub(crate) source: A,
    pub(crate) source_port: u16,
    pub(crate) destination: A,
    pub(crate) destination_port: u16,
}

impl<A: Address> Path<A> {
    #[inline(always)]
    pub(crate) fn segment(
        &mut self,
        common: &mut Common,
        now: Duration,
        packet: Packet<'_, A>,
    ) -> Result<Verdict, Reason> {
        let segment_bytes = packet.total_bytes - A::HEADER_BYTES;
        if segment_bytes < TCP_BYTES {
            return Err(Reason::Malformed);
        }
        let header = &packet.head[A::TRANSPORT..];
        let header_bytes = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
        let flags = header[tcp::FLAGS];
        let is_nonsense = flags & SYN != 0 && flags & (FIN | RST) != 0;
        if header_bytes < TCP_BYTES || header_bytes > segment_bytes || is_nonsense {
            return Err(Reason::Malformed);
        }
        let offload = offload::<A>(packet.meta)?;
        let seen = Segment {
            flags,
            sequence: u32_at(header, tcp::SEQUENCE),
            acknowledgment: u32_at(header, tcp::ACKNOWLEDGMENT),
        };
        let source_port = u16_at(header, tcp::SOURCE);
        let port = u16_at(header, tcp::DESTINATION);
        let headers_bytes = A::TRANSPORT + header_bytes;
        let outgoing = Outgoing {
            headers_bytes,
            rest_at: headers_bytes,
            len_bytes: ETHERNET_BYTES + packet.total_bytes,
            offload,
        };
        if port == common.listen {
            self.client_segment(common, now, packet, source_port, seen, outgoing)
        } else {
            self.server_segment(common, now, packet, (source_port, port), seen, outgoing)
        }
    }

    #[inline(always)]
    fn client_segment(
        &mut self,
        common: &mut Common,
        now: Duration,
        mut packet: Packet<'_, A>,
        port: u16,
        seen: Segment,
        outgoing: Outgoing,
    ) -> Result<Verdict, Reason> {
        let client = Client { address: packet.source, port };
        if client.port == 0 {
            return Err(Reason::BadSource);
        }
        let is_syn = seen.flags & (SYN | ACK) == SYN;
        let own = self.own;
        let Some(server) = &mut self.server else {
            let unreachable = A::ICMP.port_unreachable;
            return self.complain(common, now, packet, Reason::NoServer, unreachable, is_syn);
        };
        let known = server.flows.find(client);
        if known.is_none() && !is_syn {
            return Err(Reason::NoFlow);
        }
        let Known::At(mac) = server.next_hop.known() else {
            let is_gone = server.next_hop.known() == Known::Gone;
            let unreachable = A::ICMP.host_unreachable;
            return self.complain(common, now, packet, Reason::Unresolved, unreachable, is_gone);
        };
        if packet.hop_limit() <= 1 {
            return self.complain(common, now, packet, Reason::TimeToLive, A::ICMP.time_exceeded, true);
        }
        let sender_mac = packet.sender_mac();
        let now_s = seconds(now);
        let port = match known {
            Some(port) => port,
            None => {
                let (port, evicted) =
                    server.flows.insert(client, sender_mac, now_s).ok_or(Reason::TableFull)?;
                common.counters.opened += 1;
                common.counters.evicted_half_open += u64::from(evicted == Evicted::HalfOpen);
                common.counters.evicted_closing += u64::from(evicted == Evicted::Closing);
                port
            }
        };
        let mut event = Event::Nothing;
        server.flows.seen(port, now_s, |flow| {
            flow.client_mac = sender_mac;
            event = state::from_client(flow, seen);
        });
        common.counters.opened += u64::from(event == Event::Opened);
        common.counters.established += u64::from(event == Event::Established);
        let ends = Ends {
            source: own.address,
            source_port: port,
            destination: server.address,
            destination_port: server.port,
        };
        packet.send_to(mac, own);
        rewrite(&mut packet, ends);
        count(&mut common.counters.to_server, outgoing);
        Ok(Verdict::Send(outgoing))
    }

    #[inline(always)]
    fn server_segment(
        &mut self,
        common: &mut Common,
        now: Duration,
        mut packet: Packet<'_, A>,
        (source_port, port): (u16, u16),
        seen: Segment,
        outgoing: Outgoing,
    ) -> Result<Verdict, Reason> {
        let own = self.own;
        let is_from = |server: &Server<A>| (server.address, server.port) == (packet.source, source_port);
        let server = self.server.as_mut().filter(|server| is_from(server));
        let known = server.and_then(|server| Some((*server.flows.at(port)?, server)));
        let Some((flow, server)) = known else {
            return Err(if seen.flags & (SYN | ACK) == SYN { Reason::NotListened } else { Reason::NoFlow });
        };
        if packet.hop_limit() <= 1 {
            return self.complain(common, now, packet, Reason::TimeToLive, A::ICMP.time_exceeded, true);
        }
        server.flows.seen(port, seconds(now), |flow| {
            state::from_server(flow, seen);
        });
        let ends = Ends {
            source: own.address,
            source_port: common.listen,
            destination: flow.client.address,
            destination_port: flow.client.port,
        };
        packet.send_to(flow.client_mac, own);
        rewrite(&mut packet, ends);
        count(&mut common.counters.to_client, outgoing);
        Ok(Verdict::Send(outgoing))
    }
}

fn count(way: &mut Way, outgoing: Outgoing) {
    way.frames += 1;
    way.data_bytes += (outgoing.len_bytes - outgoing.headers_bytes) as u64;
}

/// What the device must be told of the frame again (VIRTIO 1.3 5.1.6.2: segments are cut only where it completes checksums).
#[inline(always)]
fn offload<A: Address>(Meta { is_partial, segment_bytes }: Meta) -> Result<Offload, Reason> {
    let (start, offset) = (A::TRANSPORT as u16, tcp::CHECKSUM as u16);
    match (is_partial, segment_bytes) {
        (false, None) => Ok(Offload::None),
        (true, None) => Ok(Offload::Checksum { start, offset }),
        (true, Some(mss)) if mss > 0 => Ok(Offload::Segment { version: A::VERSION, start, offset, mss }),
        _ => Err(Reason::Offload),
    }
}

/// Gives a segment other ends, and takes one off its time to live.
#[inline(always)]
fn rewrite<A: Address>(packet: &mut Packet<'_, A>, ends: Ends<A>) {
    let is_partial = packet.meta.is_partial;
    let header = &mut packet.head[IP..];
    let addresses = readdress(header, ends.source, ends.destination);
    decrement_hop_limit::<A>(header, addresses);
    let header = &mut header[A::HEADER_BYTES..];
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
