//! What goes on is the frame that the forwarder would have sent by itself: addresses, ports and time to live are other ones, sums
//! fit, and nothing else differs.

use crate::common::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use exos_forward::{Meta, Offload, Version};
use proptest::prelude::*;

/// A frame of an open connection, whichever way, over either version of IP.
fn frame() -> impl Strategy<Value = (Hosts, bool, Frame)> {
    let words = proptest::collection::vec(any::<[u8; 4]>(), 0..=10);
    let data =
        prop_oneof![Just(vec![]), proptest::collection::vec(any::<u8>(), 0..200), Just(vec![0xFF; 1441])];
    let numbers = (any::<u32>(), any::<u32>(), any::<u16>(), any::<u16>(), any::<u8>());
    let who = (hosts(), any::<bool>(), any::<[u8; 16]>(), 1..=u16::MAX);
    (who, numbers, 2..=255u8, words, data).prop_map(
        |(
            (hosts, from_client, address, port),
            (sequence, acknowledgment, window, identification, traffic_class),
            ttl,
            words,
            data,
        )| {
            let flags = ACK | if data.is_empty() { 0 } else { PSH };
            let client =
                Frame { from: SocketAddr::new(any_client(hosts, address), port), ..hosts.of_client(flags) };
            let frame = Frame {
                traffic_class,
                ttl,
                identification,
                sequence,
                acknowledgment,
                window,
                options: words.concat(),
                data,
                ..client
            };
            (hosts, from_client, frame)
        },
    )
}

/// Any client but what cannot be one.
fn any_client(hosts: Hosts, address: [u8; 16]) -> IpAddr {
    let [a, b, c, d, ..] = address;
    match hosts.version {
        Version::Ipv4 => Ipv4Addr::new(1 + a % 126, b, c, d | 2).into(),
        Version::Ipv6 => Ipv6Addr::from_bits(Ipv6Addr::from(address).to_bits() >> 3 | 1 << 125).into(),
    }
}

/// Opens the connection that a client's frame is of, and gives the frame as it comes and as it should go on.
fn both_sides(bench: &mut Bench, from_client: bool, of_client: &Frame) -> (Frame, Frame) {
    let hosts = bench.hosts;
    let syn = Frame { flags: SYN, data: vec![], options: vec![], ..of_client.clone() };
    let port = source_port(&bench.forwarded(&Frame { ttl: 64, ..syn }));
    let ttl = of_client.ttl - 1;
    let own = |port| SocketAddr::new(hosts.own, port);
    let server = SocketAddr::new(hosts.server, SERVER_PORT);
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
    let words = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let bytes = [words(frame.from.ip()), words(frame.to.ip())].concat();
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    fold(sum + 6 + segment_bytes as u32)
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    sum as u16
}

fn with_checksum(hosts: Hosts, frame: &Frame, checksum: impl FnOnce(u16, usize) -> u16) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let right = checksum_of(hosts, &bytes);
    let wrong = checksum(right, bytes.len() - hosts.tcp_at());
    bytes[hosts.tcp_at() + 16..][..2].copy_from_slice(&wrong.to_be_bytes());
    bytes
}

fn checksum_of(hosts: Hosts, bytes: &[u8]) -> u16 {
    let at = hosts.tcp_at() + 16;
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

proptest! {
    #[test]
    fn forwarded_frame_is_the_one_built_from_scratch((hosts, from_client, frame) in frame()) {
        let mut bench = Bench::over(hosts, &config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let sent = bench.sent(&came.bytes(), Meta::default());
        prop_assert_eq!(&sent.bytes, &goes.bytes());
        prop_assert_eq!(sent.offload, Offload::None);
    }

    #[test]
    fn there_and_back_is_the_same_frame((hosts, _, frame) in frame(), extra in any::<u16>()) {
        let mut bench = Bench::over(hosts, &config());
        let came = Frame { ttl: frame.ttl.max(3), ..frame };
        let (came, _) = both_sides(&mut bench, true, &came);
        // Right or wrong, the checksum comes back as it was.
        let sent = with_checksum(hosts, &came, |right, _| right.wrapping_add(extra) % 0xFFFF);
        let mut there = bench.sent(&sent, Meta::default()).bytes;
        swap(hosts, &mut there);
        let mut back = bench.sent(&there, Meta::default()).bytes;
        swap(hosts, &mut back);
        let ttl_at = hosts.ttl_at();
        prop_assert_eq!(back[ttl_at], sent[ttl_at] - 2);
        back[ttl_at] = sent[ttl_at];
        if hosts == IPV4 {
            // What follows from the time to live.
            back[24..26].copy_from_slice(&sent[24..26]);
        }
        // One's complement has two zeros.
        let is_zero = |bytes: &[u8]| [0, 0xFFFF].contains(&checksum_of(hosts, bytes));
        if is_zero(&back) && is_zero(&sent) {
            let field = hosts.tcp_at() + 16..hosts.tcp_at() + 18;
            back[field.clone()].copy_from_slice(&sent[field]);
        }
        prop_assert_eq!(back, sent);
    }

    #[test]
    fn wrong_checksum_stays_as_wrong_as_it_was((hosts, from_client, frame) in frame(), error in 1..0xFFFFu16) {
        let mut bench = Bench::over(hosts, &config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let off_by = |right: u16, _| fold(u32::from(right) + u32::from(error));
        let sent = bench.sent(&with_checksum(hosts, &came, off_by), Meta::default()).bytes;
        let (got, right) = (checksum_of(hosts, &sent), checksum_of(hosts, &goes.bytes()));
        prop_assert_eq!(fold(u32::from(got) + u32::from(!right)) % 0xFFFF, error % 0xFFFF);
    }

    #[test]
    fn checksum_that_a_device_completes_is_the_pseudo_headers_again((hosts, from_client, frame) in frame(), mss in proptest::option::of(1..1461u16)) {
        let mut bench = Bench::over(hosts, &config());
        let (came, goes) = both_sides(&mut bench, from_client, &frame);
        let came_bytes = with_checksum(hosts, &came, |_, segment_bytes| pseudo_sum(&came, segment_bytes));
        let meta = Meta { is_partial: true, segment_bytes: mss };
        let sent = bench.sent(&came_bytes, meta);
        let expected = with_checksum(hosts, &goes, |_, segment_bytes| pseudo_sum(&goes, segment_bytes));
        prop_assert_eq!(&sent.bytes, &expected);
        let (version, start, offset) = (hosts.version, hosts.tcp_at() as u16, 16);
        prop_assert_eq!(sent.offload, match mss {
            None => Offload::Checksum { start, offset },
            Some(mss) => Offload::Segment { version, start, offset, mss },
        });
        prop_assert_eq!(sent.headers_bytes, hosts.tcp_at() + 20 + frame.options.len());
    }
}

/// As an end that sends back what it got.
fn swap(hosts: Hosts, bytes: &mut [u8]) {
    let mut exchange = |a: usize, b: usize, len: usize| (0..len).for_each(|i| bytes.swap(a + i, b + i));
    let at = hosts.tcp_at();
    let address_bytes = if hosts == IPV4 { 4 } else { 16 };
    exchange(0, 6, 6);
    exchange(at - 2 * address_bytes, at - address_bytes, address_bytes);
    exchange(at, at + 2, 2);
}

#[test]
fn frame_of_64_kib_stays_one_frame() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let port = bench.establish(CLIENT_PORT);
        let data: Vec<u8> = (0..65_000u32).map(|i| (i * 7) as u8).collect();
        let frame = Frame { data, ..hosts.of_server(port, ACK) };
        let meta = Meta { is_partial: true, segment_bytes: Some(1440) };
        let sent = bench.sent(&frame.bytes(), meta);
        let headers_bytes = hosts.tcp_at() + 20;
        assert_eq!((sent.bytes.len(), sent.headers_bytes), (65_000 + headers_bytes, headers_bytes));
        assert_eq!(sent.bytes[headers_bytes..], frame.data);
        let counters = bench.forwarder.counters().to_client;
        assert_eq!((counters.frames, counters.data_bytes), (2, 65_000));
    }
}

#[test]
fn client_of_either_version_has_the_server_of_its_own() {
    let mut bench = Bench::new(&config());
    let ports = [IPV4, IPV6].map(|hosts| {
        bench.hosts = hosts;
        (hosts, bench.establish(CLIENT_PORT))
    });
    assert_eq!(bench.connections(), [0, 2, 0]);
    assert_eq!(bench.forwarder.connections_max(), 2 * exos_forward::FLOWS_MAX);
    for (hosts, port) in ports {
        let sent = bench.forwarded(&hosts.of_server(port, ACK));
        let goes = Frame {
            macs: (OWN_MAC, CLIENT_MAC),
            from: SocketAddr::new(hosts.own, LISTEN),
            to: SocketAddr::new(hosts.client, CLIENT_PORT),
            ttl: 63,
            ..hosts.of_server(port, ACK)
        };
        assert_eq!(sent, goes.bytes());
    }
}

#[test]
fn padding_of_a_short_frame_is_left_off() {
    let mut bench = Bench::new(&config());
    let mut bytes = Frame::of_client(SYN).bytes();
    let len_bytes = bytes.len();
    bytes.resize(60, 0xEE);
    assert_eq!(bench.sent(&bytes, Meta::default()).bytes.len(), len_bytes);
}
