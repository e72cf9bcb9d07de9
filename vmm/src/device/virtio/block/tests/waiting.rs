//! What may wait: handed over to threads, picked up later, drained by a reset.

use super::*;
use crate::account::ledger::Bucket;

#[test]
fn read_that_would_block_is_handed_over_and_completed_by_a_later_call() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    driver.set_used_event(0);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    submit(&disk, &mut driver, 0, READ_KIND, 7, &[into(0)]);
    let worked = disk.work();
    assert_eq!((worked.taken, worked.completed), (1, 0), "the call did not wait");
    disk.store.wait_for_held(1);
    assert_eq!(disk.work().completed, 0);
    assert!(!disk.function.arm(), "nothing to do until the thread is done");
    disk.store.release();
    disk.wait_for_event();
    assert!(disk.function.arm(), "do not sleep");
    assert_eq!(disk.work().completed, 1);
    assert_eq!((driver.all_used(), disk.status(1, 0)), (vec![(0, 4097)], OK));
    assert_eq!(disk.guest.read(page_gpa(1, 0), 4096), stored(&disk, 7));
    assert_eq!(disk.interrupts[0].count(), 1);
    let metrics = disk.function.metrics();
    assert_eq!((metrics.reads, metrics.reads_at_once, metrics.handed_over), (1, 0, 1));
}

#[test]
fn read_that_is_partly_at_hand_gets_the_rest_from_a_thread() {
    for count in [1, 4095, 4096, 5000] {
        let mut disk = Disk::new();
        let mut driver = disk.bind(0, 1);
        disk.store.state().at_hand = AtHand::First(count);
        disk.store.state().portion = 3000;
        submit(&disk, &mut driver, 0, READ_KIND, 7, &[into(0), into(5)]);
        disk.work();
        disk.work_until_completed(1);
        assert_eq!((driver.all_used(), disk.status(1, 0)), (vec![(0, 8193)], OK));
        assert_eq!(disk.guest.read(page_gpa(1, 0), 4096), stored(&disk, 7), "{count}");
        assert_eq!(disk.guest.read(page_gpa(1, 5), 4096), stored(&disk, 8), "{count}");
    }
}

#[test]
fn writes_flushes_discards_and_zeros_reach_the_store() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().portion = 1000;
    disk.guest.write(page_gpa(1, 0), &[1; 4096]);
    disk.guest.write(page_gpa(1, 2), &[2; 4096]);
    submit(&disk, &mut driver, 0, WRITE_KIND, 5, &[from(0), from(2)]);
    disk.work();
    disk.work_until_completed(1);
    disk.store.state().calls.clear();
    submit(&disk, &mut driver, 1, FLUSH_KIND, 0, &[]);
    disk.work_until_completed(1);
    for (number, kind, block, flags) in
        [(2, DISCARD_KIND, 20, 0), (3, ZERO_KIND, 30, 0), (4, ZERO_KIND, 40, 1)]
    {
        segment(&disk, number, block * 8, 2 * 8, flags);
        submit(&disk, &mut driver, number, kind, 0, &[Piece::out(page_gpa(1, number), 16)]);
        disk.work_until_completed(1);
    }
    assert_eq!(driver.all_used().len(), 5);
    assert!((0..5).all(|number| disk.status(1, number) == OK));
    assert_eq!((stored(&disk, 5), stored(&disk, 6)), (vec![1; 4096], vec![2; 4096]));
    for block in [20, 21, 30, 31, 40, 41] {
        assert_eq!(stored(&disk, block), vec![0; 4096]);
    }
    assert_eq!(disk.store.state().calls, ["flush", "discard", "zero", "zero and unmap"]);
    let metrics = disk.function.metrics();
    assert_eq!((metrics.writes, metrics.written_bytes, metrics.flushes), (1, 8192, 1));
    assert_eq!((metrics.discards, metrics.zeroings), (1, 2));
}

/// Writes the segment of a discard.
pub(super) fn segment(disk: &Disk, page: u64, sector: u64, sectors: u32, flags: u32) {
    let bytes = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat();
    disk.guest.write(page_gpa(1, page), &bytes);
}

#[test]
fn host_errors_are_io_errors_and_the_queue_goes_on() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().at_hand = AtHand::Nothing;
    for (number, error) in [(0, libc::EIO), (1, libc::ENOSPC)] {
        disk.store.state().error = Some(error);
        let kind = [READ_KIND, WRITE_KIND][number as usize];
        submit(&disk, &mut driver, number, kind, 1, &[[into(0), from(0)][number as usize]]);
        disk.work_until_completed(1);
        assert_eq!((driver.next_used().map(|(_, len)| len), disk.status(1, number)), (Some(1), IO_ERROR));
    }
    disk.store.state().error = None;
    submit(&disk, &mut driver, 2, READ_KIND, 1, &[into(0)]);
    disk.work_until_completed(1);
    assert_eq!((disk.status(1, 2), disk.function.metrics().host_errors), (OK, 2));
}

#[test]
fn image_that_ends_early_is_an_io_error() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    {
        let mut state = disk.store.state();
        state.at_hand = AtHand::Nothing;
        state.bytes.truncate(10 * 4096 + 100);
    }
    submit(&disk, &mut driver, 0, READ_KIND, 10, &[into(0)]);
    disk.work_until_completed(1);
    assert_eq!((disk.status(1, 0), disk.function.metrics().host_errors), (IO_ERROR, 1));
}

#[test]
fn reset_is_over_with_the_request_in_flight_and_forgets_the_rest() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    let mut other = disk.bind(1, 1);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    for number in 0..20 {
        submit(&disk, &mut driver, number, READ_KIND, 1, &[into(number)]);
    }
    submit(&disk, &mut other, 20, READ_KIND, 1, &[into(20)]);
    disk.work();
    disk.store.wait_for_held(super::super::WORKERS_MAX);
    // Whoever asks for the reset, and holds the disk's lock, does not wait for the host.
    disk.begin_reset(0);
    assert_eq!(disk.get::<2>(offset::QUEUE_RESET), 1);
    disk.bind(0, 1);
    assert_eq!(disk.get::<2>(offset::QUEUE_ENABLE), 0, "its pages may still be written to");
    disk.store.release();
    disk.reset_queue(0);
    // From here on nothing of the queue's memory changes.
    disk.guest.write(page_gpa(1, 0), &[0x77; 20 * 4096]);
    let mut again = disk.bind(0, 1);
    assert_eq!(disk.get::<2>(offset::QUEUE_ENABLE), 1);
    disk.work_until_completed(1);
    assert_eq!((again.used_index(), other.all_used().len(), disk.status(1, 20)), (0, 1, OK));
    assert!(disk.guest.read(page_gpa(1, 0), 20 * 4096).iter().all(|&byte| byte == 0x77));
    let reads = disk.store.state().calls.len();
    assert!(reads < 20, "{reads}: what no thread had begun is forgotten");
    submit(&disk, &mut again, 0, READ_KIND, 1, &[into(0)]);
    disk.work_until_completed(1);
    assert_eq!(again.all_used().len(), 1);
}

#[test]
fn reset_forgets_what_was_finished_and_not_picked_up() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    submit(&disk, &mut driver, 0, FLUSH_KIND, 0, &[]);
    disk.work();
    disk.wait_for_event();
    disk.reset_queue(0);
    let again = disk.bind(0, 1);
    assert_eq!((disk.work().completed, again.used_index()), (0, 0));
}

#[test]
fn device_reset_is_over_when_no_thread_is_at_a_request() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().held = true;
    submit(&disk, &mut driver, 0, FLUSH_KIND, 0, &[]);
    disk.work();
    disk.store.wait_for_held(1);
    disk.set::<1>(offset::DEVICE_STATUS, 0);
    assert_ne!(disk.get::<1>(offset::DEVICE_STATUS), 0, "VIRTIO 1.3 2.4.1");
    disk.store.release();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while disk.get::<1>(offset::DEVICE_STATUS) != 0 {
        assert!(std::time::Instant::now() < end, "the reset does not end");
    }
    assert!(!disk.function.arm(), "nobody wants what was finished since");
}

#[test]
fn page_revoked_while_its_request_waits_is_not_touched() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    let before = stored(&disk, 2);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    // These occupy the threads; the one behind them has not been begun when its page is taken.
    for number in 0..super::super::WORKERS_MAX as u64 {
        submit(&disk, &mut driver, number, FLUSH_KIND, 0, &[]);
    }
    submit(&disk, &mut driver, 10, READ_KIND, 1, &[into(10)]);
    submit(&disk, &mut driver, 11, WRITE_KIND, 2, &[from(11)]);
    disk.guest.write(page_gpa(1, 10), &[0x77; 2 * 4096]);
    disk.work();
    disk.store.wait_for_held(super::super::WORKERS_MAX);
    disk.guest.grant(1, page_gpa(1, 10), 2 * 4096, Rights::None);
    disk.store.release();
    disk.work_until_completed(super::super::WORKERS_MAX as u32 + 2);
    assert_eq!((disk.status(1, 10), disk.status(1, 11)), (IO_ERROR, IO_ERROR));
    assert!(disk.guest.read(page_gpa(1, 10), 2 * 4096).iter().all(|&byte| byte == 0x77));
    assert_eq!(stored(&disk, 2), before, "nor read");
}

#[test]
fn blocks_revoked_while_their_request_waits_are_not_read() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    for number in 0..super::super::WORKERS_MAX as u64 {
        submit(&disk, &mut driver, number, FLUSH_KIND, 0, &[]);
    }
    submit(&disk, &mut driver, 10, READ_KIND, 1, &[into(10)]);
    disk.guest.write(page_gpa(1, 10), &[0x77; 4096]);
    disk.work();
    disk.store.wait_for_held(super::super::WORKERS_MAX);
    disk.guest.extent(0, 1, 0, 0, 0);
    disk.store.release();
    disk.work_until_completed(super::super::WORKERS_MAX as u32 + 1);
    assert_eq!(disk.status(1, 10), IO_ERROR);
    assert!(disk.guest.read(page_gpa(1, 10), 4096).iter().all(|&byte| byte == 0x77));
    assert!(!disk.store.state().calls.contains(&"read"));
}

#[test]
fn in_flight_is_what_threads_are_at_for_the_environment_and_for_nobody_else() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    submit(&disk, &mut driver, 0, READ_KIND, 1, &[into(0)]);
    disk.work();
    disk.store.wait_for_held(1);
    assert_eq!(disk.function.in_flight(2).requests(), 0);
    let mut in_flight = disk.function.in_flight(1);
    in_flight.forget();
    assert_eq!(in_flight.requests(), 1);
    disk.store.release();
    disk.work_until_completed(1);
    in_flight.forget();
    assert_eq!(in_flight.requests(), 0);
    assert_eq!(disk.guest.read(page_gpa(1, 0), 4096), stored(&disk, 1));
}

#[test]
fn waiting_is_not_charged_to_whoever_does_the_device_work() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.ledger.enter(Bucket::Other);
    disk.store.state().at_hand = AtHand::Nothing;
    submit(&disk, &mut driver, 0, READ_KIND, 1, &[into(0)]);
    submit(&disk, &mut driver, 1, FLUSH_KIND, 1, &[]);
    disk.work();
    disk.work_until_completed(2);
    let sums = disk.ledger.read();
    assert!(sums[Bucket::Disk(0).index()].cycles > 0);
    assert_eq!(sums[Bucket::DiskFlush(0).index()].entries, 0);
    let threads = disk.function.ledgers().iter().map(|ledger| ledger.read());
    let flushes: u64 = threads.map(|sums| sums[Bucket::DiskFlush(0).index()].entries).sum();
    assert_eq!(flushes, 1);
}

#[test]
fn dropped_disk_leaves_no_thread_behind() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    submit(&disk, &mut driver, 0, FLUSH_KIND, 0, &[]);
    disk.work_until_completed(1);
    let store = std::sync::Arc::downgrade(&disk.store);
    drop(disk);
    assert_eq!(store.strong_count(), 0, "each thread had the store");
}
