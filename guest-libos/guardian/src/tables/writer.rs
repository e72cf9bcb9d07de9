//! The guardian's side of the page.

use super::{
    AT_COUNTERS, AT_COUNTS, AT_INTERFACE, AT_IPV6, AT_IPV6_STATE, AT_LAYOUT, AT_MAC, AT_MAGIC, AT_NEIGHBOURS,
    AT_PORTS, AT_ROUTES, AT_SEQUENCE, HAS_GATEWAY, LAYOUT, LINK_LOCAL, MAGIC, NEIGHBOUR_WORDS, Page,
    REACHABLE, ROUTE_WORDS, ROUTER, ROUTES_MAX, Route,
};
use crate::neighbours::{AddressState, Counters, Interface, Neighbour, Neighbours, Reachability};
use crate::request::{Port, ip_words, mac_word};
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{Ordering, fence};
use exos_net::wire::ipv6::LINK_LOCAL_PREFIX_LEN;

/// The guardian's side of the page.
#[derive(Debug)]
pub struct Writer<'a> {
    page: &'a Page,
    interface: Interface,
}

/// What is known of the link besides the neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What has become of the interface's IPv6 address.
    pub ipv6: AddressState,
    /// What was not believed.
    pub counters: Counters,
}

impl From<&Neighbours> for Link {
    fn from(neighbours: &Neighbours) -> Self {
        Self { ipv6: neighbours.address().1, counters: neighbours.counters() }
    }
}

impl<'a> Writer<'a> {
    /// Begins a page, with nothing in it but the interface and its routes.
    pub fn new(page: &'a Page, interface: Interface) -> Self {
        let writer = Self { page, interface };
        let link = Link { ipv6: AddressState::Tentative, counters: Counters::default() };
        writer.publish([].into_iter(), [].into_iter(), link);
        page[AT_MAGIC].store(MAGIC, Ordering::Relaxed);
        // Last: who finds the layout finds all else.
        page[AT_LAYOUT].store(LAYOUT, Ordering::Release);
        writer
    }

    /// Shows what is known now.
    pub fn publish(
        &self,
        ports: impl Iterator<Item = (Port, u32)>,
        neighbours: impl Iterator<Item = Neighbour>,
        link: Link,
    ) {
        let sequence = self.page[AT_SEQUENCE].load(Ordering::Relaxed);
        self.page[AT_SEQUENCE].store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.set(
            AT_INTERFACE,
            &[u64::from(self.interface.ip.to_bits()) | u64::from(self.interface.prefix_len) << 32],
        );
        self.set(AT_MAC, &[mac_word(Some(self.interface.mac))]);
        self.set(AT_IPV6, &ip_words(IpAddr::V6(self.interface.link_local())));
        self.set(AT_IPV6_STATE, &[state_word(link.ipv6)]);
        let Counters { malformed, hop_limit, checksum, unsupported, conflicts } = link.counters;
        self.set(AT_COUNTERS, &[malformed, hop_limit, checksum, unsupported, conflicts]);
        let mut counts = [0u64; 3];
        for ((port, client), at) in ports.zip(AT_PORTS..AT_NEIGHBOURS) {
            self.set(
                at,
                &[u64::from(client) << 32 | u64::from(port.protocol) << 16 | u64::from(port.number)],
            );
            counts[0] += 1;
        }
        for (neighbour, at) in neighbours.zip((AT_NEIGHBOURS..AT_ROUTES).step_by(NEIGHBOUR_WORDS)) {
            let [high, low] = ip_words(neighbour.ip);
            let mut last = mac_word(Some(neighbour.mac));
            if neighbour.reachability == Reachability::Reachable {
                last |= REACHABLE;
            }
            if neighbour.router {
                last |= ROUTER;
            }
            self.set(at, &[high, low, last]);
            counts[1] += 1;
        }
        let routes = self.routes(link.ipv6);
        for (route, at) in routes.zip((AT_ROUTES..).step_by(ROUTE_WORDS).take(ROUTES_MAX)) {
            let [high, low] = ip_words(route.prefix);
            let gateway = ip_words(route.gateway.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
            let kind = u64::from(route.prefix_len) | if route.gateway.is_some() { HAS_GATEWAY } else { 0 };
            self.set(at, &[high, low, kind, gateway[0], gateway[1]]);
            counts[2] += 1;
        }
        self.set(AT_COUNTS, &[counts[0] | counts[1] << 16 | counts[2] << 32]);
        self.page[AT_SEQUENCE].store(sequence.wrapping_add(2), Ordering::Release);
    }

    fn set(&self, at: usize, words: &[u64]) {
        for (slot, word) in self.page[at..].iter().zip(words) {
            slot.store(*word, Ordering::Relaxed);
        }
    }

    fn routes(&self, ipv6: AddressState) -> impl Iterator<Item = Route> {
        let Interface { ip, prefix_len, gateway, .. } = self.interface;
        let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix_len.into())).unwrap_or(0);
        let prefix = IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask));
        let link = Route { prefix, prefix_len, gateway: None };
        let rest = gateway.map(|gateway| Route {
            prefix: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            prefix_len: 0,
            gateway: Some(IpAddr::V4(gateway)),
        });
        let (prefix, prefix_len) = (IpAddr::V6(LINK_LOCAL), LINK_LOCAL_PREFIX_LEN);
        let link6 = Route { prefix, prefix_len, gateway: None };
        let link6 = Some(link6).filter(|_| ipv6 == AddressState::Preferred);
        [Some(link), rest, link6].into_iter().flatten()
    }
}

const fn state_word(state: AddressState) -> u64 {
    match state {
        AddressState::Tentative => 0,
        AddressState::Preferred => 1,
        AddressState::Duplicate => 2,
    }
}
