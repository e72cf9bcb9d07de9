//! The ICMPv6 messages we understand (RFC 4443): echo requests, and errors about a packet of ours, "packet too big"
//! (RFC 8201) among them. Neighbours and routers are `ndisc` and `router`. Everything else is `Unsupported`.

use core::net::Ipv6Addr;

use super::icmp::{Problem, Quoted};
use super::ipv4::Protocol;
use super::ipv6::{self, Ipv6Header, NextHeader, Packet, address_at};
use super::{WireError, u16_at, u32_at};
use crate::tcp::Seq;

/// Length of an ICMPv6 header, with what follows it in echoes and errors.
pub const HEADER_BYTES: usize = 8;
/// The most of a packet that an error quotes: as much as fits the least MTU (RFC 4443 2.4 (c)).
pub const MAX_QUOTE_BYTES: usize = 1_280 - ipv6::HEADER_BYTES - HEADER_BYTES;
/// The first type that is not an error.
const FIRST_INFORMATION: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// An error of ours (RFC 4443 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nobody is at the port.
    PortUnreachable,
    /// Fragments were missing for too long.
    ReassemblyTimeExceeded,
    /// A header is not understood: the code, and where.
    ParameterProblem(u8, u32),
}

impl Error {
    const fn to_wire(self) -> (u8, u8, u32) {
        match self {
            Self::PortUnreachable => (1, 4, 0),
            Self::ReassemblyTimeExceeded => (3, 1, 0),
            Self::ParameterProblem(code, pointer) => (4, code, pointer),
        }
    }
}

/// An ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmpv6Message<'f> {
    /// Answer me with the same data.
    EchoRequest {
        /// Identifier and sequence number, unchanged in the reply.
        id_and_sequence: u32,
        /// The data to return.
        data: &'f [u8],
    },
    /// A router could not pass on a packet that was larger than its next link's MTU.
    PacketTooBig {
        /// MTU of the next link.
        mtu: u32,
        /// Which packet.
        quoted: Quoted,
    },
    /// Something else kept a packet of ours from its receiver.
    Problem {
        /// What it was.
        problem: Problem,
        /// Which packet.
        quoted: Quoted,
    },
}

impl<'f> Icmpv6Message<'f> {
    /// Reads a message, checksum included.
    pub fn parse(ip: &Ipv6Header, bytes: &'f [u8]) -> Result<Self, WireError> {
        let (header, data) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        if !ip.pseudo_sum(bytes.len()).bytes(bytes).is_valid() {
            return Err(WireError::Checksum);
        }
        let problem = match (header[0], header[1]) {
            (128, 0) => return Ok(Self::EchoRequest { id_and_sequence: u32_at(header, 4), data }),
            (2, _) => return Ok(Self::PacketTooBig { mtu: u32_at(header, 4), quoted: quoted(data)? }),
            (1, 0) => Problem::NetworkUnreachable,
            (1, 1) => Problem::Prohibited,
            (1, 2 | 3 | 5 | 6) => Problem::HostUnreachable,
            (1, 4) => Problem::PortUnreachable,
            (3, 0 | 1) => Problem::TimeExceeded,
            (4, _) => Problem::ParameterProblem,
            _ => return Err(WireError::Unsupported),
        };
        Ok(Self::Problem { problem, quoted: quoted(data)? })
    }
}

/// What an error quotes. We send no extension headers, so there are none to pass over; the packet's length is the
/// original's, of which the quote may be a part.
fn quoted(bytes: &[u8]) -> Result<Quoted, WireError> {
    let (header, upper) = bytes.split_first_chunk::<{ ipv6::HEADER_BYTES }>().ok_or(WireError::Malformed)?;
    if header[0] >> 4 != 6 || upper.len() < 8 {
        return Err(WireError::Malformed);
    }
    let protocol = match NextHeader::from_wire(header[6]) {
        Some(NextHeader::Tcp) => Protocol::Tcp,
        Some(NextHeader::Udp) => Protocol::Udp,
        Some(NextHeader::Icmpv6) => Protocol::Icmp,
        None => return Err(WireError::Unsupported),
    };
    Ok(Quoted {
        source: address_at(header, 8).into(),
        destination: address_at(header, 24).into(),
        protocol,
        source_port: u16_at(upper, 0),
        destination_port: u16_at(upper, 2),
        sequence: Seq::new(u32_at(upper, 4)),
    })
}

/// Whether nobody answers `packet` with an error (RFC 4443 2.4 (e)): it is one itself, or may be; it comes from nobody in
/// particular; or it went to many, unless `to_groups` says that those are answered, too. `upper` is what its headers lead
/// to, if they lead anywhere.
pub fn is_unanswerable(packet: &Packet<'_>, upper: Option<(u8, &[u8])>, to_groups: bool) -> bool {
    let is_error = upper.is_some_and(|(number, bytes)| {
        number == NextHeader::Icmpv6.to_wire() && bytes.first().is_none_or(|&kind| kind < FIRST_INFORMATION)
    });
    is_error || packet.source.is_unspecified() || (packet.destination.is_multicast() && !to_groups)
}

/// Writes the header of an echo reply that returns `data`.
pub fn emit_echo_reply(ip: &Ipv6Header, id_and_sequence: u32, data: &[u8], out: &mut [u8; HEADER_BYTES]) {
    emit(ip, (ECHO_REPLY, 0, id_and_sequence), data, out);
}

/// Writes the header of an error that quotes `quote`.
pub fn emit_error(ip: &Ipv6Header, error: Error, quote: &[u8], out: &mut [u8; HEADER_BYTES]) {
    emit(ip, error.to_wire(), quote, out);
}

fn emit(ip: &Ipv6Header, (kind, code, word): (u8, u8, u32), body: &[u8], out: &mut [u8; HEADER_BYTES]) {
    out[..4].copy_from_slice(&[kind, code, 0, 0]);
    out[4..].copy_from_slice(&word.to_be_bytes());
    let sum = ip.pseudo_sum(HEADER_BYTES + body.len()).bytes(&out[..]).bytes(body);
    out[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
}

/// The header of an ICMPv6 packet of ours.
pub const fn header(source: Ipv6Addr, destination: Ipv6Addr, hop_limit: u8) -> Ipv6Header {
    Ipv6Header { source, destination, next_header: NextHeader::Icmpv6, hop_limit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use smoltcp::wire::{Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Repr};

    const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
    const PORTS: &[u8] = &[0, 80, 0x9c, 0x40, 1, 2, 3, 4, 0, 0, 0, 0];

    fn ip() -> Ipv6Header {
        header(PEER, US, 64)
    }

    /// What smoltcp writes, from the peer to us.
    fn theirs(repr: &Icmpv6Repr<'_>) -> Vec<u8> {
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&PEER, &US, &mut Icmpv6Packet::new_unchecked(&mut bytes), &Default::default());
        bytes
    }

    fn ours() -> Ipv6Repr {
        Ipv6Repr {
            src_addr: US,
            dst_addr: PEER,
            next_header: IpProtocol::Tcp,
            payload_len: 1_000,
            hop_limit: 9,
        }
    }

    fn quote() -> Quoted {
        Quoted {
            source: IpAddr::V6(US),
            destination: IpAddr::V6(PEER),
            protocol: Protocol::Tcp,
            source_port: 80,
            destination_port: 40_000,
            sequence: Seq::new(0x0102_0304),
        }
    }

    #[test]
    fn messages_of_smoltcp_are_read() {
        let header = ours();
        let too_big = theirs(&Icmpv6Repr::PktTooBig { mtu: 1_400, header, data: PORTS });
        let expected = Icmpv6Message::PacketTooBig { mtu: 1_400, quoted: quote() };
        assert_eq!(Icmpv6Message::parse(&ip(), &too_big), Ok(expected));
        let reason = Icmpv6DstUnreachable::PortUnreachable;
        let unreachable = theirs(&Icmpv6Repr::DstUnreachable { reason, header, data: PORTS });
        let expected = Icmpv6Message::Problem { problem: Problem::PortUnreachable, quoted: quote() };
        assert_eq!(Icmpv6Message::parse(&ip(), &unreachable), Ok(expected));
        let echo = theirs(&Icmpv6Repr::EchoRequest { ident: 7, seq_no: 9, data: b"ping" });
        let expected = Icmpv6Message::EchoRequest { id_and_sequence: 7 << 16 | 9, data: b"ping" };
        assert_eq!(Icmpv6Message::parse(&ip(), &echo), Ok(expected));
    }

    #[test]
    fn what_we_write_is_read_by_smoltcp() {
        let back = header(US, PEER, 64);
        let mut out = [0; HEADER_BYTES];
        emit_echo_reply(&back, 7 << 16 | 9, b"ping", &mut out);
        let bytes = [&out[..], b"ping"].concat();
        let read = Icmpv6Repr::parse(
            &US,
            &PEER,
            &Icmpv6Packet::new_checked(&bytes[..]).unwrap(),
            &Default::default(),
        );
        assert_eq!(read, Ok(Icmpv6Repr::EchoReply { ident: 7, seq_no: 9, data: b"ping" }));
    }

    #[test]
    fn soft_and_hard_problems_are_those_of_rfc_9293() {
        let parsed = |kind: u8, code: u8| {
            let mut bytes = theirs(&Icmpv6Repr::PktTooBig { mtu: 0, header: ours(), data: PORTS });
            bytes[..4].copy_from_slice(&[kind, code, 0, 0]);
            let sum = ip().pseudo_sum(bytes.len()).bytes(&bytes).checksum();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            match Icmpv6Message::parse(&ip(), &bytes) {
                Ok(Icmpv6Message::Problem { problem, .. }) => Some(problem.is_hard()),
                _ => None,
            }
        };
        for soft in [(1, 0), (1, 3), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2)] {
            assert_eq!(parsed(soft.0, soft.1), Some(false), "{soft:?}");
        }
        assert_eq!((parsed(1, 1), parsed(1, 4)), (Some(true), Some(true)));
        assert_eq!((parsed(1, 99), parsed(127, 0), parsed(137, 0)), (None, None, None));
    }

    #[test]
    fn errors_about_errors_groups_and_nobody_are_not_sent() {
        let mut bytes = [0; 48];
        ours().emit(&mut smoltcp::wire::Ipv6Packet::new_unchecked(&mut bytes));
        bytes[4..6].copy_from_slice(&[0, 8]);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(!is_unanswerable(&packet, Some((6, PORTS)), false));
        assert!(is_unanswerable(&packet, Some((58, &[1, 0])), false));
        assert!(is_unanswerable(&packet, Some((58, &[])), false));
        assert!(!is_unanswerable(&packet, Some((58, &[128, 0])), false));
        let nobody = Packet { source: Ipv6Addr::UNSPECIFIED, ..packet };
        assert!(is_unanswerable(&nobody, None, false));
        let group = Packet { destination: ipv6::ALL_NODES, ..packet };
        assert!(is_unanswerable(&group, None, false) && !is_unanswerable(&group, None, true));
    }

    #[test]
    fn damaged_and_short_messages_are_refused() {
        let good = theirs(&Icmpv6Repr::PktTooBig { mtu: 1_400, header: ours(), data: PORTS });
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Icmpv6Message::parse(&ip(), &bytes), Err(WireError::Checksum));
        }
        let elsewhere = header(PEER, PEER, 64);
        assert_eq!(Icmpv6Message::parse(&elsewhere, &good), Err(WireError::Checksum));
        let short = theirs(&Icmpv6Repr::PktTooBig { mtu: 1_400, header: ours(), data: &PORTS[..7] });
        assert_eq!(Icmpv6Message::parse(&ip(), &short), Err(WireError::Malformed));
    }

    proptest! {
        #[test]
        fn icmpv6_garbage_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 4..120), kind in 0u8..5) {
            bytes[0] = kind;
            bytes[2..4].fill(0);
            let sum = ip().pseudo_sum(bytes.len()).bytes(&bytes).checksum();
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            prop_assert_ne!(Icmpv6Message::parse(&ip(), &bytes), Err(WireError::Checksum));
        }
    }
}
