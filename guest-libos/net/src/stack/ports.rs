//! Which ports are somebody's: TCP's listeners and UDP's bound ports, on all addresses of ours or on some.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alloc::vec::Vec;

use super::Stack;
use crate::data::Data;
use crate::events::{BindError, ListenError};
use crate::tcp::table::FlowKey;

/// The addresses of ours at which a port is somebody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Local {
    /// All, of both families.
    #[default]
    Any,
    /// All of IPv4's.
    Ipv4,
    /// All of IPv6's (IPV6_V6ONLY, RFC 3493 5.3).
    Ipv6,
    /// One.
    Address(IpAddr),
}

/// As sockets read it (RFC 3493 3.7): 0.0.0.0 is IPv4's, `::` is both families'.
impl From<IpAddr> for Local {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Self::Ipv4,
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Self::Any,
            address => Self::Address(address.to_canonical()),
        }
    }
}

impl Local {
    /// Whether `address` is one of them.
    pub fn contains(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ipv4 => address.is_ipv4(),
            Self::Ipv6 => address.is_ipv6(),
            Self::Address(own) => own == address,
        }
    }

    /// Whether some address is in both.
    pub fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Address(address), other) | (other, Self::Address(address)) => other.contains(address),
            (one, other) => one == other,
        }
    }
}

/// Ports with the addresses at which they are somebody's, which do not overlap; in the order of the ports.
#[derive(Debug, Default)]
pub(super) struct Ports(Vec<(u16, Local)>);

impl Ports {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn at(&self, port: u16) -> &[(u16, Local)] {
        let from = self.0.partition_point(|&(other, _)| other < port);
        let rest = &self.0[from..];
        &rest[..rest.partition_point(|&(other, _)| other == port)]
    }

    /// Whether the port is somebody's at some address.
    pub(super) fn has(&self, port: u16) -> bool {
        !self.at(port).is_empty()
    }

    /// Whether the port is somebody's at `address`, which is asked for only if that matters.
    pub(super) fn contains(&self, port: u16, address: impl FnOnce() -> IpAddr) -> bool {
        match self.at(port) {
            [] => false,
            [(_, Local::Any)] => true,
            several => {
                let address = address();
                several.iter().any(|(_, local)| local.contains(address))
            }
        }
    }

    /// Whether the port is somebody's at one of these addresses.
    fn overlaps(&self, port: u16, local: Local) -> bool {
        self.at(port).iter().any(|(_, other)| other.overlaps(local))
    }

    fn insert(&mut self, port: u16, local: Local) {
        let place = self.0.partition_point(|&(other, _)| other <= port);
        self.0.insert(place, (port, local));
    }

    fn remove(&mut self, port: u16, local: Local) -> bool {
        let place = self.0.iter().position(|&entry| entry == (port, local));
        place.map(|place| self.0.remove(place)).is_some()
    }
}

impl<D: Data> Stack<D> {
    /// Accepts connections to `port` from now on, at all of our addresses.
    pub fn listen(&mut self, port: u16) -> Result<(), ListenError> {
        self.listen_at(Local::Any, port)
    }

    /// The same at some of our addresses only; at others nobody listens, unless it is said for them as well. A single one must be
    /// ours, but may still be tentative. When it goes away, nobody is accepted until it is there again.
    pub fn listen_at(&mut self, local: Local, port: u16) -> Result<(), ListenError> {
        if port == 0 {
            return Err(ListenError::PortZero);
        }
        if let Local::Address(address) = local
            && !self.is_ours(address)
            && !self.is_tentative(address)
        {
            return Err(ListenError::NotOurAddress);
        }
        if self.listening.overlaps(port, local) {
            return Err(ListenError::InUse);
        }
        self.listening.insert(port, local);
        Ok(())
    }

    /// Accepts no more connections to `port`; those that exist stay. Returns whether it was open.
    pub fn unlisten(&mut self, port: u16) -> bool {
        self.unlisten_at(Local::Any, port)
    }

    /// The same for what [`Self::listen_at`] opened.
    pub fn unlisten_at(&mut self, local: Local, port: u16) -> bool {
        self.listening.remove(port, local)
    }

    /// Whether somebody listens where a segment with this key arrived.
    pub(super) fn is_listening(&self, key: FlowKey) -> bool {
        let local = || match self.table.pairs.get(key) {
            Some(pair) => IpAddr::V6(pair.local),
            None => IpAddr::V4(self.config.ip),
        };
        self.listening.contains(key.local_port(), local)
    }

    /// Whether others are still asked about `address`.
    pub(super) fn is_tentative(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.address.is_wanted(address),
            IpAddr::V6(address) => {
                self.resolver.ipv6.as_ref().is_some_and(|interface| interface.addresses.is_tentative(address))
            }
        }
    }

    /// Datagrams to `port`, at all of our addresses, are events from now on, and may be sent from it.
    pub fn bind_udp(&mut self, port: u16) -> Result<(), BindError> {
        self.bind_udp_at(Local::Any, port)
    }

    /// The same at some of our addresses only.
    pub fn bind_udp_at(&mut self, local: Local, port: u16) -> Result<(), BindError> {
        if port == 0 {
            return Err(BindError::PortZero);
        }
        if self.bound_udp.overlaps(port, local) {
            return Err(BindError::InUse);
        }
        if self.bound_udp.len() >= usize::from(self.config.max_udp_ports) {
            return Err(BindError::TooMany);
        }
        self.bound_udp.insert(port, local);
        Ok(())
    }

    /// Nobody is at `port` any more. Returns whether somebody was.
    pub fn unbind_udp(&mut self, port: u16) -> bool {
        self.unbind_udp_at(Local::Any, port)
    }

    /// The same for what [`Self::bind_udp_at`] bound.
    pub fn unbind_udp_at(&mut self, local: Local, port: u16) -> bool {
        self.bound_udp.remove(port, local)
    }

    pub(super) fn is_bound_udp(&self, port: u16, local: impl Into<IpAddr>) -> bool {
        self.bound_udp.contains(port, || local.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    #[test]
    fn addresses_overlap_where_some_address_is_in_both() {
        let all = [Local::Any, Local::Ipv4, Local::Ipv6, Local::Address(V4), Local::Address(V6)];
        let overlapping = all.map(|one| all.map(|other| u8::from(one.overlaps(other))));
        let expected = [[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]];
        assert_eq!(overlapping, expected);
        assert!(!Local::Address(V4).overlaps(Local::Address(OTHER_V4)));
    }

    #[test]
    fn port_is_somebodys_at_the_addresses_that_were_named() {
        let mut ports = Ports::default();
        for entry in [(7, Local::Ipv6), (5, Local::Any), (7, Local::Address(V4)), (9, Local::Ipv4)] {
            ports.insert(entry.0, entry.1);
        }
        let at = |ports: &Ports, port| [V4, OTHER_V4, V6].map(|address| ports.contains(port, || address));
        assert_eq!(at(&ports, 5), [true; 3]);
        assert_eq!(at(&ports, 6), [false; 3]);
        assert_eq!(at(&ports, 7), [true, false, true]);
        assert_eq!(at(&ports, 9), [true, true, false]);
        assert!(ports.overlaps(7, Local::Ipv4) && !ports.overlaps(7, Local::Address(OTHER_V4)));
        assert!(ports.remove(7, Local::Ipv6) && !ports.remove(7, Local::Ipv6));
        assert_eq!(at(&ports, 7), [true, false, false]);
        assert!(ports.has(7) && !ports.has(8));
    }

    #[test]
    fn unspecified_addresses_mean_what_they_mean_to_sockets() {
        assert_eq!(Local::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Local::Ipv4);
        assert_eq!(Local::from(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), Local::Any);
        let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
        assert_eq!(Local::from(IpAddr::V6(mapped)), Local::Address(V4));
    }
}
