//! Which frame to throw out: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction",
//! SOSP 2023). New frames go to a small queue; only those that are used again there reach the main one, so a scan passes
//! through without displacing what is in use. A ghost list of keys that left the small queue lately lets those that come
//! back go to the main queue at once. A hit is a saturating increment and moves nothing, which is why it is this and not
//! LRU or ARC; the hit rates are printed by the example `hit-rates`.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::Cell;
use core::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashSet;

/// The small queue's share of all places.
const SMALL_SHARE: usize = 10;
/// Uses beyond this are not counted.
const MAX_USES: u8 = 3;

/// The queues, over places that are numbered from 0.
#[derive(Debug)]
pub struct Policy {
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    ghost: Ghost,
    /// Uses of each place since it came or was last passed over.
    uses: Vec<Cell<u8>>,
    small_target: usize,
}

/// What may happen to a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It can be thrown out; this is its key.
    Key(u64),
    /// It holds nothing: it can be taken, and there is nothing to remember.
    Empty,
    /// Somebody uses it.
    InUse,
    /// Somebody is about to use it. Said once of what it holds.
    Awaited,
}

impl Policy {
    /// For up to `capacity` places.
    pub fn new(capacity: usize) -> Policy {
        Policy {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: Ghost::new(capacity - capacity / SMALL_SHARE),
            uses: Vec::new(),
            small_target: (capacity / SMALL_SHARE).max(1),
        }
    }

    /// A place was used.
    #[inline]
    pub fn used(&self, place: u32) {
        if let Some(uses) = self.uses.get(place as usize) {
            uses.set((uses.get() + 1).min(MAX_USES));
        }
    }

    /// A place holds `key` from now on. It is either new or was the last victim.
    pub fn inserted(&mut self, place: u32, key: u64) {
        if self.uses.len() <= place as usize {
            self.uses.resize(place as usize + 1, Cell::new(0));
        }
        self.uses[place as usize].set(0);
        if self.ghost.take(key) {
            self.main.push_front(place);
        } else {
            self.small.push_front(place);
        }
    }

    /// These places are taken for good, wherever they are in the queues.
    pub fn forget(&mut self, goes: impl Fn(u32) -> bool) {
        self.small.retain(|&place| !goes(place));
        self.main.retain(|&place| !goes(place));
    }

    /// The place to be taken next, which leaves the queues; `None` if all are in use.
    pub fn victim(&mut self, fate: impl Fn(u32) -> Fate) -> Option<u32> {
        // Each place can be passed over once for each use that was counted, and once for being in use or awaited.
        let mut patience = (self.small.len() + self.main.len()) * (3 + usize::from(MAX_USES));
        while patience > 0 {
            patience -= 1;
            let from_small = self.small.len() > self.small_target || self.main.is_empty();
            let place = if from_small { self.small.pop_back()? } else { self.main.pop_back()? };
            let uses = &self.uses[place as usize];
            match fate(place) {
                // From either queue: whoever uses it longer than it takes to get here will do so for a while, and the
                // small queue should not be searched for others again and again.
                Fate::InUse | Fate::Awaited => self.main.push_front(place),
                Fate::Empty => return Some(place),
                Fate::Key(key) if from_small => {
                    if uses.replace(0) == 0 {
                        self.ghost.insert(key);
                        return Some(place);
                    }
                    self.main.push_front(place);
                }
                Fate::Key(_) => match uses.get() {
                    0 => return Some(place),
                    left => {
                        uses.set(left - 1);
                        self.main.push_front(place);
                    }
                },
            }
        }
        None
    }
}

/// Keys that left the small queue lately, the oldest forgotten first.
#[derive(Debug)]
struct Ghost {
    order: VecDeque<u64>,
    keys: HashSet<u64, KeyHash>,
    capacity: usize,
}

impl Ghost {
    fn new(capacity: usize) -> Ghost {
        Ghost { order: VecDeque::new(), keys: HashSet::default(), capacity }
    }

    fn insert(&mut self, key: u64) {
        self.keys.insert(key);
        self.order.push_back(key);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }

    /// Whether the key is there. It is forgotten with this; its place in the order goes when its time comes, and should
    /// it have come back by then, it is forgotten a little early.
    fn take(&mut self, key: u64) -> bool {
        self.keys.remove(&key)
    }
}

/// Hashes the numbers of frames, which are chosen by whoever made the volume and not by clients, with one multiplication.
pub(crate) type KeyHash = BuildHasherDefault<KeyHasher>;

/// See [`KeyHash`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio. Both halves of the product are used: the table takes bits from both ends.
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// A policy whose places are all taken, and what they hold.
    fn full(capacity: usize) -> (Policy, Vec<u64>) {
        let mut policy = Policy::new(capacity);
        let keys: Vec<u64> = (0..capacity as u64).collect();
        for &key in &keys {
            policy.inserted(key as u32, key);
        }
        (policy, keys)
    }

    /// Makes room for a key; which one went.
    fn replace(policy: &mut Policy, keys: &mut [u64], key: u64) -> u64 {
        let place = policy.victim(|place| Fate::Key(keys[place as usize])).expect("none is in use");
        policy.inserted(place, key);
        core::mem::replace(&mut keys[place as usize], key)
    }

    fn replace_with(policy: &mut Policy, keys: &mut [u64], scan: core::ops::Range<u64>) {
        for key in scan {
            replace(policy, keys, key);
        }
    }

    #[test]
    fn key_that_comes_back_soon_outlives_a_scan() {
        let (mut policy, mut keys) = full(100);
        assert_eq!(replace(&mut policy, &mut keys, 1_000), 0, "first in, first out");
        replace(&mut policy, &mut keys, 0);
        replace_with(&mut policy, &mut keys, 2_000..2_300);
        assert!(keys.contains(&0) && !keys.contains(&1_000));
    }

    #[test]
    fn key_that_was_used_outlives_a_scan_and_not_for_ever() {
        let (mut policy, mut keys) = full(100);
        policy.used(7);
        replace_with(&mut policy, &mut keys, 1_000..1_300);
        assert!(keys.contains(&7));
        // All others are used as well from now on.
        for key in 2_000..3_000 {
            (0..100).filter(|place| keys[*place as usize] != 7).for_each(|place| policy.used(place));
            replace(&mut policy, &mut keys, key);
        }
        assert!(!keys.contains(&7));
    }

    #[test]
    fn keys_that_went_are_remembered_in_bounded_memory() {
        let (mut policy, mut keys) = full(100);
        replace_with(&mut policy, &mut keys, 1_000..20_000);
        assert!(policy.ghost.order.len() <= 100 && policy.ghost.keys.len() <= 100);
        assert_eq!(policy.small.len() + policy.main.len(), 100);
    }

    #[test]
    fn victim_of_places_in_use_is_none_and_nothing_is_lost() {
        let (mut policy, keys) = full(20);
        assert_eq!(policy.victim(|_| Fate::InUse), None);
        let mut seen = vec![false; 20];
        while let Some(place) = policy.victim(|place| Fate::Key(keys[place as usize])) {
            assert!(!core::mem::replace(&mut seen[place as usize], true));
        }
        assert!(seen.into_iter().all(|seen| seen));
    }
}
