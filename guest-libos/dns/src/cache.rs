//! What servers said, for as long as they said (RFC 1035 3.2.1, RFC 2308), of a bounded number of names.

use core::net::IpAddr;

use alloc::vec::Vec;

use exos_net::{Duration, Instant};

use crate::message::{Family, Host};
use crate::resolver::Failure;

#[derive(Debug)]
struct Entry {
    name: Host,
    family: Family,
    result: Result<Vec<IpAddr>, Failure>,
    expires_at: Instant,
}

#[derive(Debug)]
pub(crate) struct Cache {
    entries: Vec<Entry>,
    max: usize,
}

impl Cache {
    pub(crate) fn new(max: usize) -> Self {
        Self { entries: Vec::new(), max }
    }

    pub(crate) fn find(
        &self,
        now: Instant,
        name: &Host,
        family: Family,
    ) -> Option<&Result<Vec<IpAddr>, Failure>> {
        let mut entries = self.entries.iter();
        let entry = entries.find(|entry| entry.family == family && entry.name == *name)?;
        (entry.expires_at > now).then_some(&entry.result)
    }

    /// Remembers a result for `ttl`. If there are too many, the one that ends first gives way.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        name: Host,
        family: Family,
        result: Result<Vec<IpAddr>, Failure>,
        ttl: Duration,
    ) {
        self.entries
            .retain(|entry| entry.expires_at > now && !(entry.family == family && entry.name == name));
        if ttl == Duration::ZERO || self.max == 0 {
            return;
        }
        if self.entries.len() >= self.max {
            let ends = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.expires_at);
            if let Some((first, _)) = ends {
                self.entries.swap_remove(first);
            }
        }
        self.entries.push(Entry { name, family, result, expires_at: now + ttl });
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}
