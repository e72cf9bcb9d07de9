//! What sockets know of the link without asking the stack: its configuration, and the addresses that it has now.

use crate::state::Bytes;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;
use exos_net::{AddressState, Config, Instant, Stack};

const UDP_HEADER_BYTES: usize = 8;

#[derive(Debug)]
pub(crate) struct Link {
    config: Config,
    addresses: Vec<IpAddr>,
}

impl Link {
    pub(crate) fn new(config: &Config) -> Self {
        Self { config: config.clone(), addresses: Vec::new() }
    }

    /// Looks at the stack again.
    pub(crate) fn refresh(&mut self, stack: &Stack<Bytes>, now: Instant) {
        let Config { ip, prefix_len, mtu, .. } = *stack.config();
        (self.config.ip, self.config.prefix_len, self.config.mtu) = (ip, prefix_len, mtu);
        self.addresses.clear();
        self.addresses.extend(stack.address().map(IpAddr::V4));
        let is_usable = |state| matches!(state, AddressState::Preferred | AddressState::Deprecated);
        let of_ipv6 = stack.ipv6_addresses(now).filter(|address| is_usable(address.state));
        self.addresses.extend(of_ipv6.map(|address| IpAddr::V6(address.ip)));
    }

    /// Whether `address` is one of ours, those that nobody else sees among them.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.addresses.contains(&address)
    }

    /// Whether there may be groups of the family.
    pub(crate) fn has_groups(&self, is_ipv6: bool) -> bool {
        !is_ipv6 || self.config.ipv6.is_some()
    }

    /// Groups of each family that may be joined.
    pub(crate) fn max_groups(&self) -> usize {
        usize::from(self.config.max_groups)
    }

    /// Whether there is an address of the family that others than neighbours can answer to.
    pub(crate) fn has_family(&self, is_ipv6: bool) -> bool {
        self.addresses.iter().any(|address| match address {
            IpAddr::V4(_) => !is_ipv6,
            IpAddr::V6(address) => is_ipv6 && !address.is_unicast_link_local(),
        })
    }

    /// Whether `address` is everybody's on the link.
    pub(crate) fn is_broadcast(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if self.config.is_broadcast(address))
    }

    /// The largest datagram's data that the link takes without fragments.
    pub(crate) fn largest_whole(&self, to: IpAddr) -> usize {
        let ip_bytes = if to.is_ipv6() { 40 } else { 20 };
        usize::from(self.config.mtu) - ip_bytes - UDP_HEADER_BYTES
    }

    pub(crate) fn ephemeral_ports(&self) -> &RangeInclusive<u16> {
        &self.config.ephemeral_ports
    }

    pub(crate) fn max_udp_ports(&self) -> usize {
        usize::from(self.config.max_udp_ports)
    }
}
