//! The queue against a plain driver, against `virtio-queue` as an oracle, and against garbage.

use super::*;
use crate::backend::iovec::gather;
use crate::backend::{Gather, Scatter};
use crate::device::virtio::test_utils::{Driver, ENVIRONMENT_BYTES, Guest, Piece, environment_gpa};
use crate::tables::DmaDomain;
use abi::domain::Rights;
use proptest::prelude::*;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

const EVENTS: RingFeatures = RingFeatures { event_index: true, indirect: true };
const FLAGS: RingFeatures = RingFeatures { event_index: false, indirect: true };
const LIMITS: Limits = Limits { bytes: 1 << 17, segments: 64 };
/// The environment whose queue is tested, and where its buffers are.
const ENVIRONMENT: u32 = 1;
const DATA: u64 = environment_gpa_of(ENVIRONMENT) + 0x10_0000;

const fn environment_gpa_of(environment: u32) -> u64 {
    (environment as u64 + 1) * ENVIRONMENT_BYTES
}

fn queue(guest: &Guest, size: u16, features: RingFeatures) -> (Driver, Virtqueue<DmaDomain>) {
    let driver = guest.driver(ENVIRONMENT, 0, size);
    let domain = guest.tables.domain(ENVIRONMENT).expect("usable");
    let queue = Virtqueue::new(domain, ENVIRONMENT, driver.config, features).expect("usable");
    (driver, queue)
}

/// Takes the next chain as one to be read; its bytes.
fn next(queue: &mut Virtqueue<DmaDomain>) -> Result<Option<(u16, Vec<u8>)>, QueueError> {
    let mut pieces = Gather::with_capacity(LIMITS.segments);
    queue.begin()?;
    let chain = queue.next_chain(LIMITS, pieces.refill())?;
    Ok(chain.map(|chain| {
        let mut bytes = vec![0; chain.bytes as usize];
        assert_eq!(gather(pieces.pieces(), 0, &mut bytes), bytes.len());
        queue.advance();
        (chain.head, bytes)
    }))
}

#[test]
fn chains_come_in_order_with_their_bytes() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
    guest.write(DATA, b"abcdefghij");
    let first = driver.add(&[Piece::out(DATA, 3)]);
    let second = driver.add(&[Piece::out(DATA + 3, 2), Piece::out(DATA + 5, 1), Piece::out(DATA + 9, 1)]);
    let head = driver.indirect(DATA + 0x1000, &[Piece::out(DATA + 1, 1), Piece::out(DATA, 1)]);
    driver.make_available(head);
    assert_eq!(next(&mut queue), Ok(Some((first, b"abc".to_vec()))));
    assert_eq!(next(&mut queue), Ok(Some((second, b"defj".to_vec()))));
    assert_eq!(next(&mut queue), Ok(Some((head, b"ba".to_vec()))));
    assert_eq!(next(&mut queue), Ok(None));
}

#[test]
fn request_has_a_part_to_read_and_a_part_to_write() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
    driver.add(&[Piece::out(DATA, 3), Piece::into(DATA + 8, 4)]);
    driver.add(&[Piece::into(DATA + 8, 4), Piece::out(DATA, 3)]);
    let (mut readable, mut writable) = (Gather::with_capacity(8), Scatter::with_capacity(8));
    let chain = queue.next_request(LIMITS, readable.refill(), &mut writable).expect("good").expect("one");
    assert_eq!((chain.bytes, readable.pieces().len(), writable.len()), (7, 1, 1));
    queue.advance();
    let wrong = queue.next_request(LIMITS, readable.refill(), &mut writable);
    assert_eq!(wrong, Err(QueueError::WrongDirection { writable: false }));
}

/// What a driver can do wrong with one chain, and what is said about it.
#[test]
fn malformed_chain_returns_its_error() {
    let foreign = environment_gpa(2);
    let table = DATA + 0x2000;
    type Wrong = fn(&mut Driver, u64, u64);
    let cases: [(QueueError, Wrong); 17] = [
        (QueueError::NoSuchDescriptor { index: 8, entries: 8 }, |driver, _, _| driver.make_available(8)),
        (QueueError::NoSuchDescriptor { index: 9, entries: 8 }, |driver, _, _| {
            driver.descriptor(driver.config.descriptors_gpa, 0, Piece::out(DATA, 1), 1, 9);
            driver.make_available(0);
        }),
        (QueueError::ChainTooLong { size: 8 }, |driver, _, _| {
            driver.descriptor(driver.config.descriptors_gpa, 0, Piece::out(DATA, 1), 1, 1);
            driver.descriptor(driver.config.descriptors_gpa, 1, Piece::out(DATA, 1), 1, 0);
            driver.make_available(0);
        }),
        (QueueError::Empty, |driver, _, _| {
            driver.add(&[Piece::out(DATA, 1), Piece::out(DATA, 0)]);
        }),
        (QueueError::WrongDirection { writable: true }, |driver, _, _| {
            driver.add(&[Piece::out(DATA, 1), Piece::into(DATA, 1)]);
        }),
        (QueueError::Foreign { gpa: foreign, len: 1, writable: false }, |driver, foreign, _| {
            driver.add(&[Piece::out(foreign, 1)]);
        }),
        (QueueError::Foreign { gpa: foreign - 1, len: 2, writable: false }, |driver, foreign, _| {
            driver.add(&[Piece::out(foreign - 1, 2)]);
        }),
        (QueueError::Foreign { gpa: 1 << 40, len: 1, writable: false }, |driver, _, _| {
            driver.add(&[Piece::out(1 << 40, 1)]);
        }),
        (QueueError::Foreign { gpa: u64::MAX, len: 2, writable: false }, |driver, _, _| {
            driver.add(&[Piece::out(u64::MAX, 2)]);
        }),
        (QueueError::TooManyBytes { max: 1 << 17 }, |driver, _, _| {
            driver.add(&[Piece::out(DATA, 1 << 17), Piece::out(DATA, 1)]);
        }),
        (QueueError::TooManyBytes { max: 1 << 17 }, |driver, _, _| {
            driver.add(&[Piece::out(DATA, u32::MAX), Piece::out(DATA, u32::MAX)]);
        }),
        (QueueError::IndirectTable { len: 0 }, |driver, _, table| {
            let head = driver.indirect(table, &[]);
            driver.make_available(head);
        }),
        (QueueError::IndirectTable { len: 24 }, |driver, _, table| {
            driver.descriptor(driver.config.descriptors_gpa, 0, Piece::out(table, 24), 4, 0);
            driver.make_available(0);
        }),
        (QueueError::IndirectTable { len: 9 * 16 }, |driver, _, table| {
            let head = driver.indirect(table, &[Piece::out(DATA, 1); 9]);
            driver.make_available(head);
        }),
        (QueueError::IndirectNested, |driver, _, table| {
            let head = driver.indirect(table, &[Piece::out(DATA, 16)]);
            driver.descriptor(table, 0, Piece::out(table, 16), 4, 0);
            driver.make_available(head);
        }),
        (QueueError::NoSuchDescriptor { index: 3, entries: 2 }, |driver, _, table| {
            let head = driver.indirect(table, &[Piece::out(DATA, 16); 2]);
            driver.descriptor(table, 1, Piece::out(DATA, 16), 1, 3);
            driver.make_available(head);
        }),
        (QueueError::Foreign { gpa: foreign, len: 16, writable: false }, |driver, foreign, _| {
            let head = driver.indirect(foreign, &[Piece::out(DATA, 16)]);
            driver.make_available(head);
        }),
    ];
    for (error, wrong) in cases {
        let guest = Guest::new();
        let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
        wrong(&mut driver, foreign, table);
        assert_eq!(next(&mut queue), Err(error));
    }
}

#[test]
fn available_index_too_far_ahead_returns_error() {
    let guest = Guest::new();
    let (driver, mut queue) = queue(&guest, 8, EVENTS);
    driver.set_available_index(9);
    assert_eq!(queue.begin(), Err(QueueError::AvailableAhead { index: 9, next: 0, kept: 0, size: 8 }));
    driver.set_available_index(u16::MAX);
    assert_eq!(queue.begin(), Err(QueueError::AvailableAhead { index: u16::MAX, next: 0, kept: 0, size: 8 }));
}

/// A driver that makes its chains available again before they are back could have the device keep any number of them.
#[test]
fn more_chains_than_entries_with_what_the_device_keeps_return_error() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
    for _ in 0..8 {
        driver.add(&[Piece::out(DATA, 1)]);
    }
    for _ in 0..5 {
        assert!(next(&mut queue).expect("good").is_some());
    }
    queue.complete(0, 0);
    driver.add(&[Piece::out(DATA, 1)]);
    for _ in 0..4 {
        assert!(next(&mut queue).expect("good").is_some());
    }
    assert_eq!(next(&mut queue), Ok(None), "all entries are the device's");
    driver.add(&[Piece::out(DATA, 1)]);
    assert_eq!(next(&mut queue), Err(QueueError::AvailableAhead { index: 10, next: 9, kept: 8, size: 8 }));
}

#[test]
fn indirect_without_the_feature_returns_error() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, RingFeatures::default());
    let head = driver.indirect(DATA, &[Piece::out(DATA, 1)]);
    driver.make_available(head);
    assert_eq!(next(&mut queue), Err(QueueError::IndirectNotNegotiated));
}

#[test]
fn more_pieces_than_allowed_returns_error() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 128, EVENTS);
    driver.add(&[Piece::out(DATA, 1); 64]);
    driver.add(&[Piece::out(DATA, 1); 65]);
    assert!(next(&mut queue).is_ok());
    assert_eq!(next(&mut queue), Err(QueueError::TooManySegments { max: 64 }));
}

#[test]
fn rings_outside_of_the_domain_or_misaligned_are_refused() {
    let guest = Guest::new();
    let good = guest.driver(ENVIRONMENT, 0, 8).config;
    let foreign = environment_gpa(2);
    let make = |config| {
        let domain = guest.tables.domain(ENVIRONMENT).expect("usable");
        Virtqueue::new(domain, ENVIRONMENT, config, EVENTS).err()
    };
    let part = |part, gpa| Some(QueueError::RingForeign { part, gpa });
    assert_eq!(make(good), None);
    let config = QueueConfig { descriptors_gpa: foreign, ..good };
    assert_eq!(make(config), part(RingPart::Descriptors, foreign));
    let config = QueueConfig { available_gpa: foreign - 4, ..good };
    assert_eq!(make(config), part(RingPart::Available, foreign - 4));
    let config = QueueConfig { used_gpa: 1 << 50, ..good };
    assert_eq!(make(config), part(RingPart::Used, 1 << 50));
    let config = QueueConfig { used_gpa: good.used_gpa + 2, ..good };
    let gpa = good.used_gpa + 2;
    assert_eq!(make(config), Some(QueueError::Misaligned { part: RingPart::Used, gpa, align: 4 }));
    assert_eq!(make(QueueConfig { size: 7, ..good }), Some(QueueError::Size { size: 7, max: 32768 }));
    // The device writes only the used ring: it needs no right to write the other pages, but this one.
    guest.grant(ENVIRONMENT, good.descriptors_gpa, 4096, Rights::Read);
    assert_eq!(make(good), None);
    guest.grant(ENVIRONMENT, good.used_gpa, 4096, Rights::Read);
    assert_eq!(make(good), part(RingPart::Used, good.used_gpa));
}

#[test]
fn revoked_ring_page_stops_the_next_batch() {
    let guest = Guest::new();
    let (driver, mut queue) = queue(&guest, 8, EVENTS);
    assert_eq!(queue.begin(), Ok(false));
    guest.grant(ENVIRONMENT, driver.config.used_gpa, 4096, Rights::None);
    let expected = QueueError::RingForeign { part: RingPart::Used, gpa: driver.config.used_gpa };
    assert_eq!(queue.begin(), Err(expected));
}

#[test]
fn queue_whose_rings_were_taken_writes_nothing_there_when_it_is_armed_or_disarmed() {
    for features in [EVENTS, FLAGS] {
        let guest = Guest::new();
        let (driver, mut queue) = queue(&guest, 8, features);
        let used_gpa = driver.config.used_gpa;
        guest.grant(ENVIRONMENT, used_gpa, 4096, Rights::None);
        guest.write(used_gpa, &[0xA5; 128]);
        queue.disarm();
        queue.arm();
        queue.disarm();
        assert_eq!(guest.read(used_gpa, 128), [0xA5; 128], "{features:?}");
        assert!(queue.begin().is_err());
    }
}

#[test]
fn completions_show_at_the_publication_and_not_before() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
    for head in [3, 1, 2] {
        queue.complete(head, u32::from(head) * 100);
        assert_eq!(driver.used_index(), 0);
    }
    assert_eq!(queue.publish(), Publication::Notify);
    assert_eq!(driver.all_used(), vec![(3, 300), (1, 100), (2, 200)]);
    assert_eq!(queue.publish(), Publication::Nothing);
}

#[test]
fn publication_without_event_index_follows_the_flag() {
    let guest = Guest::new();
    let (driver, mut queue) = queue(&guest, 8, FLAGS);
    queue.complete(0, 0);
    assert_eq!(queue.publish(), Publication::Notify);
    driver.set_flags(1);
    queue.complete(0, 0);
    assert_eq!(queue.publish(), Publication::Quiet);
}

#[test]
fn arm_returns_true_if_something_came_meanwhile() {
    for features in [EVENTS, FLAGS] {
        let guest = Guest::new();
        let (mut driver, mut queue) = queue(&guest, 8, features);
        assert!(!queue.arm());
        driver.add(&[Piece::out(DATA, 1)]);
        assert!(queue.arm());
        assert!(next(&mut queue).expect("good").is_some());
        assert!(!queue.arm());
    }
}

#[test]
fn disarm_without_event_index_sets_the_flag_until_arm() {
    let guest = Guest::new();
    let (driver, mut queue) = queue(&guest, 8, FLAGS);
    queue.disarm();
    assert_eq!(driver.used_flags(), 1);
    queue.arm();
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn disarmed_queue_wants_no_doorbell_even_when_indices_wrap_and_armed_wants_one() {
    let guest = Guest::new();
    let (mut driver, mut queue) = queue(&guest, 8, EVENTS);
    let mut doorbells = 0;
    for batch in 0..60_010u32 {
        // The driver rings once for the batch that follows an armed sleep. Then the indices wrap twice.
        if matches!(batch, 0 | 60_000) {
            assert!(!queue.arm());
        }
        for _ in 0..=batch % 4 {
            let old = driver.available;
            driver.add(&[Piece::out(DATA, 1)]);
            doorbells += u32::from(driver.wants_doorbell(old));
        }
        queue.disarm();
        while let Some((head, _)) = next(&mut queue).expect("good") {
            queue.complete(head, 0);
        }
        queue.publish();
        driver.all_used();
    }
    assert_eq!(doorbells, 2);
}

/// A driver and a device on two threads, the device asleep whenever it has nothing to do: if a doorbell were lost, it would
/// sleep for ever.
#[test]
fn no_doorbell_is_lost_between_two_threads() {
    use std::sync::atomic::{Ordering, fence};
    use std::sync::mpsc::{RecvTimeoutError, sync_channel};
    use std::time::Duration;

    const CHAINS: u32 = 20_000;
    for features in [EVENTS, FLAGS] {
        let guest = Guest::new();
        let (mut driver, mut queue) = queue(&guest, 8, features);
        let (doorbell, wait) = sync_channel(1);
        let device = std::thread::spawn(move || {
            let mut taken = 0;
            while taken < CHAINS {
                queue.disarm();
                while let Some((head, _)) = next(&mut queue).expect("good") {
                    queue.complete(head, 0);
                    taken += 1;
                }
                queue.publish();
                if taken < CHAINS && !queue.arm() {
                    let rung = wait.recv_timeout(Duration::from_secs(20));
                    assert_ne!(rung, Err(RecvTimeoutError::Timeout), "lost after {taken} chains");
                }
            }
        });
        let mut added = 0;
        while added < CHAINS && !device.is_finished() {
            if driver.available.wrapping_sub(driver.used_index()) == 8 {
                std::thread::yield_now();
                continue;
            }
            fence(Ordering::Acquire);
            let old = driver.available;
            driver.add(&[Piece::out(DATA, 1)]);
            added += 1;
            fence(Ordering::SeqCst);
            let wanted =
                if features.event_index { driver.wants_doorbell(old) } else { driver.used_flags() == 0 };
            if wanted {
                // A doorbell that waits already is as good as two.
                let _ = doorbell.try_send(());
            }
        }
        assert!(device.join().is_ok());
    }
}

proptest! {
    /// The interrupt is wanted if and only if the driver's event lies among what was shown.
    #[test]
    fn publication_notifies_exactly_when_the_event_is_passed(
        batches in prop::collection::vec((1u16..8, -3i32..12), 1..40), start in any::<u16>(),
    ) {
        let guest = Guest::new();
        let (driver, mut queue) = queue(&guest, 8, EVENTS);
        // Let the indices begin anywhere.
        driver.set_used_event(start.wrapping_add(0x8000));
        for _ in 0..start {
            queue.complete(0, 0);
        }
        queue.publish();
        let mut shown = start;
        for (count, distance) in batches {
            let event = shown.wrapping_add(distance as u16);
            driver.set_used_event(event);
            for _ in 0..count {
                queue.complete(0, 0);
            }
            let expected = (0..count).any(|at| shown.wrapping_add(at) == event);
            shown = shown.wrapping_add(count);
            let expected = if expected { Publication::Notify } else { Publication::Quiet };
            prop_assert_eq!(queue.publish(), expected);
            prop_assert_eq!(driver.used_index(), shown);
        }
    }

    /// Good chains look the same to us and to `virtio-queue`.
    #[test]
    fn chains_agree_with_virtio_queue(
        chains in prop::collection::vec(
            (any::<bool>(), prop::collection::vec((0u64..0x8000, 1u32..0x3000), 1..6)), 1..5),
    ) {
        let guest = Guest::new();
        let (mut driver, mut queue) = queue(&guest, 32, EVENTS);
        for (at, (indirect, pieces)) in chains.iter().enumerate() {
            let pieces: Vec<Piece> = pieces.iter().map(|&(offset, len)| Piece::out(DATA + offset, len)).collect();
            if *indirect {
                let head = driver.indirect(DATA + 0x2_0000 + 0x1000 * at as u64, &pieces);
                driver.make_available(head);
            } else {
                driver.add(&pieces);
            }
        }
        let mut oracle = Queue::new(32).expect("a size");
        oracle.try_set_size(32).expect("a size");
        oracle.try_set_desc_table_address(GuestAddress(driver.config.descriptors_gpa)).expect("aligned");
        oracle.try_set_avail_ring_address(GuestAddress(driver.config.available_gpa)).expect("aligned");
        oracle.try_set_used_ring_address(GuestAddress(driver.config.used_gpa)).expect("aligned");
        oracle.set_ready(true);
        let mut pieces = Gather::with_capacity(LIMITS.segments);
        while let Some(expected) = oracle.pop_descriptor_chain(guest.memory.as_ref()) {
            queue.begin().expect("good");
            let chain = queue.next_chain(LIMITS, pieces.refill()).expect("good").expect("as many");
            queue.advance();
            prop_assert_eq!(chain.head, expected.head_index());
            let host = |gpa| guest.memory.get_host_address(gpa).expect("inside").cast_const();
            let expected: Vec<_> = expected.map(|descriptor| (host(descriptor.addr()), descriptor.len() as usize)).collect();
            let got: Vec<_> = pieces.pieces().iter().map(|piece| piece.place()).collect();
            prop_assert_eq!(got, expected);
        }
        prop_assert_eq!(next(&mut queue), Ok(None));
    }

    /// Whatever lies in the rings: no panic, an end, and no piece outside of the environment's memory.
    #[test]
    fn garbage_in_the_rings_never_leads_outside_of_the_domain(
        descriptors in prop::collection::vec(
            (prop_oneof![
                4 => environment_gpa_of(ENVIRONMENT)..environment_gpa_of(ENVIRONMENT + 1),
                1 => 0..environment_gpa_of(ENVIRONMENT + 3),
                1 => any::<u64>()], 0u32..0x5000, 0u16..8, 0u16..18), 16),
        heads in prop::collection::vec(0u16..17, 16),
        available in prop_oneof![Just(16u16), any::<u16>()],
        writable in any::<bool>(),
    ) {
        let guest = Guest::new();
        let (driver, mut queue) = queue(&guest, 16, EVENTS);
        for (index, (gpa, len, flags, next)) in descriptors.into_iter().enumerate() {
            driver.descriptor(driver.config.descriptors_gpa, index as u16, Piece::out(gpa, len), flags, next);
        }
        for (at, head) in heads.into_iter().enumerate() {
            let gpa = driver.config.available_gpa + 4 + 2 * at as u64;
            guest.memory.write_obj(head, GuestAddress(gpa)).expect("inside");
        }
        driver.set_available_index(available);
        let (mut readable, mut scatter) = (Gather::with_capacity(64), Scatter::with_capacity(64));
        let start = guest.memory.get_host_address(GuestAddress(environment_gpa(ENVIRONMENT))).expect("inside").addr();
        for _ in 0..20 {
            scatter.clear();
            let result = if writable {
                queue.next_chain(LIMITS, scatter.refill(64))
            } else {
                queue.next_chain(LIMITS, readable.refill())
            };
            let Ok(Some(chain)) = result else { break };
            queue.advance();
            queue.complete(chain.head, 0);
            let places: Vec<_> = if writable {
                scatter.pieces().iter().map(|piece| piece.place()).collect()
            } else {
                readable.pieces().iter().map(|piece| piece.place()).collect()
            };
            for (address, len) in places {
                let offset = address.addr().wrapping_sub(start);
                prop_assert!(offset < ENVIRONMENT_BYTES as usize && len <= ENVIRONMENT_BYTES as usize - offset);
            }
        }
        queue.publish();
    }
}
