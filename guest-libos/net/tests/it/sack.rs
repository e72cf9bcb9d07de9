//! Selective acknowledgments: what we report of data out of order (RFC 2018 3, 4) and of data that came twice
//! (RFC 2883).

use exos_net::{AckPolicy, Config, ConnId};
use smoltcp::wire::{Ipv4Packet, TcpPacket};

use crate::harness::{Client, Host, config, pattern};

type StaticHost = Host<&'static [u8]>;

fn receiving(timestamps: Option<(u32, u32)>) -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config());
    let mut client = Client { sack: true, timestamps, ..Client::default() };
    let conn = client.connect(&mut host);
    (host, client, conn)
}

/// Bytes `seq..seq + len` arrive; the blocks of the acknowledgment.
fn blocks(host: &mut StaticHost, client: &Client, seq: u32, len: usize) -> Vec<(u32, u32)> {
    let conn = host.input(&client.data(seq, 1, pattern(len))).events().conn;
    host.output(conn, AckPolicy::Now);
    let seen = client.seen_one(host);
    assert!(seen.payload.is_empty());
    seen.blocks
}

#[test]
fn sack_is_permitted_if_both_sides_want_it() {
    for (peer, ours, expected) in
        [(true, true, true), (true, false, false), (false, true, false), (false, false, false)]
    {
        let mut host = StaticHost::with(Config { sack: ours, ..config() });
        let mut client = Client { sack: peer, ..Client::default() };
        let frame = client.handshake_begin(&mut host);
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert_eq!(tcp.selective_ack_permitted().unwrap(), expected);
        host.input(&client.ack(1, 1)).events();
        assert_eq!(blocks(&mut host, &client, 101, 100).len(), usize::from(expected));
    }
}

#[test]
fn block_of_the_latest_segment_comes_first_and_the_others_by_age() {
    let (mut host, client, _) = receiving(None);
    assert_eq!(blocks(&mut host, &client, 101, 100), [(101, 201)]);
    assert_eq!(blocks(&mut host, &client, 501, 100), [(501, 601), (101, 201)]);
    assert_eq!(blocks(&mut host, &client, 301, 100), [(301, 401), (501, 601), (101, 201)]);
    // What grows is the latest, whole; what it has swallowed is not repeated.
    assert_eq!(blocks(&mut host, &client, 201, 100), [(101, 401), (501, 601)]);
    for start in [701, 901, 1_101] {
        blocks(&mut host, &client, start, 100);
    }
    let expected = [(1_301, 1_401), (1_101, 1_201), (901, 1_001), (701, 801)];
    assert_eq!(blocks(&mut host, &client, 1_301, 100), expected);
    // A hole filled: what was behind it is acknowledged in the ordinary way.
    assert_eq!(blocks(&mut host, &client, 1, 100).last(), Some(&(701, 801)));
    assert_eq!(blocks(&mut host, &client, 401, 100)[3], (701, 801));
}

#[test]
fn beside_timestamps_there_are_three_blocks() {
    let (mut host, client, _) = receiving(Some((1, 0)));
    for start in [101, 301, 501] {
        blocks(&mut host, &client, start, 100);
    }
    assert_eq!(blocks(&mut host, &client, 701, 100), [(701, 801), (501, 601), (301, 401)]);
}

#[test]
fn blocks_are_repeated_until_the_hole_is_filled_and_then_gone() {
    let (mut host, client, conn) = receiving(None);
    blocks(&mut host, &client, 101, 100);
    host.output(conn, AckPolicy::Now);
    assert_eq!(blocks(&mut host, &client, 1, 50), [(101, 201)]);
    assert_eq!(blocks(&mut host, &client, 51, 50), []);
    assert_eq!(host.stack.pending(conn).len(), 200);
}

#[test]
fn data_frames_carry_no_blocks() {
    let (mut host, client, conn) = receiving(None);
    host.input(&client.data(101, 1, b"out of order")).events();
    host.stack.send(conn, b"response").unwrap();
    host.output(conn, AckPolicy::IfDue);
    let seen = client.seen(&mut host);
    assert_eq!((seen[0].payload.len(), seen[0].blocks.as_slice()), (0, &[(101, 113)][..]));
    assert_eq!((seen[1].payload.as_slice(), seen[1].blocks.as_slice()), (&b"response"[..], &[][..]));
}

#[test]
fn segment_that_came_twice_is_reported_once_and_first() {
    let (mut host, client, conn) = receiving(None);
    host.input(&client.data(1, 1, pattern(300))).events();
    host.output(conn, AckPolicy::Now);
    host.nic.frames.clear();
    // All of it is old (RFC 2883 4.1.1).
    let ack = client.see(&host.input(&client.data(101, 1, pattern(100))).reply());
    assert_eq!((ack.ack, ack.blocks.as_slice()), (301, &[(101, 201)][..]));
    // Part of it is old: the rest is delivered.
    let events = host.input(&client.data(201, 1, pattern(200))).events();
    assert_eq!(events.data.len(), 100);
    host.stack.send(conn, b"x").unwrap();
    host.output(conn, AckPolicy::IfDue);
    let seen = client.seen(&mut host);
    assert_eq!((seen[0].ack, seen[0].blocks.as_slice()), (401, &[(201, 301)][..]));
    // Out of order, and again: the second block is the run that has it (RFC 2883 4.1.2).
    assert_eq!(blocks(&mut host, &client, 501, 100), [(501, 601)]);
    assert_eq!(blocks(&mut host, &client, 551, 100), [(551, 601), (501, 651)]);
    assert_eq!(blocks(&mut host, &client, 701, 100), [(701, 801), (501, 651)]);
}

#[test]
fn segment_too_many_is_neither_kept_nor_reported() {
    let (mut host, client, _) = receiving(None);
    for run in 0..64 {
        blocks(&mut host, &client, 11 + 20 * run, 10);
    }
    assert_eq!(blocks(&mut host, &client, 11 + 20 * 64, 10)[0], (11 + 20 * 63, 21 + 20 * 63));
    assert_eq!(host.stack.counters().dropped_no_buffer, 1);
}
