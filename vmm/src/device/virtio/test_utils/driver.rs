//! A driver's side of a split virtqueue, as plain as possible.

use std::sync::Arc;

use abi::queue::RingLayout;
use vm_memory::{Bytes, GuestAddress};

use crate::device::virtio::queue::QueueConfig;
use crate::tables::Memory;

/// One descriptor's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) gpa: u64,
    pub(crate) len: u32,
    /// Whether the device writes.
    pub(crate) writable: bool,
}

impl Piece {
    /// For the device to read.
    pub(crate) fn out(gpa: u64, len: u32) -> Self {
        Self { gpa, len, writable: false }
    }

    /// For the device to write.
    pub(crate) fn into(gpa: u64, len: u32) -> Self {
        Self { gpa, len, writable: true }
    }
}

/// A driver that never reuses a descriptor before it wraps.
pub(crate) struct Driver {
    memory: Arc<Memory>,
    pub(crate) config: QueueConfig,
    next_descriptor: u16,
    pub(crate) available: u16,
    pub(crate) used: u16,
}

impl Driver {
    pub(crate) fn new(memory: Arc<Memory>, layout: RingLayout, start_gpa: u64) -> Self {
        let zeros = vec![0; layout.len_bytes() as usize];
        memory.write_slice(&zeros, GuestAddress(start_gpa)).expect("inside");
        let config = QueueConfig::from_layout(layout, start_gpa);
        Self { memory, config, next_descriptor: 0, available: 0, used: 0 }
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index % self.config.size)
    }

    /// Writes one descriptor of a table.
    pub(crate) fn descriptor(&self, table_gpa: u64, index: u16, piece: Piece, flags: u16, next: u16) {
        let at = GuestAddress(table_gpa + 16 * u64::from(index));
        let flags = flags | if piece.writable { 2 } else { 0 };
        let words = [piece.gpa, u64::from(piece.len) | u64::from(flags) << 32 | u64::from(next) << 48];
        self.memory.write_obj(words, at).expect("inside");
    }

    /// Writes a chain into the table; returns its head. Not yet available.
    pub(crate) fn chain(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.next_descriptor;
        for (at, piece) in pieces.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.config.size;
            let more = u16::from(at + 1 < pieces.len());
            self.descriptor(self.config.descriptors_gpa, index, *piece, more, self.next_descriptor);
        }
        head
    }

    /// Writes an indirect chain whose table lies at `table_gpa`; returns its head.
    pub(crate) fn indirect(&mut self, table_gpa: u64, pieces: &[Piece]) -> u16 {
        for (at, piece) in pieces.iter().enumerate() {
            let more = u16::from(at + 1 < pieces.len());
            self.descriptor(table_gpa, at as u16, *piece, more, at as u16 + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.config.size;
        let table = Piece::out(table_gpa, 16 * pieces.len() as u32);
        self.descriptor(self.config.descriptors_gpa, head, table, 4, 0);
        head
    }

    /// Makes a head available.
    pub(crate) fn make_available(&mut self, head: u16) {
        let at = self.config.available_gpa + 4 + 2 * self.slot(self.available);
        self.memory.write_obj(head, GuestAddress(at)).expect("inside");
        self.available = self.available.wrapping_add(1);
        self.set_available_index(self.available);
    }

    /// Writes the index.
    pub(crate) fn set_available_index(&self, index: u16) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
        self.memory.write_obj(index, GuestAddress(self.config.available_gpa + 2)).expect("inside");
    }

    /// A chain, available.
    pub(crate) fn add(&mut self, pieces: &[Piece]) -> u16 {
        let head = self.chain(pieces);
        self.make_available(head);
        head
    }

    /// The device's index.
    pub(crate) fn used_index(&self) -> u16 {
        self.memory.read_obj(GuestAddress(self.config.used_gpa + 2)).expect("inside")
    }

    /// The next completion: head and bytes.
    pub(crate) fn next_used(&mut self) -> Option<(u16, u32)> {
        if self.used == self.used_index() {
            return None;
        }
        let at = self.config.used_gpa + 4 + 8 * self.slot(self.used);
        let [head, bytes]: [u32; 2] = self.memory.read_obj(GuestAddress(at)).expect("inside");
        self.used = self.used.wrapping_add(1);
        Some((head as u16, bytes))
    }

    /// All completions.
    pub(crate) fn all_used(&mut self) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| self.next_used()).collect()
    }

    /// Asks for an interrupt when the device's index passes `index`.
    pub(crate) fn set_used_event(&self, index: u16) {
        let at = self.config.available_gpa + 4 + 2 * u64::from(self.config.size);
        self.memory.write_obj(index, GuestAddress(at)).expect("inside");
    }

    /// `flags` of the available ring.
    pub(crate) fn set_flags(&self, flags: u16) {
        self.memory.write_obj(flags, GuestAddress(self.config.available_gpa)).expect("inside");
    }

    /// Whether the device wants a doorbell for what was made available since `old`, by event index.
    pub(crate) fn wants_doorbell(&self, old: u16) -> bool {
        let at = self.config.used_gpa + 4 + 8 * u64::from(self.config.size);
        let event: u16 = self.memory.read_obj(GuestAddress(at)).expect("inside");
        self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(old)
    }

    /// `flags` of the used ring.
    pub(crate) fn used_flags(&self) -> u16 {
        self.memory.read_obj(GuestAddress(self.config.used_gpa)).expect("inside")
    }
}
