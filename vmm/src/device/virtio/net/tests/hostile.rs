//! Mistakes and malice: one queue stops, the others go on, and memory outside of the domain is not touched.

use super::*;
use crate::device::pci::PciFunction;
use crate::device::virtio::test_utils::Driver;

/// Sends a good frame of environment 1 and receives one, over pair 0.
fn works(
    nic: &mut Nic,
    fake: &crate::backend::fake::Fake,
    receive: &mut Driver,
    transmit: &mut Driver,
) -> bool {
    give_buffers(receive, buffer_gpa(1, 0), 4096, 20);
    nic.guest.write(buffer_gpa(1, 0x4_0000), &response(22, b"good"));
    transmit.add(&[Piece::out(buffer_gpa(1, 0x4_0000), response(22, b"good").len() as u32)]);
    fake.wire().to_guest.push_back(request(22, b"good"));
    fake.wire().sent.clear();
    nic.work();
    fake.wire().sent.contains(&response(22, b"good"))
        && receive.all_used().len() == 1
        && transmit.all_used().len() == 1
}

#[test]
fn foreign_descriptor_stops_only_its_queue_and_a_reset_heals_it() {
    let (mut nic, fake) = Nic::new();
    let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
    let mut bad = nic.bind(3, 2);
    give_port(&mut nic, 80, 2, 1, 1);
    bad.add(&[Piece::out(environment_gpa(1), 100)]);
    let worked = nic.work();
    assert!(worked.stopped);
    let error = QueueError::Foreign { gpa: environment_gpa(1), len: 100, writable: false };
    assert_eq!(nic.function.queue_states()[3], QueueState::Stopped(error));
    assert_eq!(nic.get::<1>(offset::DEVICE_STATUS) as u8 & status::NEEDS_RESET, status::NEEDS_RESET);
    assert!(works(&mut nic, &fake, &mut receive, &mut transmit));
    assert!(!nic.work().stopped, "it is said once");
    nic.reset_queue(3);
    assert_eq!(nic.get::<1>(offset::DEVICE_STATUS) as u8 & status::NEEDS_RESET, 0);
    let mut good = nic.bind(3, 2);
    nic.guest.write(buffer_gpa(2, 0), &response(80, b"again"));
    good.add(&[Piece::out(buffer_gpa(2, 0), response(80, b"again").len() as u32)]);
    fake.wire().sent.clear();
    nic.work();
    assert_eq!(fake.wire().sent, vec![response(80, b"again")]);
}

#[test]
fn stopped_queue_raises_the_configuration_interrupt_once() {
    let (mut nic, _fake) = Nic::new();
    nic.set::<2>(offset::CONFIG_MSIX_VECTOR, 9);
    nic.function.bar_write(crate::device::virtio::pci::MSIX_TABLE + 9 * 16 + 8, &0x60u64.to_le_bytes());
    let (transmit, second) = (nic.bind(1, 1), nic.bind(3, 1));
    transmit.set_available_index(1000);
    second.set_available_index(1000);
    nic.work();
    nic.work();
    assert_eq!(nic.interrupts[9].count(), 1);
    assert_eq!(nic.function.metrics().queues_stopped, 2);
}

#[test]
fn short_frames_and_short_buffers_stop_their_queues() {
    let (mut nic, _fake) = Nic::new();
    let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
    transmit.add(&[Piece::out(buffer_gpa(1, 0), 25)]);
    receive.add(&[Piece::into(buffer_gpa(1, 0), 11)]);
    assert!(nic.work().stopped);
    let states = nic.function.queue_states();
    assert_eq!(states[0], QueueState::Stopped(QueueError::TooShort { bytes: 11, min: 12 }));
    assert_eq!(states[1], QueueState::Stopped(QueueError::TooShort { bytes: 25, min: 26 }));
}

#[test]
fn frames_before_the_mistake_are_published() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 0x1_0000 + 0x200, 2);
    receive.add(&[Piece::into(environment_gpa(2), 4096)]);
    for port in 0..3 {
        fake.wire().to_guest.push_back(request(port, b""));
    }
    let worked = nic.work();
    assert_eq!((worked.received, worked.stopped), (2, true));
    assert_eq!(receive.all_used().len(), 2);
    assert_eq!(nic.interrupts[0].count(), 1);
    assert_eq!(fake.wire().to_guest.len(), 1, "the third frame waits for somebody who takes it");
}

#[test]
fn page_revoked_under_a_waiting_buffer_is_not_written_any_more() {
    let (mut nic, fake) = Nic::new();
    let mut receive = nic.bind(0, 1);
    give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 20);
    fake.wire().to_guest.push_back(request(80, b"first"));
    assert_eq!(nic.work().received, 1, "the window is filled now");
    let page = buffer_gpa(1, 4096);
    nic.guest.write(page, &[0xAA; 4096]);
    nic.guest.grant(1, page, 4096, Rights::Read);
    fake.wire().to_guest.push_back(request(80, b"second"));
    assert!(nic.work().stopped);
    assert_eq!(nic.guest.read(page, 4096), vec![0xAA; 4096]);
}

#[test]
fn queue_without_owner_or_with_foreign_rings_is_not_enabled() {
    let (mut nic, _fake) = Nic::new();
    let driver = nic.guest.driver(1, 0, SIZE);
    nic.enable(0, &driver);
    assert!(!nic.is_enabled(0), "nobody's");
    nic.guest.own(0, Some(2));
    nic.enable(0, &driver);
    assert!(!nic.is_enabled(0), "the rings are environment 1's");
    nic.guest.own(0, Some(60));
    nic.enable(0, &driver);
    assert!(!nic.is_enabled(0), "an environment without a domain");
    nic.guest.own(0, Some(1));
    nic.enable(0, &driver);
    assert!(nic.is_enabled(0));
}

#[test]
fn queue_is_rebound_to_another_environment_while_others_run() {
    let (mut nic, fake) = Nic::new();
    let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
    let mut old = nic.bind(2, 2);
    give_buffers(&mut old, buffer_gpa(2, 0), 4096, 20);
    give_port(&mut nic, 80, 2, 1, 1);
    fake.wire().to_guest.push_back(request(80, b"for two"));
    assert_eq!(nic.work().received, 1);
    nic.reset_queue(2);
    assert!(!nic.is_enabled(2));
    assert_eq!(nic.get::<2>(offset::QUEUE_RESET), 0);
    assert!(works(&mut nic, &fake, &mut receive, &mut transmit));
    nic.guest.write(buffer_gpa(2, 0), &[0xAA; 20 * 4096]);
    let mut new = nic.bind(2, 3);
    give_buffers(&mut new, buffer_gpa(3, 0), 4096, 20);
    fake.wire().to_guest.push_back(request(80, b"still for two"));
    nic.work();
    assert_eq!(nic.function.metrics().receive_dropped_queue, 1);
    nic.guest.flows.clear();
    nic.guest.guardian(3, 1, 1);
    fake.wire().to_guest.push_back(request(80, b"for three"));
    assert_eq!(nic.work().received, 1);
    assert_eq!(new.all_used().len(), 1);
    assert_eq!(nic.guest.read(buffer_gpa(2, 0), 20 * 4096), vec![0xAA; 20 * 4096], "no longer the device's");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbage in the rings of one environment: the NIC survives, writes nothing outside of that environment's memory, and
    /// serves the next environment as before.
    #[test]
    fn garbage_harms_nobody_else(
        descriptors in prop::collection::vec(
            (prop_oneof![
                6 => environment_gpa(2)..environment_gpa(3),
                1 => 0..environment_gpa(ENVIRONMENTS),
                1 => any::<u64>()], 0u32..0x3000, 0u16..8, 0u16..66), 64..=64),
        rounds in prop::collection::vec((0u16..70, prop::collection::vec(0u16..66, 4), any::<bool>()), 1..8),
    ) {
        let (mut nic, fake) = Nic::new();
        let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
        let bad = [nic.bind(2, 2), nic.bind(3, 2)];
        give_port(&mut nic, 80, 2, 1, 1);
        prop_assert!(works(&mut nic, &fake, &mut receive, &mut transmit));
        // Canaries: all memory but environment 2's and what serving environment 1 changes.
        let below = nic.guest.read(0, (environment_gpa(1)) as usize);
        let above = nic.guest.read(environment_gpa(3), (environment_gpa(ENVIRONMENTS) - environment_gpa(3)) as usize);
        let one = nic.guest.read(environment_gpa(1), crate::device::virtio::test_utils::ENVIRONMENT_BYTES as usize);
        for driver in &bad {
            for (index, &(gpa, len, flags, next)) in descriptors.iter().enumerate() {
                // Half of the garbage is plausible in direction, so that it gets far.
                let flags = if index % 2 == 0 { flags & 5 } else { flags };
                driver.descriptor(driver.config.descriptors_gpa, index as u16, Piece::out(gpa, len), flags, next);
            }
        }
        let mut available = 0u16;
        for (ahead, heads, reset) in rounds {
            available = available.wrapping_add(ahead);
            for driver in &bad {
                for (at, head) in heads.iter().enumerate() {
                    let slot = u64::from(available.wrapping_sub(at as u16 + 1) % SIZE);
                    let gpa = driver.config.available_gpa + 4 + 2 * slot;
                    nic.guest.memory.write_obj(*head, GuestAddress(gpa)).expect("inside");
                }
                driver.set_available_index(available);
            }
            for _ in 0..4 {
                fake.wire().to_guest.push_back(request(80, &[0x55; 1200]));
            }
            nic.work();
            if reset {
                for (queue, driver) in (2..).zip(&bad) {
                    nic.reset_queue(queue);
                    nic.enable(queue, driver);
                }
                available = 0;
            }
        }
        nic.work();
        prop_assert_eq!(below == nic.guest.read(0, below.len()), true);
        prop_assert_eq!(above == nic.guest.read(environment_gpa(3), above.len()), true);
        prop_assert_eq!(one == nic.guest.read(environment_gpa(1), one.len()), true);
        fake.wire().to_guest.clear();
        prop_assert!(works(&mut nic, &fake, &mut receive, &mut transmit));
    }
}
