//! What goes on is the frame that the forwarder would have sent by itself: addresses, ports and time to live are other ones, sums
//! fit, and nothing else differs.

use crate::common::*;
use core::net::{Ipv4Addr, SocketAddrV4};
use exos_forward::{Meta, Offload};
use proptest::prelude::*;

/// A frame of an open connection, whichever way.
fn frame() -> impl Strategy<Value = (bool, Frame)> {
    let words = proptest::collection::vec(any::<[u8; 4]>(), 0..=10);
    let data =
        prop_oneof![Just(vec![]), proptest::collection::vec(any::<u8>(), 0..200), Just(vec![0xFF; 1461])];
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>());
    (any::<bool>(), numbers, 2..=255u8, words, data, any::<[u8; 4]>(), 1..=u16::MAX).prop_map(
        |(
            from_client,
            (sequence, acknowledgment, window, identification),
            ttl,
            words,
            data,
            address,
            port,
        )| {
            let flags = ACK | if data.is_empty() { 0 } else { PSH };
            let mut client = Frame::of_client(flags);
            // Any client but what cannot be one.
            let [a, b, c, d] = address;
            client.from = SocketAddrV4::new(Ipv4Addr::new(1 + a % 126, b, c, d | 2), port);
            let frame = Frame {
                ttl,
                identification,
                sequence,
                acknowledgment,
                window,
                options: words.concat(),
                data,
                ..client
            };
            (from_client, frame)
        },
    )
}

/// Opens the connection that a client's frame is of, and gives the frame as it comes and as it should go on.
fn both_sides(bench: &mut Bench, from_client: bool, of_client: &Frame) -> (Frame, Frame) {
    let syn = Frame { flags: SYN, data: vec![], options: vec![], ..of_client.clone() };
    let port = source_port(&bench.forwarded(&Frame { ttl: 64, ..syn }));
    let ttl = of_client.ttl - 1;
    let own = |port| SocketAddrV4::new(OWN, port);
    let server = SocketAddrV4::new(SERVER, SERVER_PORT);
    if from_client {
        let (from, to, macs) = (own(port), server, (OWN_MAC, SERVER_MAC));
        (of_client.clone(), Frame { from, to, macs, ttl, ..of_client.clone() })
    } else {
        let came = Frame { from: server, to: own(port), macs: (SERVER_MAC, OWN_MAC), ..of_client.clone() };
        let goes =
            Frame { from: own(LISTEN), to: of_client.from, macs: (OWN_MAC, CLIENT_MAC), ttl, ..came.clone() };
        (came, goes)
    }
}

/// The sum of the pseudo header (RFC 9293 3.1), which a sender leaves in the checksum's field for a device.
fn pseudo_sum(frame: &Frame, segment_bytes: usize) -> u16 {
    let words = [frame.from.ip().to_bits(), frame.to.ip().to_bits()]
        .map(|address| (address >> 16) + (address & 0xFFFF));
    fold(words[0] + words[1] + 6 + segment_bytes as u32)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    sum as u16
}

fn with_checksum(frame: &Frame, checksum: impl FnOnce(u16, usize) -> u16) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let right = u16::from_be_bytes([bytes[50], bytes[51]]);
    let wrong = checksum(right, bytes.len() - 34);
    bytes[50..52].copy_from_slice(&wrong.to_be_bytes());
    bytes
}

proptest! {
    #[test]
    fn forwarded_frame_is_the_one_built_from_scratch((from_client, frame) in frame()) {
        let mut bench = Bench::new(&config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let sent = bench.sent(&came.bytes(), Meta::default());
        prop_assert_eq!(&sent.bytes, &goes.bytes());
        prop_assert_eq!(sent.offload, Offload::None);
    }

    #[test]
    fn there_and_back_is_the_same_frame((_, frame) in frame(), extra in any::<u16>()) {
        let mut bench = Bench::new(&config());
        let came = Frame { ttl: frame.ttl.max(3), ..frame };
        let (came, _) = both_sides(&mut bench, true, &came);
        // Right or wrong, the checksum comes back as it was.
        let sent = with_checksum(&came, |right, _| right.wrapping_add(extra) % 0xFFFF);
        let mut there = bench.sent(&sent, Meta::default()).bytes;
        swap(&mut there);
        let mut back = bench.sent(&there, Meta::default()).bytes;
        swap(&mut back);
        prop_assert_eq!(back[22], sent[22] - 2);
        // Time to live, and what follows from it.
        for at in [22, 24, 25] {
            back[at] = sent[at];
        }
        // One's complement has two zeros.
        let zero = |bytes: &[u8]| bytes[50..52] == [0; 2] || bytes[50..52] == [0xFF; 2];
        if zero(&back) && zero(&sent) {
            back[50..52].copy_from_slice(&sent[50..52]);
        }
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn wrong_checksum_stays_as_wrong_as_it_was((from_client, frame) in frame(), error in 1..0xFFFFu16) {
        let mut bench = Bench::new(&config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let off_by = |right: u16, _| fold(u32::from(right) + u32::from(error));
        let sent = bench.sent(&with_checksum(&came, off_by), Meta::default()).bytes;
        let got = u16::from_be_bytes([sent[50], sent[51]]);
        let right = goes.bytes();
        let right = u16::from_be_bytes([right[50], right[51]]);
        prop_assert_eq!(fold(u32::from(got) + u32::from(!right)) % 0xFFFF, error % 0xFFFF);
    }

    #[test]
    fn checksum_that_a_device_completes_is_the_pseudo_headers_again((from_client, frame) in frame(), mss in proptest::option::of(1..1461u16)) {
        let mut bench = Bench::new(&config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let came_bytes = with_checksum(&came, |_, segment_bytes| pseudo_sum(&came, segment_bytes));
        let meta = Meta { is_partial: true, segment_bytes: mss };
        let sent = bench.sent(&came_bytes, meta);
        let expected = with_checksum(&goes, |_, segment_bytes| pseudo_sum(&goes, segment_bytes));
        prop_assert_eq!(&sent.bytes, &expected);
        let (start, offset) = (34, 16);
        prop_assert_eq!(sent.offload, match mss {
            None => Offload::Checksum { start, offset },
            Some(mss) => Offload::Segment { start, offset, mss },
        });
        prop_assert_eq!(sent.headers_bytes, 54 + frame.options.len());
    }
}

/// As an end that sends back what it got.
fn swap(bytes: &mut [u8]) {
    let mut exchange = |a: usize, b: usize, len: usize| (0..len).for_each(|i| bytes.swap(a + i, b + i));
    exchange(0, 6, 6);
    exchange(26, 30, 4);
    exchange(34, 36, 2);
}

#[test]
fn frame_of_64_kib_stays_one_frame() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    let data: Vec<u8> = (0..65_000u32).map(|i| (i * 7) as u8).collect();
    let frame = Frame { data, ..Frame::of_server(port, ACK) };
    let meta = Meta { is_partial: true, segment_bytes: Some(1448) };
    let sent = bench.sent(&frame.bytes(), meta);
    assert_eq!((sent.bytes.len(), sent.headers_bytes), (65_054, 54));
    assert_eq!(sent.bytes[54..], frame.data);
    let counters = bench.forwarder.counters().to_client;
    assert_eq!((counters.frames, counters.data_bytes), (2, 65_000));
}

#[test]
fn padding_of_a_short_frame_is_left_off() {
    let mut bench = Bench::new(&config());
    let mut bytes = Frame::of_client(SYN).bytes();
    let len_bytes = bytes.len();
    bytes.resize(60, 0xEE);
    assert_eq!(bench.sent(&bytes, Meta::default()).bytes.len(), len_bytes);
}
