//! ICMP: errors that quote a segment go to the end that sent it, which must find in them the segment as it sent it (RFC 5508 4.2).
//! They change nothing of the connection (RFC 5508 REQ-7, RFC 5382 REQ-9). Also errors of the forwarder's own, and echo.

use crate::address::{Address, addresses, decrement_hop_limit, difference, readdress, set_hop_limit};
use crate::checksum::{self, Difference};
use crate::config::Mac;
use crate::counters::Reason;
use crate::flows::Client;
use crate::forwarder::{HEAD_BYTES, Offload, Outgoing, Verdict};
use crate::neighbour::Known;
use crate::path::{Common, Packet, Path};
use crate::segment::Ends;
use crate::wire::{ETHERNET_BYTES, HOPS, IP, put_u16, tcp, u16_at};
use core::time::Duration;

/// Bytes of an ICMP header, before the packet that an error quotes.
const ICMP_BYTES: usize = 8;
/// Of a TCP header, an error quotes at least so much (RFC 792).
const QUOTED_TCP_BYTES_MIN: usize = 8;
/// Offset in an ICMP header.
const CHECKSUM: usize = 2;

impl<A: Address> Path<A> {
    pub(crate) fn icmp(&mut self, common: &mut Common, packet: Packet<'_, A>) -> Result<Verdict, Reason> {
        if packet.total_bytes < A::HEADER_BYTES + ICMP_BYTES {
            return Err(Reason::Malformed);
        }
        if packet.meta.is_partial || packet.meta.segment_bytes.is_some() {
            return Err(Reason::Offload);
        }
        let (first, rest) = packet.transport();
        let pseudo_sum = A::icmp_pseudo_sum(&packet.head[IP..], packet.total_bytes - A::HEADER_BYTES);
        if checksum::sum(pseudo_sum.into(), first, rest) != 0xFFFF {
            return Err(Reason::BadChecksum);
        }
        match packet.head[A::TRANSPORT] {
            kind if kind == A::ICMP.echo => Ok(self.echo(common, packet)),
            kind if A::ICMP.errors.contains(&kind) => self.error(common, packet),
            _ => Err(Reason::Icmp),
        }
    }

    fn echo(&mut self, common: &mut Common, mut packet: Packet<'_, A>) -> Verdict {
        common.counters.echo_replies += 1;
        let sender_mac = packet.sender_mac();
        packet.send_to(sender_mac, self.own);
        let outgoing = outgoing(&packet);
        let header = &mut packet.head[IP..];
        // The other way round, the sum of addresses is the same.
        readdress(header, self.own.address, packet.source);
        set_hop_limit::<A>(header, HOPS, Difference::default());
        let message = &mut header[A::HEADER_BYTES..];
        let old = u16_at(message, 0);
        message[0] = A::ICMP.echo_reply;
        let changed = Difference::default().word(old, u16_at(message, 0));
        put_u16(message, CHECKSUM, changed.of_checksum(u16_at(message, CHECKSUM)));
        Verdict::Send(outgoing)
    }

    /// An error about a segment that was forwarded, or that would have been if it had got here.
    fn error(&mut self, common: &mut Common, mut packet: Packet<'_, A>) -> Result<Verdict, Reason> {
        let (at, quoted) = quoted(&packet).ok_or(Reason::Icmp)?;
        if quoted.source != self.own.address {
            return Err(Reason::Icmp);
        }
        let OtherSide { ends, mac, destination, is_server } = self.other_side(common, quoted)?;
        if packet.hop_limit() <= 1 {
            // An error is never complained of (RFC 1122 3.2.2, RFC 4443 2.4 e).
            return Err(Reason::TimeToLive);
        }
        let way = if is_server { &mut common.counters.to_server } else { &mut common.counters.to_client };
        way.icmp += 1;
        packet.send_to(mac, self.own);
        let outgoing = outgoing(&packet);
        let packet_bytes = packet.head_bytes;
        let header = &mut packet.head[IP..packet_bytes];
        // Whoever complains, one side knows nobody of the other side but us (RFC 5508 REQ-5).
        let addresses = readdress(header, self.own.address, destination);
        decrement_hop_limit::<A>(header, addresses);
        let covered = if A::ICMP.has_pseudo_header { addresses } else { Difference::default() };
        rewrite_quote(&mut header[A::HEADER_BYTES..], at, (quoted, ends), covered);
        Ok(Verdict::Send(outgoing))
    }

    /// What a segment that we sent was when it came to us.
    fn other_side(&self, common: &Common, quoted: Ends<A>) -> Result<OtherSide<A>, Reason> {
        let server = self.server.as_ref().ok_or(Reason::Icmp)?;
        let own = self.own.address;
        if (quoted.destination, quoted.destination_port) == (server.address, server.port) {
            let flow = server.flows.at(quoted.source_port).ok_or(Reason::Icmp)?;
            let Client { address, port } = flow.client;
            let ends = Ends {
                source: address,
                source_port: port,
                destination: own,
                destination_port: common.listen,
            };
            return Ok(OtherSide { ends, mac: flow.client_mac, destination: address, is_server: false });
        }
        let client = Client { address: quoted.destination, port: quoted.destination_port };
        let is_to_client = quoted.source_port == common.listen;
        let port = server.flows.find(client).filter(|_| is_to_client).ok_or(Reason::Icmp)?;
        let Known::At(mac) = server.next_hop.known() else { return Err(Reason::Unresolved) };
        let ends = Ends {
            source: server.address,
            source_port: server.port,
            destination: own,
            destination_port: port,
        };
        Ok(OtherSide { ends, mac, destination: server.address, is_server: true })
    }

    /// A packet that goes nowhere, and an error about it if there is cause for one.
    #[cold]
    pub(crate) fn complain(
        &mut self,
        common: &mut Common,
        now: Duration,
        mut packet: Packet<'_, A>,
        reason: Reason,
        [kind, code]: [u8; 2],
        has_cause: bool,
    ) -> Result<Verdict, Reason> {
        if !has_cause || !common.may_complain(now) {
            return Err(reason);
        }
        common.counters.drops[reason as usize] += 1;
        common.counters.errors_sent += 1;
        let sender_mac = packet.sender_mac();
        packet.send_to(sender_mac, self.own);
        let quote = A::TRANSPORT + ICMP_BYTES;
        let quote_bytes = packet.total_bytes.min(A::ICMP.error_bytes_max - A::HEADER_BYTES - ICMP_BYTES);
        let message_bytes = ICMP_BYTES + quote_bytes;
        let (first, rest) = packet.first(quote_bytes);
        let quoted_sum = checksum::sum(0, first, rest);
        // What the head has no room for stays where it was received.
        let moved_bytes = first.len().min(HEAD_BYTES - quote);
        let head = packet.head;
        head.copy_within(IP..IP + moved_bytes, quote);
        A::write_icmp_header(&mut head[IP..], self.own.address, packet.source, message_bytes);
        let pseudo_sum = A::icmp_pseudo_sum(&head[IP..], message_bytes);
        let header = &mut head[A::TRANSPORT..quote];
        header.fill(0);
        (header[0], header[1]) = (kind, code);
        let sum = checksum::sum(u32::from(pseudo_sum) + u32::from(quoted_sum), header, &[]);
        put_u16(header, CHECKSUM, !sum);
        Ok(Verdict::Send(Outgoing {
            headers_bytes: quote + moved_bytes,
            rest_at: IP + moved_bytes,
            len_bytes: quote + quote_bytes,
            offload: Offload::None,
        }))
    }
}

/// Of a segment that we sent, what it was when it came.
struct OtherSide<A> {
    ends: Ends<A>,
    /// Where its sender is on the link.
    mac: Mac,
    /// The sender.
    destination: A,
    is_server: bool,
}

/// All of a packet's head is headers.
fn outgoing<A>(packet: &Packet<'_, A>) -> Outgoing {
    Outgoing {
        headers_bytes: packet.head_bytes,
        rest_at: packet.head_bytes,
        len_bytes: ETHERNET_BYTES + packet.total_bytes,
        offload: Offload::None,
    }
}

/// The segment that an error quotes, and where its TCP header begins in the message.
fn quoted<A: Address>(packet: &Packet<'_, A>) -> Option<(usize, Ends<A>)> {
    let message = &packet.head[A::TRANSPORT..packet.head_bytes];
    let quote = message.get(ICMP_BYTES..)?;
    let tcp_at = A::quoted_tcp(quote)?;
    let segment = quote.get(tcp_at..tcp_at + QUOTED_TCP_BYTES_MIN)?;
    let (source, destination) = addresses::<A>(quote);
    let ends = Ends {
        source,
        source_port: u16_at(segment, tcp::SOURCE),
        destination,
        destination_port: u16_at(segment, tcp::DESTINATION),
    };
    Some((ICMP_BYTES + tcp_at, ends))
}

/// Gives the segment that a message quotes, whose TCP header begins at `at`, other ends; the message's checksum covers all of that,
/// and what else has changed of what it is `covered` by.
fn rewrite_quote<A: Address>(
    message: &mut [u8],
    at: usize,
    (old, new): (Ends<A>, Ends<A>),
    covered: Difference,
) {
    let ends = |so_far: Difference| {
        difference(difference(so_far, old.source, new.source), old.destination, new.destination)
    };
    let ports = |so_far: Difference| {
        so_far.word(old.source_port, new.source_port).word(old.destination_port, new.destination_port)
    };
    new.source.write(message, ICMP_BYTES + A::SOURCE);
    new.destination.write(message, ICMP_BYTES + A::DESTINATION);
    put_u16(message, at + tcp::SOURCE, new.source_port);
    put_u16(message, at + tcp::DESTINATION, new.destination_port);
    let mut all = ports(ends(covered));
    let mut update = |message: &mut [u8], field: usize, changed: Difference| {
        let old = u16_at(message, field);
        let new = changed.of_checksum(old);
        put_u16(message, field, new);
        all = all.word(old, new);
    };
    if let Some(field) = A::CHECKSUM {
        update(message, ICMP_BYTES + field, ends(Difference::default()));
    }
    if message.len() >= at + tcp::CHECKSUM + 2 {
        update(message, at + tcp::CHECKSUM, ports(ends(Difference::default())));
    }
    put_u16(message, CHECKSUM, all.of_checksum(u16_at(message, CHECKSUM)));
}
