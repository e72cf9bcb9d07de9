//! The page that the guardian writes and everybody reads: whose port is whose, who is on the link, where what is sent goes.
//!
//! Its layout is that of [`LAYOUT`]; a reader that was built for another one says so and reads nothing. A sequence lock keeps what is read
//! whole: the writer makes the sequence odd, writes, and makes it even; a reader that saw an odd one, or two different ones, starts
//! again.
//!
//! Addresses are 128 bits, IPv4 as IPv4-mapped IPv6, so that there is one table of neighbours and one of routes for both.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use crate::neighbours::NEIGHBOURS_MAX;
use crate::ports::PORTS_MAX;
use core::net::{IpAddr, Ipv6Addr};
use core::sync::atomic::AtomicU64;
pub use reader::{Changing, OpenError, Reader, Snapshot};
pub use writer::{Link, Writer};

/// Version of the layout.
pub const LAYOUT: u64 = 2;
/// Words of the page.
pub const WORDS: usize = 512;
/// The page.
pub type Page = [AtomicU64; WORDS];

/// "exosgrd1", little endian.
const MAGIC: u64 = u64::from_le_bytes(*b"exosgrd1");
/// Routes at most.
const ROUTES_MAX: usize = 8;

/// Words: what it is, the layout, the sequence, the interface, how many there are of each, the counters.
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 1;
const AT_SEQUENCE: usize = 2;
const AT_INTERFACE: usize = 3;
const AT_MAC: usize = 4;
const AT_COUNTS: usize = 5;
const AT_IPV6: usize = 6;
const AT_IPV6_STATE: usize = 8;
const AT_COUNTERS: usize = 9;
const COUNTERS: usize = 5;
const AT_PORTS: usize = 16;
const AT_NEIGHBOURS: usize = AT_PORTS + PORTS_MAX;
/// Address, place and state.
const NEIGHBOUR_WORDS: usize = 3;
const AT_ROUTES: usize = AT_NEIGHBOURS + NEIGHBOUR_WORDS * 2 * NEIGHBOURS_MAX;
/// Prefix, its length, gateway.
const ROUTE_WORDS: usize = 5;
const _: () = assert!(AT_ROUTES + ROUTE_WORDS * ROUTES_MAX <= WORDS && AT_COUNTERS + COUNTERS <= AT_PORTS);

/// A neighbour's third word, above its Ethernet address: it answered a moment ago; it is a router.
const REACHABLE: u64 = 1 << 48;
const ROUTER: u64 = 1 << 49;
/// A route's third word, above the length of its prefix: it has a gateway.
const HAS_GATEWAY: u64 = 1 << 16;

/// A way for what is not the interface's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub prefix: IpAddr,
    /// Length of that in bits.
    pub prefix_len: u8,
    /// Who is given the frame; `None`: the destination itself is on the link.
    pub gateway: Option<IpAddr>,
}

impl Route {
    /// Whether it leads to an address.
    fn leads_to(&self, destination: IpAddr) -> bool {
        let (prefix, destination, bits) = match (self.prefix, destination) {
            (IpAddr::V4(prefix), IpAddr::V4(ip)) => (prefix.to_bits().into(), ip.to_bits().into(), 32u32),
            (IpAddr::V6(prefix), IpAddr::V6(ip)) => (prefix.to_bits(), ip.to_bits(), 128),
            _ => return false,
        };
        let differ: u128 = prefix ^ destination;
        differ.checked_shr(bits.saturating_sub(self.prefix_len.into())).unwrap_or(0) == 0
    }
}

/// The link-local prefix of every link.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
