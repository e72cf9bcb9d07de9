//! What a forwarder is told at its start.

use crate::address::Address;
use crate::flows::FLOWS_MAX;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use core::str::FromStr;
use core::time::Duration;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where the forwarder is, what it forwards and how much it remembers. A client's connection goes to the server of its own version
/// of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the interface.
    pub mac: Mac,
    /// The port that clients connect to.
    pub listen: u16,
    /// IPv4, if the interface has it.
    pub ipv4: Option<Network<Ipv4Addr>>,
    /// IPv6, if the interface has it.
    pub ipv6: Option<Network<Ipv6Addr>>,
    /// Connections over each version of IP that are remembered at a time, at most [`FLOWS_MAX`].
    pub max_connections: u32,
    /// An established connection is forgotten after so long without a segment (RFC 5382 REQ-5: not less than 2 h 4 min).
    pub established_timeout: Duration,
    /// The same for one that is not yet, or no longer, established (RFC 5382 REQ-5, RFC 7857 2: not less than 4 min).
    pub transitory_timeout: Duration,
    /// Random bytes, another's at each start.
    pub secret: [u8; 16],
}

/// One version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<A> {
    /// The interface's address: clients connect to it, and the server sees it as theirs.
    pub address: A,
    /// Bits of the network that the interface is on.
    pub prefix_len: u8,
    /// Who forwards what is not for that network.
    pub gateway: Option<A>,
    /// Where connections go: a server and its port. `None`: they are refused.
    pub to: Option<(A, u16)>,
}

impl<A> Network<A> {
    /// An interface's address in a network of so many bits, with a server.
    pub fn new(address: A, prefix_len: u8, to: (A, u16)) -> Self {
        Self { address, prefix_len, gateway: None, to: Some(to) }
    }
}

impl Config {
    /// Default limits, and no IP yet. `mac` is the interface's.
    pub fn new(mac: Mac, listen: u16, secret: [u8; 16]) -> Self {
        Self {
            mac,
            listen,
            ipv4: None,
            ipv6: None,
            max_connections: FLOWS_MAX,
            established_timeout: Duration::from_secs(2 * 3600 + 4 * 60),
            transitory_timeout: Duration::from_secs(4 * 60),
            secret,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let has_server = self.ipv4.is_some_and(|ipv4| ipv4.to.is_some())
            || self.ipv6.is_some_and(|ipv6| ipv6.to.is_some());
        if !has_server {
            return Err(ConfigError::NoServer);
        }
        if self.listen == 0 {
            return Err(ConfigError::PortZero);
        }
        if !(1..=FLOWS_MAX).contains(&self.max_connections) {
            return Err(ConfigError::Connections(self.max_connections));
        }
        Ok(())
    }
}

/// Where frames for the server go: to itself or to the gateway.
pub(crate) fn next_hop<A: Address>(network: &Network<A>, server: A) -> Result<A, ConfigError> {
    let is_on_link = |&other: &A| network.address.is_on_link(other, network.prefix_len);
    let hops = [Some(server), network.gateway];
    hops.into_iter().flatten().find(is_on_link).ok_or_else(|| ConfigError::NoWay(server.into()))
}

pub(crate) fn check_network<A: Address>(network: &Network<A>) -> Result<(), ConfigError> {
    let server = network.to.map(|(server, _)| server);
    for address in [Some(network.address), server].into_iter().flatten() {
        if !address.is_host() {
            return Err(ConfigError::NoHost(address.into()));
        }
    }
    if server == Some(network.address) {
        return Err(ConfigError::ToItself);
    }
    if server.is_some_and(|server| !network.address.reaches(server)) {
        return Err(ConfigError::LinkOnly(network.address.into()));
    }
    if network.to.is_some_and(|(_, port)| port == 0) {
        return Err(ConfigError::PortZero);
    }
    Ok(())
}

/// Servers, one of each version of IP at most: `10.0.0.2:80`, `[2001:db8::2]:80`, or both with a comma between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Servers {
    /// For clients over IPv4.
    pub ipv4: Option<SocketAddrV4>,
    /// For clients over IPv6.
    pub ipv6: Option<SocketAddrV6>,
}

/// Text that names no servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServersError;

impl FromStr for Servers {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Self, ServersError> {
        let mut servers = Self::default();
        for word in text.split(',') {
            let is_wrong = match word.parse().map_err(|_| ServersError)? {
                SocketAddr::V4(server) => servers.ipv4.replace(server).is_some(),
                SocketAddr::V6(server) => servers.ipv6.replace(server).is_some() || server.scope_id() != 0,
            };
            if is_wrong {
                return Err(ServersError);
            }
        }
        Ok(servers)
    }
}

/// What cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// No server is named.
    NoServer,
    /// Not an address of a host.
    NoHost(IpAddr),
    /// The server would be the forwarder.
    ToItself,
    /// The interface's address is of its link only, and the server is not on it by such an address.
    LinkOnly(IpAddr),
    /// There is no port 0.
    PortZero,
    /// None, or more than there are ports for.
    Connections(u32),
    /// The server is on another network, and no gateway on this one is known.
    NoWay(IpAddr),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("connections would go nowhere; name a server's address"),
            Self::NoHost(address) => write!(f, "{address} is no host's address"),
            Self::ToItself => {
                f.write_str("connections would go to the forwarder itself; name a server's address")
            }
            Self::LinkOnly(address) => write!(
                f,
                "{address} is of this link only and the server is not; give the interface another one (--net ...,ip6=ADDRESS/BITS)"
            ),
            Self::PortZero => f.write_str("there is no port 0"),
            Self::Connections(count) => {
                write!(f, "{count} connections: between 1 and {FLOWS_MAX} are possible")
            }
            Self::NoWay(address) => {
                let option = if address.is_ipv4() { "gw" } else { "gw6" };
                write!(
                    f,
                    "{address} is on another network and there is no gateway; give the interface one (--net ...,{option}=ADDRESS)"
                )
            }
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_one_of_each_version_at_most() {
        let (ipv4, ipv6) = ("10.0.0.2:80".parse().ok(), "[2001:db8::2]:8080".parse().ok());
        for (text, expected) in [
            ("10.0.0.2:80", Ok(Servers { ipv4, ipv6: None })),
            ("[2001:db8::2]:8080", Ok(Servers { ipv4: None, ipv6 })),
            ("10.0.0.2:80,[2001:db8::2]:8080", Ok(Servers { ipv4, ipv6 })),
            ("[2001:db8::2]:8080,10.0.0.2:80", Ok(Servers { ipv4, ipv6 })),
            ("10.0.0.2:80,10.0.0.3:80", Err(ServersError)),
            ("[2001:db8::2]:80,[2001:db8::3]:80", Err(ServersError)),
            ("[fe80::2%3]:80", Err(ServersError)),
            ("", Err(ServersError)),
            ("10.0.0.2:80,", Err(ServersError)),
            ("10.0.0.2", Err(ServersError)),
            ("2001:db8::2:80", Err(ServersError)),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
        }
    }
}
