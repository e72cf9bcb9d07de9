//! Which hardware address is behind which port: a switch's table, learned from the sources of frames (IEEE 802.1Q 8.7).
//!
//! Bounded, and without a lock: a word an address, in sets of eight. What threads do to one set at the same time may cost an
//! entry, never more: its address is learned again with the next frame from it, and until then its frames go to all ports.
//!
//! A port that floods the table with sources replaces its own entries first: it has at most two of a set that is full.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Entries of a set: a cache line of words.
const WAYS: usize = 8;
/// Sets.
const SETS: usize = 256;
/// Addresses that a switch remembers.
pub const ADDRESSES_MAX: usize = WAYS * SETS;
/// Entries of a set that is full which one port may have.
const WAYS_OF_A_PORT: usize = 2;
/// How long an address is remembered that nothing comes from (IEEE 802.1Q 8.8.3).
pub const AGEING_S: u32 = 300;

/// Address in the upper 48 bits, port above a bit that says that the entry is used.
const USED: u64 = 1;

/// A set of entries, and when each was last seen.
#[derive(Debug)]
#[repr(align(64))]
struct Set {
    entries: [AtomicU64; WAYS],
    seen_s: [AtomicU32; WAYS],
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[Set]>,
    /// Keyed, so that nobody chooses addresses that share a set.
    hasher: RandomState,
}

fn entry(mac: [u8; 6], port: u8) -> u64 {
    let [a, b, c, d, e, f] = mac;
    u64::from_be_bytes([a, b, c, d, e, f, port, 0]) | USED
}

fn port_of(entry: u64) -> u8 {
    (entry >> 8) as u8
}

impl Table {
    pub(super) fn new() -> Self {
        let set = || Set {
            entries: [const { AtomicU64::new(0) }; WAYS],
            seen_s: [const { AtomicU32::new(0) }; WAYS],
        };
        Self { sets: (0..SETS).map(|_| set()).collect(), hasher: RandomState::new() }
    }

    #[inline]
    fn set(&self, mac: [u8; 6]) -> &Set {
        &self.sets[self.hasher.hash_one(mac) as usize % SETS]
    }

    /// The port behind which an address is, if that is known and not too old.
    #[inline]
    pub(super) fn find(&self, mac: [u8; 6], now_s: u32) -> Option<u8> {
        let set = self.set(mac);
        let sought = entry(mac, 0) & !0xFF00;
        (0..WAYS).find_map(|way| {
            let found = set.entries[way].load(Ordering::Relaxed);
            let fresh = now_s.wrapping_sub(set.seen_s[way].load(Ordering::Relaxed)) < AGEING_S;
            (found & !0xFF00 == sought && fresh).then(|| port_of(found))
        })
    }

    /// A frame came from this address at this port. Group addresses are nobody's source.
    #[inline]
    pub(super) fn learn(&self, mac: [u8; 6], port: u8, now_s: u32) {
        if mac[0] & 1 != 0 {
            return;
        }
        let set = self.set(mac);
        let new = entry(mac, port);
        let mut known = false;
        for way in 0..WAYS {
            let old = set.entries[way].load(Ordering::Relaxed);
            if old & !0xFF00 != new & !0xFF00 {
                continue;
            }
            if known {
                // Two threads learned it at once.
                set.entries[way].store(0, Ordering::Relaxed);
                continue;
            }
            known = true;
            if old != new {
                set.entries[way].store(new, Ordering::Relaxed);
            }
            if set.seen_s[way].load(Ordering::Relaxed) != now_s {
                set.seen_s[way].store(now_s, Ordering::Relaxed);
            }
        }
        if !known {
            self.insert(set, new, now_s);
        }
    }

    #[cold]
    fn insert(&self, set: &Set, new: u64, now_s: u32) {
        let entries: [u64; WAYS] = std::array::from_fn(|way| set.entries[way].load(Ordering::Relaxed));
        let age_s: [u32; WAYS] =
            std::array::from_fn(|way| now_s.wrapping_sub(set.seen_s[way].load(Ordering::Relaxed)));
        let oldest =
            |of: &dyn Fn(usize) -> bool| (0..WAYS).filter(|&way| of(way)).max_by_key(|&way| age_s[way]);
        let is_own = |way: usize| entries[way] & USED != 0 && port_of(entries[way]) == port_of(new);
        let own = (0..WAYS).filter(|&way| is_own(way)).count();
        let free = oldest(&|way| entries[way] & USED == 0 || age_s[way] >= AGEING_S);
        let place = match free {
            Some(way) if own < WAYS_OF_A_PORT => Some(way),
            _ if own >= WAYS_OF_A_PORT => oldest(&is_own),
            _ => oldest(&|_| true),
        };
        if let Some(way) = place {
            set.entries[way].store(new, Ordering::Relaxed);
            set.seen_s[way].store(now_s, Ordering::Relaxed);
        }
    }

    /// Forgets what is behind a port: its cable was pulled.
    pub(super) fn forget(&self, port: u8) {
        for entry in self.sets.iter().flat_map(|set| &set.entries) {
            if entry.load(Ordering::Relaxed) & USED != 0 && port_of(entry.load(Ordering::Relaxed)) == port {
                entry.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u32) -> [u8; 6] {
        let [a, b, c, d] = number.to_be_bytes();
        [2, 0, a, b, c, d]
    }

    #[test]
    fn address_is_where_it_was_last_seen_until_it_is_too_old() {
        let table = Table::new();
        assert_eq!(table.find(mac(1), 0), None);
        table.learn(mac(1), 3, 10);
        assert_eq!(table.find(mac(1), 10), Some(3));
        table.learn(mac(1), 5, 20);
        assert_eq!(table.find(mac(1), 20 + AGEING_S - 1), Some(5));
        assert_eq!(table.find(mac(1), 20 + AGEING_S), None);
        table.learn(mac(1), 5, 20 + AGEING_S);
        assert_eq!(table.find(mac(1), 20 + AGEING_S), Some(5));
        table.forget(5);
        assert_eq!(table.find(mac(1), 20 + AGEING_S), None);
    }

    #[test]
    fn group_address_is_not_learned() {
        let table = Table::new();
        table.learn([1, 0, 0, 0, 0, 9], 3, 0);
        assert_eq!(table.find([1, 0, 0, 0, 0, 9], 0), None);
    }

    #[test]
    fn flood_of_sources_from_one_port_forgets_nobody_elses_address() {
        let table = Table::new();
        for number in 0..100 {
            table.learn(mac(number), 1, 0);
        }
        let known = |port| (0..100).filter(|&number| table.find(mac(number), 9) == Some(port)).count();
        // A port may have two of a set, so some of a hundred in 256 sets may have lost their place already.
        let before = known(1);
        assert!(before > 90, "{before}");
        for number in 1000..101_000 {
            table.learn(mac(number), 2, 9);
        }
        assert_eq!(known(1), before);
        let flooded = (1000..101_000).filter(|&number| table.find(mac(number), 9).is_some()).count();
        assert!(flooded <= WAYS_OF_A_PORT * SETS, "{flooded}");
    }
}
