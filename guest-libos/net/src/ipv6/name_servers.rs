//! Servers for names that routers advertise (RFC 8106 5.1, 6), within a bound. Whoever asks for names reads them here; nobody of
//! this crate asks one.

use core::net::Ipv6Addr;

use alloc::vec::Vec;

use super::is_host;
use crate::time::Instant;

#[derive(Clone, Copy, Debug)]
struct NameServer {
    ip: Ipv6Addr,
    until: Instant,
}

#[derive(Debug)]
pub(crate) struct NameServers {
    /// In the order in which they became known.
    list: Vec<NameServer>,
    max: usize,
    /// How often one came or went.
    pub(super) changes: u32,
}

impl NameServers {
    pub(super) fn new(max: usize) -> Self {
        Self { list: Vec::new(), max, changes: 0 }
    }

    /// RFC 8106 6.2: a router says that `ip` may be asked until then, whichever router said something else before. Those that are
    /// known keep their places when there are too many, so that nobody's advertisement takes them from another's.
    pub(super) fn advertised(&mut self, ip: Ipv6Addr, until: Instant, now: Instant) {
        if let Some(known) = self.list.iter_mut().find(|known| known.ip == ip) {
            known.until = until;
        } else if until > now && self.list.len() < self.max && is_host(ip) {
            self.list.push(NameServer { ip, until });
            self.changes += 1;
        }
        self.expire(now);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.list.len();
        self.list.retain(|server| server.until > now);
        self.changes += (before - self.list.len()) as u32;
    }

    /// Those that may be asked, those known first before others.
    pub(crate) fn iter(&self, now: Instant) -> impl Iterator<Item = Ipv6Addr> + '_ {
        self.list.iter().filter(move |server| server.until > now).map(|server| server.ip)
    }

    /// # Panics
    /// If there are more than there may be.
    #[cfg(feature = "check")]
    pub(super) fn check(&self, most: usize) {
        assert!(self.list.len() <= most, "{} name servers", self.list.len());
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.list.iter().map(|server| server.until).min().unwrap_or(Instant::NEVER)
    }
}
