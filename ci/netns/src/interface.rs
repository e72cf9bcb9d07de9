//! Interfaces of the calling thread's network namespace: addresses, MTU, queue length, up and down, veth pairs, routes,
//! removal. By rtnetlink, because the ioctls for some of these (SIOCSIFTXQLEN) ask for rights over the host that root of
//! a user namespace does not have, and because the emulated host has no `ip` tool.

use crate::netlink::request;
use crate::{Namespace, NetnsError};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::ffi::CString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// A network interface, by a name that Linux accepts. Holding one says nothing about whether it exists.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    name: String,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Interface {
    /// Parses a name by the rules of the kernel's `dev_valid_name`, without `%`, which it takes as a pattern.
    pub fn named(name: &str) -> Result<Self, NetnsError> {
        let bad_byte =
            |b: u8| b == b'/' || b == b':' || b == b'%' || b == 0 || b == 0x0b || b.is_ascii_whitespace();
        if name.is_empty()
            || name.len() >= libc::IFNAMSIZ
            || name == "."
            || name == ".."
            || name.bytes().any(bad_byte)
        {
            return Err(NetnsError::InvalidInterfaceName(name.to_owned()));
        }
        Ok(Interface { name: name.to_owned() })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this network namespace has it.
    pub fn exists(&self) -> bool {
        self.index().is_ok()
    }

    /// Adds an address; the kernel adds the route to its prefix when the interface is up.
    pub fn add_address(&self, address: IpAddr, prefix_bits: u8) -> Result<(), NetnsError> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix_bits;
        message.header.index = self.index()?;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        match address {
            IpAddr::V4(v4) => {
                message.attributes.push(AddressAttribute::Broadcast(v4 | !netmask(prefix_bits)));
            }
            // Usable at once: duplicate address detection (RFC 4862 5.4) would hold it back for a second.
            IpAddr::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        request(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.about(&self.name, format!("add the address {address}/{prefix_bits} to")))
    }

    /// Sets the MTU.
    pub fn set_mtu(&self, mtu_bytes: u32) -> Result<(), NetnsError> {
        self.set(vec![LinkAttribute::Mtu(mtu_bytes)], &format!("set an MTU of {mtu_bytes} bytes on"))
    }

    /// Sets how many frames the host queues for this interface before it drops; for a TAP, what its reader may lag.
    pub fn set_transmit_queue_length(&self, frames: u32) -> Result<(), NetnsError> {
        self.set(
            vec![LinkAttribute::TxQueueLen(frames)],
            &format!("set a transmit queue of {frames} frames on"),
        )
    }

    /// Brings the interface up.
    pub fn up(&self) -> Result<(), NetnsError> {
        let mut message = self.message()?;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        request(RouteNetlinkMessage::SetLink(message), 0).map_err(|error| error.about(&self.name, "bring up"))
    }

    /// Takes the interface down.
    pub fn down(&self) -> Result<(), NetnsError> {
        let mut message = self.message()?;
        message.header.change_mask = LinkFlags::Up;
        request(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|error| error.about(&self.name, "take down"))
    }

    /// Removes the interface (of a veth pair: both ends).
    pub fn delete(&self) -> Result<(), NetnsError> {
        request(RouteNetlinkMessage::DelLink(self.message()?), 0)
            .map_err(|error| error.about(&self.name, "delete"))
    }

    /// Makes a veth pair, both ends in this network namespace.
    pub fn create_veth_pair(near: &Interface, far: &Interface) -> Result<(), NetnsError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![LinkAttribute::IfName(far.name.clone())];
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(near.name.clone()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| error.about(&near.name, format!("make a veth pair with `{far}` named")))
    }

    /// Moves the interface to another network namespace. Its addresses do not go with it.
    pub fn move_to(&self, namespace: &Namespace) -> Result<(), NetnsError> {
        self.set(vec![LinkAttribute::NetNsFd(namespace.raw_fd())], "move to another namespace")
    }

    /// Gives the IPv4 prefix behind this interface a route whose connections, made or accepted, use `algorithm`.
    ///
    /// Replaces the route that the kernel made for `local/prefix_bits`. Unlike a namespace's default this asks for no
    /// right outside the namespace (see [`congestion_control`](crate::congestion_control)).
    pub fn set_route_congestion_control(
        &self,
        local: Ipv4Addr,
        prefix_bits: u8,
        algorithm: &str,
    ) -> Result<(), NetnsError> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: AddressFamily::Inet,
            destination_prefix_length: prefix_bits,
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Kernel,
            scope: RouteScope::Link,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(local & netmask(prefix_bits))),
            RouteAttribute::Oif(self.index()?),
            RouteAttribute::PrefSource(RouteAddress::Inet(local)),
            RouteAttribute::Metrics(vec![RouteMetric::CcAlgo(algorithm.to_owned())]),
        ];
        request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE).map_err(|error| {
            error.about(&self.name, format!("set the congestion control `{algorithm}` on the route of"))
        })
    }

    fn set(&self, attributes: Vec<LinkAttribute>, action: &str) -> Result<(), NetnsError> {
        let mut message = self.message()?;
        message.attributes = attributes;
        request(RouteNetlinkMessage::SetLink(message), 0).map_err(|error| error.about(&self.name, action))
    }

    fn message(&self) -> Result<LinkMessage, NetnsError> {
        let mut message = LinkMessage::default();
        message.header.index = self.index()?;
        Ok(message)
    }

    fn index(&self) -> Result<u32, NetnsError> {
        let missing = || NetnsError::NoSuchInterface(self.name.clone());
        let name = CString::new(self.name.as_str()).map_err(|_| missing())?;
        // SAFETY: `name` is NUL-terminated and lives through the call.
        match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(missing()),
            index => Ok(index),
        }
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// The netmask of a prefix; lengths above 32 count as 32, and the kernel refuses them.
fn netmask(prefix_bits: u8) -> Ipv4Addr {
    let host_bits = 32 - u32::from(prefix_bits.min(32));
    Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_namespace;
    use std::net::UdpSocket;

    #[test]
    fn named_invalid_names_returns_invalid_interface_name() {
        for name in ["", ".", "..", "a/b", "a b", "tap%d", "eth0:1", "sixteen-bytes-16", "a\0b"] {
            assert!(matches!(Interface::named(name), Err(NetnsError::InvalidInterfaceName(_))), "{name:?}");
        }
        assert_eq!(Interface::named("fifteen-bytes15").unwrap().name(), "fifteen-bytes15");
    }

    #[test]
    fn netmask_of_edge_prefixes() {
        let masks = [0, 1, 24, 32, 33].map(|bits| netmask(bits).to_string());
        assert_eq!(masks, ["0.0.0.0", "128.0.0.0", "255.255.255.0", "255.255.255.255", "255.255.255.255"]);
    }

    #[test]
    fn up_missing_interface_returns_no_such_interface() {
        let error = Interface::named("nothere0").unwrap().up().unwrap_err();
        assert!(matches!(error, NetnsError::NoSuchInterface(_)), "{error}");
    }

    #[test]
    fn add_address_ipv6_twice_names_address_and_interface() {
        in_namespace!(|| {
            let lo = Interface::named("lo").unwrap();
            lo.add_address("fd00::1".parse().unwrap(), 128).unwrap();
            UdpSocket::bind("[fd00::1]:0").unwrap();
            let error = lo.add_address("fd00::1".parse().unwrap(), 128).unwrap_err().to_string();
            assert!(error.contains("fd00::1/128") && error.contains("lo"), "{error}");
        });
    }
}
