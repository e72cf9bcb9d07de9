//! Mistakes and malice: one queue stops, the others go on, memory outside of the domain is not touched, nothing grows.

use super::*;
use crate::device::virtio::QueueState;

#[test]
fn foreign_descriptor_stops_only_its_queue_and_a_reset_heals_it() {
    let (mut channel, mut control, _receive, mut transmit) = opened();
    let mut other = Queue::bind(&mut channel, 5, 2);
    control.say(&mut channel, 1, 6, 1);
    other.driver.add(&[Piece::out(environment_gpa(1), 100)]);
    assert!(channel.work().stopped);
    let error = QueueError::Foreign { gpa: environment_gpa(1), len: 100, writable: false };
    assert_eq!(channel.function.queue_states()[5], QueueState::Stopped(error));
    assert_eq!(channel.get::<1>(offset::DEVICE_STATUS) as u8 & status::NEEDS_RESET, status::NEEDS_RESET);
    assert!(!channel.work().stopped, "it is said once");
    let session = attach(&channel.host(0));
    transmit.send(&channel, b"still here");
    channel.work();
    assert_eq!(read(&session), b"still here");
    channel.reset_queue(5);
    assert_eq!(channel.get::<1>(offset::DEVICE_STATUS) as u8 & status::NEEDS_RESET, 0);
    let mut other = Queue::bind(&mut channel, 5, 2);
    assert_eq!(other.environment(), 2);
    other.send(&channel, b"again");
    channel.work();
    assert_eq!(read(&attach(&channel.host(1))), b"again");
}

#[test]
fn device_does_not_write_outside_of_the_domain() {
    let (mut channel, _control, mut receive, _transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    let page = environment_gpa(1) + 0x10_0000;
    channel.guest.write(page, &[0xAA; 4096]);
    receive.driver.add(&[Piece::into(page, 4096)]);
    channel.guest.grant(1, page, 4096, Rights::Read);
    session.write(b"secret");
    assert!(channel.work().stopped);
    assert_eq!(channel.guest.read(page, 4096), vec![0xAA; 4096]);
    assert_eq!(session.status().unsent_bytes, 6, "the bytes wait for a queue that works");
}

#[test]
fn wrong_directions_and_short_buffers_stop_their_queues() {
    let mut channel = Channel::new();
    let mut control = Control::bind(&mut channel);
    let gpa = control.transmit.next_gpa();
    control.transmit.driver.add(&[Piece::into(gpa, 8)]);
    channel.work();
    let wrong = QueueState::Stopped(QueueError::WrongDirection { writable: true });
    assert_eq!(channel.function.queue_states()[3], wrong);
    channel.reset_queue(3);
    channel.reset_queue(2);
    let mut receive = Queue::bind(&mut channel, 2, 1);
    let mut transmit = Queue::bind(&mut channel, 3, 1);
    receive.driver.add(&[Piece::into(gpa, 7)]);
    transmit.send(&channel, &message(0, 0, 1));
    channel.work();
    let short = QueueState::Stopped(QueueError::TooShort { bytes: 7, min: 8 });
    assert_eq!(channel.function.queue_states()[2], short);
}

#[test]
fn short_message_stops_the_control_queue_and_the_ports_go_on() {
    let (mut channel, mut control, _receive, mut transmit) = opened();
    control.transmit.send(&channel, &[0; 7]);
    assert!(channel.work().stopped);
    let short = QueueState::Stopped(QueueError::TooShort { bytes: 7, min: 8 });
    assert_eq!(channel.function.queue_states()[3], short);
    let session = attach(&channel.host(0));
    transmit.send(&channel, b"goes on");
    channel.work();
    assert_eq!(read(&session), b"goes on");
}

#[test]
fn long_message_means_what_its_beginning_says_up_to_the_limit() {
    let mut channel = Channel::new();
    let mut control = Control::bind(&mut channel);
    let long = [&message(0, 0, 1)[..], &[0xFF; 500]].concat();
    control.transmit.send(&channel, &long);
    channel.work();
    assert_eq!(control.heard(&mut channel).len(), 3);
    control.transmit.driver.add(&[Piece::out(environment_gpa(1) + 0x10_0000, 5000)]);
    channel.work();
    let too_long = QueueState::Stopped(QueueError::TooManyBytes { max: 4096 });
    assert_eq!(channel.function.queue_states()[3], too_long);
}

#[test]
fn messages_that_make_no_sense_are_ignored_and_counted() {
    let (mut channel, mut control, _receive, _transmit) = opened();
    let nonsense = [
        (3, 3, 1),        // no such port
        (u32::MAX, 6, 1), // none at all
        (0, 1, 0),        // what only devices say
        (0, 2, 0),
        (0, 7, 1),
        (0, 8, 0), // no such event
        (0, 0xFFFF, 0xFFFF),
        (0, 0, 2), // no such value
        (0, 6, 7),
    ];
    for (port, event, value) in nonsense {
        control.say(&mut channel, port, event, value);
    }
    assert_eq!(channel.function.metrics().messages_ignored, nonsense.len() as u64);
    assert!(control.heard(&mut channel).is_empty());
    assert!(channel.host(0).attach(Begin::Unseen, TerminalSize::default()).is_ok(), "still open");
}

#[test]
fn port_that_is_not_ready_cannot_be_opened() {
    let mut channel = Channel::new();
    let mut control = Control::bind(&mut channel);
    control.say(&mut channel, 0, 6, 1);
    control.say(&mut channel, 0, 3, 1);
    control.say(&mut channel, 0, 0, 1);
    control.say(&mut channel, 0, 6, 1);
    assert_eq!(channel.function.metrics().messages_ignored, 3);
    let refused = channel.host(0).attach(Begin::Unseen, TerminalSize::default()).err();
    assert_eq!(refused, Some(AttachError::NotOpen));
}

#[test]
fn driver_that_asks_and_never_listens_makes_nothing_grow() {
    let mut channel = Channel::new();
    let mut receive = Queue::bind(&mut channel, 2, 1);
    let mut transmit = Queue::bind(&mut channel, 3, 1);
    for round in 0..1000u32 {
        let event = [0, 3, 6][round as usize % 3];
        transmit.send(&channel, &message(round % 3, event, 1));
        channel.work();
        transmit.driver.all_used();
    }
    receive.give(60);
    channel.work();
    channel.work();
    assert_eq!(receive.received(&channel).len(), 3, "what is due is a state, and is said once");
}

#[test]
fn queue_reset_with_data_in_flight_touches_nothing_of_it_any_more() {
    let (mut channel, _control, mut receive, mut transmit) = opened();
    let session = attach(&channel.host(0));
    channel.work();
    receive.give(4);
    // A chain of which a part was taken, and one that was not looked at.
    let long = pattern(0, 100_000);
    let gpa = environment_gpa(1) + 0x10_0000;
    channel.guest.write(gpa, &long);
    transmit.driver.add(&[Piece::out(gpa, long.len() as u32)]);
    channel.work();
    assert!(!read(&session).is_empty());
    channel.reset_queue(1);
    channel.reset_queue(0);
    let memory = channel.guest.read(environment_gpa(1), 0x10_0000);
    session.write(b"for the next queue");
    channel.work();
    assert!(memory == channel.guest.read(environment_gpa(1), 0x10_0000), "no longer the device's");
    let mut receive = Queue::bind(&mut channel, 0, 2);
    let mut transmit = Queue::bind(&mut channel, 1, 2);
    receive.give(1);
    transmit.send(&channel, b"from the beginning");
    channel.work();
    let rest = read(&session);
    assert!(rest.ends_with(b"from the beginning"));
    assert_eq!(receive.received(&channel), [b"for the next queue"]);
}

#[test]
fn control_queue_reset_closes_all_ports() {
    let (mut channel, _control, _receive, _transmit) = opened();
    let session = attach(&channel.host(0));
    channel.reset_queue(3);
    channel.work();
    assert!(!session.status().guest_open);
}

#[test]
fn queue_without_owner_is_not_enabled() {
    let mut channel = Channel::new();
    let driver = channel.guest.driver(1, 0, SIZE);
    channel.enable(0, &driver);
    assert!(!channel.is_enabled(0));
    channel.guest.own(0, Some(2));
    channel.enable(0, &driver);
    assert!(!channel.is_enabled(0), "the rings are environment 1's");
    channel.guest.own(0, Some(1));
    channel.enable(0, &driver);
    assert!(channel.is_enabled(0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Garbage in all queues of one environment, control queues included: the device survives, touches nothing of other
    /// environments, and serves a driver that keeps to the rules as before.
    #[test]
    fn garbage_harms_nobody_else(
        descriptors in prop::collection::vec(
            (prop_oneof![
                8 => environment_gpa(2)..environment_gpa(3),
                1 => 0..environment_gpa(ENVIRONMENTS),
                1 => any::<u64>()], 0u32..0x3000, 0u16..8, 0u16..66), 64..=64),
        rounds in prop::collection::vec((0u16..70, prop::collection::vec(0u16..66, 4), any::<bool>()), 1..8),
        messages in prop::collection::vec((0u32..4, 0u16..9, 0u16..3), 64),
    ) {
        let mut channel = Channel::new();
        let queues = [0, 1, 2, 3, 4, 5];
        let bad = queues.map(|queue| channel.bind(queue, 2));
        let hosts = [channel.host(0), channel.host(1)];
        let below = channel.guest.read(0, environment_gpa(2) as usize);
        let above_bytes = environment_gpa(ENVIRONMENTS) - environment_gpa(3);
        let above = channel.guest.read(environment_gpa(3), above_bytes as usize);
        // Half of what the control queue carries are messages, so that it gets far.
        for (at, &(port, event, value)) in messages.iter().enumerate() {
            channel.guest.write(environment_gpa(2) + 0x10_0000 + 8 * at as u64, &message(port, event, value));
        }
        for (queue, driver) in queues.into_iter().zip(&bad) {
            for (index, &(gpa, len, flags, next)) in descriptors.iter().enumerate() {
                let plausible = index % 2 == 0;
                let (gpa, len) = if plausible && queue == 3 {
                    (environment_gpa(2) + 0x10_0000 + 8 * index as u64, 8)
                } else {
                    (gpa, len)
                };
                let writable = u16::from(queue % 2 == 0 || queue == 2) * 2;
                let flags = if plausible { writable } else { flags };
                driver.descriptor(driver.config.descriptors_gpa, index as u16, Piece::out(gpa, len), flags, next);
            }
        }
        let mut available = 0u16;
        let mut sessions = Vec::new();
        for (ahead, heads, reset) in rounds {
            available = available.wrapping_add(ahead);
            for driver in &bad {
                for (at, head) in heads.iter().enumerate() {
                    let slot = u64::from(available.wrapping_sub(at as u16 + 1) % SIZE);
                    let gpa = driver.config.available_gpa + 4 + 2 * slot;
                    channel.guest.memory.write_obj(*head, GuestAddress(gpa)).expect("inside");
                }
                driver.set_available_index(available);
            }
            for host in &hosts {
                sessions.extend(host.attach(Begin::Recent, TerminalSize { columns: 1, rows: ahead }));
            }
            for session in &sessions {
                session.write(&[0x55; 3000]);
                read(session);
            }
            for _ in 0..3 {
                channel.work();
            }
            if reset {
                sessions.clear();
                for (queue, driver) in queues.into_iter().zip(&bad) {
                    channel.reset_queue(queue);
                    channel.enable(queue, driver);
                }
                available = 0;
            }
        }
        sessions.clear();
        channel.work();
        prop_assert!(below == channel.guest.read(0, below.len()));
        prop_assert!(above == channel.guest.read(environment_gpa(3), above.len()));
        for queue in queues {
            channel.reset_queue(queue);
        }
        let mut control = Control::ready(&mut channel);
        let mut receive = Queue::bind(&mut channel, 0, 1);
        let mut transmit = Queue::bind(&mut channel, 1, 1);
        control.say(&mut channel, 0, 6, 1);
        let session = attach(&hosts[0]);
        channel.work();
        read(&session);
        receive.give(1);
        transmit.send(&channel, b"out");
        session.write(b"in");
        channel.work();
        prop_assert_eq!(read(&session), b"out");
        prop_assert_eq!(receive.received(&channel), vec![b"in".to_vec()]);
    }
}
