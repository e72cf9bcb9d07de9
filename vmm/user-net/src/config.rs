//! What a user network is like, and why it cannot be made.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use crate::policy::{Outbound, Resolver};
use crate::publish::{Protocol, Publish};

/// What a network is made of.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The guest's hardware address.
    pub guest_mac: [u8; 6],
    /// Ports of the host that lead to the guest.
    pub publish: Vec<Publish>,
    /// Whether the guest may go to the outside.
    pub outbound: Outbound,
    /// Ports of the host's loopback interface that the guest reaches at the gateway's address.
    pub host_ports: Vec<u16>,
    /// Who answers at the gateway's port 53, if the guest may go to the outside.
    pub resolver: Resolver,
    /// Random bits: initial sequence numbers begin there.
    pub seed: u64,
}

/// What the guest's driver can cope with in the frames that it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestOffloads {
    /// Checksums may be left to it.
    pub checksum: bool,
    /// TCP segments over IPv4 may be larger than the MTU.
    pub tso4: bool,
}

/// A port that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// As it was asked for.
    pub asked: Publish,
    /// Where the host really listens.
    pub host: SocketAddr,
}

/// Why a network cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UserNetError {
    /// Somebody else listens there.
    #[error(
        "port {}/{} of {} is in use; publish another one (--publish {}, or port 0 for any that is free), or stop \
         what uses it (`ss -{}lnp 'sport = :{}'` says what)",
        .0.host.port(), .0.protocol, .0.host.ip(), another(.0), letter(.0.protocol), .0.host.port()
    )]
    InUse(Publish),
    /// The same port is to be published twice.
    #[error("port {}/{} of {} is published twice; leave one out", .0.host.port(), .0.protocol, .0.host.ip())]
    Twice(Publish),
    /// Only root may listen there.
    #[error(
        "port {}/{} of {} is for privileged processes; publish a port from 1024 on, for example --publish 8080:{}",
        .0.host.port(), .0.protocol, .0.host.ip(), .0.guest_port
    )]
    Privileged(Publish),
    /// The address is somebody else's.
    #[error(
        "{} is no address of this machine; leave it out for 127.0.0.1, or use one that `ip addr` shows, or {} for all",
        .0.host.ip(), all_addresses(.0.host.ip())
    )]
    NotLocal(Publish),
    /// Anything else.
    #[error("cannot publish {publish}: {source}")]
    Listen {
        /// What.
        publish: Publish,
        /// Why.
        source: io::Error,
    },
    /// The host has no more descriptors, or the like.
    #[error("the user network cannot be made: {0}")]
    System(#[from] io::Error),
}

impl UserNetError {
    /// Why a port cannot be bound.
    pub(crate) fn of_bind(publish: Publish, source: io::Error) -> Self {
        match source.kind() {
            ErrorKind::AddrInUse => Self::InUse(publish),
            ErrorKind::PermissionDenied => Self::Privileged(publish),
            ErrorKind::AddrNotAvailable => Self::NotLocal(publish),
            _ => Self::Listen { publish, source },
        }
    }
}

/// A publication to propose instead of one whose port is taken, as it is typed.
fn another(publish: &Publish) -> String {
    let port = publish.host.port().checked_add(1).unwrap_or(8080);
    let another = Publish { host: SocketAddr::new(publish.host.ip(), port), ..*publish }.to_string();
    another.strip_prefix("127.0.0.1:").unwrap_or(&another).to_owned()
}

/// The letter of `ss`.
fn letter(protocol: Protocol) -> char {
    if protocol == Protocol::Tcp { 't' } else { 'u' }
}

/// The address that stands for all of a family.
fn all_addresses(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "0.0.0.0" } else { "[::]" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_port_is_named_and_another_proposed() {
        let publish: Publish = "80:8000".parse().unwrap();
        let error = UserNetError::of_bind(publish, ErrorKind::PermissionDenied.into()).to_string();
        assert!(error.contains("port 80/tcp") && error.contains("--publish 8080:8000"), "{error}");
    }

    #[test]
    fn messages_propose_what_can_be_typed() {
        let publish: Publish = "65535:80/udp".parse().unwrap();
        let error = UserNetError::of_bind(publish, ErrorKind::AddrInUse.into()).to_string();
        assert!(error.contains("--publish 8080:80/udp") && error.contains("ss -ulnp"), "{error}");
    }
}
