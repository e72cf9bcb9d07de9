//! Who is on the wire: two stations, and the names that an adversary takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::choices::Choices;

/// What stations speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
    Both,
}

impl Family {
    pub(crate) fn has_v4(self) -> bool {
        self != Self::V6
    }

    pub(crate) fn has_v6(self) -> bool {
        self != Self::V4
    }

    /// Whether the next thing is of IPv6.
    pub(crate) fn choose_v6(self, choices: &mut Choices<'_>) -> bool {
        match self {
            Self::V4 => false,
            Self::V6 => true,
            Self::Both => choices.once_in(2),
        }
    }
}

/// The adversary's own address on the link.
pub(crate) const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Somebody on the link who does not answer.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);
pub(crate) const OTHER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 77);
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

pub(crate) fn mac(number: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, 1 + number as u8]
}

pub(crate) fn v4(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + number as u8)
}

/// The IPv6 address that a station is given.
pub(crate) fn v6(number: usize) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1 + number as u16)
}

/// The one that it makes of its Ethernet address in a prefix (RFC 4291, appendix A).
pub(crate) fn made(prefix: [u16; 4], number: usize) -> Ipv6Addr {
    let [a, b, c, d] = prefix;
    Ipv6Addr::new(a, b, c, d, 0, 0xff, 0xfe00, 1 + number as u16)
}

pub(crate) fn link_local(number: usize) -> Ipv6Addr {
    made([0xfe80, 0, 0, 0], number)
}

/// Whether `address` is one that the station has, or would have of an advertised prefix.
pub(crate) fn is_of(number: usize, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address == v4(number),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            address == v6(number) || address == made([a, b, c, d], number)
        }
    }
}

/// The address of a station, of either family, of any scope.
pub(crate) fn any(family: Family, number: usize, choices: &mut Choices<'_>) -> IpAddr {
    if !family.choose_v6(choices) {
        return v4(number).into();
    }
    if choices.once_in(3) { link_local(number).into() } else { v6(number).into() }
}

/// The group in which an address is asked for (RFC 4291 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// The Ethernet address of a group (RFC 2464 7).
pub(crate) fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}
