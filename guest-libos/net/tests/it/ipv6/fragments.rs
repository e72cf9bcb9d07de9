//! Fragments (RFC 8200 4.5): put together within bounds, refused where they overlap (RFC 5722) or lack headers (RFC 7112).

use super::*;
use crate::harness::pattern;
use crate::ipv6::traffic::Client6;

const FRAGMENT: u8 = 44;

/// A part of a UDP datagram or of something else.
pub(super) fn part(
    next_header: u8,
    identification: u32,
    offset: usize,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    part_to(THEIRS, OURS, next_header, identification, offset, more, payload)
}

/// The same between other addresses.
pub(super) fn part_to(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    next_header: u8,
    identification: u32,
    offset: usize,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![next_header, 0];
    bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes.extend(payload);
    frame_with(FRAGMENT, &header(source, destination, NextHeader::Udp), &bytes)
}

/// A UDP datagram to port 5,000.
pub(super) fn datagram(len: usize) -> Vec<u8> {
    let ip = header(THEIRS, OURS, NextHeader::Udp);
    let mut bytes = vec![0x10, 0, 0x13, 0x88];
    bytes.extend((8 + len as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(pattern(len));
    let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

pub(super) fn bound() -> StaticHost {
    let mut host = settled();
    host.stack.bind_udp(5_000).unwrap();
    host
}

#[test]
fn datagram_in_fragments_in_any_order_is_put_together() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut host = bound();
        let whole = datagram(3_000);
        let parts: Vec<_> = whole.chunks(1_440).collect();
        for (index, number) in order.into_iter().enumerate() {
            let frame = part(17, 7, number * 1_440, number < 2, parts[number]);
            if index < 2 {
                host.input(&frame).assert_nothing();
            } else {
                assert_eq!(host.input(&frame).datagram().payload, pattern(3_000));
            }
        }
        assert_eq!((host.stack.reassemblies(), host.stack.counters().reassembly_ok), (0, 1));
    }
}

#[test]
fn datagram_that_is_not_what_it_says_is_counted_when_it_is_whole() {
    let mut host = bound();
    // The length, the checksum.
    for (number, at) in [5, 7].into_iter().enumerate() {
        let mut whole = datagram(2_000);
        whole[at] ^= 0x08;
        host.input(&part(17, number as u32, 0, true, &whole[..1_440])).assert_nothing();
        host.input(&part(17, number as u32, 1_440, false, &whole[1_440..])).assert_nothing();
        let counters = host.stack.counters();
        assert_eq!((counters.reassembly_ok, counters.datagrams_bad), (number as u64 + 1, number as u64 + 1));
    }
}

#[test]
fn what_the_first_fragment_says_the_packet_carries_counts() {
    let mut host = bound();
    let whole = datagram(2_000);
    host.input(&part(6, 7, 1_440, false, &whole[1_440..])).assert_nothing();
    assert_eq!(host.input(&part(17, 7, 0, true, &whole[..1_440])).datagram().payload, pattern(2_000));
}

#[test]
fn fragments_of_other_packets_do_not_mix() {
    let mut host = bound();
    let whole = datagram(2_000);
    host.input(&part(17, 7, 0, true, &whole[..1_440])).assert_nothing();
    host.input(&part(17, 8, 1_440, false, &whole[1_440..])).assert_nothing();
    assert_eq!(host.stack.reassemblies(), 2);
    // Of another sender.
    let mut frame = part(17, 7, 1_440, false, &whole[1_440..]);
    frame[37] ^= 1;
    host.input(&frame).assert_nothing();
    assert_eq!(host.stack.reassemblies(), 3);
}

#[test]
fn overlapping_fragments_give_up_the_whole_packet() {
    let mut host = bound();
    let whole = datagram(2_000);
    host.input(&part(17, 7, 0, true, &whole[..1_440])).assert_nothing();
    host.input(&part(17, 7, 1_432, false, &whole[1_432..])).assert_nothing();
    host.input(&part(17, 7, 1_440, false, &whole[1_440..])).assert_nothing();
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_fragment, counters.reassembly_fails, counters.datagrams_in), (2, 1, 0));
}

#[test]
fn atomic_fragment_has_nothing_to_do_with_others() {
    let mut host = bound();
    let whole = datagram(2_000);
    host.input(&part(17, 7, 0, true, &whole[..1_440])).assert_nothing();
    // The same identification, and it would overlap.
    assert_eq!(host.input(&part(17, 7, 0, false, &datagram(100))).datagram().payload, pattern(100));
    assert_eq!(host.input(&part(17, 7, 1_440, false, &whole[1_440..])).datagram().payload, pattern(2_000));
}

#[test]
fn impossible_fragments_are_answered_with_what_is_wrong() {
    let mut host = bound();
    let problem = |host: &mut StaticHost, frame: &[u8]| {
        let reply = read(&host.input(frame).reply());
        (reply.payload[0], reply.payload[1], u32::from_be_bytes(reply.payload[4..8].try_into().unwrap()))
    };
    // Headers that go on in the second fragment; a TCP header that does.
    assert_eq!(problem(&mut host, &part(60, 1, 0, true, &[17, 1, 1, 4, 0, 0, 0, 0])), (4, 3, 40));
    assert_eq!(problem(&mut host, &part(17, 1, 8, true, &[1; 15])), (4, 0, 4));
    assert_eq!(problem(&mut host, &part(17, 1, 65_528, false, &[1; 8])), (4, 0, 42));
    assert_eq!((host.stack.reassemblies(), host.stack.counters().dropped_fragment), (0, 3));
}

#[test]
fn missing_fragments_are_told_after_a_minute() {
    let mut host = bound();
    let whole = datagram(2_000);
    host.input(&part(17, 7, 0, true, &whole[..1_440])).assert_nothing();
    host.input(&part(17, 8, 1_440, false, &whole[1_440..])).assert_nothing();
    // At once: nothing waits for another call.
    host.now += exos_net::Duration::from_secs(61);
    host.wait_ms(1);
    assert_eq!(host.stack.next_deadline(), None);
    let frames: Vec<_> = host.nic.frames.drain(..).map(|frame| read(&frame)).collect();
    assert_eq!((frames.len(), host.stack.reassemblies()), (1, 0));
    assert_eq!((&frames[0].payload[..2], frames[0].ip.destination), (&[3, 1][..], THEIRS));
}

#[test]
fn segment_in_fragments_reaches_its_connection() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    let frame = client.frame("A", 1, 1, pattern(2_000));
    let segment = &frame[54..];
    host.input(&part(6, 7, 0, true, &segment[..1_440])).assert_nothing();
    let events = host.input(&part(6, 7, 1_440, false, &segment[1_440..])).events();
    assert!(events.conn == conn && events.readable && events.data.is_empty());
    assert_eq!(host.stack.pending(conn), pattern(2_000));
    assert_eq!(host.stack.address_pairs(), 1);
}

#[test]
fn neighbours_do_not_speak_in_fragments() {
    let mut host = settled();
    let frame = solicitation(THEIRS, OURS);
    let ip = Ipv6Header { hop_limit: 255, ..header(THEIRS, OURS, NextHeader::Icmpv6) };
    for (offset, more, payload) in [(0, true, &frame[54..70]), (16, false, &frame[70..])] {
        let mut bytes = vec![58, 0];
        bytes.extend((offset as u16 | u16::from(more)).to_be_bytes());
        bytes.extend([0, 0, 0, 5]);
        bytes.extend(payload);
        host.input(&frame_with(FRAGMENT, &ip, &bytes)).assert_nothing();
    }
    assert_eq!((host.stack.counters().reassembly_ok, host.stack.counters().dropped_fragment), (1, 1));
    assert_eq!(host.stack.counters().neighbour_advertisements, 0);
}
