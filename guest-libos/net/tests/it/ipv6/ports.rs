//! Ports that are somebody's at some addresses only, and datagrams as they were asked to be carried.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;

use exos_net::wire::checksum::Sum;
use exos_net::wire::tcp::Control;
use exos_net::{BindError, DatagramOptions, Dscp, ListenError, Local, SendDatagramError};

use super::*;
use crate::harness::{CLIENT_IP, Client, PORT, SERVER_IP, pattern};
use crate::ipv6::traffic::Client6;

/// A host at which nobody listens.
fn deaf() -> StaticHost {
    let mut host = settled();
    assert!(host.stack.unlisten(PORT));
    host
}

/// Whether connections over IPv4, and over IPv6, are accepted.
fn accepted(host: &mut StaticHost) -> [bool; 2] {
    let (v4, v6) = (Client::on_port(40_000), Client6::on_port(40_000));
    let answer = host.input(&v4.syn()).reply();
    let over_v4 = v4.see(&answer).flags.contains('S');
    let answer = host.input(&v6.frame("S", 0, 0, b"")).reply();
    let segment = exos_net::wire::tcp::Segment::parse(&read(&answer).payload, None).unwrap().control;
    [over_v4, segment == Control::Syn]
}

#[test]
fn listener_is_reached_at_its_addresses_only() {
    let at = |address: Ipv6Addr| Local::Address(address.into());
    for (local, expected) in [
        (Local::Any, [true, true]),
        (Local::Ipv4, [true, false]),
        (Local::Ipv6, [false, true]),
        (Local::Address(SERVER_IP.into()), [true, false]),
        (at(OURS), [false, true]),
        (at(own_link_local()), [false, false]),
    ] {
        let mut host = deaf();
        host.stack.listen_at(local, PORT).unwrap();
        assert_eq!(accepted(&mut host), expected, "{local:?}");
    }
}

#[test]
fn listeners_share_a_port_where_their_addresses_do_not_overlap() {
    let mut host = deaf();
    host.stack.listen_at(Local::Ipv6, PORT).unwrap();
    assert_eq!(host.stack.listen(PORT), Err(ListenError::InUse));
    assert_eq!(host.stack.listen_at(Local::Address(OURS.into()), PORT), Err(ListenError::InUse));
    host.stack.listen_at(Local::Ipv4, PORT).unwrap();
    assert!(host.stack.unlisten_at(Local::Ipv6, PORT) && !host.stack.unlisten_at(Local::Ipv6, PORT));
    assert_eq!(accepted(&mut host), [true, false]);
}

/// A datagram over IPv6 to a port of ours.
fn datagram6(port: u16) -> Vec<u8> {
    let ip = header(THEIRS, OURS, NextHeader::Udp);
    let mut bytes = vec![0x10, 0, 0, 0, 0, 9, 0, 0, 7];
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    let checksum = ip.pseudo_sum(9).bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    frame_from(CLIENT_MAC, &ip, &bytes)
}

#[test]
fn datagram_to_an_address_at_which_nobody_is_gets_an_error() {
    for (local, has_v4, has_v6) in
        [(Local::Ipv4, true, false), (Local::Ipv6, false, true), (Local::Address(OURS.into()), false, true)]
    {
        let mut host = settled();
        host.stack.bind_udp_at(local, 5_000).unwrap();
        let frame = crate::udp::datagram(SERVER_MAC, SERVER_IP, 5_000, b"4");
        assert_eq!(matches!(host.input(&frame), Outcome::Datagram(_)), has_v4, "{local:?}");
        assert_eq!(matches!(host.input(&datagram6(5_000)), Outcome::Datagram(_)), has_v6, "{local:?}");
        assert_eq!(host.stack.counters().dropped_no_port, 1, "{local:?}");
        assert_eq!(host.stack.bind_udp(5_000), Err(BindError::InUse));
        assert!(host.stack.unbind_udp_at(local, 5_000));
        host.stack.bind_udp(5_000).unwrap();
    }
}

fn bound() -> StaticHost {
    let mut host = settled();
    host.stack.bind_udp(5_000).unwrap();
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    let _ = host.stack.send_udp(host.now, 5_000, (THEIRS, 53).into(), b"who", &mut host.nic);
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
    host.nic.frames.clear();
    host
}

fn send(
    host: &mut StaticHost,
    to: SocketAddr,
    options: &DatagramOptions,
    len: usize,
) -> Result<(), SendDatagramError> {
    host.stack.send_udp_with(host.now, 5_000, to, options, pattern(len), &mut host.nic)
}

#[test]
fn datagram_above_the_mtu_goes_in_fragments_of_ipv6() {
    let options = DatagramOptions { fragment: Some(true), ..DatagramOptions::default() };
    let mut host = bound();
    let mut identifications = Vec::new();
    for len in [1_452, 1_453, 4_000, 65_527] {
        send(&mut host, (THEIRS, 53).into(), &options, len).unwrap();
        let (mut whole, mut more, mut seen) = (Vec::new(), true, Vec::new());
        for frame in host.nic.frames.drain(..) {
            assert!(frame.len() <= 14 + 1_500 && more);
            let (header, payload) = frame[14..].split_at(ipv6::HEADER_BYTES);
            assert_eq!(usize::from(u16::from_be_bytes([header[4], header[5]])), payload.len());
            let payload = if len == 1_452 {
                assert_eq!(header[6], 17, "it fits");
                more = false;
                payload
            } else {
                assert_eq!((header[6], payload[0], payload[1]), (44, 17, 0));
                let place = u16::from_be_bytes([payload[2], payload[3]]);
                assert_eq!(usize::from(place & !7), whole.len(), "in order");
                more = place & 1 != 0;
                assert!(!more || payload.len() % 8 == 0);
                seen.push(payload[4..8].to_vec());
                &payload[8..]
            };
            whole.extend_from_slice(payload);
        }
        assert!(!more);
        seen.dedup();
        assert!(seen.len() <= 1);
        identifications.extend(seen);
        let sum = header(OURS, THEIRS, NextHeader::Udp).pseudo_sum(whole.len());
        assert!(Sum::ZERO.plus(sum).bytes(&whole).is_valid());
        assert_eq!(whole[8..], *pattern(len));
    }
    let several = identifications.len();
    identifications.dedup();
    assert_eq!((several, identifications.len()), (3, 3), "each has its own");
    let large = send(&mut host, (THEIRS, 53).into(), &options, 65_528);
    assert_eq!(large, Err(SendDatagramError::TooLarge { max_bytes: 65_527 }));
}

#[test]
fn datagrams_are_marked_as_they_were_asked_to_be() {
    let mut host = bound();
    let options = DatagramOptions {
        time_to_live: NonZeroU8::new(3),
        dscp: Dscp::EXPEDITED_FORWARDING,
        ..DatagramOptions::default()
    };
    send(&mut host, (CLIENT_IP, 53).into(), &options, 100).unwrap();
    let frame = host.nic.frames.pop_front().unwrap();
    assert_eq!((frame[15], frame[22]), (46 << 2, 3));
    assert!(Sum::ZERO.bytes(&frame[14..34]).is_valid(), "the header's checksum");
    send(&mut host, (THEIRS, 53).into(), &options, 100).unwrap();
    let frame = host.nic.frames.pop_front().unwrap();
    assert_eq!((&frame[14..16], frame[21]), (&[0x6b, 0x80][..], 3));
}

#[test]
fn datagram_comes_from_the_address_that_was_chosen_if_it_is_ours() {
    let mut host = bound();
    let from = |source: IpAddr| DatagramOptions { source: Some(source), ..DatagramOptions::default() };
    send(&mut host, (THEIRS, 53).into(), &from(own_link_local().into()), 1).unwrap();
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).ip.source, own_link_local());
    send(&mut host, (CLIENT_IP, 53).into(), &from(SERVER_IP.into()), 1).unwrap();
    for source in [IpAddr::from(FAR), SERVER_IP.into(), CLIENT_IP.into()] {
        let sent = send(&mut host, (THEIRS, 53).into(), &from(source), 1);
        assert_eq!(sent, Err(SendDatagramError::NoAddress), "{source}");
    }
}
