//! Routers that advertise themselves and prefixes that they say are on the link (RFC 4861 5.1, 6.3.4), within bounds.

use core::net::Ipv6Addr;

use alloc::vec::Vec;

use crate::time::Instant;

#[derive(Clone, Copy, Debug)]
struct Router {
    ip: Ipv6Addr,
    until: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Prefix {
    prefix: Ipv6Addr,
    len: u8,
    until: Instant,
}

impl Prefix {
    fn contains(&self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
        (address.to_bits() ^ self.prefix.to_bits()) & mask == 0
    }
}

#[derive(Debug)]
pub(crate) struct Routers {
    /// Those that were given first.
    routers: Vec<Router>,
    prefixes: Vec<Prefix>,
    max_routers: usize,
    max_prefixes: usize,
}

impl Routers {
    pub(crate) fn new(max_routers: usize, max_prefixes: usize, gateway: Option<Ipv6Addr>) -> Self {
        let routers: Vec<_> = gateway.map(|ip| Router { ip, until: Instant::NEVER }).into_iter().collect();
        Self { max_routers: max_routers + routers.len(), routers, prefixes: Vec::new(), max_prefixes }
    }

    /// A prefix that was given; it does not count against the bound.
    pub(crate) fn add_prefix(&mut self, prefix: Ipv6Addr, len: u8) {
        self.prefixes.push(Prefix { prefix, len, until: Instant::NEVER });
        self.max_prefixes += 1;
    }

    /// `ip` advertises itself as a router until then; what was given stays.
    pub(crate) fn advertised(&mut self, ip: Ipv6Addr, until: Instant, now: Instant) {
        if let Some(router) = self.routers.iter_mut().find(|router| router.ip == ip) {
            if router.until != Instant::NEVER {
                router.until = until;
            }
        } else if self.routers.len() < self.max_routers {
            self.routers.push(Router { ip, until });
        }
        self.expire(now);
    }

    /// RFC 4861 7.2.5: it says that it is no router any more.
    pub(crate) fn is_host(&mut self, ip: Ipv6Addr) {
        self.routers.retain(|router| router.ip != ip || router.until == Instant::NEVER);
    }

    /// A router says that a prefix is on the link until then.
    pub(crate) fn prefix_advertised(&mut self, prefix: Ipv6Addr, len: u8, until: Instant, now: Instant) {
        let new = Prefix { prefix, len, until };
        let same = |known: &&mut Prefix| known.len == len && known.contains(prefix);
        if let Some(known) = self.prefixes.iter_mut().find(same) {
            if known.until != Instant::NEVER {
                known.until = until;
            }
        } else if self.prefixes.len() < self.max_prefixes {
            self.prefixes.push(new);
        }
        self.expire(now);
    }

    pub(crate) fn is_on_link(&self, address: Ipv6Addr) -> bool {
        self.prefixes.iter().any(|prefix| prefix.contains(address))
    }

    /// RFC 4861 6.3.6: a router that is known to be there, or else any.
    pub(crate) fn choose(&self, is_reachable: impl Fn(Ipv6Addr) -> bool) -> Option<Ipv6Addr> {
        let reachable = self.routers.iter().find(|router| is_reachable(router.ip));
        reachable.or(self.routers.first()).map(|router| router.ip)
    }

    pub(crate) fn contains(&self, ip: Ipv6Addr) -> bool {
        self.routers.iter().any(|router| router.ip == ip)
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.routers.retain(|router| router.until > now);
        self.prefixes.retain(|prefix| prefix.until > now);
    }

    /// # Panics
    /// If there are more than there may be.
    #[cfg(feature = "check")]
    pub(super) fn check(&self, (routers, prefixes): (usize, usize)) {
        assert!(self.routers.len() <= routers, "{} routers", self.routers.len());
        assert!(self.prefixes.len() <= prefixes, "{} prefixes", self.prefixes.len());
    }

    pub(crate) fn next_deadline(&self) -> Instant {
        let routers = self.routers.iter().map(|router| router.until);
        routers.chain(self.prefixes.iter().map(|prefix| prefix.until)).min().unwrap_or(Instant::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_beyond_the_bound_are_ignored_and_what_was_given_does_not_count() {
        let prefix = |number: u16| Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, 0);
        let mut routers = Routers::new(1, 2, None);
        routers.add_prefix(prefix(9), 48);
        for number in 1..5 {
            routers.prefix_advertised(prefix(number), 48, Instant::from_millis(9), Instant::ZERO);
        }
        let known: Vec<_> = (1..10).filter(|&number| routers.is_on_link(prefix(number))).collect();
        assert_eq!(known, [1, 2, 9]);
        routers.expire(Instant::from_millis(9));
        assert!(!routers.is_on_link(prefix(1)) && routers.is_on_link(prefix(9)));
    }

    const GIVEN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    const SOON: Instant = Instant::from_millis(9);

    fn router(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last)
    }

    #[test]
    fn what_was_given_stays_whatever_is_advertised_and_takes_no_place() {
        let mut routers = Routers::new(1, 0, Some(GIVEN));
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
        routers.add_prefix(prefix, 64);
        routers.advertised(GIVEN, Instant::ZERO, Instant::ZERO);
        routers.prefix_advertised(prefix, 64, Instant::ZERO, Instant::ZERO);
        routers.is_host(GIVEN);
        assert!(routers.contains(GIVEN) && routers.is_on_link(prefix));
        routers.advertised(router(2), SOON, Instant::ZERO);
        routers.advertised(router(3), SOON, Instant::ZERO);
        assert_eq!([1, 2, 3].map(|last| routers.contains(router(last))), [true, true, false]);
        // Who can be reached is preferred.
        assert_eq!(routers.choose(|ip| ip == router(2)), Some(router(2)));
        assert_eq!(routers.choose(|_| false), Some(GIVEN));
        assert_eq!(routers.next_deadline(), SOON);
        routers.advertised(router(2), Instant::ZERO, Instant::ZERO);
        assert!(!routers.contains(router(2)));
    }

    #[test]
    fn prefixes_of_different_lengths_have_each_their_time() {
        let mut routers = Routers::new(1, 2, None);
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);
        routers.prefix_advertised(prefix, 48, Instant::from_millis(20), Instant::ZERO);
        routers.prefix_advertised(prefix, 64, SOON, Instant::ZERO);
        assert_eq!(routers.next_deadline(), SOON);
        routers.prefix_advertised(prefix, 64, Instant::ZERO, Instant::ZERO);
        assert_eq!((routers.is_on_link(prefix), routers.next_deadline()), (true, Instant::from_millis(20)));
    }
}
