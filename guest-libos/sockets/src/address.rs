//! Addresses as programs write them and as the stack has them. There is one interface, whose number is 1.

use crate::error::Error;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The number of the interface: the scope of link-local addresses (RFC 4007 11.2); 0 means it as well.
pub const INTERFACE: u32 = 1;

/// What the stack calls an address: IPv4's in IPv6's clothes are IPv4's (RFC 4291 2.5.5.2), and there are no scopes.
pub(crate) fn parse(address: SocketAddr) -> Result<SocketAddr, Error> {
    if let SocketAddr::V6(address) = address
        && address.ip().is_unicast_link_local()
        && !matches!(address.scope_id(), 0 | INTERFACE)
    {
        return Err(Error::NoSuchInterface);
    }
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// What programs are shown: link-local addresses have their scope, so that they can be answered to and passed on.
pub(crate) fn show(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, INTERFACE).into()
        }
        address => address,
    }
}

/// Whether a group's datagrams do not leave the machine (RFC 4291 2.7).
pub(crate) fn stays_here(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(group) if group.is_multicast() && group.octets()[1] & 0x0f == 1)
}

/// Whether everybody on the link is in a group, without joining it.
pub(crate) fn is_everybodys(address: IpAddr) -> bool {
    use exos_net::wire::{igmp, ipv6};
    match address {
        IpAddr::V4(group) => group == igmp::ALL_SYSTEMS,
        IpAddr::V6(group) => group == ipv6::ALL_NODES,
    }
}

/// No address of a family.
pub(crate) const fn unspecified(is_ipv6: bool) -> IpAddr {
    if is_ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

    fn scoped(ip: Ipv6Addr, scope: u32) -> SocketAddr {
        SocketAddrV6::new(ip, 7, 0, scope).into()
    }

    #[test]
    fn link_local_addresses_are_of_the_only_interface() {
        let plain = Ok(scoped(LINK_LOCAL, 0));
        assert_eq!([parse(scoped(LINK_LOCAL, 0)), parse(scoped(LINK_LOCAL, INTERFACE))], [plain; 2]);
        assert_eq!(parse(scoped(LINK_LOCAL, 2)), Err(Error::NoSuchInterface));
        assert_eq!(show(scoped(LINK_LOCAL, 0)), scoped(LINK_LOCAL, INTERFACE));
    }

    #[test]
    fn other_addresses_have_no_scope() {
        let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(parse(scoped(global, 9)), Ok(scoped(global, 0)));
        assert_eq!(show(scoped(global, 0)), scoped(global, 0));
    }

    #[test]
    fn ipv4_in_ipv6s_clothes_is_ipv4() {
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(parse((ip.to_ipv6_mapped(), 7).into()), Ok((ip, 7).into()));
    }
}
