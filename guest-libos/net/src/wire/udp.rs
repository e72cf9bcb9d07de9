//! UDP datagrams (RFC 768; RFC 1122 4.1).

use super::checksum::Sum;
use super::ipv4::Ipv4Header;
use super::ipv6::Ipv6Header;
use super::{WireError, u16_at};

/// Length of a UDP header.
pub const HEADER_BYTES: usize = 8;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: usize = 6;

/// The port of DHCP clients (RFC 2131 4.1), whose datagrams pass when we have no address.
pub const DHCP_CLIENT_PORT: u16 = 68;

/// A received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpDatagram<'f> {
    /// The sender's port; 0 if it wants no answer.
    pub source_port: u16,
    /// Our port.
    pub destination_port: u16,
    /// The data.
    pub payload: &'f [u8],
}

impl<'f> UdpDatagram<'f> {
    /// Reads a datagram from an IPv4 payload, of which what lies beyond its own length is padding. With `verify`, the
    /// checksum is verified against that pseudo-header, if there is one.
    pub fn parse(bytes: &'f [u8], verify: Option<&Ipv4Header>) -> Result<Self, WireError> {
        Self::parse_summed(bytes, verify.map(Ipv4Header::pseudo_sum_without_length))
    }

    /// Reads a datagram from an IPv6 payload, where it must have a checksum (RFC 8200 8.1).
    pub fn parse_v6(bytes: &'f [u8], ip: &Ipv6Header, verify: bool) -> Result<Self, WireError> {
        if bytes.len() >= HEADER_BYTES && u16_at(bytes, CHECKSUM_OFFSET) == 0 {
            return Err(WireError::Checksum);
        }
        Self::parse_summed(bytes, verify.then(|| ip.pseudo_sum(0)))
    }

    fn parse_summed(bytes: &'f [u8], pseudo_sum: Option<Sum>) -> Result<Self, WireError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let len = usize::from(u16_at(header, 4));
        let bytes = bytes.get(..len).filter(|bytes| bytes.len() >= HEADER_BYTES);
        let bytes = bytes.ok_or(WireError::Malformed)?;
        let destination_port = u16_at(header, 2);
        if destination_port == 0 {
            return Err(WireError::Malformed);
        }
        if let Some(sum) = pseudo_sum
            && u16_at(header, CHECKSUM_OFFSET) != 0
            && !sum.double(len as u32).bytes(bytes).is_valid()
        {
            return Err(WireError::Checksum);
        }
        Ok(Self { source_port: u16_at(header, 0), destination_port, payload: &bytes[HEADER_BYTES..] })
    }
}

/// Writes a header over `payload_len` bytes with a checksum field as given. A length that does not fit is cut to 16 bits;
/// callers are bounded by what IP can carry.
pub fn emit(source: u16, destination: u16, payload_len: usize, checksum: u16, out: &mut [u8; HEADER_BYTES]) {
    out[..2].copy_from_slice(&source.to_be_bytes());
    out[2..4].copy_from_slice(&destination.to_be_bytes());
    out[4..6].copy_from_slice(&((HEADER_BYTES + payload_len) as u16).to_be_bytes());
    out[6..].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ipv4::Protocol;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    const IP: Ipv4Header = Ipv4Header {
        source: Ipv4Addr::new(10, 0, 0, 1),
        destination: Ipv4Addr::new(10, 0, 0, 2),
        protocol: Protocol::Udp,
    };

    fn datagram(payload: &[u8]) -> Vec<u8> {
        let mut header = [0; HEADER_BYTES];
        emit(53, 4_000, payload.len(), 0, &mut header);
        let len = (HEADER_BYTES + payload.len()) as u32;
        let pseudo = IP.pseudo_sum_without_length().double(len);
        let checksum = pseudo.plus(Sum::ZERO.bytes(&header)).bytes(payload).checksum();
        emit(53, 4_000, payload.len(), checksum, &mut header);
        [&header[..], payload].concat()
    }

    #[test]
    fn udp_emit_then_parse_returns_same_and_cuts_padding() {
        let mut bytes = datagram(b"odd");
        bytes.extend_from_slice(&[0; 7]);
        let expected = UdpDatagram { source_port: 53, destination_port: 4_000, payload: b"odd" };
        assert_eq!(UdpDatagram::parse(&bytes, Some(&IP)), Ok(expected));
    }

    #[test]
    fn udp_wrong_checksum_returns_checksum_unless_there_is_none() {
        let mut bytes = datagram(b"odd");
        bytes[9] ^= 1;
        assert_eq!(UdpDatagram::parse(&bytes, Some(&IP)), Err(WireError::Checksum));
        assert!(UdpDatagram::parse(&bytes, None).is_ok());
        bytes[6..8].fill(0);
        assert!(UdpDatagram::parse(&bytes, Some(&IP)).is_ok());
    }

    #[test]
    fn udp_lengths_that_contradict_and_port_zero_return_malformed() {
        for (at, value) in [(5, 7), (5, 12), (4, 1)] {
            let mut bytes = datagram(b"odd");
            bytes[at] = value;
            assert_eq!(UdpDatagram::parse(&bytes, None), Err(WireError::Malformed));
        }
        let mut bytes = datagram(b"");
        bytes[2..4].fill(0);
        assert_eq!(UdpDatagram::parse(&bytes, None), Err(WireError::Malformed));
    }

    proptest! {
        #[test]
        fn udp_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = UdpDatagram::parse(&bytes, Some(&IP));
        }
    }
}
