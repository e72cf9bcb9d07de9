//! The ICMP messages we understand (RFC 792): echo requests, and errors about a packet of ours, "fragmentation needed"
//! (RFC 1191) among them. Everything else is `Unsupported`. What we send is replies and three errors.

use core::net::{IpAddr, Ipv4Addr};

use super::checksum::{Sum, sum_bytes};
use super::ipv4::{self, Protocol};
use super::{WireError, u16_at, u32_at};
use crate::tcp::Seq;

/// Length of an ICMP header.
pub const HEADER_BYTES: usize = 8;
/// The most of a packet that an error quotes: all of it while the error stays below 576 bytes (RFC 1812 4.3.2.3).
pub const MAX_QUOTE_BYTES: usize = 576 - ipv4::HEADER_BYTES - HEADER_BYTES;
/// Type and code: the host does not speak the protocol.
pub const PROTOCOL_UNREACHABLE: [u8; 2] = [3, 2];
/// Type and code: the host has nobody at the port.
pub const PORT_UNREACHABLE: [u8; 2] = [3, 3];
/// Type and code: fragments were missing for too long.
pub const REASSEMBLY_TIME_EXCEEDED: [u8; 2] = [11, 1];

/// An ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpMessage<'f> {
    /// Answer me with the same data.
    EchoRequest {
        /// Identifier and sequence number, unchanged in the reply.
        id_and_sequence: u32,
        /// The data to return.
        data: &'f [u8],
    },
    /// A router could not pass on a packet that was larger than its next link's MTU.
    FragmentationNeeded {
        /// MTU of the next link; zero from routers older than RFC 1191.
        next_mtu: u16,
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

/// What an ICMP error says about a packet of ours, sorted as RFC 9293 3.9.2.2 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Destination unreachable, codes 0, 6, 9 and 11: the network.
    NetworkUnreachable,
    /// Codes 1, 7, 8, 10, 12 and 13: the host, or somebody does not let us.
    HostUnreachable,
    /// Code 2: the host does not speak the protocol.
    ProtocolUnreachable,
    /// Code 3: the host has nobody at this port.
    PortUnreachable,
    /// Code 4: the packet is larger than its path takes.
    FragmentationNeeded,
    /// Code 5.
    SourceRouteFailed,
    /// It went round in circles, or its fragments did not arrive together.
    TimeExceeded,
    /// Its header was not understood.
    ParameterProblem,
    /// Somebody does not let us (ICMPv6, destination unreachable, code 1).
    Prohibited,
}

impl Problem {
    fn from_wire(kind: u8, code: u8) -> Option<Self> {
        match (kind, code) {
            (3, 0 | 6 | 9 | 11) => Some(Self::NetworkUnreachable),
            (3, 1 | 7 | 8 | 10 | 12 | 13) => Some(Self::HostUnreachable),
            (3, 2) => Some(Self::ProtocolUnreachable),
            (3, 3) => Some(Self::PortUnreachable),
            (3, 5) => Some(Self::SourceRouteFailed),
            (11, 0 | 1) => Some(Self::TimeExceeded),
            (12, _) => Some(Self::ParameterProblem),
            _ => None,
        }
    }

    /// Whether trying again is of no use. The others may pass by themselves.
    pub const fn is_hard(self) -> bool {
        matches!(self, Self::ProtocolUnreachable | Self::PortUnreachable | Self::Prohibited)
    }
}

/// The beginning of a packet as an ICMP error quotes it. An attacker can make it up: check it against the
/// connection's sequence numbers (RFC 5927 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent the packet.
    pub source: IpAddr,
    /// Who it was for.
    pub destination: IpAddr,
    /// What it carried.
    pub protocol: Protocol,
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// What follows the ports: of a TCP segment, its sequence number.
    pub sequence: Seq,
}

impl<'f> IcmpMessage<'f> {
    /// Reads a message, checksum included.
    pub fn parse(bytes: &'f [u8]) -> Result<Self, WireError> {
        let (header, data) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        if sum_bytes(bytes) != 0xffff {
            return Err(WireError::Checksum);
        }
        match (header[0], header[1]) {
            (8, 0) => Ok(Self::EchoRequest { id_and_sequence: u32_at(header, 4), data }),
            (3, 4) => {
                Ok(Self::FragmentationNeeded { next_mtu: u16_at(header, 6), quoted: Quoted::parse(data)? })
            }
            // Source Quench among them (RFC 9293 3.9.2.2, MUST-55).
            (kind, code) => Ok(Self::Problem {
                problem: Problem::from_wire(kind, code).ok_or(WireError::Unsupported)?,
                quoted: Quoted::parse(data)?,
            }),
        }
    }
}

impl Quoted {
    /// An error quotes an IPv4 header and at least eight bytes (RFC 792), whatever its total length field says.
    fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let header_len = bytes.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
        if bytes.len() < header_len + 8 || header_len < ipv4::HEADER_BYTES || bytes[0] >> 4 != 4 {
            return Err(WireError::Malformed);
        }
        // Of a fragment that is not the first, no ports can be told.
        if u16_at(bytes, 6) & 0x1fff != 0 {
            return Err(WireError::Unsupported);
        }
        Ok(Self {
            source: Ipv4Addr::from_bits(u32_at(bytes, 12)).into(),
            destination: Ipv4Addr::from_bits(u32_at(bytes, 16)).into(),
            protocol: Protocol::from_wire(bytes[9]).ok_or(WireError::Unsupported)?,
            source_port: u16_at(bytes, header_len),
            destination_port: u16_at(bytes, header_len + 2),
            sequence: Seq::new(u32_at(bytes, header_len + 4)),
        })
    }
}

/// Writes the header of an echo reply that returns `data`.
pub fn emit_echo_reply(id_and_sequence: u32, data: &[u8], out: &mut [u8; HEADER_BYTES]) {
    out.fill(0);
    out[4..].copy_from_slice(&id_and_sequence.to_be_bytes());
    let checksum = Sum::ZERO.double(id_and_sequence).bytes(data).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether `bytes`, the payload of an IPv4 packet, are an ICMP error or may be one: nobody answers those with errors
/// (RFC 1122 3.2.2).
pub fn is_error(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(0 | 8 | 9 | 10 | 13..=18))
}

/// Writes the header of an error of this type and code that quotes `quote`.
pub fn emit_error(type_and_code: [u8; 2], quote: &[u8], out: &mut [u8; HEADER_BYTES]) {
    out.fill(0);
    out[..2].copy_from_slice(&type_and_code);
    let checksum = Sum::ZERO.bytes(&out[..]).bytes(quote).checksum();
    out[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[2..4].fill(0);
        let checksum = Sum::ZERO.bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    #[test]
    fn icmp_echo_reply_differs_from_request_in_type_only() {
        let request = sealed([&[8, 0, 0, 0, 0x12, 0x34, 0, 7][..], b"odd"].concat());
        let Ok(IcmpMessage::EchoRequest { id_and_sequence, data }) = IcmpMessage::parse(&request) else {
            panic!("not an echo request");
        };
        let mut reply = [0; HEADER_BYTES];
        emit_echo_reply(id_and_sequence, data, &mut reply);
        let mut expected = request.clone();
        expected[0] = 0;
        assert_eq!([&reply[..], data].concat(), sealed(expected));
    }

    #[test]
    fn icmp_wrong_checksum_returns_checksum() {
        let mut request = sealed([8, 0, 0, 0, 1, 2, 3, 4].to_vec());
        request[7] ^= 1;
        assert_eq!(IcmpMessage::parse(&request), Err(WireError::Checksum));
    }

    #[test]
    fn icmp_redirect_returns_unsupported() {
        assert_eq!(
            IcmpMessage::parse(&sealed([5, 0, 0, 0, 10, 0, 0, 1].to_vec())),
            Err(WireError::Unsupported)
        );
    }

    /// An IPv4 header of 10.0.0.1 to 10.0.0.2 and the beginning of a UDP datagram from port 53 to 99.
    fn quote() -> [u8; 28] {
        let mut quote = [0; 28];
        quote[..4].copy_from_slice(&[0x45, 0, 0, 100]);
        quote[8..10].copy_from_slice(&[64, 17]);
        quote[12..28].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 99, 0, 80, 0, 0]);
        quote
    }

    #[test]
    fn icmp_error_emit_then_parse_returns_same() {
        for (type_and_code, expected) in [
            (PROTOCOL_UNREACHABLE, Problem::ProtocolUnreachable),
            (PORT_UNREACHABLE, Problem::PortUnreachable),
            (REASSEMBLY_TIME_EXCEEDED, Problem::TimeExceeded),
        ] {
            let mut header = [0; HEADER_BYTES];
            emit_error(type_and_code, &quote(), &mut header);
            let bytes = [&header[..], &quote()].concat();
            let Ok(IcmpMessage::Problem { problem, quoted }) = IcmpMessage::parse(&bytes) else {
                panic!("not an error");
            };
            assert_eq!((problem, quoted.source_port, quoted.destination_port), (expected, 53, 99));
            assert_eq!(quoted.protocol, Protocol::Udp);
            assert!(is_error(&bytes));
        }
    }

    #[test]
    fn icmp_error_about_a_later_fragment_returns_unsupported() {
        let mut header = [0; HEADER_BYTES];
        let mut quote = quote();
        quote[7] = 1;
        emit_error(PORT_UNREACHABLE, &quote, &mut header);
        assert_eq!(IcmpMessage::parse(&[&header[..], &quote].concat()), Err(WireError::Unsupported));
    }

    proptest! {
        #[test]
        fn icmp_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 8..64)) {
            let _ = IcmpMessage::parse(&sealed(bytes));
        }

        #[test]
        fn icmp_garbage_in_quotation_does_not_panic(rest in proptest::collection::vec(any::<u8>(), 4..64)) {
            let _ = IcmpMessage::parse(&sealed([&[3, 4, 0, 0][..], &rest].concat()));
        }
    }
}
