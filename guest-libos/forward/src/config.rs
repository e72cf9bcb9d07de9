//! What a forwarder is told at its start.

use crate::flows::FLOWS_MAX;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::time::Duration;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Where the forwarder is, what it forwards and how much it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the interface.
    pub mac: Mac,
    /// The interface's address: clients connect to it, and the server sees it as theirs.
    pub address: Ipv4Addr,
    /// Bits of the network that the interface is on.
    pub prefix_len: u8,
    /// Who forwards what is not for that network.
    pub gateway: Option<Ipv4Addr>,
    /// The port that clients connect to.
    pub listen: u16,
    /// Where their connections go.
    pub to: SocketAddrV4,
    /// Connections remembered at a time, at most [`FLOWS_MAX`].
    pub max_connections: u32,
    /// An established connection is forgotten after so long without a segment (RFC 5382 REQ-5: not less than 2 h 4 min).
    pub established_timeout: Duration,
    /// The same for one that is not yet, or no longer, established (RFC 5382 REQ-5, RFC 7857 2: not less than 4 min).
    pub transitory_timeout: Duration,
    /// Random bytes, another's at each start.
    pub secret: [u8; 16],
}

impl Config {
    /// Default limits. `mac`, `address` and `prefix_len` are the interface's.
    pub fn new(
        mac: Mac,
        address: Ipv4Addr,
        prefix_len: u8,
        listen: u16,
        to: SocketAddrV4,
        secret: [u8; 16],
    ) -> Self {
        Self {
            mac,
            address,
            prefix_len,
            gateway: None,
            listen,
            to,
            max_connections: FLOWS_MAX,
            established_timeout: Duration::from_secs(2 * 3600 + 4 * 60),
            transitory_timeout: Duration::from_secs(4 * 60),
            secret,
        }
    }

    /// Where frames for the server go: to itself or to the gateway.
    pub(crate) fn next_hop(&self) -> Result<Ipv4Addr, ConfigError> {
        if self.is_on_link(*self.to.ip()) {
            return Ok(*self.to.ip());
        }
        self.gateway.filter(|&gateway| self.is_on_link(gateway)).ok_or(ConfigError::NoWay(*self.to.ip()))
    }

    fn is_on_link(&self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
        self.address.to_bits() & mask == other.to_bits() & mask
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        for address in [self.address, *self.to.ip()] {
            if !is_host(address) {
                return Err(ConfigError::NoHost(address));
            }
        }
        if *self.to.ip() == self.address {
            return Err(ConfigError::ToItself);
        }
        if self.listen == 0 || self.to.port() == 0 {
            return Err(ConfigError::PortZero);
        }
        if !(1..=FLOWS_MAX).contains(&self.max_connections) {
            return Err(ConfigError::Connections(self.max_connections));
        }
        Ok(())
    }
}

/// Whether an address can be one host's on a network (RFC 1122 3.2.1.3).
pub(crate) fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// What cannot be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// Not an address of a host.
    NoHost(Ipv4Addr),
    /// The server would be the forwarder.
    ToItself,
    /// There is no port 0.
    PortZero,
    /// None, or more than there are ports for.
    Connections(u32),
    /// The server is on another network, and no gateway on this one is known.
    NoWay(Ipv4Addr),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost(address) => write!(f, "{address} is no host's address"),
            Self::ToItself => {
                f.write_str("connections would go to the forwarder itself; name a server's address")
            }
            Self::PortZero => f.write_str("there is no port 0"),
            Self::Connections(count) => {
                write!(f, "{count} connections: between 1 and {FLOWS_MAX} are possible")
            }
            Self::NoWay(address) => write!(
                f,
                "{address} is on another network and there is no gateway; give the interface one (--net ...,gw=ADDRESS)"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}
