//! Drivers that ask for what is not theirs, or for nothing that there is.

use super::waiting::segment;
use super::*;
use crate::device::virtio::queue::QueueError;
use proptest::prelude::*;

/// Status and stopped queues after one request of environment 1.
fn outcome(disk: &mut Disk, kind: u32, sector: u64, data: &[Piece]) -> (u8, u64) {
    let mut driver = disk.bind(0, 1);
    let chain = disk.request(1, 0, kind, sector, data);
    driver.add(&chain);
    let taken = disk.work();
    if taken.taken > taken.completed {
        disk.work_until_completed(1);
    }
    let stopped = disk.function.metrics().queues_stopped;
    disk.reset_queue(0);
    (disk.status(1, 0), stopped)
}

#[test]
fn requests_out_of_range_or_unaligned_are_io_errors() {
    let mut disk = Disk::new();
    for (sector, len) in [
        (BLOCKS * 8, 4096),
        ((BLOCKS - 1) * 8, 8192),
        (u64::MAX, 4096),
        (u64::MAX - 7, 4096),
        (1, 4096),
        (0, 512),
        (0, 4097),
    ] {
        for (kind, piece) in
            [(READ_KIND, Piece::into(page_gpa(1, 0), len)), (WRITE_KIND, Piece::out(page_gpa(1, 0), len))]
        {
            assert_eq!(outcome(&mut disk, kind, sector, &[piece]), (IO_ERROR, 0), "{kind} {sector} {len}");
        }
    }
    assert_eq!(outcome(&mut disk, READ_KIND, 0, &[]), (IO_ERROR, 0), "nothing");
    assert_eq!(disk.function.metrics().refused_range, 15);
    assert_eq!(disk.store.state().calls, [""; 0]);
}

#[test]
fn discards_out_of_range_or_with_flags_are_refused() {
    let mut disk = Disk::new();
    let data = [Piece::out(page_gpa(1, 0), 16)];
    for (sector, sectors, flags, expected) in [
        (BLOCKS * 8, 8, 0, IO_ERROR),
        (0, 0, 0, IO_ERROR),
        (0, u32::MAX, 0, IO_ERROR),
        (4, 8, 0, IO_ERROR),
        (0, 8, 1, UNSUPPORTED),
    ] {
        segment(&disk, 0, sector, sectors, flags);
        assert_eq!(outcome(&mut disk, DISCARD_KIND, 0, &data), (expected, 0), "{sector} {sectors} {flags}");
    }
    segment(&disk, 0, 0, 8, 2);
    assert_eq!(outcome(&mut disk, ZERO_KIND, 0, &data), (UNSUPPORTED, 0));
    let metrics = disk.function.metrics();
    assert_eq!((metrics.refused_range, metrics.unsupported, metrics.refused_extent), (4, 2, 0));
    assert_eq!(disk.store.state().calls, [""; 0]);
}

#[test]
fn chains_that_are_not_shaped_as_their_kind_must_be_are_io_errors() {
    let mut disk = Disk::new();
    segment(&disk, 0, 0, 8, 0);
    let out = |len| Piece::out(page_gpa(1, 0), len);
    let input = |len| Piece::into(page_gpa(1, 1), len);
    let cases: [(u32, &[Piece]); 9] = [
        (READ_KIND, &[out(16), input(4096)]),
        (WRITE_KIND, &[out(4096), input(16)]),
        (FLUSH_KIND, &[out(16)]),
        (FLUSH_KIND, &[input(16)]),
        (ID_KIND, &[input(19)]),
        (ID_KIND, &[out(1), input(20)]),
        (DISCARD_KIND, &[out(15)]),
        (DISCARD_KIND, &[out(32)]),
        (ZERO_KIND, &[out(16), input(1)]),
    ];
    for (kind, data) in cases {
        assert_eq!(outcome(&mut disk, kind, 0, data), (IO_ERROR, 0), "{kind} {data:?}");
    }
    assert_eq!((disk.function.metrics().refused_range, &disk.store.state().calls), (9, &vec![]));
}

#[test]
fn chains_without_a_whole_header_or_a_status_stop_the_queue() {
    let page = page_gpa(1, 0);
    for (chain, expected) in [
        (&[Piece::out(page, 15), Piece::into(page, 1)][..], QueueError::TooShort { bytes: 15, min: 16 }),
        (&[Piece::into(page, 4097)], QueueError::TooShort { bytes: 0, min: 16 }),
        (&[Piece::out(page, 16)], QueueError::NoStatus),
    ] {
        let mut disk = Disk::new();
        let mut driver = disk.bind(0, 1);
        driver.add(chain);
        assert!(disk.work().stopped);
        assert_eq!(disk.function.queue_states()[0], QueueState::Stopped(expected));
        assert_eq!(driver.used_index(), 0);
    }
}

#[test]
fn blocks_of_another_environment_are_io_errors() {
    let mut disk = Disk::new();
    disk.guest.extent(0, 1, 0, 8, READ);
    disk.guest.extent(1, 2, 8, 8, READ | WRITE);
    let before = disk.store.state().bytes.clone();
    for (kind, block, piece, expected) in [
        (READ_KIND, 7, into(0), OK),
        (READ_KIND, 8, into(0), IO_ERROR),
        (WRITE_KIND, 7, from(0), IO_ERROR),
        (WRITE_KIND, 8, from(0), IO_ERROR),
    ] {
        assert_eq!(outcome(&mut disk, kind, block * 8, &[piece]), (expected, 0), "{kind} {block}");
    }
    segment(&disk, 0, 8 * 8, 8, 0);
    let data = [Piece::out(page_gpa(1, 0), 16)];
    assert_eq!(outcome(&mut disk, DISCARD_KIND, 0, &data), (IO_ERROR, 0));
    assert_eq!(outcome(&mut disk, ZERO_KIND, 0, &data), (IO_ERROR, 0));
    assert!(disk.store.state().bytes == before);
    assert_eq!(disk.function.metrics().refused_extent, 5);
}

#[test]
fn foreign_memory_stops_only_its_queue_and_a_reset_heals_it() {
    let mut disk = Disk::new();
    let mut good = disk.bind(1, 1);
    let mut bad = disk.bind(0, 1);
    let chain = disk.request(1, 0, READ_KIND, 0, &[Piece::into(environment_gpa(2), 4096)]);
    bad.add(&chain);
    submit(&disk, &mut good, 1, READ_KIND, 0, &[into(1)]);
    let worked = disk.work();
    assert_eq!((worked.completed, worked.stopped), (1, true));
    assert!(matches!(disk.function.queue_states()[0], QueueState::Stopped(_)));
    assert_eq!(disk.function.queue_states()[1], QueueState::Running { environment: 1 });
    assert!(disk.function.device().needs_reset());
    assert!(disk.guest.read(environment_gpa(2), 4096).iter().all(|&byte| byte == 0));
    disk.reset_queue(0);
    assert!(!disk.function.device().needs_reset());
    let mut healed = disk.bind(0, 1);
    submit(&disk, &mut healed, 2, READ_KIND, 0, &[into(2)]);
    assert_eq!(disk.work().completed, 1);
}

#[test]
fn requests_made_available_again_while_they_wait_stop_the_queue_and_pile_up_nowhere() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().at_hand = AtHand::Nothing;
    disk.store.state().held = true;
    let head = submit(&disk, &mut driver, 0, READ_KIND, 1, &[into(0)]);
    for _ in 0..10 * driver.config.size {
        driver.make_available(head);
        disk.work();
    }
    let metrics = disk.function.metrics();
    assert_eq!((metrics.handed_over, metrics.queues_stopped), (driver.config.size.into(), 1));
    disk.store.release();
}

#[test]
fn status_page_revoked_while_a_request_waits_stops_the_queue() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().held = true;
    submit(&disk, &mut driver, 0, FLUSH_KIND, 0, &[]);
    disk.work();
    disk.store.wait_for_held(1);
    disk.guest.grant(1, frame_gpa(1, 0) & !0xFFF, 4096, Rights::Read);
    disk.store.release();
    disk.wait_for_event();
    let worked = disk.work();
    assert_eq!((worked.completed, worked.stopped), (0, true));
    assert_eq!(disk.status(1, 0), 0xEE);
}

#[test]
fn used_ring_revoked_while_a_request_waits_is_not_written() {
    let mut disk = Disk::new();
    let mut driver = disk.bind(0, 1);
    disk.store.state().held = true;
    submit(&disk, &mut driver, 0, FLUSH_KIND, 0, &[]);
    disk.work();
    disk.store.wait_for_held(1);
    let used = driver.config.used_gpa;
    disk.guest.write(used, &[0x77; 4 + 8 * 8]);
    disk.guest.grant(1, used & !0xFFF, 4096, Rights::None);
    disk.store.release();
    disk.wait_for_event();
    assert!(disk.work().stopped);
    assert!(disk.guest.read(used, 4 + 8 * 8).iter().all(|&byte| byte == 0x77));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a chain holds: no panic, and nothing outside of the environment's blocks and pages changes.
    #[test]
    fn arbitrary_requests_change_nothing_that_is_not_the_environments(
        requests in prop::collection::vec(
            (prop::sample::select(vec![0u32, 1, 4, 8, 11, 13, 99]), 0u64..600, prop::collection::vec((0u64..40, 1u32..9000, any::<bool>()), 0..5)),
            1..12,
        ),
    ) {
        let mut disk = Disk::new();
        disk.guest.extent(0, 1, 16, 16, READ | WRITE);
        let before = disk.store.state().bytes.clone();
        for (kind, sector, data) in requests {
            let data: Vec<Piece> = data
                .iter()
                .map(|&(page, len, writable)| Piece { gpa: page_gpa(1, page) + u64::from(len % 7), len, writable })
                .collect();
            outcome(&mut disk, kind, sector, &data);
        }
        let state = disk.store.state();
        prop_assert!(state.bytes[..16 * 4096] == before[..16 * 4096]);
        prop_assert!(state.bytes[32 * 4096..] == before[32 * 4096..]);
        drop(state);
        for environment in [0, 2, 3] {
            prop_assert!(disk.guest.read(environment_gpa(environment), 4096).iter().all(|&byte| byte == 0));
        }
    }
}
