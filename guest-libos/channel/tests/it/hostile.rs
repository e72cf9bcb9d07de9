//! A device that does not keep to the rules: each way is noticed, none leads out of the queue's memory, and nothing panics.

use crate::harness::{Bench, DEVICE_ADD, PORT_NAME, RESIZE, opened_with_all};
use exos_channel::fake::{ALL_FEATURES, ConsoleQueue as _, message};
use exos_channel::{Arming, Fault};
use exos_virtqueue::RingFault;
use proptest::prelude::*;

#[test]
fn used_entry_for_a_buffer_the_device_has_not_stops_the_port() {
    let (mut bench, mut receive, _transmit) = opened_with_all();
    receive.write_used(0, 77, 10);
    receive.write_used_index(1);
    assert_eq!(bench.channel.read(0, &mut [0; 10]), 0);
    assert_eq!(bench.channel.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 77 })));
    assert_eq!(bench.channel.request_interrupts(), Arming::Sleep, "nobody is kept awake by it");
}

#[test]
fn same_buffer_twice_stops_the_port() {
    let (mut bench, mut receive, _transmit) = opened_with_all();
    assert!(receive.deliver(b"a"));
    receive.give_back(0, 1);
    receive.publish();
    assert_eq!(bench.channel.read(0, &mut [0; 10]), 1);
    // The buffer was offered again and is not published: it is not the device's.
    assert_eq!(bench.channel.fault(), Some(Fault::Ring(RingFault::NotOutstanding { id: 0 })));
}

#[test]
fn length_beyond_the_buffer_stops_the_port() {
    let (mut bench, mut receive, _transmit) = opened_with_all();
    receive.write_used(0, 0, 101);
    receive.write_used_index(1);
    assert_eq!(bench.channel.read(0, &mut [0; 200]), 0);
    assert_eq!(bench.channel.fault(), Some(Fault::Ring(RingFault::BadLength { len_bytes: 101 })));
}

#[test]
fn used_index_that_jumps_stops_the_port_that_it_is_of() {
    let (mut bench, _receive, mut transmit) = opened_with_all();
    transmit.write_used_index(5);
    assert_eq!(bench.channel.write(0, &[0; 1000]), 400, "there was room before the device was looked at");
    let jumped = RingFault::UsedIndexJumped { announced: 5, outstanding: 4 };
    assert_eq!(bench.channel.fault(), Some(Fault::Ring(jumped)));
    assert_eq!(bench.channel.write(0, b"more"), 0);
}

#[test]
fn short_message_or_one_of_no_port_stops_the_channel() {
    for bytes in [&[0; 7][..], &message(0, RESIZE, 0, &[1, 2, 3])] {
        let mut bench = Bench::new(ALL_FEATURES, &["console"]);
        assert!(bench.control.0.deliver(bytes));
        bench.channel.poll();
        assert_eq!(bench.channel.fault(), Some(Fault::ShortMessage { len_bytes: bytes.len() }));
    }
    for port in [3, u32::MAX] {
        let mut bench = Bench::new(ALL_FEATURES, &["console"]);
        bench.say(port, DEVICE_ADD, 0, &[]);
        assert_eq!(bench.channel.fault(), Some(Fault::NoSuchPort { port }));
        bench.heard();
        bench.say(0, DEVICE_ADD, 0, &[]);
        assert!(bench.heard().is_empty(), "it does no more");
    }
}

#[test]
fn answer_without_room_waits_and_is_not_lost() {
    let mut bench = Bench::new(ALL_FEATURES, &["console"]);
    let mut sent = 0;
    while sent < 100 && bench.control.0.deliver(&message(1, DEVICE_ADD, 0, &[])) {
        sent += 1;
        bench.channel.poll();
    }
    // Besides the first word of the driver, 15 answers found room, and 16 messages are not looked at.
    assert_eq!(sent, 31);
    let mut heard = 0;
    for _ in 0..5 {
        heard += bench.heard().len();
        bench.channel.poll();
    }
    assert_eq!(heard, 1 + sent);
}

#[test]
fn unknown_message_is_passed_over_and_counted() {
    let mut bench = Bench::new(ALL_FEATURES, &["console"]);
    bench.say(0, 99, 7, b"from the future");
    assert_eq!((bench.channel.fault(), bench.channel.unknown_messages()), (None, 1));
}

#[test]
fn device_that_announces_without_end_is_answered_as_far_as_there_is_room() {
    let mut bench = Bench::new(ALL_FEATURES, &["console"]);
    for _ in 0..1000 {
        bench.control.0.deliver(&message(1, DEVICE_ADD, 0, &[]));
        bench.channel.poll();
    }
    assert!(bench.heard().len() <= 16);
    assert_eq!(bench.channel.fault(), None);
}

proptest! {
    /// Anything in used rings and messages: no panic, and no byte that was not the device's to give.
    #[test]
    fn nonsense_never_panics(
        steps in prop::collection::vec(
            (0u8..8, any::<u16>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..100)), 1..40),
    ) {
        let (mut bench, mut receive, mut transmit) = opened_with_all();
        let mut bytes = [0; 64];
        for (step, number, value, more) in steps {
            match step {
                0 => { let _ = bench.control.0.deliver(&more); }
                1 => { let _ = bench.control.0.deliver(&message(value % 4, number % 9, number % 2, &more)); }
                2 => receive.write_used(number % 8, value % 8, u32::from(number)),
                3 => receive.write_used_index(number % 8),
                4 => transmit.write_used(number % 8, value, u32::from(number)),
                5 => transmit.write_used_index(number % 8),
                6 => { let _ = bench.control.0.deliver(&message(1, PORT_NAME, 1, b"console")); }
                _ => { let _ = bench.channel.write(0, &more); }
            }
            bench.channel.poll();
            let _ = bench.channel.read(0, &mut bytes);
            let _ = bench.channel.request_interrupts();
            let _ = bench.channel.host(0);
            if !bench.channel.is_open(0) {
                // Its queues have gone, and with them the device's view of them.
                return Ok(());
            }
        }
    }
}
