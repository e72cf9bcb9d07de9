//! ICMPv6 errors and echoes (RFC 4443), path MTUs (RFC 8201).

use exos_net::wire::icmpv6::{HEADER_BYTES, MAX_QUOTE_BYTES};
use exos_net::wire::ipv6::ALL_NODES;
use exos_net::{AckPolicy, Config, End, Problem, Rate};

use super::*;
use crate::harness::pattern;
use crate::ipv6::traffic::Client6;

fn echo(data: &[u8]) -> Vec<u8> {
    [&[128, 0, 0, 0, 0, 7, 0, 9], data].concat()
}

/// An error with this type and code about what `frame` carried.
pub(super) fn error_about(frame: &[u8], kind: u8, code: u8, word: u32, from: Ipv6Addr) -> Vec<u8> {
    let quote = &frame[14..frame.len().min(14 + MAX_QUOTE_BYTES)];
    let message = [&[kind, code, 0, 0][..], &word.to_be_bytes(), quote].concat();
    icmpv6(from, OURS, &message)
}

#[test]
fn echo_request_returns_its_data() {
    let mut host = settled();
    for len in [0, 1, 56, 1_452] {
        let data = pattern(len);
        let reply = read(&host.input(&icmpv6(THEIRS, OURS, &echo(data))).reply());
        assert_eq!((reply.ip.source, reply.ip.destination, reply.to_mac), (OURS, THEIRS, CLIENT_MAC));
        assert!(reply.ip.pseudo_sum(reply.payload.len()).bytes(&reply.payload).is_valid());
        assert_eq!((reply.payload[0], &reply.payload[4..8]), (129, &[0, 7, 0, 9][..]));
        assert_eq!(&reply.payload[HEADER_BYTES..], data);
    }
    let reply = read(&host.input(&icmpv6(THEIRS, ALL_NODES, &echo(b"all"))).reply());
    assert_eq!(reply.ip.source, OURS);
    assert_eq!(host.stack.counters().echo_replies, 5);
}

#[test]
fn echo_replies_and_errors_have_rate_limits() {
    let rate = Rate { per_second: 1, burst: 2 };
    let addresses = vec![(OURS, 64)];
    let ipv6 = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { echo_replies: rate, icmp_errors: rate, ..with_ipv6(ipv6) });
    let datagram = frame_with(99, &header(THEIRS, OURS, NextHeader::Udp), b"12345678");
    for _ in 0..2 {
        host.input(&datagram).reply();
        host.input(&icmpv6(THEIRS, OURS, &echo(b""))).reply();
    }
    host.input(&datagram).assert_nothing();
    host.input(&icmpv6(THEIRS, OURS, &echo(b""))).assert_nothing();
    let counters = host.stack.counters();
    assert_eq!((counters.icmp_errors_limited, counters.echo_replies_limited), (1, 1));
}

#[test]
fn datagram_to_a_port_that_is_not_bound_is_answered_with_what_it_was() {
    let mut host = settled();
    let ip = header(THEIRS, OURS, NextHeader::Udp);
    let mut datagram = [&[0x10, 0, 0, 9, 0x05, 0x80, 0, 0][..], &[7; 1_400]].concat();
    let checksum = ip.pseudo_sum(datagram.len()).bytes(&datagram).checksum();
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    let frame = frame_from(CLIENT_MAC, &ip, &datagram);
    let reply = read(&host.input(&frame).reply());
    assert_eq!((&reply.payload[..2], reply.payload.len()), (&[1, 4][..], 1_280 - 40));
    assert!(reply.ip.pseudo_sum(reply.payload.len()).bytes(&reply.payload).is_valid());
    assert_eq!(reply.payload[HEADER_BYTES..], frame[14..14 + MAX_QUOTE_BYTES]);
    // What went to many is not answered.
    let to_all = header(THEIRS, ALL_NODES, NextHeader::Udp);
    datagram[6..8].fill(0);
    let checksum = to_all.pseudo_sum(datagram.len()).bytes(&datagram).checksum();
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    host.input(&frame_from(CLIENT_MAC, &to_all, &datagram)).assert_nothing();
}

#[test]
fn unknown_headers_and_source_routes_are_answered_with_where_they_are() {
    let mut host = settled();
    let ip = header(THEIRS, OURS, NextHeader::Udp);
    let reply = read(&host.input(&frame_with(99, &ip, b"12345678")).reply());
    assert_eq!(reply.payload[..8], [4, 1, reply.payload[2], reply.payload[3], 0, 0, 0, 6]);
    let routed = [&[17, 2, 0, 1, 0, 0, 0, 0][..], &FAR.octets(), b"12345678"].concat();
    let reply = read(&host.input(&frame_with(43, &ip, &routed)).reply());
    assert_eq!((&reply.payload[..2], &reply.payload[4..8]), (&[4, 0][..], &[0, 0, 0, 42][..]));
    // An error is not answered, whatever is wrong with it.
    host.input(&icmpv6(THEIRS, OURS, &[4, 1, 0, 0, 0, 0, 0, 6, 1, 2])).assert_nothing();
    host.input(&frame_with(59, &ip, b"")).assert_nothing();
    assert_eq!(host.stack.counters().icmp_errors_out, 2);
}

#[test]
fn hard_error_ends_what_is_opening_and_nothing_else() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.nic.frames.clear();
    host.stack.retry_blocked(host.now, &mut host.nic);
    let syn = host.nic.frames.pop_front().unwrap();
    let mut forged = syn.clone();
    // Not the number that is on its way.
    forged[58] ^= 1;
    host.input(&error_about(&forged, 1, 4, 0, FAR)).assert_nothing();
    // Between other addresses.
    let mut other = syn.clone();
    other[53] ^= 1;
    host.input(&error_about(&other, 1, 4, 0, FAR)).assert_nothing();
    assert_eq!(host.stack.counters().dropped_unacceptable, 2);
    let soft = host.input(&error_about(&syn, 1, 0, 0, FAR)).events();
    assert_eq!((soft.ended, host.stack.is_alive(conn)), (None, true));
    let hard = host.input(&error_about(&syn, 1, 1, 0, FAR)).events();
    assert_eq!((hard.conn, hard.ended), (conn, Some(End::Unreachable)));
    assert_eq!(host.stack.address_pairs(), 0);
}

#[test]
fn quoted_addresses_of_ipv4_do_not_reach_a_connection_of_ipv6() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(100)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    // 224.0.0.0 has the number of the first pair.
    let mut quote = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 224, 0, 0, 0];
    let segment = read(&host.nic.frames.pop_front().unwrap()).payload;
    quote.extend(&segment[..8]);
    let mut message = vec![3, 0, 0, 0, 0, 0, 0, 0];
    message.extend(&quote);
    let sum = exos_net::wire::checksum::Sum::ZERO.bytes(&message).checksum();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0; 34];
    frame[..12].copy_from_slice(&[SERVER_MAC.0, CLIENT_MAC.0].concat());
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = exos_net::wire::ipv4::Ipv4Header {
        source: crate::harness::CLIENT_IP,
        destination: crate::harness::SERVER_IP,
        protocol: exos_net::wire::ipv4::Protocol::Icmp,
    };
    ip.emit(message.len(), (&mut frame[14..]).try_into().unwrap());
    frame.extend(&message);
    host.input(&frame).assert_nothing();
    assert_eq!(host.stack.counters().problems_in, 0);
}

#[test]
fn packet_too_big_makes_segments_smaller_for_all_connections_to_the_host() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    let other = Client6::on_port(40_001).connect(&mut host);
    host.stack.send(conn, pattern(2_880)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let first = host.nic.frames.pop_front().unwrap();
    host.nic.frames.clear();
    let events = host.input(&error_about(&first, 2, 0, 1_300, FAR)).events();
    assert!(events.output_due);
    host.output(conn, AckPolicy::IfDue);
    let again = read(&host.nic.frames.pop_front().unwrap());
    assert_eq!(again.payload.len(), 1_300 - 40);
    host.stack.send(other, pattern(2_880)).unwrap();
    host.nic.frames.clear();
    host.output(other, AckPolicy::IfDue);
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).payload.len(), 1_300 - 40);
    assert_eq!(host.stack.max_datagram_bytes(host.now, THEIRS), 1_300 - 48);
    host.wait_secs(601);
    assert_eq!(host.stack.max_datagram_bytes(host.now, THEIRS), 1_500 - 48);
}

#[test]
fn packet_too_big_below_the_least_mtu_or_about_nothing_on_its_way_is_not_believed() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(2_880)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let first = host.nic.frames.pop_front().unwrap();
    host.input(&error_about(&first, 2, 0, 1_279, FAR)).assert_nothing();
    host.input(&error_about(&first, 2, 0, 0, FAR)).assert_nothing();
    let mut forged = first.clone();
    forged[58] ^= 0x80;
    host.input(&error_about(&forged, 2, 0, 1_300, FAR)).assert_nothing();
    assert_eq!((host.stack.counters().path_mtu_reduced, host.stack.counters().dropped_unacceptable), (0, 3));
    host.input(&error_about(&first, 2, 0, 1_280, FAR)).events();
    assert_eq!(host.stack.counters().path_mtu_reduced, 1);
}

#[test]
fn error_about_a_datagram_is_told_if_its_port_is_bound() {
    let mut host = settled();
    host.stack.bind_udp(5_000).unwrap();
    let ip = header(OURS, THEIRS, NextHeader::Udp);
    let mut datagram = frame_from(CLIENT_MAC, &ip, &[0x13, 0x88, 0, 53, 0, 8, 0, 0]);
    let Outcome::DatagramError(error) = host.input(&error_about(&datagram, 1, 4, 0, THEIRS)) else {
        panic!()
    };
    assert_eq!((error.port, error.to, error.problem), (5_000, (THEIRS, 53).into(), Problem::PortUnreachable));
    datagram[55] ^= 1;
    host.input(&error_about(&datagram, 1, 4, 0, THEIRS)).assert_nothing();
}
