//! A client's side of the page, which is another environment's: whatever it holds, reading it is harmless.

use super::{
    AT_COUNTERS, AT_COUNTS, AT_INTERFACE, AT_IPV6, AT_IPV6_STATE, AT_LAYOUT, AT_MAC, AT_MAGIC, AT_NEIGHBOURS,
    AT_PORTS, AT_ROUTES, AT_SEQUENCE, HAS_GATEWAY, LAYOUT, MAGIC, NEIGHBOUR_WORDS, Page, REACHABLE,
    ROUTE_WORDS, ROUTER, ROUTES_MAX, Route,
};
use crate::neighbours::{AddressState, Counters, NEIGHBOURS_MAX, Neighbour, Reachability};
use crate::ports::PORTS_MAX;
use crate::request::{self, Port};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{Ordering, fence};
use exos_net::MacAddress;

/// How often a reader starts again before it lets the writer run.
const TRIES: u32 = 16;

/// Why the page cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// It is not a guardian's.
    NotTables,
    /// It has another layout than [`LAYOUT`].
    OtherLayout {
        /// The one that it has.
        found: u64,
    },
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotTables => f.write_str("that page is not a guardian's"),
            Self::OtherLayout { found } => write!(
                f,
                "the guardian's tables have layout {found} and this program reads layout {LAYOUT}; build both from the same \
                 sources"
            ),
        }
    }
}

/// The tables were being written whenever they were looked at: let the guardian run, and look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changing;

/// A client's side of the page.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    page: &'a Page,
}

/// What the tables said at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The interface's IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the IPv4 prefix on the link.
    pub prefix_len: u8,
    /// The interface's Ethernet address.
    pub mac: MacAddress,
    /// The interface's link-local address.
    pub ipv6: Ipv6Addr,
    /// Whether that is to be used.
    pub ipv6_state: AddressState,
    /// What the guardian did not believe.
    pub counters: Counters,
    /// Ports and the environments that have them.
    pub ports: Vec<(Port, u32)>,
    /// Who is on the link.
    pub neighbours: Vec<Neighbour>,
    /// Where what is sent goes.
    pub routes: Vec<Route>,
}

impl<'a> Reader<'a> {
    /// Looks whether that is a page that can be read.
    pub fn open(page: &'a Page) -> Result<Self, OpenError> {
        let found = page[AT_LAYOUT].load(Ordering::Acquire);
        if page[AT_MAGIC].load(Ordering::Relaxed) != MAGIC {
            return Err(OpenError::NotTables);
        }
        if found != LAYOUT {
            return Err(OpenError::OtherLayout { found });
        }
        Ok(Self { page })
    }

    /// What changes with the tables, and costs a load: who has read them at this value need not read them again.
    pub fn sequence(&self) -> u64 {
        self.page[AT_SEQUENCE].load(Ordering::Acquire)
    }

    /// What they say now.
    pub fn snapshot(&self) -> Result<Snapshot, Changing> {
        for _ in 0..TRIES {
            let before = self.sequence();
            if before & 1 != 0 {
                continue;
            }
            let snapshot = self.read();
            fence(Ordering::Acquire);
            if self.page[AT_SEQUENCE].load(Ordering::Relaxed) == before {
                return Ok(snapshot);
            }
        }
        Err(Changing)
    }

    fn get<const N: usize>(&self, at: usize) -> [u64; N] {
        core::array::from_fn(|index| self.page.get(at + index).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    /// What is there, whole or not.
    fn read(&self) -> Snapshot {
        let [counts] = self.get(AT_COUNTS);
        let count = |shift: u32, max: usize| ((counts >> shift) as usize & 0xFFFF).min(max);
        let [interface, mac] = self.get(AT_INTERFACE);
        const { assert!(AT_MAC == AT_INTERFACE + 1 && AT_IPV6_STATE == AT_IPV6 + 2) }
        let [high, low, state] = self.get(AT_IPV6);
        let [malformed, hop_limit, checksum, unsupported, conflicts] = self.get(AT_COUNTERS);
        Snapshot {
            ip: Ipv4Addr::from_bits(interface as u32),
            prefix_len: (interface >> 32) as u8,
            mac: place(mac),
            ipv6: Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)),
            ipv6_state: match state {
                0 => AddressState::Tentative,
                1 => AddressState::Preferred,
                _ => AddressState::Duplicate,
            },
            counters: Counters { malformed, hop_limit, checksum, unsupported, conflicts },
            ports: (AT_PORTS..)
                .take(count(0, PORTS_MAX))
                .map(|at| {
                    let [word] = self.get(at);
                    (Port { protocol: (word >> 16) as u8, number: word as u16 }, (word >> 32) as u32)
                })
                .collect(),
            neighbours: (AT_NEIGHBOURS..)
                .step_by(NEIGHBOUR_WORDS)
                .take(count(16, 2 * NEIGHBOURS_MAX))
                .map(|at| {
                    let [high, low, last] = self.get(at);
                    Neighbour {
                        ip: request::ip(high, low),
                        mac: place(last),
                        router: last & ROUTER != 0,
                        reachability: if last & REACHABLE != 0 {
                            Reachability::Reachable
                        } else {
                            Reachability::Stale
                        },
                    }
                })
                .collect(),
            routes: (AT_ROUTES..)
                .step_by(ROUTE_WORDS)
                .take(count(32, ROUTES_MAX))
                .map(|at| {
                    let [high, low, kind, gateway_high, gateway_low] = self.get(at);
                    let gateway = request::ip(gateway_high, gateway_low);
                    Route {
                        prefix: request::ip(high, low),
                        prefix_len: kind as u8,
                        gateway: Some(gateway).filter(|_| kind & HAS_GATEWAY != 0),
                    }
                })
                .collect(),
        }
    }
}

impl Snapshot {
    /// Who on the link is given what is for an address: itself, or a gateway. `None`: there is no way.
    pub fn next_hop(&self, destination: impl Into<IpAddr>) -> Option<IpAddr> {
        let destination = destination.into();
        let leads = |route: &&Route| route.leads_to(destination);
        let best = self.routes.iter().filter(leads).max_by_key(|route| route.prefix_len)?;
        Some(best.gateway.unwrap_or(destination))
    }

    /// Where that is on the link. `None`: no way, or its place is not known yet.
    pub fn next_hop_mac(&self, destination: impl Into<IpAddr>) -> Option<MacAddress> {
        let hop = self.next_hop(destination)?;
        self.neighbours.iter().find(|neighbour| neighbour.ip == hop).map(|neighbour| neighbour.mac)
    }
}

impl Snapshot {
    /// Where the gateway of IPv4 is on the link, if there is one and that is known.
    pub fn gateway_mac(&self) -> Option<MacAddress> {
        let gateway = self.routes.iter().find_map(|route| route.gateway.filter(IpAddr::is_ipv4))?;
        self.next_hop_mac(gateway)
    }
}

/// An Ethernet address below whatever else the word holds.
fn place(word: u64) -> MacAddress {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    MacAddress([a, b, c, d, e, f])
}
