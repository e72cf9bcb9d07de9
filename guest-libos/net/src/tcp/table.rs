//! The connection table: a slab of connections, and a keyed hash from addresses to its places, which has numbers only: the
//! addresses are the connection's.

use core::hash::BuildHasher;
use core::net::Ipv4Addr;

use alloc::vec::Vec;
use hashbrown::HashTable;

use super::connection::Connection;
use super::isn::FlowHash;
use super::pairs::Pairs;
use crate::data::Data;
use crate::events::ConnId;

/// IPv6 pairs have the addresses that no IPv4 host can have (RFC 1122 3.2.1.3, classes D and E).
const PAIR_BITS: u32 = 0xe000_0000;

/// A connection's addresses in one word: peer address, peer port, our port. Our IPv4 address is always the same; for IPv6
/// the number of both addresses, see [`Pairs`], takes the place of the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey(pub(crate) u64);

impl FlowKey {
    #[inline]
    pub(crate) fn new(peer: Ipv4Addr, peer_port: u16, local_port: u16) -> Self {
        Self(u64::from(peer.to_bits()) << 32 | u64::from(peer_port) << 16 | u64::from(local_port))
    }

    /// The key of two IPv6 addresses, by the number of their pair.
    pub(crate) fn of_pair(number: u32, peer_port: u16, local_port: u16) -> Self {
        Self::new(Ipv4Addr::from_bits(PAIR_BITS | number), peer_port, local_port)
    }

    /// The peer's address, if it is IPv4's.
    pub(crate) fn peer_v4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits((self.0 >> 32) as u32)
    }

    /// The number of the pair of IPv6 addresses, if it is one.
    pub(crate) fn pair(self) -> Option<u32> {
        let number = (self.0 >> 32) as u32;
        (number >= PAIR_BITS).then_some(number & !PAIR_BITS)
    }

    /// The same with another port of ours.
    pub(crate) fn with_local_port(self, local_port: u16) -> Self {
        Self(self.0 & !0xffff | u64::from(local_port))
    }

    pub(crate) fn peer_port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    pub(crate) fn local_port(self) -> u16 {
        self.0 as u16
    }
}

#[derive(Debug)]
struct Slot<D> {
    generation: u32,
    connection: Option<Connection<D>>,
}

impl<D> Slot<D> {
    fn has(&self, key: FlowKey) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.key == key)
    }
}

#[derive(Debug)]
pub(crate) struct Table<D> {
    slots: Vec<Slot<D>>,
    free: Vec<u32>,
    /// Places of all connections, by the hash of their keys.
    places: HashTable<u32>,
    hash: FlowHash,
    pub(crate) pairs: Pairs,
}

impl<D: Data> Table<D> {
    pub(crate) fn new(hash: FlowHash) -> Self {
        let pairs = Pairs::new(hash.clone());
        Self { slots: Vec::new(), free: Vec::new(), places: HashTable::new(), hash, pairs }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Places that there are, taken or free; a connection's index is below it.
    pub(crate) fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The connection with these addresses.
    #[inline]
    pub(crate) fn find(&mut self, key: FlowKey) -> Option<(ConnId, &mut Connection<D>)> {
        let slots = &self.slots;
        let has_key = |&index: &u32| slots.get(index as usize).is_some_and(|slot| slot.has(key));
        let index = *self.places.find(self.hash.hash_one(key), has_key)?;
        let slot = self.slots.get_mut(index as usize)?;
        Some((ConnId { index, generation: slot.generation }, slot.connection.as_mut()?))
    }

    #[inline]
    pub(crate) fn get(&self, id: ConnId) -> Option<&Connection<D>> {
        let slot = self.slots.get(id.index())?;
        if slot.generation == id.generation { slot.connection.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut Connection<D>> {
        let slot = self.slots.get_mut(id.index())?;
        if slot.generation == id.generation { slot.connection.as_mut() } else { None }
    }

    /// The connection at a place, whatever its generation.
    pub(crate) fn at(&mut self, index: u32) -> Option<(ConnId, &mut Connection<D>)> {
        let slot = self.slots.get_mut(index as usize)?;
        Some((ConnId { index, generation: slot.generation }, slot.connection.as_mut()?))
    }

    /// All connections with their places.
    #[cfg(feature = "check")]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Connection<D>)> {
        let connections = self.slots.iter().map(|slot| slot.connection.as_ref());
        (0..).zip(connections).filter_map(|(index, connection)| Some((index, connection?)))
    }

    /// Adds a connection that `make` builds. Its key, which is `key`, must not be in the table.
    pub(crate) fn insert(
        &mut self,
        key: FlowKey,
        make: impl FnOnce() -> Connection<D>,
    ) -> (ConnId, &mut Connection<D>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            (self.slots.len() - 1) as u32
        });
        let (slots, hash) = (&self.slots, &self.hash);
        let rehash = |&index: &u32| {
            let other = slots.get(index as usize).and_then(|slot| slot.connection.as_ref());
            other.map_or(0, |other| hash.hash_one(other.key))
        };
        self.places.insert_unique(hash.hash_one(key), index, rehash);
        self.pairs.add_user(key);
        let slot = &mut self.slots[index as usize];
        (ConnId { index, generation: slot.generation }, slot.connection.insert(make()))
    }

    /// Removes a connection, of which `take` takes what is still of use; its references to data are dropped, its identifier
    /// is refused from now on.
    pub(crate) fn remove(&mut self, id: ConnId, take: impl FnOnce(&mut Connection<D>)) {
        let slot = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation);
        let Some(slot) = slot else { return };
        let Some(connection) = &mut slot.connection else { return };
        take(connection);
        let key = connection.key;
        slot.connection = None;
        slot.generation = slot.generation.wrapping_add(1);
        if let Ok(place) = self.places.find_entry(self.hash.hash_one(key), |&index| index == id.index) {
            place.remove();
        }
        self.pairs.remove_user(key);
        self.free.push(id.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::timers::TIMER_BYTES;
    use std::println;

    /// Of either family: both have the same template and the same key.
    #[test]
    fn idle_connection_and_all_that_is_kept_for_its_place_take_less_than_512_bytes() {
        let slot = size_of::<Slot<&'static [u8]>>();
        // Just after it has grown, a hash table is filled to 7/16; each bucket has a number and a control byte.
        let place = ((size_of::<u32>() + 1) * 16).div_ceil(7);
        let free = size_of::<u32>();
        let all = slot + TIMER_BYTES + place + free;
        println!("{all} bytes: {slot} connection, {TIMER_BYTES} timer, {place} hash, {free} free list");
        assert!(all < 512, "{all}");
    }
}
