//! The interface's side of IPv6: its addresses, its neighbours, its routers and what they advertise. Nothing here reads or
//! writes a header.

mod addresses;
#[cfg(feature = "check")]
mod check;
mod config;
mod link_mtu;
mod name_servers;
mod neighbours;
mod routers;

use core::net::Ipv6Addr;

pub use addresses::{AddressState, Ipv6Address};
pub(crate) use addresses::{Addresses, Lifetimes, Probe};
pub use config::{InterfaceId, Ipv6Config};
pub(crate) use link_mtu::LinkMtu;
pub(crate) use name_servers::NameServers;
pub(crate) use neighbours::{Advertised, Heard, Neighbours, Question};
pub(crate) use routers::Routers;

use crate::config::Config;
use crate::tcp::isn::FlowHash;
use crate::time::{Duration, Instant};
use crate::wire::ethernet::MacAddress;
use crate::wire::router::Advertisement;

/// The least MTU of a link that carries IPv6 (RFC 8200 5).
pub(crate) const MIN_MTU: u16 = 1_280;
/// RFC 4861 10: how often routers are asked for at most, and how far apart.
const MAX_ROUTER_SOLICITATIONS: u8 = 3;
const ROUTER_SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// Whether an address is one of fe80::/10 (RFC 4291 2.5.6).
pub(crate) fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}

/// Whether a host can have `address`: not unspecified, loopback, a group or an IPv4 address in disguise.
pub(crate) fn is_host(address: Ipv6Addr) -> bool {
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && address.to_ipv4_mapped().is_none()
}

/// What the interface wants to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A question whether somebody has an address that we are about to use.
    Probe(Probe),
    /// A question to a neighbour whether it is still there.
    Ask(Question),
    /// A question for routers, from this address.
    SolicitRouters(Ipv6Addr),
}

#[derive(Debug)]
pub(crate) struct Interface {
    pub(crate) addresses: Addresses,
    pub(crate) neighbours: Neighbours,
    pub(crate) routers: Routers,
    pub(crate) name_servers: NameServers,
    /// How large packets on this link may be, and how large those of connections are.
    pub(crate) link_mtu: LinkMtu,
    /// [`Ipv6Config::speaks`].
    pub(crate) speaks: bool,
    believes_routers: bool,
    solicitations_left: u8,
    solicit_at: Instant,
    /// How often routers were asked or found.
    solicitation_changes: u32,
}

impl Interface {
    pub(crate) fn new(config: &Config, ipv6: &Ipv6Config, hash: FlowHash, now: Instant) -> Self {
        let mut addresses = Addresses::new(ipv6, config.mac, config.secret);
        addresses.make(LINK_LOCAL, Lifetimes::FOREVER, now);
        let (max_routers, max_prefixes) = (ipv6.max_routers, ipv6.max_prefixes);
        let mut routers = Routers::new(max_routers.into(), max_prefixes.into(), ipv6.gateway);
        for &(ip, prefix_len) in &ipv6.addresses {
            addresses.add(ip, now);
            routers.add_prefix(ip, prefix_len);
        }
        Self {
            addresses,
            neighbours: Neighbours::new(config.max_neighbours as usize, hash),
            routers,
            name_servers: NameServers::new(ipv6.max_name_servers.into()),
            link_mtu: LinkMtu::new(config.mtu, ipv6.link_mtu),
            speaks: ipv6.speaks,
            believes_routers: ipv6.router_advertisements,
            solicitations_left: if ipv6.router_advertisements { MAX_ROUTER_SOLICITATIONS } else { 0 },
            solicit_at: now,
            solicitation_changes: 0,
        }
    }

    /// Whether each address is used or somebody else's, and routers, if they are asked, have answered or kept silent for
    /// [`ROUTER_SOLICITATION_INTERVAL`].
    pub(crate) fn is_settled(&self) -> bool {
        let routers_are_silent = self.solicitations_left < MAX_ROUTER_SOLICITATIONS - 1;
        !self.addresses.are_tentative() && (!self.believes_routers || routers_are_silent)
    }

    /// Grows with whatever [`Self::is_settled`], the state of an address and the name servers depend on.
    pub(crate) fn changes(&self) -> u32 {
        let changes = self.addresses.changes.wrapping_add(self.solicitation_changes);
        changes.wrapping_add(self.name_servers.changes)
    }

    /// Whether `address` is on our link.
    pub(crate) fn is_on_link(&self, address: Ipv6Addr) -> bool {
        is_link_local(address) || self.routers.is_on_link(address)
    }

    /// The host on our link that packets to `address` are handed to (RFC 4861 5.2).
    pub(crate) fn hop_to(&self, address: Ipv6Addr) -> Option<Ipv6Addr> {
        if self.is_on_link(address) {
            return Some(address);
        }
        self.routers.choose(|router| self.neighbours.is_reachable(router))
    }

    /// The Ethernet address at which a packet from `peer`, which a frame from `mac` brought, is answered: the router's for
    /// peers beyond it, as far as it is known.
    pub(crate) fn hop_back(&self, mac: MacAddress, peer: Ipv6Addr) -> Option<MacAddress> {
        let hop = self.hop_to(peer)?;
        if hop == peer { Some(mac) } else { Some(self.neighbours.last_known(hop).unwrap_or(mac)) }
    }

    /// RFC 4861 6.3.4, RFC 4862 5.5.3, RFC 8106 6: what a router says, which `wire` has found to come from this link. Returns how many
    /// prefixes made no address for want of room; `None`: routers are not believed.
    pub(crate) fn router_advertises(
        &mut self,
        router: Ipv6Addr,
        said: &Advertisement<'_>,
        now: Instant,
    ) -> Option<u32> {
        if !self.believes_routers {
            return None;
        }
        let mut refused = 0;
        if said.router_lifetime_s > 0 {
            self.solicitations_left = 0;
            self.solicitation_changes += 1;
        }
        let after = |secs: u32| match secs {
            u32::MAX => Instant::NEVER,
            secs => now + Duration::from_secs(secs.into()),
        };
        self.routers.advertised(router, after(said.router_lifetime_s.into()), now);
        if let Some(mtu) = said.mtu
            && mtu >= u32::from(MIN_MTU)
        {
            self.link_mtu.said = u16::try_from(mtu).unwrap_or(u16::MAX);
        }
        for prefix in said.prefixes() {
            if is_link_local(prefix.prefix) || prefix.prefix.is_multicast() {
                continue;
            }
            let valid_until = after(prefix.valid_lifetime_s);
            if prefix.on_link {
                self.routers.prefix_advertised(prefix.prefix, prefix.prefix_len, valid_until, now);
            }
            let preferred_until = after(prefix.preferred_lifetime_s);
            if prefix.autonomous && prefix.prefix_len == 64 && preferred_until <= valid_until {
                let lifetimes = Lifetimes { preferred_until, valid_until };
                refused += u32::from(!self.addresses.prefix_advertised(prefix.prefix, lifetimes, now));
            }
        }
        for (ip, lifetime_s) in said.name_servers() {
            self.name_servers.advertised(ip, after(lifetime_s), now);
        }
        Some(refused)
    }

    /// What is due. To be called until there is nothing.
    pub(crate) fn poll(&mut self, now: Instant) -> Option<Wish> {
        self.routers.expire(now);
        self.name_servers.expire(now);
        if let Some(probe) = self.addresses.poll(now) {
            return Some(Wish::Probe(probe));
        }
        if self.speaks
            && let Some(target) = self.neighbours.poll(now)
            && let Some(source) = self.addresses.source_for(target.0, now)
        {
            return Some(Wish::Ask(Question { target: target.0, mac: Some(target.1), source }));
        }
        if self.solicitations_left > 0
            && self.solicit_at <= now
            && let Some(source) = self.addresses.source_for(LINK_LOCAL, now)
        {
            self.solicitations_left -= 1;
            self.solicitation_changes += 1;
            self.solicit_at = now + ROUTER_SOLICITATION_INTERVAL;
            return Some(Wish::SolicitRouters(source));
        }
        None
    }

    /// When [`Self::poll`] has something to do, or a little earlier.
    pub(crate) fn next_deadline(&self) -> Instant {
        // Routers are asked for from an address.
        let has_source = self.addresses.source_for(LINK_LOCAL, Instant::ZERO).is_some();
        let can_solicit = self.solicitations_left > 0 && has_source;
        let solicit_at = if can_solicit { self.solicit_at } else { Instant::NEVER };
        let addresses = self.addresses.next_deadline();
        // Who does not speak asks no neighbour again, and takes none for gone.
        let neighbours = if self.speaks { self.neighbours.next_deadline() } else { Instant::NEVER };
        addresses
            .min(neighbours)
            .min(self.routers.next_deadline())
            .min(self.name_servers.next_deadline())
            .min(self.link_mtu.next_deadline())
            .min(solicit_at)
    }

    /// The question for the Ethernet address of a neighbour, from an address that it can answer (RFC 4861 7.2.2).
    pub(crate) fn question(&self, target: Ipv6Addr, now: Instant) -> Option<Question> {
        let source = self.addresses.source_for(target, now)?;
        Some(Question { target, mac: None, source })
    }
}
