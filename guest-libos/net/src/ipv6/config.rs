//! What the caller decides about IPv6.

use core::net::Ipv6Addr;

use alloc::vec::Vec;

use crate::config::ConfigError;

/// How the second half of the addresses is made that an interface makes for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceId {
    /// Of the Ethernet address (RFC 4291, appendix A): the same on every link, so that others can follow a machine around.
    FromMac,
    /// Of a secret that stays the same from boot to boot (RFC 7217): the same on one link, another one elsewhere.
    Stable([u8; 16]),
}

/// IPv6 on the interface. It makes a link-local address by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ipv6Config {
    /// How the interface's own addresses are made.
    pub interface_id: InterfaceId,
    /// Further addresses, each with the length of its on-link prefix.
    pub addresses: Vec<(Ipv6Addr, u8)>,
    /// A router for everything that is not on the link, beside those that advertise themselves.
    pub gateway: Option<Ipv6Addr>,
    /// Whether routers are asked for, and what they advertise is believed (RFC 4861 6.3, RFC 4862 5.5).
    pub router_advertisements: bool,
    /// How often others are asked whether they have an address before it is used (RFC 4862 5.1, DupAddrDetectTransmits);
    /// 0 uses it at once.
    pub probes: u8,
    /// Whether this stack asks and answers neighbours and routers. `false` where another one with the same hardware address and
    /// the same addresses does that for both: then this one waits as long before it uses an address, hears what all hosts of
    /// the link are told, and says nothing.
    pub speaks: bool,
    /// The largest packet that the link takes over IPv6, if that is less than [`crate::Config::mtu`]; routers say it anew.
    pub link_mtu: u16,
    /// Addresses in all, the link-local one included; prefixes beyond it make no address.
    pub max_addresses: u8,
    /// Prefixes on the link that routers advertise; more are ignored.
    pub max_prefixes: u8,
    /// Routers that advertise themselves; more are ignored.
    pub max_routers: u8,
    /// Servers for names that routers advertise; more are ignored.
    pub max_name_servers: u8,
}

impl Default for Ipv6Config {
    fn default() -> Self {
        Self {
            interface_id: InterfaceId::FromMac,
            addresses: Vec::new(),
            gateway: None,
            router_advertisements: true,
            probes: 1,
            speaks: true,
            link_mtu: u16::MAX,
            max_addresses: 8,
            max_prefixes: 8,
            max_routers: 4,
            max_name_servers: 3,
        }
    }
}

impl Ipv6Config {
    /// Whether the addresses can be a host's, each once, the gateway another one's, and the link wide enough.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.link_mtu < super::MIN_MTU {
            return Err(ConfigError::MtuTooSmallForIpv6);
        }
        let limit = usize::from(self.max_addresses);
        let is_host = |&(ip, prefix_len): &(Ipv6Addr, u8)| super::is_host(ip) && prefix_len <= 128;
        if self.addresses.len() >= limit
            || !self.addresses.iter().all(is_host)
            || !self.gateway.is_none_or(super::is_host)
        {
            return Err(ConfigError::Ipv6Addresses);
        }
        let is_ours = |address| self.addresses.iter().any(|&(ip, _)| ip == address);
        let is_twice =
            |place: usize| self.addresses[..place].iter().any(|&(ip, _)| ip == self.addresses[place].0);
        if (0..self.addresses.len()).any(is_twice) {
            return Err(ConfigError::Ipv6AddressTwice);
        }
        if self.gateway.is_some_and(is_ours) { Err(ConfigError::Ipv6GatewayOurs) } else { Ok(()) }
    }
}
