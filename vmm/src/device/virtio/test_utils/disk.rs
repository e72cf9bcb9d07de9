//! A disk with a guest around it, driven through its registers as a kernel would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::extent::{READ, WRITE};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Counter, Driver, Guest, Piece, Routes, environment_gpa};
use crate::account::ledger::Ledger;
use crate::backend::disk::Access;
use crate::backend::disk::fake::FakeStore;
use crate::device::pci::{Interrupt, PciFunction};
use crate::device::virtio::block::{Block, BlockConfig, Budget, Worked};
use crate::device::virtio::pci::{COMMON, MSIX_TABLE, offset};
use crate::device::virtio::{PciPlace, VirtioPci, firmware};
use crate::tables::DmaDomain;

/// Blocks of the disk.
pub(crate) const BLOCKS: u64 = 64;
/// Queues of the disk.
pub(crate) const QUEUES: u16 = 3;
/// Entries of each queue.
const SIZE: u16 = 64;
/// Offset of an environment's buffers in its memory; rings lie before it.
const BUFFERS: u64 = 0x8_0000;

/// The disk, its guest, its interrupts.
pub(crate) struct Disk {
    _release: Release,
    pub(crate) guest: Guest,
    pub(crate) function: VirtioPci<Block<DmaDomain>>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) interrupts: Vec<Arc<Counter>>,
    pub(crate) event: EventFd,
    pub(crate) ledger: Ledger,
    pub(crate) features: u64,
}

impl Disk {
    /// A started disk with all features. Environment 1 holds all of it.
    pub(crate) fn new() -> Self {
        Self::with_access(Access::ReadWrite)
    }

    /// The same, read-only if so.
    pub(crate) fn with_access(access: Access) -> Self {
        let guest = Guest::new();
        guest.extent(0, 1, 0, BLOCKS, READ | WRITE);
        let store = Arc::new(FakeStore::new(BLOCKS, access));
        let event = EventFd::new(EFD_NONBLOCK).expect("an event descriptor");
        let config = BlockConfig { device_index: 0, queues: QUEUES, queue_size_max: 256 };
        let extents = guest.tables.extents().clone();
        let clone = event.try_clone().expect("an event descriptor");
        let block = Block::new(config, guest.tables.clone(), extents, Arc::clone(&store) as _, clone);
        let interrupts: Vec<_> = (0..=QUEUES).map(|_| Arc::new(Counter::default())).collect();
        let raised = interrupts.iter().map(|counter| Arc::clone(counter) as Arc<dyn Interrupt>).collect();
        let place = PciPlace { device_number: 3, bar_gpa: 0xC010_0000 };
        let function = VirtioPci::new(block.expect("possible"), place, raised, Arc::new(Routes::default()));
        let mut function = function.expect("possible");
        let features = firmware::start(&mut function, !0).expect("starts");
        let _release = Release(Arc::clone(&store));
        Self { _release, guest, function, store, interrupts, event, ledger: Ledger::default(), features }
    }

    pub(crate) fn get<const LEN: usize>(&mut self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        self.function.bar_read(COMMON + at as u64, &mut bytes[..LEN]);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn set<const LEN: usize>(&mut self, at: usize, value: u64) {
        self.function.bar_write(COMMON + at as u64, &value.to_le_bytes()[..LEN]);
    }

    /// Binds a queue to an environment as a kernel does: owner, rings, vector, enable.
    pub(crate) fn bind(&mut self, queue: u16, environment: u32) -> Driver {
        self.guest.own(queue, Some(environment));
        let driver = self.guest.driver(environment, u64::from(queue) * 0x4000, SIZE);
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.set::<2>(offset::QUEUE_SIZE, driver.config.size.into());
        self.set::<8>(offset::QUEUE_DESC, driver.config.descriptors_gpa);
        self.set::<8>(offset::QUEUE_DRIVER, driver.config.available_gpa);
        self.set::<8>(offset::QUEUE_DEVICE, driver.config.used_gpa);
        self.set::<2>(offset::QUEUE_MSIX_VECTOR, queue.into());
        let entry = MSIX_TABLE + 16 * u64::from(queue);
        self.function.bar_write(entry, &0xFEE0_0000u64.to_le_bytes());
        self.function.bar_write(entry + 8, &(0x40 + u64::from(queue)).to_le_bytes());
        self.set::<2>(offset::QUEUE_ENABLE, 1);
        driver
    }

    /// Resets a queue, and waits for the end of that.
    pub(crate) fn reset_queue(&mut self, queue: u16) {
        self.begin_reset(queue);
        let end = Instant::now() + Duration::from_secs(10);
        while self.get::<2>(offset::QUEUE_RESET) != 0 {
            assert!(Instant::now() < end, "queue {queue} is still being reset");
            std::thread::yield_now();
        }
    }

    /// Asks for a queue's reset.
    pub(crate) fn begin_reset(&mut self, queue: u16) {
        self.set::<2>(offset::QUEUE_SELECT, queue.into());
        self.set::<2>(offset::QUEUE_RESET, 1);
    }

    /// One round of device work.
    pub(crate) fn work(&mut self) -> Worked {
        self.function.work(&self.ledger, Budget::default())
    }

    /// Rounds of device work until so many requests were completed.
    pub(crate) fn work_until_completed(&mut self, mut count: u32) {
        let end = Instant::now() + Duration::from_secs(10);
        while count > 0 {
            count = count.checked_sub(self.work().completed).expect("no more than expected");
            assert!(Instant::now() < end, "{count} requests are still not completed");
            std::thread::yield_now();
        }
    }

    /// Waits until a thread has finished something.
    pub(crate) fn wait_for_event(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.event.read().is_err() {
            assert!(Instant::now() < end, "no thread has finished anything");
            std::thread::yield_now();
        }
    }

    /// Writes a request's header to the environment's buffers and gives a chain: header, data, status. Buffers are numbered;
    /// each has a page for its data.
    pub(crate) fn request(
        &self,
        environment: u32,
        number: u64,
        kind: u32,
        sector: u64,
        data: &[Piece],
    ) -> Vec<Piece> {
        let frame = frame_gpa(environment, number);
        self.guest.write(frame, &[kind.to_le_bytes(), [0; 4]].concat());
        self.guest.write(frame + 8, &sector.to_le_bytes());
        self.guest.write(frame + 16, &[0xEE]);
        [&[Piece::out(frame, 16)], data, &[Piece::into(frame + 16, 1)]].concat()
    }

    /// The status of a request.
    pub(crate) fn status(&self, environment: u32, number: u64) -> u8 {
        self.guest.read(frame_gpa(environment, number) + 16, 1)[0]
    }
}

/// A test that fails while calls are held shall say so and not wait for the disk's threads.
struct Release(Arc<FakeStore>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Where header and status of a request lie.
pub(crate) fn frame_gpa(environment: u32, number: u64) -> u64 {
    environment_gpa(environment) + BUFFERS + number * 32
}

/// A page for data.
pub(crate) fn page_gpa(environment: u32, number: u64) -> u64 {
    environment_gpa(environment) + BUFFERS + 0x1_0000 + number * 4096
}
