//! UDP datagrams of ours (RFC 768, RFC 1122 4.1): from a bound port to anybody, whole or, where it is asked for, in fragments. The payload is read where it is, once for the checksum if the device does not compute it.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::num::NonZeroU8;

use super::Stack;
use crate::config::TxChecksum;
use crate::data::{Data, Queued};
use crate::driver::{ChecksumRequest, MAX_HEADER_BYTES, Payload, Transmit, TxSegment};
use crate::events::SendDatagramError;
use crate::frame::ControlFrame;
use crate::ipv6::is_host;
use crate::options::{DatagramOptions, Dscp};
use crate::tcp::transmit::sum_payload;
use crate::time::Instant;
use crate::wire::checksum::{Sum, sum_bytes};
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::igmp;
use crate::wire::ipv4::{self, FragmentPlace, Ipv4Header, Protocol};
use crate::wire::ipv6::{self, Ipv6Header, NextHeader};
use crate::wire::ipv6_extensions::{self, FRAGMENT_BYTES};
use crate::wire::udp;

/// The IP header of a datagram.
enum Ip {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

impl Ip {
    const fn header_bytes(&self) -> usize {
        match self {
            Self::V4(_) => ipv4::HEADER_BYTES,
            Self::V6(_) => ipv6::HEADER_BYTES,
        }
    }

    /// The sum of the pseudo-header except the length.
    fn pseudo_sum(&self) -> Sum {
        match self {
            Self::V4(ip) => ip.pseudo_sum_without_length(),
            Self::V6(ip) => ip.pseudo_sum(0),
        }
    }
}

/// Where a datagram goes and how.
struct Way {
    next_hop: MacAddress,
    ip: Ip,
    from_port: u16,
    to_port: u16,
    time_to_live: NonZeroU8,
    dscp: Dscp,
    /// Bytes of UDP header and payload in one packet.
    max_bytes: usize,
    /// Of its fragments.
    identification: u32,
}

/// A part of a datagram in a packet of its own: bytes `offset..offset + len` of UDP header and payload.
#[derive(Clone, Copy)]
struct Part {
    offset: usize,
    len: usize,
    /// Whether more follow behind it; `None`: it is all of the datagram.
    more: Option<bool>,
}

impl Part {
    /// Where its bytes are in the payload.
    fn payload(self) -> (usize, usize) {
        let start = self.offset.saturating_sub(udp::HEADER_BYTES);
        (start, self.offset + self.len - udp::HEADER_BYTES - start)
    }
}

impl<D: Data> Stack<D> {
    /// Sends a datagram with `data`, which the driver keeps until the device has read it. Nothing is repeated: UDP's users
    /// do that themselves.
    pub fn send_udp<T: Transmit<D>>(
        &mut self,
        now: Instant,
        from_port: u16,
        to: SocketAddr,
        data: D,
        tx: &mut T,
    ) -> Result<(), SendDatagramError> {
        self.send_udp_with(now, from_port, to, &DatagramOptions::default(), data, tx)
    }

    /// The same, carried as `options` say.
    pub fn send_udp_with<T: Transmit<D>>(
        &mut self,
        now: Instant,
        from_port: u16,
        to: SocketAddr,
        options: &DatagramOptions,
        data: D,
        tx: &mut T,
    ) -> Result<(), SendDatagramError> {
        let len = data.len();
        let way = self.way(now, (from_port, to), options, len, tx)?;
        self.datagram.clear();
        self.datagram.push_back(Queued { data, len, start: 0 });
        let whole = udp::HEADER_BYTES + len <= way.max_bytes;
        let offload = whole && self.config.tx_checksum == TxChecksum::Offload;
        let payload = Payload::new(&self.datagram, 0, 0, len);
        let checksum = if offload {
            way.ip.pseudo_sum().word((udp::HEADER_BYTES + len) as u16).fold()
        } else {
            way.checksum(len, sum_payload(&payload, &mut self.counters.bytes_summed))
        };
        let request = ChecksumRequest { start: way.udp_at() as u16, offset: udp::CHECKSUM_OFFSET as u16 };
        let sent = parts(len, &way).try_for_each(|part| {
            let mut header = [0; MAX_HEADER_BYTES];
            let header_len = way.emit(self.config.mac, len, checksum, part, &mut header);
            let (start, part_len) = part.payload();
            tx.transmit(TxSegment {
                header: &header[..header_len],
                payload: Payload::new(&self.datagram, 0, start, part_len),
                checksum: offload.then_some(request),
                gso: None,
            })
        });
        self.datagram.clear();
        self.datagram_sent(sent.is_ok())
    }

    /// The same with bytes that the driver copies: for messages that were made for the occasion.
    pub fn send_udp_bytes<T: Transmit<D>>(
        &mut self,
        now: Instant,
        from_port: u16,
        to: SocketAddr,
        bytes: &[u8],
        tx: &mut T,
    ) -> Result<(), SendDatagramError> {
        let way = self.way(now, (from_port, to), &DatagramOptions::default(), bytes.len(), tx)?;
        let checksum = way.checksum(bytes.len(), sum_bytes(bytes));
        let sent = parts(bytes.len(), &way).try_for_each(|part| {
            let (start, part_len) = part.payload();
            tx.transmit_control(&ControlFrame::build(&bytes[start..start + part_len], |out| {
                way.emit(self.config.mac, bytes.len(), checksum, part, out)
            }))
        });
        self.datagram_sent(sent.is_ok())
    }

    fn datagram_sent(&mut self, all: bool) -> Result<(), SendDatagramError> {
        if !all {
            self.counters.driver_full += 1;
            return Err(SendDatagramError::Full);
        }
        self.counters.datagrams_out += 1;
        Ok(())
    }

    /// The largest payload of a datagram to `to` that arrives without fragments, as far as is known.
    pub fn max_datagram_bytes(&self, now: Instant, to: impl Into<IpAddr>) -> usize {
        let to = to.into();
        let path = self.path_mtus.hint(to, now);
        let mtu = self.resolver.mtu_to(&self.config, to, path);
        let ip_bytes = if to.is_ipv6() { ipv6::HEADER_BYTES } else { ipv4::HEADER_BYTES };
        usize::from(mtu) - ip_bytes - udp::HEADER_BYTES
    }

    fn way<T: Transmit<D>>(
        &mut self,
        now: Instant,
        (from_port, to): (u16, SocketAddr),
        options: &DatagramOptions,
        len: usize,
        tx: &mut T,
    ) -> Result<Way, SendDatagramError> {
        if !self.bound_udp.has(from_port) {
            return Err(SendDatagramError::NotBound);
        }
        if to.port() == 0 {
            return Err(SendDatagramError::PortZero);
        }
        // RFC 1122 3.2.1.3 (a): from nobody only who asks for an address sends, and to everybody.
        let is_asking = from_port == udp::DHCP_CLIENT_PORT && to.ip() == Ipv4Addr::BROADCAST;
        if to.is_ipv4() && !self.config.has_address() && !is_asking {
            return Err(SendDatagramError::NoAddress);
        }
        if options.source.is_some_and(|source| !self.is_ours(source) || source.is_ipv4() != to.is_ipv4()) {
            return Err(SendDatagramError::NoAddress);
        }
        let largest = self.max_datagram_bytes(now, to.ip());
        let limit = match to {
            _ if !options.fragment.unwrap_or(self.config.fragment_udp) => largest,
            SocketAddr::V4(_) => usize::from(u16::MAX) - ipv4::HEADER_BYTES - udp::HEADER_BYTES,
            SocketAddr::V6(_) => usize::from(u16::MAX) - udp::HEADER_BYTES,
        };
        if len > limit {
            return Err(SendDatagramError::TooLarge { max_bytes: limit as u16 });
        }
        let (next_hop, ip) = match to {
            SocketAddr::V4(to) => {
                let (source, destination) = (self.config.ip, *to.ip());
                let ip = Ipv4Header { source, destination, protocol: Protocol::Udp };
                (self.datagram_hop(now, to, tx)?, Ip::V4(ip))
            }
            SocketAddr::V6(to) => {
                let (next_hop, ip) = self.ipv6_way(now, to, options, tx)?;
                (next_hop, Ip::V6(ip))
            }
        };
        let is_whole = len <= largest;
        let is_group = to.ip().is_multicast();
        let default = if is_group { NonZeroU8::MIN } else { self.config.time_to_live };
        Ok(Way {
            next_hop,
            ip,
            from_port,
            to_port: to.port(),
            time_to_live: options.time_to_live.unwrap_or(default),
            dscp: options.dscp,
            max_bytes: largest + udp::HEADER_BYTES,
            identification: if is_whole { 0 } else { self.next_identification(to.ip()) },
        })
    }

    /// Where a datagram goes over IPv6, and with which header.
    fn ipv6_way<T: Transmit<D>>(
        &mut self,
        now: Instant,
        to: SocketAddrV6,
        options: &DatagramOptions,
        tx: &mut T,
    ) -> Result<(MacAddress, Ipv6Header), SendDatagramError> {
        let destination = *to.ip();
        // RFC 4291 2.7: groups of scopes 0 and 1 are nobody's on the link.
        let is_group = destination.is_multicast() && destination.octets()[1] & 0x0f > 1;
        if !(is_group || is_host(destination)) || self.is_ours(destination.into()) {
            return Err(SendDatagramError::NoRoute);
        }
        let source = match options.source {
            Some(IpAddr::V6(source)) => source,
            _ => self.ipv6_source_for(destination, now).ok_or(SendDatagramError::NoRoute)?,
        };
        let next_hop = if is_group {
            ipv6::multicast_mac(destination)
        } else {
            let hop = self.resolver.hop_to(&self.config, destination.into());
            self.resolve(now, hop.ok_or(SendDatagramError::NoRoute)?, tx)?
        };
        let default = if is_group { NonZeroU8::MIN } else { self.config.time_to_live };
        let hop_limit = options.time_to_live.unwrap_or(default).get();
        Ok((next_hop, Ipv6Header { source, destination, next_header: NextHeader::Udp, hop_limit }))
    }

    /// The Ethernet address to send to. If nobody has told it yet, it is asked for.
    fn datagram_hop<T: Transmit<D>>(
        &mut self,
        now: Instant,
        to: SocketAddrV4,
        tx: &mut T,
    ) -> Result<MacAddress, SendDatagramError> {
        let ip = *to.ip();
        if self.config.is_broadcast(ip) {
            return Ok(MacAddress::BROADCAST);
        }
        if ip.is_multicast() {
            return Ok(igmp::multicast_mac(ip));
        }
        if !ipv4::is_host(ip) || ip == self.config.ip {
            return Err(SendDatagramError::NoRoute);
        }
        let hop = self.config.hop_to(ip).ok_or(SendDatagramError::NoRoute)?;
        self.resolve(now, hop.into(), tx)
    }

    /// The Ethernet address of a host on our link. If nobody has told it yet, it is asked for.
    fn resolve<T: Transmit<D>>(
        &mut self,
        now: Instant,
        hop: IpAddr,
        tx: &mut T,
    ) -> Result<MacAddress, SendDatagramError> {
        if let Some(mac) = self.resolver.lookup(hop, now) {
            return Ok(mac);
        }
        let asked = self.resolver.ask(&self.config, &mut self.counters, hop, now, tx);
        asked.map_err(|_| SendDatagramError::Full)?;
        Err(SendDatagramError::Unresolved)
    }
}

impl Way {
    /// Offset of the UDP header in a frame.
    const fn udp_at(&self) -> usize {
        ethernet::HEADER_BYTES + self.ip.header_bytes()
    }

    /// The UDP checksum over a payload with this sum; where it would be zero it is all ones, as zero means none.
    fn checksum(&self, len: usize, payload_sum: u16) -> u16 {
        let udp_len = (udp::HEADER_BYTES + len) as u16;
        let header = Sum::ZERO.word(self.from_port).word(self.to_port).word(udp_len);
        let pseudo = self.ip.pseudo_sum().word(udp_len);
        match pseudo.plus(header).word(payload_sum).checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    /// Writes the headers of a part and returns their length.
    fn emit(
        &self,
        mac: MacAddress,
        len: usize,
        checksum: u16,
        part: Part,
        out: &mut [u8; MAX_HEADER_BYTES],
    ) -> usize {
        let (header, rest) = out.split_at_mut(ethernet::HEADER_BYTES);
        if let Some(out) = header.first_chunk_mut() {
            let ether_type = match self.ip {
                Ip::V4(_) => EtherType::Ipv4,
                Ip::V6(_) => EtherType::Ipv6,
            };
            ethernet::EthernetHeader { destination: self.next_hop, source: mac, ether_type }.emit(out);
        }
        let (ip_bytes, rest) = rest.split_at_mut(self.ip.header_bytes());
        let has_fragment_header = part.more.is_some() && matches!(self.ip, Ip::V6(_));
        let (fragment, rest) = rest.split_at_mut(if has_fragment_header { FRAGMENT_BYTES } else { 0 });
        let header_len = self.udp_at() + fragment.len();
        match &self.ip {
            Ip::V4(ip) => {
                if let Some(out) = ip_bytes.first_chunk_mut() {
                    self.emit_ipv4(ip, part, out);
                }
            }
            Ip::V6(ip) => {
                if let Some(out) = ip_bytes.first_chunk_mut() {
                    self.emit_ipv6(ip, part, out);
                }
                if let (Some(more), Some(out)) = (part.more, fragment.first_chunk_mut()) {
                    let upper = ip.next_header.to_wire();
                    ipv6_extensions::emit_fragment(upper, self.identification, part.offset, more, out);
                }
            }
        }
        if part.offset > 0 {
            return header_len;
        }
        if let Some(out) = rest.first_chunk_mut() {
            udp::emit(self.from_port, self.to_port, len, checksum, out);
        }
        header_len + udp::HEADER_BYTES
    }

    fn emit_ipv4(&self, ip: &Ipv4Header, part: Part, out: &mut [u8; ipv4::HEADER_BYTES]) {
        match part.more {
            None => ip.emit(part.len, out),
            Some(more) => {
                let identification = self.identification as u16;
                ip.emit_fragment(part.len, FragmentPlace { identification, offset: part.offset, more }, out);
            }
        }
        if (self.dscp, self.time_to_live) != (Dscp::DEFAULT, ipv4::TIME_TO_LIVE) {
            ipv4::mark(self.dscp.codepoint(), self.time_to_live, out);
        }
    }

    fn emit_ipv6(&self, ip: &Ipv6Header, part: Part, out: &mut [u8; ipv6::HEADER_BYTES]) {
        if part.more.is_none() {
            ip.emit(part.len, out);
        } else {
            ip.emit_fragmented(part.len, out);
        }
        ipv6::mark(self.dscp.codepoint(), out);
    }

    /// Bytes of UDP header and payload in a fragment that is not the last: a multiple of eight.
    const fn fragment_bytes(&self) -> usize {
        let header_bytes = match self.ip {
            Ip::V4(_) => 0,
            Ip::V6(_) => FRAGMENT_BYTES,
        };
        (self.max_bytes - header_bytes) / 8 * 8
    }
}

/// The packets that a datagram with `len` bytes of payload goes in.
fn parts(len: usize, way: &Way) -> impl Iterator<Item = Part> + use<> {
    let total = udp::HEADER_BYTES + len;
    let whole = total <= way.max_bytes;
    let per_part = if whole { total } else { way.fragment_bytes() };
    (0..total).step_by(per_part).map(move |offset| {
        let len = per_part.min(total - offset);
        Part { offset, len, more: (!whole).then_some(offset + len < total) }
    })
}
