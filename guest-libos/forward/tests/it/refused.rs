//! What does not go on, each for its reason.

use crate::common::*;
use core::net::{Ipv4Addr, SocketAddrV4};
use exos_forward::{Config, ConfigError, FLOWS_MAX, Forwarder, HEAD_BYTES, Meta, Reason, Verdict};

/// A frame of a connection with a byte of its IP header changed, and a checksum that fits.
fn with_ip(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = Frame { data: vec![1; 20], ..Frame::of_client(SYN) }.bytes();
    change(&mut bytes[14..34]);
    bytes[24..26].fill(0);
    let sum: u32 = bytes[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}

fn from(address: [u8; 4]) -> Vec<u8> {
    Frame { from: SocketAddrV4::new(Ipv4Addr::from(address), 5000), ..Frame::of_client(SYN) }.bytes()
}

#[test]
fn frames_are_refused_for_their_reason() {
    let mut bench = Bench::new(&config());
    let good = Frame { data: vec![1; 20], ..Frame::of_client(SYN) }.bytes();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    for (what, bytes, reason) in [
        ("nothing", vec![], Reason::Malformed),
        ("half an Ethernet header", good[..13].to_vec(), Reason::Malformed),
        ("no more than one", good[..14].to_vec(), Reason::Malformed),
        ("half an IP header", good[..33].to_vec(), Reason::Malformed),
        ("the packet's end is missing", good[..good.len() - 1].to_vec(), Reason::Malformed),
        ("IP version 5", with_ip(|ip| ip[0] = 0x55), Reason::Malformed),
        ("an IP header of 16 bytes", with_ip(|ip| ip[0] = 0x44), Reason::Malformed),
        ("IP options", with_ip(|ip| ip[0] = 0x46), Reason::IpOptions),
        ("an IP packet without a header", with_ip(|ip| ip[3] = 19), Reason::Malformed),
        ("no whole TCP header", with_ip(|ip| ip[3] = 39), Reason::Malformed),
        ("a wrong IP checksum", changed(25, good[25] ^ 1), Reason::BadChecksum),
        ("another address", with_ip(|ip| ip[19] = 99), Reason::NotForUs),
        ("a broadcast", with_ip(|ip| ip[16..].fill(255)), Reason::NotForUs),
        ("another station", changed(5, 99), Reason::NotForUs),
        ("a broadcast to all stations", [&[0xFF; 6], &good[6..]].concat(), Reason::NotForUs),
        ("the first fragment", with_ip(|ip| ip[6] = 0x20), Reason::Fragment),
        ("a later one", with_ip(|ip| ip[7] = 1), Reason::Fragment),
        ("UDP", with_ip(|ip| ip[9] = 17), Reason::Unsupported),
        ("IPv6", changed(12, 0x86), Reason::Unsupported),
        ("a TCP header of 16 bytes", changed(46, 0x40), Reason::Malformed),
        ("one longer than the segment", changed(46, 0xF0), Reason::Malformed),
        ("SYN and FIN", changed(47, SYN | FIN), Reason::Malformed),
        ("SYN and RST", changed(47, SYN | RST), Reason::Malformed),
        ("from port 0", Frame::of_client(SYN).port(0).bytes(), Reason::BadSource),
        ("from 0.0.0.0", from([0; 4]), Reason::BadSource),
        ("from a multicast address", from([224, 0, 0, 1]), Reason::BadSource),
        ("from a broadcast address", from([255; 4]), Reason::BadSource),
        ("from 127.0.0.1", from([127, 0, 0, 1]), Reason::BadSource),
        ("from ourselves", from(OWN.octets()), Reason::BadSource),
        ("another port", changed(37, 81), Reason::NotListened),
    ] {
        assert_eq!(bench.dropped(&bytes), reason, "{what}");
    }
    assert_eq!(bench.connections(), [0; 3]);
    bench.sent(&good, Meta::default());
}

#[test]
fn nobody_but_the_server_gets_through_to_a_client() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    let server = Frame::of_server(port, ACK);
    for from in [SocketAddrV4::new(CLIENT, SERVER_PORT), SocketAddrV4::new(SERVER, SERVER_PORT + 1)] {
        assert_eq!(bench.dropped(&Frame { from, ..server.clone() }.bytes()), Reason::NoFlow);
    }
    for port in [port ^ 1, 0, 1023, 65_535] {
        let to = SocketAddrV4::new(OWN, port);
        assert_eq!(bench.dropped(&Frame { to, ..server.clone() }.bytes()), Reason::NoFlow, "{port}");
    }
    bench.forwarded(&server);
}

#[test]
fn what_the_device_says_of_segments_without_a_checksum_to_complete_is_refused() {
    let mut bench = Bench::new(&config());
    bench.open(CLIENT_PORT);
    let bytes = Frame::of_client(ACK).bytes();
    for meta in [
        Meta { is_partial: false, segment_bytes: Some(1448) },
        Meta { is_partial: true, segment_bytes: Some(0) },
    ] {
        let verdict = bench.forwarder.forward(bench.now, &bytes, &mut [0; HEAD_BYTES], meta);
        assert_eq!(verdict, Verdict::Drop(Reason::Offload));
    }
}

#[test]
fn configurations_that_lead_nowhere_are_refused() {
    let to = |address: [u8; 4], port| Config { to: SocketAddrV4::new(address.into(), port), ..config() };
    for (config, error) in [
        (Config { listen: 0, ..config() }, ConfigError::PortZero),
        (to(SERVER.octets(), 0), ConfigError::PortZero),
        (to(OWN.octets(), 80), ConfigError::ToItself),
        (to([224, 0, 0, 5], 80), ConfigError::NoHost([224, 0, 0, 5].into())),
        (to([127, 0, 0, 1], 80), ConfigError::NoHost([127, 0, 0, 1].into())),
        (Config { address: [0, 0, 0, 0].into(), ..config() }, ConfigError::NoHost([0; 4].into())),
        (to([10, 0, 1, 2], 80), ConfigError::NoWay([10, 0, 1, 2].into())),
        (Config { max_connections: 0, ..config() }, ConfigError::Connections(0)),
        (Config { max_connections: FLOWS_MAX + 1, ..config() }, ConfigError::Connections(FLOWS_MAX + 1)),
    ] {
        assert_eq!(Forwarder::new(&config).expect_err("refused"), error);
    }
}
