//! The connection table: a slab of connections, and a keyed hash from addresses to its places. A place keeps its send
//! queue's memory for the next connection.

use core::net::{Ipv4Addr, SocketAddrV4};

use alloc::vec::Vec;
use hashbrown::HashMap;

use super::connection::Connection;
use super::isn::FlowHash;
use super::send_queue::SendQueue;
use crate::data::Data;
use crate::events::ConnId;

/// A connection's addresses in one word: peer address, peer port, our port. Our address is always the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FlowKey(pub(crate) u64);

impl FlowKey {
    #[inline]
    pub(crate) fn new(peer: Ipv4Addr, peer_port: u16, local_port: u16) -> Self {
        Self(u64::from(peer.to_bits()) << 32 | u64::from(peer_port) << 16 | u64::from(local_port))
    }

    pub(crate) fn peer(self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from_bits((self.0 >> 32) as u32), (self.0 >> 16) as u16)
    }

    pub(crate) fn local_port(self) -> u16 {
        self.0 as u16
    }
}

#[derive(Debug)]
struct Slot<D> {
    generation: u32,
    connection: Option<Connection<D>>,
    /// The memory of the last connection's queue.
    queue: Option<SendQueue<D>>,
}

#[derive(Debug)]
pub(crate) struct Table<D> {
    slots: Vec<Slot<D>>,
    free: Vec<u32>,
    map: HashMap<FlowKey, u32, FlowHash>,
}

impl<D: Data> Table<D> {
    pub(crate) fn new(hash: FlowHash) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), map: HashMap::with_hasher(hash) }
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Places that there are, taken or free; a connection's index is below it.
    pub(crate) fn places(&self) -> u32 {
        self.slots.len() as u32
    }

    /// The connection with these addresses.
    #[inline]
    pub(crate) fn find(&mut self, key: FlowKey) -> Option<(ConnId, &mut Connection<D>)> {
        let index = *self.map.get(&key)?;
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

    /// Adds a connection that `make` builds around a recycled queue. Its key must not be in the table.
    pub(crate) fn insert(
        &mut self,
        key: FlowKey,
        make: impl FnOnce(SendQueue<D>) -> Connection<D>,
    ) -> (ConnId, &mut Connection<D>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None, queue: None });
            (self.slots.len() - 1) as u32
        });
        self.map.insert(key, index);
        let slot = &mut self.slots[index as usize];
        let queue = slot.queue.take().unwrap_or_else(SendQueue::new);
        let id = ConnId { index, generation: slot.generation };
        (id, slot.connection.insert(make(queue)))
    }

    /// Removes a connection; its references to data are dropped, its identifier is refused from now on. Returns the
    /// memory that its receive buffer held.
    pub(crate) fn remove(&mut self, id: ConnId) -> usize {
        let Some(slot) = self.slots.get_mut(id.index()).filter(|slot| slot.generation == id.generation)
        else {
            return 0;
        };
        let Some(connection) = slot.connection.take() else { return 0 };
        let mut queue = connection.send.queue;
        queue.clear();
        slot.queue = Some(queue);
        slot.generation = slot.generation.wrapping_add(1);
        self.map.remove(&connection.key);
        self.free.push(id.index);
        connection.receive.buffer.capacity()
    }
}
