//! ICMP: errors that quote a segment go to the end that sent it, which must find in them the segment as it sent it (RFC 5508 4.2).
//! They change nothing of the connection (RFC 5508 REQ-7, RFC 5382 REQ-9). Also errors of the forwarder's own, and echo.

use crate::checksum::{self, Difference};
use crate::config::Mac;
use crate::counters::Reason;
use crate::flows::Client;
use crate::forwarder::{Forwarder, HEAD_BYTES, Offload, Outgoing, Packet, Verdict, whole};
use crate::neighbour::Known;
use crate::segment::{Ends, decrement_ttl};
use crate::wire::{
    ETHERNET_BYTES, IP, IP_BYTES, PROTOCOL_ICMP, PROTOCOL_TCP, TRANSPORT, ip, put_u16, put_u32, tcp, u16_at,
    u32_at,
};
use core::time::Duration;

/// Bytes of an ICMP header.
const ICMP_BYTES: usize = 8;
/// Where the packet that an error quotes begins.
const QUOTE: usize = TRANSPORT + ICMP_BYTES;
/// What an error quotes at least: an IP header and 8 bytes (RFC 792).
const QUOTE_BYTES_MIN: usize = IP_BYTES + 8;
const CHECKSUM: usize = TRANSPORT + 2;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO: u8 = 8;
const EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Type and code of "time to live exceeded in transit".
pub(crate) const TIME_EXCEEDED: [u8; 2] = [EXCEEDED, 0];
/// Type and code of "host unreachable".
pub(crate) const HOST_UNREACHABLE: [u8; 2] = [UNREACHABLE, 1];

/// Time to live of what the forwarder itself sends (RFC 1700).
const TTL: u8 = 64;

impl Forwarder {
    pub(crate) fn icmp(&mut self, packet: Packet<'_>) -> Result<Verdict, Reason> {
        if packet.total_bytes < IP_BYTES + ICMP_BYTES {
            return Err(Reason::Malformed);
        }
        if packet.meta.is_partial || packet.meta.segment_bytes.is_some() {
            return Err(Reason::Offload);
        }
        let (first, rest) = packet.transport();
        if checksum::sum(first, rest) != 0xFFFF {
            return Err(Reason::BadChecksum);
        }
        match packet.head[TRANSPORT] {
            ECHO => Ok(self.echo(packet)),
            UNREACHABLE | EXCEEDED | PARAMETER_PROBLEM => self.error(packet),
            _ => Err(Reason::Icmp),
        }
    }

    fn echo(&mut self, mut packet: Packet<'_>) -> Verdict {
        self.counters.echo_replies += 1;
        let sender_mac = packet.sender_mac();
        packet.send_to(sender_mac, self.own);
        let outgoing = outgoing(&packet);
        let (source, own) = (packet.source, self.own.address);
        let head = packet.head;
        put_u32(head, IP + ip::SOURCE, own);
        put_u32(head, IP + ip::DESTINATION, source);
        change(head, IP + ip::TTL, TTL, IP + ip::CHECKSUM);
        change(head, TRANSPORT, ECHO_REPLY, CHECKSUM);
        Verdict::Send(outgoing)
    }

    /// An error about a segment that was forwarded, or that would have been if it had got here.
    fn error(&mut self, mut packet: Packet<'_>) -> Result<Verdict, Reason> {
        let (at, quoted) = quoted(&packet).ok_or(Reason::Icmp)?;
        if quoted.source != self.own.address {
            return Err(Reason::Icmp);
        }
        let (ends, mac, destination) = self.other_side(quoted)?;
        if packet.head[IP + ip::TTL] <= 1 {
            // An error is never complained of (RFC 1122 3.2.2).
            return Err(Reason::TimeToLive);
        }
        if destination == self.server {
            self.counters.to_server.icmp += 1;
        } else {
            self.counters.to_client.icmp += 1;
        }
        packet.send_to(mac, self.own);
        let outgoing = outgoing(&packet);
        // Whoever complains, one side knows nobody of the other side but us (RFC 5508 REQ-5).
        let source = self.own.address;
        rewrite_quote(&mut packet.head[..packet.head_bytes], at, quoted, ends);
        let header = &mut packet.head[IP..];
        let addresses = Difference::default()
            .address(u32_at(header, ip::SOURCE), source)
            .address(u32_at(header, ip::DESTINATION), destination);
        put_u32(header, ip::SOURCE, source);
        put_u32(header, ip::DESTINATION, destination);
        decrement_ttl(header, addresses);
        Ok(Verdict::Send(outgoing))
    }

    /// What a segment that we sent was when it came to us: its ends then, where its sender is on the link, and the sender's address.
    fn other_side(&self, quoted: Ends) -> Result<(Ends, Mac, u32), Reason> {
        if quoted.destination == self.server && quoted.destination_port == self.server_port {
            let flow = self.flows.at(quoted.source_port).ok_or(Reason::Icmp)?;
            let Client { address, port } = flow.client;
            let ends = Ends {
                source: address,
                source_port: port,
                destination: self.own.address,
                destination_port: self.listen,
            };
            return Ok((ends, flow.client_mac, address));
        }
        let client = Client { address: quoted.destination, port: quoted.destination_port };
        let port =
            self.flows.find(client).filter(|_| quoted.source_port == self.listen).ok_or(Reason::Icmp)?;
        let Known::At(mac) = self.next_hop.known() else { return Err(Reason::Unresolved) };
        let ends = Ends {
            source: self.server,
            source_port: self.server_port,
            destination: self.own.address,
            destination_port: port,
        };
        Ok((ends, mac, self.server))
    }

    /// A packet that goes nowhere, and an error about it if there is cause for one.
    #[cold]
    pub(crate) fn complain(
        &mut self,
        now: Duration,
        mut packet: Packet<'_>,
        reason: Reason,
        [kind, code]: [u8; 2],
        has_cause: bool,
    ) -> Result<Verdict, Reason> {
        if !has_cause || !self.may_complain(now) {
            return Err(reason);
        }
        self.counters.drops[reason as usize] += 1;
        self.counters.errors_sent += 1;
        let sender_mac = packet.sender_mac();
        packet.send_to(sender_mac, self.own);
        let quote_bytes = (packet.head_bytes - IP).min(HEAD_BYTES - QUOTE);
        let head = packet.head;
        head.copy_within(IP..IP + quote_bytes, QUOTE);
        let total_bytes = IP_BYTES + ICMP_BYTES + quote_bytes;
        let header = &mut head[IP..QUOTE];
        header.fill(0);
        header[0] = 0x45;
        put_u16(header, ip::TOTAL_LEN, total_bytes as u16);
        put_u16(header, ip::FLAGS, 0x4000);
        header[ip::TTL] = TTL;
        header[ip::PROTOCOL] = PROTOCOL_ICMP;
        put_u32(header, ip::SOURCE, self.own.address);
        put_u32(header, ip::DESTINATION, packet.source);
        let sum = checksum::sum(&head[IP..TRANSPORT], &[]);
        put_u16(head, IP + ip::CHECKSUM, !sum);
        (head[TRANSPORT], head[TRANSPORT + 1]) = (kind, code);
        let sum = checksum::sum(&head[TRANSPORT..IP + total_bytes], &[]);
        put_u16(head, CHECKSUM, !sum);
        Ok(Verdict::Send(whole(IP + total_bytes)))
    }
}

/// Puts another byte at `at`, the first of a word, under the checksum at `checksum`.
fn change(head: &mut [u8], at: usize, byte: u8, checksum: usize) {
    let old = u16_at(head, at);
    head[at] = byte;
    let changed = Difference::default().word(old, u16_at(head, at));
    let new = changed.of_checksum(u16_at(head, checksum));
    put_u16(head, checksum, new);
}

/// All of a packet's head is headers.
fn outgoing(packet: &Packet<'_>) -> Outgoing {
    Outgoing {
        headers_bytes: packet.head_bytes,
        len_bytes: ETHERNET_BYTES + packet.total_bytes,
        offload: Offload::None,
    }
}

/// The segment that an error quotes, and where its TCP header begins.
fn quoted(packet: &Packet<'_>) -> Option<(usize, Ends)> {
    let head = &packet.head[..packet.head_bytes];
    if head.len() < QUOTE + QUOTE_BYTES_MIN {
        return None;
    }
    let header_bytes = usize::from(head[QUOTE] & 15) * 4;
    let is_ipv4 = head[QUOTE] >> 4 == 4 && header_bytes >= IP_BYTES;
    let is_first = u16_at(head, QUOTE + ip::FLAGS) & ip::FRAGMENT & 0x1FFF == 0;
    if !is_ipv4 || !is_first || head[QUOTE + ip::PROTOCOL] != PROTOCOL_TCP {
        return None;
    }
    let at = QUOTE + header_bytes;
    let segment = head.get(at..at + 8)?;
    let ends = Ends {
        source: u32_at(head, QUOTE + ip::SOURCE),
        source_port: u16_at(segment, tcp::SOURCE),
        destination: u32_at(head, QUOTE + ip::DESTINATION),
        destination_port: u16_at(segment, tcp::DESTINATION),
    };
    Some((at, ends))
}

/// Gives the quoted segment, whose TCP header begins at `at`, other ends; the message's checksum covers all of that.
fn rewrite_quote(head: &mut [u8], at: usize, old: Ends, new: Ends) {
    let addresses =
        Difference::default().address(old.source, new.source).address(old.destination, new.destination);
    let ports = |so_far: Difference| {
        so_far.word(old.source_port, new.source_port).word(old.destination_port, new.destination_port)
    };
    put_u32(head, QUOTE + ip::SOURCE, new.source);
    put_u32(head, QUOTE + ip::DESTINATION, new.destination);
    put_u16(head, at + tcp::SOURCE, new.source_port);
    put_u16(head, at + tcp::DESTINATION, new.destination_port);
    let mut message = ports(addresses);
    let mut update = |head: &mut [u8], field: usize, changed: Difference| {
        let old = u16_at(head, field);
        let new = changed.of_checksum(old);
        put_u16(head, field, new);
        message = message.word(old, new);
    };
    update(head, QUOTE + ip::CHECKSUM, addresses);
    if head.len() >= at + tcp::CHECKSUM + 2 {
        update(head, at + tcp::CHECKSUM, ports(addresses));
    }
    put_u16(head, CHECKSUM, message.of_checksum(u16_at(head, CHECKSUM)));
}
