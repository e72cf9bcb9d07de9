//! The end of an IPv6 address (RFC 4862 5.5.4): deprecated first, for what has begun with it; then nothing is left of it.

use std::net::{IpAddr, SocketAddr};

use exos_net::wire::tcp::{Control, Segment};
use exos_net::{AckPolicy, ConnId, ConnectError, End, Local, SendError};

use super::fragments::part_to;
use super::routers::{Advert, ROUTER_MAC, advert, made, state_of};
use super::traffic::Client6;
use super::*;
use crate::harness::{Client, PORT};

/// How long the prefix of [`brief`] is good for.
const VALID_SECS: u32 = 10;

/// A host with a given address, and one of a prefix that is advertised for some seconds.
fn brief() -> StaticHost {
    let ipv6 = Ipv6Config { addresses: vec![(OURS, 64)], probes: 0, ..Ipv6Config::default() };
    let mut host = StaticHost::with(with_ipv6(ipv6));
    host.wait_ms(1);
    host.input(&Advert { valid_s: VALID_SECS, preferred_s: VALID_SECS, ..advert() }.frame()).assert_nothing();
    host.nic.frames.clear();
    host
}

fn to_made(port: u16) -> Client6 {
    Client6 { ours: made(), ..Client6::on_port(port) }
}

/// Segments that have left from the advertised address since the last time.
fn left_from_made(host: &mut StaticHost) -> usize {
    let frames: Vec<_> = host.nic.frames.drain(..).collect();
    frames.iter().filter(|frame| frame[12..14] == [0x86, 0xdd] && read(frame).ip.source == made()).count()
}

fn open(host: &mut StaticHost, local: IpAddr) -> ConnId {
    let conn = host.stack.connect_from(host.now, SocketAddr::new(local, 0), (FAR, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    conn
}

#[test]
fn connections_end_with_their_ipv6_address_and_all_others_go_on() {
    let mut host = brief();
    let lost = to_made(1).connect(&mut host);
    assert!(matches!(host.input(&to_made(2).frame("S", 0, 0, b"")), Outcome::Reply(_)));
    let opening = open(&mut host, made().into());
    let mut closer = to_made(3);
    let closed = closer.connect(&mut host);
    host.stack.close(closed).unwrap();
    host.output(closed, AckPolicy::Merge);
    assert_eq!(host.input(&closer.frame("FA", 1, 2, b"")).events().ended, Some(End::Closed));
    // The same peer and ports, but for our address.
    let mut six = Client6::on_port(1);
    let stays = six.connect(&mut host);
    let four = Client::on_port(1).connect(&mut host);
    let elsewhere = open(&mut host, OURS.into());
    host.stack.send(lost, b"unsent").unwrap();
    assert_eq!((host.stack.connections(), host.stack.half_open(), host.stack.opening()), (6, 1, 2));

    host.wait_secs(u64::from(VALID_SECS) - 1);
    assert_eq!(host.ended, []);
    left_from_made(&mut host);
    host.wait_secs(1);
    host.ended.sort_unstable_by_key(|(conn, _)| conn.index());
    assert_eq!(host.ended, [(lost, End::AddressLost), (opening, End::AddressLost)]);
    assert_eq!((host.stack.counters().address_lost, left_from_made(&mut host)), (3, 0));
    assert_eq!(host.stack.send(lost, b"x"), Err(SendError::Stale));
    // Who is still on the way knows nothing of it, and is not answered.
    host.input(&to_made(1).frame("A", 1, 1, b"more")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 1);

    assert_eq!((host.stack.connections(), host.stack.half_open(), host.stack.opening()), (3, 0, 1));
    assert!(host.stack.is_alive(elsewhere) && host.stack.is_alive(four));
    assert_eq!(host.input(&six.frame("A", 1, 1, b"six")).events().conn, stays);
    // Pairs of addresses go with their last connection; the closed one is still remembered by a hash of both.
    assert_eq!((host.stack.address_pairs(), host.stack.time_wait()), (2, 1));
    host.ended.clear();
    host.wait_secs(1);
    assert_eq!(host.ended, []);
}

#[test]
fn what_would_leave_from_an_address_that_is_gone_stays() {
    let mut host = brief();
    // An error about a datagram in fragments, which a full driver does not take in time; another one about fragments that
    // were missing comes when the address is gone.
    let whole = fragments::datagram(2_000);
    host.input(&part_to(THEIRS, made(), 17, 7, 0, true, &whole[..1_440])).assert_nothing();
    host.nic.room = Some(0);
    for (destination, identification) in [(made(), 8), (OURS, 8)] {
        let whole = datagram_to(destination);
        host.input(&part_to(THEIRS, destination, 17, identification, 0, true, &whole[..1_440]))
            .assert_nothing();
        host.input(&part_to(THEIRS, destination, 17, identification, 1_440, false, &whole[1_440..]))
            .assert_nothing();
    }
    host.wait_ms(u64::from(VALID_SECS) * 1_000);
    assert_eq!(state_of(&host, made()), None);
    host.nic.room = None;
    host.wait_secs(120);
    let errors: Vec<_> = host.nic.frames.drain(..).map(|frame| read(&frame)).collect();
    let errors: Vec<_> = errors.iter().filter(|sent| sent.payload[..2] == [1, 4]).collect();
    assert_eq!(errors.iter().map(|sent| sent.ip.source).collect::<Vec<_>>(), [OURS]);
    assert_eq!((left_from_made(&mut host), host.stack.reassemblies()), (0, 0));
}

/// A datagram of 2,000 bytes for a port that is nobody's.
fn datagram_to(destination: Ipv6Addr) -> Vec<u8> {
    let ip = header(THEIRS, destination, NextHeader::Udp);
    let mut bytes = fragments::datagram(2_000);
    bytes[6..8].fill(0);
    let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn listener_at_an_address_that_is_gone_is_heard_again_when_it_is_back() {
    let mut host = brief();
    host.stack.unlisten(PORT);
    host.stack.listen_at(Local::Address(made().into()), PORT).unwrap();
    host.wait_secs(u64::from(VALID_SECS));
    host.input(&to_made(1).frame("S", 0, 0, b"")).assert_nothing();
    let local = SocketAddr::new(made().into(), 0);
    assert_eq!(host.stack.connect_from(host.now, local, (FAR, 80)), Err(ConnectError::NotOurAddress));
    host.input(&advert().frame()).assert_nothing();
    let conn = to_made(1).connect(&mut host);
    assert!(host.stack.is_alive(conn));
}

#[test]
fn address_that_is_advertised_in_time_keeps_its_connections() {
    let mut host = brief();
    let mut client = to_made(1);
    let conn = client.connect(&mut host);
    host.wait_secs(u64::from(VALID_SECS) - 1);
    host.input(&advert().frame()).assert_nothing();
    host.wait_secs(60);
    assert_eq!((host.ended.as_slice(), host.stack.is_alive(conn)), (&[][..], true));
}

#[test]
fn deprecated_address_goes_on_for_its_connections_and_who_asks_for_it() {
    let mut host = brief();
    host.input(&Advert { preferred_s: 2, valid_s: 86_400, ..advert() }.frame()).assert_nothing();
    let mut before = to_made(1);
    let conn = before.connect(&mut host);
    host.wait_secs(3);
    assert_eq!(state_of(&host, made()), Some(AddressState::Deprecated));
    // What had begun goes on from it.
    assert_eq!(host.input(&before.frame("A", 1, 1, b"ask")).events().data, b"ask");
    host.stack.send(conn, b"answer").unwrap();
    host.nic.frames.clear();
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(before.see(&host.nic.frames.pop_back().unwrap()).3, b"answer");
    // RFC 4862 5.5.4: whoever asks at it is accepted.
    to_made(2).connect(&mut host);
    // RFC 6724 5, rule 3: of two that would do, what we begin has the preferred one, though the other one is nearer.
    let near = SocketAddr::new(Ipv6Addr::from_bits(made().to_bits() ^ 1).into(), 80);
    let opened = host.stack.connect(host.now, near).unwrap();
    assert_eq!(host.stack.local(opened).unwrap().ip(), OURS);
    // Unless it is named.
    let named = open(&mut host, made().into());
    assert_eq!(host.stack.local(named).unwrap().ip(), made());
    let syn = read(&host.nic.frames.pop_back().unwrap());
    let segment = Segment::parse(&syn.payload, None).unwrap();
    assert_eq!((segment.control, syn.ip.source, syn.to_mac), (Control::Syn, made(), ROUTER_MAC));
}
