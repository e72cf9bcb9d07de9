//! A driver that keeps to the rules of the rings: what the device must answer to it is known.

use super::ops::{Bench, SIZE, Worker, layout};
use exovm::device::pci::PciFunction;
use exovm::device::virtio::firmware;
use exovm::device::virtio::pci::{COMMON, offset};
use vm_memory::{Bytes, GuestAddress};

use super::guest::Guest;

/// A piece of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) gpa: u64,
    pub(super) len: u32,
    pub(super) writable: bool,
}

/// It, and what it knows of its rings.
pub(super) struct Driver<D> {
    pub(super) bench: Bench<D>,
    /// How many used entries of each queue it has seen.
    seen: Vec<u16>,
}

impl<D: Worker> Driver<D> {
    /// One whose queues all work.
    pub(super) fn new(guest: Guest, device: D) -> Self {
        let queues = device.queues();
        let mut bench = Bench::new(guest, device);
        firmware::start(&mut bench.function, !0).expect("all features are offered");
        let mut driver = Self { bench, seen: vec![0; queues.into()] };
        (0..queues).for_each(|queue| driver.bind(queue));
        driver
    }

    /// Rings as they are at first, and the queue on.
    fn bind(&mut self, queue: u16) {
        let rings = self.bench.rings_gpa(queue);
        self.bench.guest.write(rings, &vec![0; layout().len_bytes() as usize]);
        self.bench.bind(queue);
        self.seen[usize::from(queue)] = 0;
    }

    /// Takes a queue back, also one that has stopped, and gives it again.
    pub(super) fn reset(&mut self, queue: u16) {
        self.bench.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.bench.set::<2>(offset::QUEUE_RESET, 1);
        let mut resetting = [1, 0];
        while resetting != [0, 0] {
            std::thread::yield_now();
            self.bench.function.bar_read(COMMON + offset::QUEUE_RESET as u64, &mut resetting);
        }
        self.bind(queue);
    }

    /// Makes a chain available whose first descriptor is this one; the others follow it.
    pub(super) fn post(&mut self, queue: u16, first: u16, pieces: &[Piece]) {
        let rings = self.bench.rings_gpa(queue);
        for (piece, index) in pieces.iter().zip(first..) {
            let more = u64::from(index + 1 < first + pieces.len() as u16);
            let flags = more | u64::from(piece.writable) << 1;
            let at = rings + 16 * u64::from(index);
            self.bench.guest.write(at, &piece.gpa.to_le_bytes());
            let word = u64::from(piece.len) | flags << 32 | u64::from(index + 1) << 48;
            self.bench.guest.write(at + 8, &word.to_le_bytes());
        }
        let index = &mut self.bench.available[usize::from(queue)];
        let available = rings + layout().available_offset();
        let slot = available + 4 + 2 * u64::from(*index % SIZE);
        *index = index.wrapping_add(1);
        let index = *index;
        self.bench.guest.write(slot, &first.to_le_bytes());
        self.bench.guest.write(available + 2, &index.to_le_bytes());
    }

    /// The next chain that the device has given back: its head, and how many bytes were written.
    pub(super) fn used(&mut self, queue: u16) -> Option<(u32, u32)> {
        let used = self.bench.rings_gpa(queue) + layout().used_offset();
        let seen = &mut self.seen[usize::from(queue)];
        let index = u16::from_le_bytes(read(&self.bench.guest, used + 2));
        if index == *seen {
            return None;
        }
        let entry = u64::from_le_bytes(read(&self.bench.guest, used + 4 + 8 * u64::from(*seen % SIZE)));
        *seen = seen.wrapping_add(1);
        Some((entry as u32, (entry >> 32) as u32))
    }

    /// Bytes of memory.
    pub(super) fn read(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.bench.guest.memory.read_slice(&mut bytes, GuestAddress(gpa)).expect("inside");
        bytes
    }
}

fn read<const N: usize>(guest: &Guest, gpa: u64) -> [u8; N] {
    let mut bytes = [0; N];
    guest.memory.read_slice(&mut bytes, GuestAddress(gpa)).expect("inside");
    bytes
}
