//! The disk: a store in memory that knows at each access which blocks may be touched, and a driver that does anything.

use super::guest::{self, EXTENTS, Extent, Extents, Guest, OWN};
use super::ops::{self, Bench, Worker};
use super::{disk_model, keeps_to_the_rules};
use crate::input::Input;
use abi::extent::{BLOCK_BYTES, READ, WRITE};
use exovm::backend::disk::{Access, Store, Zeroing};
use exovm::backend::iovec::{gather, scatter};
use exovm::backend::{IoVec, IoVecMut};
use exovm::device::virtio::block::{self, Block, BlockConfig};
use exovm::tables::DmaDomain;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Blocks of the disk.
pub(super) const BLOCKS: u64 = 16;
/// Those that the driver's environment may hold, from the first on.
const OWN_BLOCKS: u64 = 8;

/// What of a read is at hand.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum AtHand {
    All = 0,
    Half = 1,
    Nothing = 2,
}

/// A disk in memory.
pub(super) struct InMemory {
    bytes: Mutex<Vec<u8>>,
    extents: Arc<Extents>,
    at_hand: AtomicU8,
    /// The first access that should not have been. A thread of the disk can tell nobody else.
    wrong: Mutex<Option<String>>,
}

impl InMemory {
    fn new(bytes: Vec<u8>, guest: &Guest) -> Arc<Self> {
        let extents = Arc::clone(&guest.extents);
        let (at_hand, wrong) = (AtomicU8::new(AtHand::All as u8), Mutex::default());
        Arc::new(Self { bytes: Mutex::new(bytes), extents, at_hand, wrong })
    }

    pub(super) fn set_at_hand(&self, at_hand: AtHand) {
        self.at_hand.store(at_hand as u8, Ordering::Relaxed);
    }

    /// Whether blocks were touched that may not be.
    pub(super) fn check(&self) {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_none(), "{wrong:?}");
    }

    pub(super) fn content(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does something with the bytes from an offset on, which says how many of them, and looks whether it may be.
    fn touch(
        &self,
        what: &str,
        offset: u64,
        rights: u32,
        act: impl FnOnce(&mut [u8]) -> usize,
    ) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let at = usize::try_from(offset).ok().filter(|at| *at <= bytes.len());
        let len = act(&mut bytes[at.ok_or(io::ErrorKind::InvalidInput)?..]);
        let blocks = offset / BLOCK_BYTES..(offset + len as u64).div_ceil(BLOCK_BYTES);
        if len > 0 && !self.extents.allow(blocks.clone(), rights) {
            let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
            wrong.get_or_insert_with(|| format!("{what} of blocks {blocks:?}, of {:?}", self.extents));
        }
        Ok(len)
    }
}

impl Store for InMemory {
    fn len_bytes(&self) -> u64 {
        BLOCKS * BLOCK_BYTES
    }

    fn access(&self) -> Access {
        Access::ReadWrite
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        let first = &pieces[..pieces.len().div_ceil(2)];
        match self.at_hand.load(Ordering::Relaxed) {
            at_hand if at_hand == AtHand::All as u8 => self.read(offset, pieces).map(Some),
            at_hand if at_hand == AtHand::Half as u8 => self.read(offset, first).map(Some),
            _ => Ok(None),
        }
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        self.touch("read", offset, READ, |bytes| scatter(pieces, 0, bytes))
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.touch("write", offset, WRITE, |bytes| gather(pieces, 0, bytes))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.touch("discard", offset, WRITE, |_| len_bytes as usize).map(drop)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, _: Zeroing) -> io::Result<()> {
        let zero = |bytes: &mut [u8]| {
            let len = bytes.len().min(len_bytes as usize);
            bytes[..len].fill(0);
            len_bytes as usize
        };
        self.touch("zeroing", offset, WRITE, zero).map(drop)
    }
}

impl Worker for Block<DmaDomain> {
    fn work(bench: &mut Bench<Self>) {
        bench.function.work(&bench.ledger, block::Budget::default());
    }

    fn world(bench: &mut Bench<Self>, input: &mut Input<'_>) {
        // The kernel changes what the environment holds of it.
        let (start, blocks, rights) = (input.below(7).into(), input.below(3).into(), input.below(4).into());
        set_extent(bench, 1, Extent { environment: OWN, device: 0, start, blocks, rights });
    }
}

/// As the kernel does it: takes the old one, waits for what is under way by it, gives the new one.
pub(super) fn set_extent(bench: &mut Bench<Block<DmaDomain>>, index: usize, extent: Extent) {
    bench.guest.take_extent(index % EXTENTS);
    let mut under_way = bench.function.in_flight(OWN);
    while under_way.requests() > 0 {
        std::thread::yield_now();
        under_way.forget();
    }
    bench.guest.give_extent(index % EXTENTS, extent);
}

/// The disk.
pub fn block(bytes: &[u8]) {
    let mut input = Input(bytes);
    let first = input.u8();
    let guest = Guest::new();
    let mut content = vec![0; (BLOCKS * BLOCK_BYTES) as usize];
    guest::fill_foreign(&mut content[(OWN_BLOCKS * BLOCK_BYTES) as usize..]);
    let store = InMemory::new(content, &guest);
    let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
    let config = BlockConfig { device_index: 0, queues: 2, queue_size_max: 64 };
    let extents = guest.tables.extents().clone();
    let device = Block::new(config, guest.tables.clone(), extents, Arc::clone(&store) as _, event);
    let device = device.expect("possible");
    if keeps_to_the_rules(first) {
        disk_model::run(guest, device, &store, input);
        return store.check();
    }
    let whole =
        Extent { environment: OWN, device: 0, start: 0, blocks: OWN_BLOCKS - 2, rights: READ | WRITE };
    guest.give_extent(0, whole);
    ops::run(guest, device, first, input);
    store.check();
    let content = store.content();
    let (own, foreign) = content.split_at((OWN_BLOCKS * BLOCK_BYTES) as usize);
    assert!(guest::is_foreign(foreign), "a foreign block was written");
    assert!(!guest::holds_foreign(own), "foreign memory was written to the disk");
}
