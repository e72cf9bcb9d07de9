//! TIME-WAIT (RFC 9293 3.10.7.4, 3.6.1): what is left of a connection that we closed first, as small records in a table
//! of their own. All last equally long, so the order of their making is the order of their end: they are in a list, and no
//! record has a timer.
//!
//! A record is found by one word. For IPv4 that is the connection's key. For IPv6 it is a keyed hash of addresses and ports,
//! so that no record holds 32 bytes of addresses: of the 2^31 pairs that 65,536 records make, two are the same in one of 2^30
//! tables, and nobody can look for such addresses without the secret. If it happens, the older record gives way, as it does
//! where there are too many; or a stranger's SYN counts as one of the connection before, and opens no later than the record
//! ends. No data goes wrong, since a record has none.

use core::hash::{BuildHasher, Hasher};

use alloc::vec::Vec;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::Seq;
use super::isn::{Flow, FlowHash};
use super::table::FlowKey;
use super::timestamps::TimestampState;
use crate::config::Config;
use crate::time::Instant;
use crate::wire::tcp::{Control, Segment};
use crate::wire::tcp_options::Timestamps;

/// Records come in pieces of so many: a table that grows moves none of them, and is never half empty.
const CHUNK: usize = 256;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeWaitRecord {
    /// SND.NXT, beyond our FIN.
    pub(crate) sequence: Seq,
    /// RCV.NXT, beyond the peer's FIN.
    pub(crate) acknowledgment: Seq,
    pub(crate) expires_at: Instant,
    pub(crate) timestamps: TimestampState,
}

impl TimeWaitRecord {
    /// RFC 6191 2: whether a SYN begins a new connection; by its timestamps where both connections have them, by its
    /// sequence number where that says nothing.
    fn is_succeeded_by(&self, syn: &Segment<'_>, now: Instant, config: &Config) -> bool {
        let timestamps = Timestamps::parse(syn.options).filter(|_| config.timestamps);
        let by_timestamps = self.timestamps.is_succeeded_by(timestamps, now);
        by_timestamps.unwrap_or_else(|| syn.sequence.is_after(self.acknowledgment))
    }
}

/// What a segment for a TIME-WAIT record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeWaitAnswer {
    /// Nothing.
    Ignore,
    /// An acknowledgment with these numbers.
    Acknowledge { sequence: Seq, acknowledgment: Seq, timestamps: Option<Timestamps> },
    /// A new connection may begin; its initial sequence number must lie after this one.
    Reopen { after: Seq },
}

/// What a record is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct FlowName(u64);

impl FlowName {
    fn is_ipv4(self) -> bool {
        FlowKey(self.0).pair().is_none()
    }
}

#[derive(Debug)]
struct Place {
    name: FlowName,
    record: TimeWaitRecord,
    /// The record that ends next, or the next place that nobody has.
    next: u32,
    previous: u32,
}

#[derive(Debug)]
pub(crate) struct TimeWaitTable {
    chunks: Vec<Vec<Place>>,
    /// Places of all records, by the hash of their names.
    places: HashTable<u32>,
    hash: FlowHash,
    /// Makes names of IPv6's addresses.
    naming: SipHasher13,
    /// The records that end first and last.
    first: u32,
    last: u32,
    /// Places that nobody has.
    free: u32,
    max: usize,
}

impl TimeWaitTable {
    pub(crate) fn new(max: usize, secret: [u8; 16]) -> Self {
        let mut naming = SipHasher13::new_with_key(&secret);
        naming.write(b"time-wait");
        Self {
            chunks: Vec::new(),
            places: HashTable::new(),
            hash: FlowHash::new(secret),
            naming,
            first: NONE,
            last: NONE,
            free: NONE,
            max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    #[inline]
    fn name(&self, flow: Flow) -> FlowName {
        match flow.pair {
            None => FlowName(flow.key.0),
            Some(_) => {
                let mut hasher = self.naming;
                flow.write(&mut hasher);
                let hash = hasher.finish();
                // Among the keys of IPv6, which no host of IPv4 has.
                FlowName(FlowKey::of_pair((hash >> 32) as u32, (hash >> 16) as u16, hash as u16).0)
            }
        }
    }

    fn at(&self, index: u32) -> &Place {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn at_mut(&mut self, index: u32) -> &mut Place {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }

    fn find(&self, name: FlowName) -> Option<u32> {
        self.places.find(self.hash.hash_one(name), |&index| self.at(index).name == name).copied()
    }

    /// Whether the flow is in TIME-WAIT.
    pub(crate) fn contains(&self, flow: Flow, now: Instant) -> bool {
        self.find(self.name(flow)).is_some_and(|index| self.at(index).record.expires_at > now)
    }

    /// Remembers a connection and returns how many others had to give way.
    pub(crate) fn insert(&mut self, flow: Flow, record: TimeWaitRecord) -> u64 {
        let name = self.name(flow);
        if let Some(older) = self.find(name) {
            self.remove(older);
        }
        if self.max == 0 {
            return 1;
        }
        let full = self.places.len() >= self.max;
        if full {
            self.remove(self.first);
        }
        let index = self.take_place(Place { name, record, next: NONE, previous: NONE });
        self.append(index);
        let (chunks, hash) = (&self.chunks, &self.hash);
        self.places.insert_unique(hash.hash_one(name), index, |&other| {
            hash.hash_one(chunks[other as usize / CHUNK][other as usize % CHUNK].name)
        });
        u64::from(full)
    }

    fn take_place(&mut self, place: Place) -> u32 {
        if self.free != NONE {
            let index = self.free;
            let free = self.at_mut(index);
            let next = core::mem::replace(free, place).next;
            self.free = next;
            return index;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK.min(self.max)));
        }
        let index = (self.chunks.len() - 1) * CHUNK;
        let Some(last) = self.chunks.last_mut() else { return NONE };
        last.push(place);
        (index + last.len() - 1) as u32
    }

    /// Puts a record that is in no list where it ends last.
    fn append(&mut self, index: u32) {
        let before = core::mem::replace(&mut self.last, index);
        let place = self.at_mut(index);
        (place.previous, place.next) = (before, NONE);
        match before {
            NONE => self.first = index,
            before => self.at_mut(before).next = index,
        }
    }

    fn unlink(&mut self, index: u32) {
        let &Place { next, previous, .. } = self.at(index);
        match previous {
            NONE => self.first = next,
            previous => self.at_mut(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.at_mut(next).previous = previous,
        }
    }

    fn remove(&mut self, index: u32) {
        self.unlink(index);
        let hash = self.hash.hash_one(self.at(index).name);
        if let Ok(place) = self.places.find_entry(hash, |&other| other == index) {
            place.remove();
        }
        let free = core::mem::replace(&mut self.free, index);
        self.at_mut(index).next = free;
    }

    /// RFC 9293 3.10.7.4 for TIME-WAIT. `None`: there is no record.
    pub(crate) fn segment_arrives(
        &mut self,
        flow: Flow,
        segment: &Segment<'_>,
        now: Instant,
        config: &Config,
    ) -> Option<TimeWaitAnswer> {
        if self.places.is_empty() {
            return None;
        }
        let index = self.find(self.name(flow))?;
        let record = self.at(index).record;
        if record.expires_at <= now {
            self.remove(index);
            return None;
        }
        match segment.control {
            // RFC 1337: an old RST must not end TIME-WAIT early.
            Control::Rst => return Some(TimeWaitAnswer::Ignore),
            Control::Syn
                if segment.acknowledgment.is_none() && record.is_succeeded_by(segment, now, config) =>
            {
                self.remove(index);
                return Some(TimeWaitAnswer::Reopen { after: record.sequence });
            }
            _ => {}
        }
        if segment.sequence_len() == 0 {
            return Some(TimeWaitAnswer::Ignore);
        }
        if segment.control == Control::Fin
            && segment.sequence + segment.sequence_len() == record.acknowledgment
        {
            // The peer's own, for which the last acknowledgment was lost: another 2 MSL. Anybody else's keeps no record here.
            self.at_mut(index).record.expires_at = now + config.time_wait;
            self.unlink(index);
            self.append(index);
        }
        Some(TimeWaitAnswer::Acknowledge {
            sequence: record.sequence,
            acknowledgment: record.acknowledgment,
            timestamps: record.timestamps.option(now),
        })
    }

    /// Forgets what has lasted long enough.
    #[inline]
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.next_deadline() <= now {
            self.remove(self.first);
        }
    }

    /// Our IPv4 address is gone.
    pub(crate) fn forget_ipv4(&mut self) {
        let mut index = self.first;
        while index != NONE {
            let &Place { name, next, .. } = self.at(index);
            if name.is_ipv4() {
                self.remove(index);
            }
            index = next;
        }
    }

    /// When the next record expires.
    #[inline]
    pub(crate) fn next_deadline(&self) -> Instant {
        if self.first == NONE { Instant::NEVER } else { self.at(self.first).record.expires_at }
    }

    /// What is always true of it.
    #[cfg(any(test, feature = "check"))]
    pub(crate) fn check(&self) {
        let (mut index, mut previous, mut count) = (self.first, NONE, 0);
        let mut at = Instant::ZERO;
        while index != NONE {
            let place = self.at(index);
            assert_eq!(place.previous, previous);
            assert!(place.record.expires_at >= at, "records are in the order of their end");
            assert_eq!(self.find(place.name), Some(index));
            (at, previous, index, count) = (place.record.expires_at, index, place.next, count + 1);
        }
        assert_eq!((self.last, self.len()), (previous, count));
        let mut free = self.free;
        while free != NONE {
            (free, count) = (self.at(free).next, count + 1);
        }
        assert_eq!(self.chunks.iter().map(Vec::len).sum::<usize>(), count, "no place is lost");
    }
}

#[cfg(test)]
mod tests;
