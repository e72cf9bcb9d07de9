//! UDP datagrams of ours (RFC 768, RFC 1122 4.1): from a bound port to anybody, whole or, where `Config` asks for it, in
//! fragments. The payload is read where it is, once for the checksum if the device does not compute it.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::Stack;
use super::fragments::fragment_bytes;
use crate::config::TxChecksum;
use crate::data::{Data, Queued};
use crate::driver::{ChecksumRequest, MAX_HEADER_BYTES, Payload, Transmit, TxSegment};
use crate::events::SendDatagramError;
use crate::frame::ControlFrame;
use crate::ipv6::is_host;
use crate::tcp::transmit::sum_payload;
use crate::time::Instant;
use crate::wire::checksum::{Sum, sum_bytes};
use crate::wire::ethernet::{self, EtherType, MacAddress};
use crate::wire::ipv4::{self, FragmentPlace, Ipv4Header, Protocol};
use crate::wire::ipv6::{self, Ipv6Header, NextHeader};
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
    /// Bytes of UDP header and payload in one packet.
    max_bytes: usize,
}

/// A part of a datagram in a packet of its own: bytes `offset..offset + len` of UDP header and payload.
#[derive(Clone, Copy)]
struct Part {
    offset: usize,
    len: usize,
    /// `None`: it is all of the datagram.
    place: Option<FragmentPlace>,
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
        let len = data.len();
        let way = self.way(now, from_port, to, len, tx)?;
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
        let identification = if whole { 0 } else { self.identification_for(&way) };
        let sent = parts(len, &way, identification).try_for_each(|part| {
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
        let way = self.way(now, from_port, to, bytes.len(), tx)?;
        let checksum = way.checksum(bytes.len(), sum_bytes(bytes));
        let whole = udp::HEADER_BYTES + bytes.len() <= way.max_bytes;
        let identification = if whole { 0 } else { self.identification_for(&way) };
        let sent = parts(bytes.len(), &way, identification).try_for_each(|part| {
            let (start, part_len) = part.payload();
            tx.transmit_control(&ControlFrame::build(&bytes[start..start + part_len], |out| {
                way.emit(self.config.mac, bytes.len(), checksum, part, out)
            }))
        });
        self.datagram_sent(sent.is_ok())
    }

    fn identification_for(&mut self, way: &Way) -> u16 {
        // IPv6's fragments are not sent.
        if let Ip::V4(ip) = &way.ip { self.next_identification(ip.destination) } else { 0 }
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
        let mtu = self.resolver.narrower_mtu(&self.config, to, path).unwrap_or(self.config.mtu);
        let ip_bytes = if to.is_ipv6() { ipv6::HEADER_BYTES } else { ipv4::HEADER_BYTES };
        usize::from(mtu) - ip_bytes - udp::HEADER_BYTES
    }

    fn way<T: Transmit<D>>(
        &mut self,
        now: Instant,
        from_port: u16,
        to: SocketAddr,
        len: usize,
        tx: &mut T,
    ) -> Result<Way, SendDatagramError> {
        if !self.is_bound_udp(from_port) {
            return Err(SendDatagramError::NotBound);
        }
        // RFC 1122 3.2.1.3 (a): from nobody only who asks for an address sends, and to everybody.
        let is_asking = from_port == udp::DHCP_CLIENT_PORT && to.ip() == Ipv4Addr::BROADCAST;
        if to.is_ipv4() && !self.config.has_address() && !is_asking {
            return Err(SendDatagramError::NoAddress);
        }
        let largest = self.max_datagram_bytes(now, to.ip());
        let limit = if self.config.fragment_udp && to.is_ipv4() {
            usize::from(u16::MAX) - ipv4::HEADER_BYTES - udp::HEADER_BYTES
        } else {
            largest
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
                let (next_hop, ip) = self.ipv6_way(now, to, tx)?;
                (next_hop, Ip::V6(ip))
            }
        };
        Ok(Way { next_hop, ip, from_port, to_port: to.port(), max_bytes: largest + udp::HEADER_BYTES })
    }

    /// Where a datagram goes over IPv6, and with which header.
    fn ipv6_way<T: Transmit<D>>(
        &mut self,
        now: Instant,
        to: SocketAddrV6,
        tx: &mut T,
    ) -> Result<(MacAddress, Ipv6Header), SendDatagramError> {
        let destination = *to.ip();
        if to.port() == 0 {
            return Err(SendDatagramError::PortZero);
        }
        let is_group = destination.is_multicast();
        if !(is_group || is_host(destination)) || self.is_ours(destination.into()) {
            return Err(SendDatagramError::NoRoute);
        }
        let source = self.ipv6_source_for(destination, now).ok_or(SendDatagramError::NoRoute)?;
        let next_hop = if is_group {
            ipv6::multicast_mac(destination)
        } else {
            let hop = self.resolver.hop_to(&self.config, destination.into());
            self.resolve(now, hop.ok_or(SendDatagramError::NoRoute)?, tx)?
        };
        let hop_limit = if is_group { 1 } else { self.config.time_to_live.get() };
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
        if to.port() == 0 {
            return Err(SendDatagramError::PortZero);
        }
        if self.config.is_broadcast(ip) {
            return Ok(MacAddress::BROADCAST);
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
        match (&self.ip, part.place) {
            (Ip::V4(ip), None) => {
                if let Some(out) = ip_bytes.first_chunk_mut() {
                    ip.emit(part.len, out);
                }
            }
            (Ip::V4(ip), Some(place)) => {
                if let Some(out) = ip_bytes.first_chunk_mut() {
                    ip.emit_fragment(part.len, place, out);
                }
            }
            (Ip::V6(ip), _) => {
                if let Some(out) = ip_bytes.first_chunk_mut() {
                    ip.emit(part.len, out);
                }
            }
        }
        if part.offset > 0 {
            return self.udp_at();
        }
        if let Some(out) = rest.first_chunk_mut() {
            udp::emit(self.from_port, self.to_port, len, checksum, out);
        }
        self.udp_at() + udp::HEADER_BYTES
    }
}

/// The packets that a datagram with `len` bytes of payload goes in.
fn parts(len: usize, way: &Way, identification: u16) -> impl Iterator<Item = Part> + use<> {
    let total = udp::HEADER_BYTES + len;
    let whole = total <= way.max_bytes;
    let per_part = if whole { total } else { fragment_bytes((way.max_bytes + ipv4::HEADER_BYTES) as u16) };
    (0..total).step_by(per_part).map(move |offset| {
        let len = per_part.min(total - offset);
        let place = (!whole).then_some(FragmentPlace { identification, offset, more: offset + len < total });
        Part { offset, len, place }
    })
}
