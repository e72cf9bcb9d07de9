//! What a driver, its kernel and the world do with a device, read from bytes.

use super::guest::{BYTES, Guest, OWN_GPA};
use crate::input::Input;
use abi::domain::Rights;
use abi::queue::RingLayout;
use exovm::account::ledger::Ledger;
use exovm::device::pci::{Interrupt, MsiMessage, MsixRoutes, PciFunction};
use exovm::device::virtio::pci::{BAR_BYTES, COMMON, DOORBELLS, MSIX_TABLE, offset};
use exovm::device::virtio::{PciPlace, VirtioDevice, VirtioPci, firmware};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};

/// Entries of each queue.
pub(super) const SIZE: u16 = 8;
/// Bytes between two queues' rings.
const STRIDE: u64 = 0x3000;
/// Where buffers are, in the driver's memory: behind the rings of all queues.
pub(super) const BUFFERS: u64 = 0x1_8000;

/// A device that is worked on, and a world around it.
pub(super) trait Worker: VirtioDevice + Sized {
    fn work(bench: &mut Bench<Self>);
    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>);
}

/// The device and its guest.
pub(super) struct Bench<D> {
    pub(super) guest: Guest,
    pub(super) function: VirtioPci<D>,
    pub(super) ledger: Ledger,
    queues: u16,
    /// Where the next entry of each available ring goes.
    pub(super) available: Vec<u16>,
}

struct Nothing;

impl Interrupt for Nothing {
    fn signal(&self) {}
}

impl MsixRoutes for Nothing {
    fn set(&self, _: u16, _: Option<MsiMessage>) {}
}

/// Does with the device what the bytes say. `first`: the first of them, which says how it begins.
pub(super) fn run<D: Worker>(guest: Guest, device: D, first: u8, mut input: Input<'_>) {
    let mut bench = Bench::new(guest, device);
    // With all features, or with some.
    let wanted = if first & 1 == 0 { !0 } else { input.u64() };
    if firmware::start(&mut bench.function, wanted).is_ok() && first & 2 == 0 {
        (0..bench.queues).for_each(|queue| bench.bind(queue));
    }
    while !input.is_empty() {
        bench.step(&mut input);
    }
    D::work(&mut bench);
    bench.guest.check();
}

pub(super) fn layout() -> RingLayout {
    RingLayout::new(SIZE).expect("a power of two")
}

impl<D: Worker> Bench<D> {
    pub(super) fn new(guest: Guest, device: D) -> Self {
        let queues = device.queues();
        let lines = (0..=queues).map(|_| Arc::new(Nothing) as Arc<dyn Interrupt>).collect();
        let place = PciPlace { device_number: 3, bar_gpa: 0xC010_0000 };
        let function = VirtioPci::new(device, place, lines, Arc::new(Nothing)).expect("possible");
        let ledger = Ledger::default();
        Self { guest, function, ledger, queues, available: vec![0; queues.into()] }
    }

    pub(super) fn rings_gpa(&self, queue: u16) -> u64 {
        OWN_GPA + u64::from(queue) * STRIDE
    }

    /// As a kernel binds it.
    pub(super) fn bind(&mut self, queue: u16) {
        self.guest.own(queue, true);
        let gpa = self.rings_gpa(queue);
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.set::<2>(offset::QUEUE_SIZE, SIZE.into());
        self.set::<8>(offset::QUEUE_DESC, gpa + layout().descriptors_offset());
        self.set::<8>(offset::QUEUE_DRIVER, gpa + layout().available_offset());
        self.set::<8>(offset::QUEUE_DEVICE, gpa + layout().used_offset());
        self.set::<2>(offset::QUEUE_ENABLE, 1);
        self.available[usize::from(queue)] = 0;
    }

    pub(super) fn set<const LEN: usize>(&mut self, at: usize, value: u64) {
        self.function.bar_write(COMMON + at as u64, &value.to_le_bytes()[..LEN]);
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let queue = u16::from(input.u8()) % self.queues;
        let rings = self.rings_gpa(queue);
        match input.below(16) {
            0 | 1 => self.chain(queue, input),
            2 => {
                // A descriptor, as it comes.
                let at = rings + 16 * u64::from(input.below(SIZE as u8));
                let (gpa, len, flags, next) = (self.gpa(input), input.u32(), input.u16(), input.u16());
                self.guest.write(at, &gpa.to_le_bytes());
                self.guest.write(
                    at + 8,
                    &(u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48).to_le_bytes(),
                );
            }
            3 => {
                // A word of the available ring: flags, index, heads, event.
                let at = rings + layout().available_offset() + 2 * u64::from(input.below(SIZE as u8 + 3));
                self.guest.write(at, &input.u16().to_le_bytes());
            }
            4 => {
                // Anything anywhere in its own memory.
                let at = u64::from(input.u32()) % (BYTES - 256);
                let len = usize::from(input.u8());
                self.guest.write(OWN_GPA + at, input.bytes(len));
            }
            5..=7 => D::work(self),
            8 | 9 => D::world(self, input),
            10 => {
                let (at, len) = (u64::from(input.u16()), 1 + usize::from(input.below(8)));
                self.function.bar_write(COMMON + at % 0x40, &input.u64().to_le_bytes()[..len]);
            }
            11 => {
                let (at, len) =
                    (u64::from(input.u32()) % u64::from(BAR_BYTES), 1 + usize::from(input.below(8)));
                let mut bytes = [0; 8];
                self.function.bar_read(at, &mut bytes[..len]);
                self.function.bar_write(at, &input.u64().to_le_bytes()[..len]);
            }
            12 => {
                let (at, len) = (usize::from(input.u16()) % 4096, 1 << input.below(4));
                let mut bytes = [0; 8];
                self.function.config_read(at, &mut bytes[..len]);
                self.function.config_write(at, &input.u64().to_le_bytes()[..len]);
            }
            13 => {
                self.set::<2>(offset::QUEUE_SELECT, queue.into());
                self.set::<2>(offset::QUEUE_RESET, 1);
                if input.u8() & 1 == 0 {
                    self.bind(queue);
                } else {
                    self.guest.own(queue, false);
                }
            }
            14 => {
                let rights = [Rights::None, Rights::Read, Rights::Write, Rights::ReadWrite];
                let page = u64::from(input.u8()) % (BYTES / 4096);
                self.guest.grant(OWN_GPA + page * 4096, 4096, rights[usize::from(input.below(4))]);
            }
            _ => {
                self.function.bar_write(DOORBELLS + 4096 * u64::from(queue), &queue.to_le_bytes());
                self.function.bar_write(MSIX_TABLE + 16 * u64::from(queue), &input.u64().to_le_bytes());
            }
        }
    }

    /// An address: mostly a good one.
    fn gpa(&self, input: &mut Input<'_>) -> u64 {
        match input.below(8) {
            0..=4 => OWN_GPA + BUFFERS + u64::from(input.u16()) % (BYTES - BUFFERS),
            5 => OWN_GPA + BYTES - u64::from(input.u8()),
            6 => u64::from(input.u32()),
            _ => input.u64(),
        }
    }

    /// A chain of some pieces, made available: what a driver does, but for its addresses and lengths.
    fn chain(&mut self, queue: u16, input: &mut Input<'_>) {
        let rings = self.rings_gpa(queue);
        let (first, pieces) = (input.below(SIZE as u8), 1 + input.below(4));
        let writable = input.u8();
        for piece in 0..pieces {
            let index = u16::from(first + piece) % SIZE;
            let (gpa, len) = (self.gpa(input), u64::from(input.u16()) % 0x1400);
            let more = u64::from(piece + 1 < pieces);
            let flags = more | u64::from(writable >> piece & 1) << 1;
            let next = u64::from((index + 1) % SIZE);
            let at = rings + 16 * u64::from(index);
            self.guest.write(at, &gpa.to_le_bytes());
            self.guest.write(at + 8, &(len | flags << 32 | next << 48).to_le_bytes());
            // What it holds: a request's header, a control message, a frame.
            let content = input.bytes(24);
            if gpa.checked_sub(OWN_GPA).is_some_and(|at| at < BYTES - 24) {
                self.guest.memory.write_slice(content, GuestAddress(gpa)).expect("inside");
            }
        }
        let index = &mut self.available[usize::from(queue)];
        let available = rings + layout().available_offset();
        let slot = available + 4 + 2 * u64::from(*index % SIZE);
        *index = index.wrapping_add(1);
        let index = *index;
        self.guest.write(slot, &u16::from(first).to_le_bytes());
        self.guest.write(available + 2, &index.to_le_bytes());
    }
}
