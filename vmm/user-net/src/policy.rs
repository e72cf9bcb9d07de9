//! Where the guest may go. By default nowhere; with outbound allowed, to the outside and to the host's resolver, but never to
//! the host itself, whose loopback ports have to be allowed one by one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;

use crate::GATEWAY_ADDRESS;

/// The port of DNS, for UDP and TCP.
const DNS_PORT: u16 = 53;
/// Where the host's resolver is written down (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Whether the guest may go to the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outbound {
    /// It may not.
    #[default]
    Refused,
    /// It may, by TCP and UDP over IPv4.
    Allowed,
}

/// Who answers the guest's questions for names, at the gateway's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// The first name server of the host, whenever a question comes.
    #[default]
    OfHost,
    /// This one.
    Fixed(SocketAddr),
}

/// What is allowed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) outbound: Outbound,
    pub(crate) host_ports: Vec<u16>,
    pub(crate) resolver: Resolver,
}

impl Policy {
    /// Where what the guest sends to `to` goes. `None`: nowhere.
    pub(crate) fn target(&self, to: SocketAddrV4) -> Option<SocketAddr> {
        if *to.ip() == GATEWAY_ADDRESS {
            return self.target_at_gateway(to.port());
        }
        let allowed = self.outbound == Outbound::Allowed
            && is_outside(*to.ip())
            && !crate::is_in_network(*to.ip())
            && !is_of_host(*to.ip())
            && !is_routed_to_host(*to.ip());
        allowed.then_some(to.into())
    }

    fn target_at_gateway(&self, port: u16) -> Option<SocketAddr> {
        if self.host_ports.contains(&port) {
            return Some((Ipv4Addr::LOCALHOST, port).into());
        }
        if port != DNS_PORT || self.outbound == Outbound::Refused {
            return None;
        }
        match self.resolver {
            Resolver::Fixed(address) => Some(address),
            Resolver::OfHost => resolver_of_host(Path::new(RESOLV_CONF)),
        }
    }
}

/// Whether an address can be one of another machine: not of this host, this network or this link, not of a group (RFC 6890).
/// Link-local addresses are where clouds keep the secrets of a machine.
fn is_outside(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first < 240 && !address.is_loopback() && !address.is_link_local() && !address.is_multicast()
}

/// Whether an address is one of this host's, or a broadcast address of its networks. If that cannot be known, it is.
fn is_of_host(address: Ipv4Addr) -> bool {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return true };
    interfaces
        .flat_map(|interface| [interface.address, interface.broadcast])
        .flatten()
        .filter_map(|found| found.as_sockaddr_in().map(|found| found.ip()))
        .any(|found| found == address)
}

/// Whether the host takes packets to an address itself that no interface has: a route of type `local` leads there
/// (ip-route(8)), as for the addresses of a load balancer. Then it would also be their source.
fn is_routed_to_host(address: Ipv4Addr) -> bool {
    let own =
        crate::host_sockets::connect_udp((address, DNS_PORT).into()).and_then(|socket| socket.local_addr());
    own.is_ok_and(|own| own.ip() == address)
}

/// The first name server in a file like resolv.conf(5).
fn resolver_of_host(path: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(path).ok()?;
    let found = first_name_server(&text);
    if found.is_none() {
        tracing::debug!("{} names no server", path.display());
    }
    found
}

fn first_name_server(text: &str) -> Option<SocketAddr> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, DNS_PORT))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(ip: [u8; 4], port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(ip.into(), port)
    }

    #[test]
    fn default_allows_nothing() {
        let policy = Policy::default();
        for ip in [[1, 1, 1, 1], [127, 0, 0, 1], [10, 0, 2, 2], [10, 0, 2, 3], [192, 168, 1, 1]] {
            for port in [53, 80] {
                assert_eq!(policy.target(to(ip, port)), None, "{ip:?}");
            }
        }
    }

    #[test]
    fn outbound_reaches_the_outside_and_the_resolver_only() {
        let resolver = SocketAddr::from(([127, 0, 0, 53], 53));
        let policy =
            Policy { outbound: Outbound::Allowed, resolver: Resolver::Fixed(resolver), ..Policy::default() };
        assert_eq!(policy.target(to([192, 0, 2, 1], 80)), Some(([192, 0, 2, 1], 80).into()));
        assert_eq!(policy.target(to([10, 0, 2, 2], 53)), Some(resolver));
        for ip in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [127, 255, 0, 1],
            [169, 254, 169, 254],
            [224, 0, 0, 1],
            [255, 255, 255, 255],
            [240, 0, 0, 1],
            [10, 0, 2, 2],
            [10, 0, 2, 15],
            [10, 0, 2, 77],
        ] {
            assert_eq!(policy.target(to(ip, 80)), None, "{ip:?}");
        }
    }

    #[test]
    fn outbound_does_not_reach_the_hosts_own_addresses() {
        let policy = Policy { outbound: Outbound::Allowed, ..Policy::default() };
        let own = nix::ifaddrs::getifaddrs().unwrap().filter_map(|interface| interface.address);
        let own: Vec<_> =
            own.filter_map(|address| address.as_sockaddr_in().map(|found| found.ip())).collect();
        assert!(!own.is_empty(), "there is at least the loopback interface");
        for ip in own {
            assert_eq!(policy.target(SocketAddrV4::new(ip, 80)), None, "{ip}");
        }
    }

    #[test]
    fn allowed_host_port_leads_to_loopback_and_no_other_does() {
        let policy = Policy { host_ports: vec![5432], ..Policy::default() };
        assert_eq!(policy.target(to([10, 0, 2, 2], 5432)), Some(([127, 0, 0, 1], 5432).into()));
        assert_eq!(policy.target(to([10, 0, 2, 2], 5433)), None);
        assert_eq!(policy.target(to([127, 0, 0, 1], 5432)), None);
    }

    #[test]
    fn first_name_server_is_found_among_other_lines() {
        let text = "# nameserver 1.1.1.1\nsearch example.org\nnameserver\nnameserver nonsense\n\
                    nameserver\t10.1.2.3 # comment\nnameserver 10.1.2.4\n";
        assert_eq!(first_name_server(text), Some(([10, 1, 2, 3], 53).into()));
        assert_eq!(first_name_server("nameserver fd00::1"), Some("[fd00::1]:53".parse().unwrap()));
        assert_eq!(first_name_server("search example.org"), None);
    }
}
