//! Path MTUs that were learned (RFC 1191 6.3): by destination, so that what one connection learned serves all, and for ten
//! minutes, after which the path may have become wider. A message that quoted a TCP segment on its way is proven as well as
//! anything can be; others are hints, good enough for datagrams, whose sender nobody can know.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::time::{Duration, Instant};

/// RFC 1191 6.3: after so long a larger size is tried.
const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    destination: IpAddr,
    mtu: u16,
    proven: bool,
    expires_at: Instant,
}

#[derive(Debug)]
pub(crate) struct PathMtus {
    /// In order of expiry.
    entries: Vec<Entry>,
    max: usize,
}

impl PathMtus {
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: Vec::new(), max }
    }

    #[cfg(feature = "check")]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was learned.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Packets to `destination` must not be larger than `mtu`. Returns whether that is news. When there are too many
    /// destinations the one that would be forgotten next gives way.
    pub(crate) fn learn(&mut self, destination: IpAddr, mtu: u16, proven: bool, now: Instant) -> bool {
        let same = |entry: &Entry| entry.destination == destination && entry.proven == proven;
        if let Some(index) = self.entries.iter().position(same) {
            if self.entries[index].expires_at > now && self.entries[index].mtu <= mtu {
                return false;
            }
            self.entries.remove(index);
        }
        if self.max == 0 {
            return false;
        }
        if self.entries.len() >= self.max {
            // Hints give way first, or whoever makes them up pushes out what is proven.
            let hint = self.entries.iter().position(|entry| !entry.proven);
            self.entries.remove(hint.unwrap_or(0));
        }
        self.entries.push(Entry { destination, mtu, proven, expires_at: now + LIFETIME });
        true
    }

    fn find(&self, destination: IpAddr, now: Instant, which: impl Fn(&Entry) -> bool) -> Option<u16> {
        let of_destination = self.entries.iter().filter(|entry| entry.destination == destination);
        of_destination.filter(|entry| entry.expires_at > now && which(entry)).map(|entry| entry.mtu).min()
    }

    /// What connections to `destination` keep to.
    pub(crate) fn proven(&self, destination: IpAddr, now: Instant) -> Option<u16> {
        self.find(destination, now, |entry| entry.proven)
    }

    /// What datagrams to `destination` keep to.
    pub(crate) fn hint(&self, destination: IpAddr, now: Instant) -> Option<u16> {
        self.find(destination, now, |_| true)
    }

    /// A destination whose path may be wider again.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<IpAddr> {
        if self.next_deadline() > now {
            return None;
        }
        Some(self.entries.remove(0).destination)
    }

    /// When [`Self::expire`] has something to do.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.entries.first().map_or(Instant::NEVER, |entry| entry.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn host(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    const fn at(secs: u64) -> Instant {
        Instant::from_millis(secs * 1_000)
    }

    #[test]
    fn path_mtu_only_falls_until_it_is_ten_minutes_old() {
        let mut mtus = PathMtus::new(4);
        assert!(mtus.learn(host(2), 1_400, true, at(0)));
        assert!(!mtus.learn(host(2), 1_450, true, at(1)));
        assert!(mtus.learn(host(2), 1_000, true, at(10)));
        assert_eq!((mtus.proven(host(2), at(609)), mtus.proven(host(2), at(610))), (Some(1_000), None));
        assert_eq!((mtus.expire(at(609)), mtus.expire(at(610))), (None, Some(host(2))));
        assert_eq!(mtus.next_deadline(), Instant::NEVER);
    }

    #[test]
    fn hints_do_not_bind_connections_and_give_way_first() {
        let mut mtus = PathMtus::new(3);
        mtus.learn(host(2), 1_000, true, at(0));
        for last in 3..50 {
            mtus.learn(host(last), 576, false, at(1));
        }
        mtus.learn(host(2), 576, false, at(1));
        assert_eq!((mtus.proven(host(2), at(2)), mtus.hint(host(2), at(2))), (Some(1_000), Some(576)));
        assert_eq!((mtus.hint(host(3), at(2)), mtus.hint(host(49), at(2))), (None, Some(576)));
        assert!(mtus.entries.len() <= 3);
    }
}
