//! Ethernet II headers. VLAN tags and 802.3 length fields are `Unsupported`.

use core::fmt;

use super::{WireError, u16_at};

/// Length of an Ethernet II header.
pub const HEADER_BYTES: usize = 14;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether one interface can have this address: neither a group's nor all zeros.
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]) != 0
    }

    /// Whether it is a group's and not everybody's.
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1 && !matches!(self.0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The protocol of a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    /// 0x0800.
    Ipv4,
    /// 0x0806.
    Arp,
    /// 0x86DD.
    Ipv6,
}

impl EtherType {
    pub(crate) const fn to_wire(self) -> u16 {
        match self {
            Self::Ipv4 => 0x0800,
            Self::Arp => 0x0806,
            Self::Ipv6 => 0x86DD,
        }
    }
}

/// An Ethernet II header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetHeader {
    /// Who the frame is for.
    pub destination: MacAddress,
    /// Who sent it.
    pub source: MacAddress,
    /// What it carries.
    pub ether_type: EtherType,
}

impl EthernetHeader {
    /// Reads the header and returns it with the payload, which may have padding at its end.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let (header, payload) = frame.split_first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let ether_type = match u16_at(header, 12) {
            0x0800 => EtherType::Ipv4,
            0x0806 => EtherType::Arp,
            0x86DD => EtherType::Ipv6,
            _ => return Err(WireError::Unsupported),
        };
        let (mut destination, mut source) = (MacAddress::default(), MacAddress::default());
        destination.0.copy_from_slice(&header[..6]);
        source.0.copy_from_slice(&header[6..12]);
        Ok((Self { destination, source, ether_type }, payload))
    }

    /// Writes the header.
    pub fn emit(&self, out: &mut [u8; HEADER_BYTES]) {
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        out[12..].copy_from_slice(&self.ether_type.to_wire().to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_emit_then_parse_returns_same() {
        let header = EthernetHeader {
            destination: MacAddress([2, 0, 0, 0, 0, 1]),
            source: MacAddress([2, 0, 0, 0, 0, 2]),
            ether_type: EtherType::Arp,
        };
        let mut bytes = [0; HEADER_BYTES];
        header.emit(&mut bytes);
        assert_eq!(EthernetHeader::parse(&bytes), Ok((header, &[][..])));
    }

    #[test]
    fn ethernet_vlan_tag_returns_unsupported() {
        let mut bytes = [0; 64];
        bytes[12] = 0x81;
        assert_eq!(EthernetHeader::parse(&bytes), Err(WireError::Unsupported));
    }

    #[test]
    fn ethernet_short_frame_returns_malformed() {
        assert_eq!(EthernetHeader::parse(&[0; 13]), Err(WireError::Malformed));
    }
}
