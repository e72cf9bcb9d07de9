//! Bytes through an open port.

use crate::harness::{opened_with_all, pattern};
use exos_channel::Arming;
use exos_channel::fake::ConsoleQueue as _;

#[test]
fn reads_give_what_is_there_across_buffers() {
    let (mut bench, mut receive, _transmit) = opened_with_all();
    let mut bytes = [0; 1000];
    assert_eq!(bench.channel.read(0, &mut bytes), 0);
    for part in [&b"one "[..], b"", b"two ", b"three"] {
        assert!(receive.deliver(part));
    }
    assert_eq!(bench.channel.read(0, &mut bytes[..6]), 6);
    assert_eq!(&bytes[..6], b"one tw");
    assert_eq!(bench.channel.read(0, &mut bytes), 7);
    assert_eq!(&bytes[..7], b"o three");
    bench.channel.poll();
    assert_eq!(receive.waiting(), 4, "all buffers are the device's again");
}

#[test]
fn small_writes_share_a_buffer_and_are_published_together() {
    let (mut bench, _receive, mut transmit) = opened_with_all();
    for _ in 0..5 {
        assert_eq!(bench.channel.write(0, b"ten bytes!"), 10);
    }
    assert!(transmit.drain().is_empty(), "not before the poll");
    bench.channel.poll();
    assert_eq!(transmit.drain(), [b"ten bytes!".repeat(5)]);
}

#[test]
fn write_without_room_takes_a_part_and_goes_on_later() {
    let (mut bench, mut receive, mut transmit) = opened_with_all();
    let bytes = pattern(0, 1000);
    assert_eq!(bench.channel.write(0, &bytes), 400);
    assert_eq!(bench.channel.write(0, &bytes[400..]), 0);
    assert!(!bench.channel.is_ready(), "no room came yet");
    assert_eq!(bench.channel.request_write_interrupts(), Arming::Sleep);
    assert!(receive.deliver(b"input"));
    assert!(bench.channel.is_ready(), "there is something to read");
    assert!(!bench.channel.is_ready_to_write(), "and still no room");
    assert_eq!(bench.channel.request_write_interrupts(), Arming::Sleep);
    assert_eq!(transmit.drain().concat(), bytes[..400]);
    assert!(bench.channel.is_ready_to_write(), "room is what was wanted");
    assert_eq!(bench.channel.write(0, &bytes[400..]), 400);
    bench.channel.poll();
    assert_eq!(transmit.drain().concat(), bytes[400..800]);
}

#[test]
fn long_streams_are_exact_both_ways_while_the_indices_wrap() {
    const LEN: usize = 20_000_000;
    let (mut bench, mut receive, mut transmit) = opened_with_all();
    let (mut given, mut read, mut written, mut taken) = (0, 0, 0, 0);
    let mut bytes = [0; 333];
    while read < LEN || taken < LEN {
        while given < LEN {
            let len = (1 + given % 100).min(LEN - given);
            if !receive.deliver(&pattern(given, len)) {
                break;
            }
            given += len;
        }
        if written < LEN {
            let part = pattern(written, 321.min(LEN - written));
            written += bench.channel.write(0, &part);
        }
        let count = bench.channel.read(0, &mut bytes);
        assert!(bytes[..count] == pattern(read, count));
        read += count;
        bench.channel.poll();
        for chain in transmit.drain() {
            assert!(chain == pattern(taken, chain.len()));
            taken += chain.len();
        }
    }
    assert_eq!(bench.channel.fault(), None);
}
