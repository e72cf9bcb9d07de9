//! Both IPv6 addresses of a connection as one small number, so that a [`FlowKey`] takes eight bytes in
//! either family and IPv4 pays nothing. All that have the same two addresses share the pair, which goes with the last one.

use core::hash::{Hash, Hasher};
use core::net::Ipv6Addr;

use alloc::vec::Vec;
use hashbrown::HashMap;

use super::isn::{Flow, FlowHash};
use super::table::FlowKey;

/// Our address and the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) local: Ipv6Addr,
    pub(crate) peer: Ipv6Addr,
}

impl Pair {
    fn words(self) -> [u64; 4] {
        let (local, peer) = (self.local.to_bits(), self.peer.to_bits());
        [(local >> 64) as u64, local as u64, (peer >> 64) as u64, peer as u64]
    }
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        for word in self.words() {
            hasher.write_u64(word);
        }
    }
}

#[derive(Debug)]
struct Slot {
    pair: Pair,
    /// Connections that have it.
    users: u32,
}

#[derive(Debug)]
pub(crate) struct Pairs {
    slots: Vec<Slot>,
    free: Vec<u32>,
    map: HashMap<Pair, u32, FlowHash>,
}

impl Pairs {
    pub(crate) fn new(hash: FlowHash) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), map: HashMap::with_hasher(hash) }
    }

    /// The number of a pair that somebody has.
    pub(crate) fn find(&self, pair: Pair) -> Option<u32> {
        self.map.get(&pair).copied()
    }

    /// The number of a pair, which is new if nobody has it. Whoever asks is one of its users, until
    /// [`Self::remove_user`].
    pub(crate) fn hold(&mut self, pair: Pair) -> u32 {
        if let Some(&number) = self.map.get(&pair) {
            self.slots[number as usize].users += 1;
            return number;
        }
        let slot = Slot { pair, users: 1 };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.map.insert(pair, number);
        number
    }

    /// The addresses behind a key, if it is one of IPv6's.
    pub(crate) fn get(&self, key: FlowKey) -> Option<Pair> {
        Some(self.slots.get(key.pair()? as usize)?.pair)
    }

    /// Both ends of the connection with this key.
    pub(crate) fn flow(&self, key: FlowKey) -> Flow {
        Flow { key, pair: self.get(key) }
    }

    /// One more has the pair of this key.
    pub(crate) fn add_user(&mut self, key: FlowKey) {
        if let Some(slot) = key.pair().and_then(|number| self.slots.get_mut(number as usize)) {
            slot.users += 1;
        }
    }

    /// One less has it; the last one forgets it.
    pub(crate) fn remove_user(&mut self, key: FlowKey) {
        let Some(number) = key.pair() else { return };
        let Some(slot) = self.slots.get_mut(number as usize) else { return };
        slot.users -= 1;
        if slot.users == 0 {
            self.map.remove(&slot.pair);
            self.free.push(number);
        }
    }

    /// Pairs that somebody has.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// # Panics
    /// If a pair has other users than the connections with these keys, or is forgotten and still there.
    #[cfg(feature = "check")]
    pub(crate) fn check(&self, keys: impl Iterator<Item = FlowKey>) {
        let mut users = alloc::vec![0; self.slots.len()];
        keys.filter_map(|key| key.pair()).for_each(|number| users[number as usize] += 1);
        let counted: Vec<u32> = self.slots.iter().map(|slot| slot.users).collect();
        assert_eq!(counted, users, "users of pairs of addresses");
        assert_eq!(self.len() + self.free.len(), self.slots.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(last: u16) -> Pair {
        Pair { local: Ipv6Addr::LOCALHOST, peer: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last) }
    }

    fn table() -> Pairs {
        Pairs::new(FlowHash::new([1; 16]))
    }

    #[test]
    fn pair_is_shared_and_goes_with_its_last_user() {
        let mut pairs = table();
        let first = FlowKey::of_pair(pairs.hold(pair(1)), 1_000, 80);
        let second = FlowKey::of_pair(pairs.hold(pair(1)), 1_001, 80);
        pairs.add_user(second);
        assert_eq!((pairs.len(), pairs.get(second)), (1, Some(pair(1))));
        pairs.remove_user(first);
        pairs.remove_user(second);
        assert_eq!(pairs.find(pair(1)), second.pair());
        pairs.remove_user(second);
        assert_eq!((pairs.find(pair(1)), pairs.len()), (None, 0));
        // Its number is another pair's now.
        assert_eq!((pairs.hold(pair(2)), pairs.slots.len()), (0, 1));
    }

    #[test]
    fn keys_of_ipv4_have_no_pair() {
        let key = FlowKey::new([223, 255, 255, 255].into(), 1, 2);
        let mut pairs = table();
        pairs.hold(pair(1));
        pairs.add_user(key);
        pairs.remove_user(key);
        assert_eq!((key.pair(), pairs.get(key), pairs.len()), (None, None, 1));
    }
}
