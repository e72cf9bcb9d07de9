//! The disk with a fake guest and a store that does what the test wants.

use super::super::test_utils::disk::{BLOCKS, Disk, QUEUES, frame_gpa, page_gpa};
use std::sync::Arc;

use super::super::test_utils::{Driver, Guest, Piece, environment_gpa};
use super::super::{QueueState, VirtioDevice};
use super::{Block, BlockConfig, BlockError, Budget, EventFd};
use crate::backend::disk::Access;
use crate::backend::disk::fake::{AtHand, FakeStore};
use crate::device::pci::PciFunction;
use crate::device::virtio::pci::{DEVICE_CONFIG, offset};
use abi::domain::Rights;
use abi::extent::{READ, WRITE};

mod hostile;
mod waiting;

const READ_KIND: u32 = 0;
const WRITE_KIND: u32 = 1;
const FLUSH_KIND: u32 = 4;
const ID_KIND: u32 = 8;
const DISCARD_KIND: u32 = 11;
const ZERO_KIND: u32 = 13;
/// Statuses.
const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// A page to read into.
fn into(number: u64) -> Piece {
    Piece::into(page_gpa(1, number), 4096)
}

/// A page to write from.
fn from(number: u64) -> Piece {
    Piece::out(page_gpa(1, number), 4096)
}

/// Makes a request of environment 1 available.
fn submit(disk: &Disk, driver: &mut Driver, number: u64, kind: u32, block: u64, data: &[Piece]) -> u16 {
    let chain = disk.request(1, number, kind, block * 8, data);
    driver.add(&chain)
}

/// What the store holds in a block.
fn stored(disk: &Disk, block: u64) -> Vec<u8> {
    disk.store.state().bytes[block as usize * 4096..][..4096].to_vec()
}

#[test]
fn reads_at_hand_complete_at_once_by_one_publication_and_one_interrupt() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(1, 1);
    driver.set_used_event(0);
    for number in 0..5 {
        submit(&disk, &mut driver, number, READ_KIND, 10 + number, &[into(number)]);
    }
    let worked = disk.work();
    assert_eq!((worked.taken, worked.completed, worked.more, worked.stopped), (5, 5, false, false));
    assert_eq!(driver.all_used().len(), 5);
    for number in 0..5 {
        assert_eq!(disk.status(1, number), OK);
        assert_eq!(disk.guest.read(page_gpa(1, number), 4096), stored(&disk, 10 + number));
    }
    assert_eq!(disk.interrupts[1].count(), 1);
    let metrics = disk.function.metrics();
    assert_eq!((metrics.reads, metrics.reads_at_once, metrics.batches, metrics.handed_over), (5, 5, 1, 0));
    assert_eq!(disk.store.state().calls, [""; 0], "nobody waited");
}

#[test]
fn scattered_read_of_many_pages_goes_straight_to_them() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    let data: Vec<Piece> = (0..20).map(|number| into(2 * number)).collect();
    submit(&disk, &mut driver, 0, READ_KIND, 3, &data);
    disk.work();
    assert_eq!(driver.all_used(), [(0, 20 * 4096 + 1)]);
    for number in 0..20 {
        assert_eq!(disk.guest.read(page_gpa(1, 2 * number), 4096), stored(&disk, 3 + number));
    }
}

#[test]
fn framing_does_not_depend_on_descriptors() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    // Header in two pieces; data and status in one.
    let chain = disk.request(1, 0, READ_KIND, 8, &[]);
    let header = chain[0].gpa;
    let split = [Piece::out(header, 5), Piece::out(header + 5, 11), Piece::into(page_gpa(1, 0), 4097)];
    driver.add(&split);
    disk.work();
    assert_eq!(driver.all_used(), [(0, 4097)]);
    assert_eq!(disk.guest.read(page_gpa(1, 0), 4096), stored(&disk, 1));
    assert_eq!(disk.guest.read(page_gpa(1, 0) + 4096, 1), [OK]);
    // The same by an indirect table, and a write whose data lies behind the header.
    let head = driver.indirect(page_gpa(1, 9), &split);
    driver.make_available(head);
    disk.guest.write(header, &WRITE_KIND.to_le_bytes());
    disk.work();
    assert_eq!(driver.next_used(), Some((head, 1)), "a write into what is to be read is refused");
    let header = page_gpa(1, 3) - 16;
    disk.guest.write(header, &[1, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0]);
    disk.guest.write(header + 16, &[0x5A; 4096]);
    driver.add(&[Piece::out(header, 16 + 4096), Piece::into(frame_gpa(1, 1) + 16, 1)]);
    disk.work_until_completed(1);
    assert_eq!((disk.status(1, 1), stored(&disk, 2)), (OK, vec![0x5A; 4096]));
}

#[test]
fn configuration_says_what_the_disk_is() {
    let mut disk = Disk::new();
    let mut bytes = [0; 60];
    disk.function.bar_read(DEVICE_CONFIG, &mut bytes);
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().expect("eight")), BLOCKS * 8);
    assert_eq!((word(12), word(20)), (254, 4096), "seg_max, blk_size");
    assert_eq!(u16::from_le_bytes([bytes[34], bytes[35]]), QUEUES);
    assert_eq!((word(36), word(40), word(44)), (512 << 10, 1, 8), "discard");
    // VIRTIO_BLK_F_SEG_MAX, BLK_SIZE, FLUSH, MQ, DISCARD, WRITE_ZEROES.
    let wanted = 1 << 2 | 1 << 6 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 14;
    assert_eq!(disk.features & wanted, wanted);
    assert_eq!(disk.features & 1 << 5, 0, "VIRTIO_BLK_F_RO");
    let entry = disk.function.device_entry();
    assert_eq!((entry.capacity_blocks, entry.segments_max, entry.queues), (BLOCKS, 254, 3));
}

#[test]
fn read_only_disk_says_so_and_takes_only_reads_and_flushes() {
    let mut disk = Disk::with_access(Access::ReadOnly);
    // VIRTIO_BLK_F_RO, and nothing that changes blocks.
    assert_eq!(disk.features & (1 << 5 | 1 << 13 | 1 << 14), 1 << 5);
    let mut bytes = [0xFF; 80];
    disk.function.bar_read(DEVICE_CONFIG, &mut bytes);
    assert_eq!(bytes[36..], [0; 44], "discard, and behind the end");
    let mut driver = disk.bind(0, 1);
    waiting::segment(&disk, 1, 8, 8, 0);
    let segment = Piece::out(page_gpa(1, 1), 16);
    submit(&disk, &mut driver, 0, WRITE_KIND, 1, &[from(0)]);
    submit(&disk, &mut driver, 1, DISCARD_KIND, 0, &[segment]);
    submit(&disk, &mut driver, 2, ZERO_KIND, 0, &[segment]);
    submit(&disk, &mut driver, 3, READ_KIND, 1, &[into(3)]);
    assert_eq!(disk.work().completed, 4);
    let statuses = [0, 1, 2, 3].map(|number| disk.status(1, number));
    assert_eq!(statuses, [IO_ERROR, UNSUPPORTED, UNSUPPORTED, OK]);
    assert_eq!(disk.function.metrics().refused_read_only, 1);
    assert_eq!(disk.store.state().calls, [""; 0]);
    submit(&disk, &mut driver, 4, FLUSH_KIND, 0, &[]);
    disk.work_until_completed(1);
    assert_eq!(disk.status(1, 4), OK);
}

#[test]
fn new_with_impossible_queues_returns_error() {
    let guest = Guest::new();
    let make = |queues, queue_size_max| {
        let config = BlockConfig { device_index: 0, queues, queue_size_max };
        let store = Arc::new(FakeStore::new(1, Access::ReadWrite));
        let event = EventFd::new(0).expect("an event descriptor");
        Block::new(config, guest.tables.clone(), guest.tables.extents().clone(), store, event).err()
    };
    assert_eq!((make(1, 4), make(31, 1024)), (None, None));
    for queues in [0, 32, u16::MAX] {
        assert_eq!(make(queues, 64), Some(BlockError::Queues { queues }));
    }
    for size in [0, 2, 6, 2048] {
        assert_eq!(make(1, size), Some(BlockError::QueueSize { size }));
    }
}

#[test]
fn queue_longer_than_the_disk_has_is_not_enabled() {
    let mut disk = Disk::new();
    disk.guest.own(0, Some(1));
    let rings = disk.guest.driver(1, 0, 512).config;
    disk.set::<2>(offset::QUEUE_SELECT, 0);
    disk.set::<8>(offset::QUEUE_DESC, rings.descriptors_gpa);
    disk.set::<8>(offset::QUEUE_DRIVER, rings.available_gpa);
    disk.set::<8>(offset::QUEUE_DEVICE, rings.used_gpa);
    for (size, enabled) in [(512, 0), (3, 0), (0, 0), (256, 1)] {
        disk.set::<2>(offset::QUEUE_SIZE, size);
        disk.set::<2>(offset::QUEUE_ENABLE, 1);
        assert_eq!(disk.get::<2>(offset::QUEUE_ENABLE), enabled, "{size}");
    }
}

#[test]
fn identify_gives_a_name() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    submit(&disk, &mut driver, 0, ID_KIND, 0, &[Piece::into(page_gpa(1, 0), 20)]);
    disk.work();
    assert_eq!(driver.all_used(), [(0, 21)]);
    assert_eq!(disk.guest.read(page_gpa(1, 0), 12), b"exovm-disk-0");
}

#[test]
fn budget_ends_a_call_and_the_next_one_goes_on_with_another_queue() {
    let mut disk = Disk::new();
    let mut drivers = [disk.bind(0, 1), disk.bind(1, 1)];
    for number in 0..10 {
        submit(&disk, &mut drivers[0], number, READ_KIND, number, &[into(number)]);
        submit(&disk, &mut drivers[1], 16 + number, READ_KIND, number, &[into(16 + number)]);
    }
    let budget = Budget { requests: 4, bytes: u64::MAX };
    let worked = disk.function.work(&disk.ledger, budget);
    assert_eq!((worked.completed, worked.more), (4, true));
    assert_eq!((drivers[0].all_used().len(), drivers[1].all_used().len()), (4, 0));
    disk.function.work(&disk.ledger, budget);
    assert_eq!((drivers[0].all_used().len(), drivers[1].all_used().len()), (0, 4));
    // 4 MiB of copies are a call's share, too.
    let worked = disk.function.work(&disk.ledger, Budget { requests: 99, bytes: 8192 });
    assert_eq!((worked.completed, worked.more), (2, true));
    assert!(!disk.work().more);
}

#[test]
fn doorbell_is_wanted_only_when_armed() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.function.disarm();
    submit(&disk, &mut driver, 0, READ_KIND, 0, &[into(0)]);
    assert!(!driver.wants_doorbell(0));
    assert!(disk.function.arm(), "there is work");
    disk.function.disarm();
    disk.work();
    assert!(!disk.function.arm());
    submit(&disk, &mut driver, 1, READ_KIND, 0, &[into(1)]);
    assert!(driver.wants_doorbell(1));
}
