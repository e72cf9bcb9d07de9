//! Blind attackers: RFC 5961 (RST, SYN, data and acknowledgments guessed), RFC 9293 3.10.7.4's acceptability, challenge
//! ACKs and their limit; one client's nonsense does not touch another's connection. And those who want to be expensive: tiny
//! segments, windows held shut, split acknowledgments.

use std::net::SocketAddrV4;

use exos_net::{AckPolicy, Coalesce, Config, ConnId, End, SynCookies};
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, Host, MSS, config, frame_of, pattern};

type StaticHost = Host<&'static [u8]>;

fn connected() -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config());
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    (host, client, conn)
}

#[test]
fn reset_inside_the_window_but_not_exact_returns_challenge_ack() {
    let (mut host, client, conn) = connected();
    let ack = client.see(&host.input(&client.rst(1_000)).reply());
    assert_eq!((ack.flags.as_str(), ack.seq, ack.ack), ("A", 1, 1));
    assert_eq!(host.stack.counters().challenge_acks, 1);
    assert!(host.stack.peer(conn).is_some());
    // The real peer, having lost its connection, answers the challenge with the exact number.
    assert_eq!(host.input(&client.rst(1)).events().ended, Some(End::Reset));
}

#[test]
fn reset_outside_the_window_is_dropped() {
    let (mut host, client, _) = connected();
    host.input(&client.rst(70_000)).assert_nothing();
    host.input(&client.rst(0)).assert_nothing();
    assert_eq!((host.stack.connections(), host.stack.counters().dropped_unacceptable), (1, 2));
}

#[test]
fn syn_in_an_open_connection_returns_challenge_ack() {
    let (mut host, client, _) = connected();
    for seq in [0, 5, 1_000_000] {
        let ack = client.see(&host.input(&client.frame(TcpControl::Syn, seq, None, &[])).reply());
        assert_eq!((ack.flags.as_str(), ack.seq, ack.ack), ("A", 1, 1));
        host.wait_ms(600);
    }
    assert_eq!(host.stack.connections(), 1);
}

#[test]
fn rebooted_peer_gets_through_after_challenge_and_reset() {
    let (mut host, client, _) = connected();
    let mut reborn = Client { isn: 77, ..client.clone() };
    host.input(&reborn.syn()).reply();
    host.input(&client.rst(1)).events();
    reborn.connect(&mut host);
    assert_eq!(host.stack.connections(), 1);
}

#[test]
fn challenge_acks_are_limited_per_connection() {
    let (mut host, client, _) = connected();
    host.input(&client.rst(1_000)).reply();
    for _ in 0..100 {
        host.input(&client.rst(1_000)).assert_nothing();
    }
    assert_eq!(host.stack.counters().challenge_acks_limited, 100);
    // Another connection's challenge does not depend on it (no shared counter to probe).
    let mut other = Client::on_port(9);
    other.connect(&mut host);
    host.input(&other.rst(1_000)).reply();
    host.wait_ms(501);
    host.input(&client.rst(1_000)).reply();
}

#[test]
fn ack_of_unsent_data_returns_challenge_ack_and_changes_nothing() {
    let (mut host, client, conn) = connected();
    host.stack.send(conn, pattern(1_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.nic.frames.clear();
    host.input(&client.data(1, 5_000, b"evil")).reply();
    assert_eq!(host.stack.unacked_bytes(conn), 1_000);
    assert_eq!(host.input(&client.data(1, 1, b"good")).events().data, b"good");
}

#[test]
fn data_with_an_ack_from_long_ago_is_refused() {
    let (mut host, client, _) = connected();
    // RFC 5961 5.2: before SND.UNA - MAX.SND.WND.
    host.input(&client.data(1, 1u32.wrapping_sub(70_000), b"evil")).reply();
    let events = host.input(&client.data(1, 1u32.wrapping_sub(60_000), b"late")).events();
    assert_eq!(events.data, b"late");
}

#[test]
fn segment_without_ack_is_dropped() {
    let (mut host, client, _) = connected();
    host.input(&client.frame(TcpControl::None, 1, None, b"x")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_unacceptable, 1);
}

#[test]
fn keep_alive_of_the_peer_is_answered() {
    let (mut host, client, _) = connected();
    let ack = client.see(&host.input(&client.ack(0, 1)).reply());
    assert_eq!((ack.flags.as_str(), ack.ack), ("A", 1));
}

#[test]
fn two_stacks_do_not_acknowledge_back_and_forth() {
    let (mut host, client, _) = connected();
    let replies = (0..1_000)
        .filter(|_| !matches!(host.input(&client.ack(500_000, 1)), crate::harness::Outcome::Nothing));
    assert_eq!(replies.count(), 1);
}

#[test]
fn misbehaving_clients_harm_nobody_else() {
    let mut host = StaticHost::with(config());
    let mut good = Client::on_port(1);
    let conn = good.connect(&mut host);
    let data = pattern(300_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut received = Vec::new();
    let mut next_port = 1_000;
    while received.len() < data.len() {
        // One that stalls, one that resets, one that sends garbage out of order; new ones each round.
        let mut stalled = Client { window: 0, ..Client::on_port(next_port) };
        let stalled_conn = stalled.connect(&mut host);
        host.stack.send(stalled_conn, data).unwrap();
        assert_eq!(host.output(stalled_conn, AckPolicy::Merge).segments, 0);
        let mut resetting = Client::on_port(next_port + 1);
        resetting.connect(&mut host);
        host.input(&resetting.rst(1)).events();
        let mut garbage = Client::on_port(next_port + 2);
        garbage.connect(&mut host);
        for hole in 0..80 {
            host.input(&garbage.data(3 + 2 * hole, 1, b"?")).events();
        }
        next_port += 3;

        let mut mine = Vec::new();
        for frame in std::mem::take(&mut host.nic.frames) {
            if frame[36..38] == 1u16.to_be_bytes() {
                mine.push(good.see(&frame));
            }
        }
        for segment in mine {
            assert_eq!(segment.seq as usize, 1 + received.len());
            received.extend(segment.payload);
        }
        host.input(&good.ack(1, 1 + received.len() as u32)).events();
        host.output(conn, AckPolicy::Merge);
        host.wait_ms(1);
    }
    assert!(received == data);
    assert!(host.stack.counters().dropped_no_buffer > 0);
}

#[test]
fn small_segment_sizes_are_counted_and_as_small_as_allowed() {
    for (syn_cookies, min_mss, expected) in
        [(SynCookies::Never, 48, 100), (SynCookies::Never, 216, 216), (SynCookies::Always, 216, 216)]
    {
        let mut host = StaticHost::with(Config { syn_cookies, min_mss, ..config() });
        let mut client = Client { mss: Some(100), ..Client::default() };
        let conn = client.connect(&mut host);
        host.stack.send(conn, pattern(4_000)).unwrap();
        host.output(conn, AckPolicy::Merge);
        assert_eq!(client.seen(&mut host)[0].payload.len(), expected, "{syn_cookies:?}");
        assert_eq!(host.stack.counters().small_mss_in, 1, "{syn_cookies:?}");
        // 216 bytes are no attack, and to say nothing neither.
        for mss in [Some(216), None] {
            Client { mss, ..Client::on_port(9) }.handshake_begin(&mut host);
        }
        assert_eq!(host.stack.counters().small_mss_in, 1, "{syn_cookies:?}");
    }
}

#[test]
fn small_segment_size_of_a_peer_that_we_connect_to_is_counted() {
    let mut host = StaticHost::with(config());
    host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
    let conn = host.stack.connect(host.now, SocketAddrV4::new(CLIENT_IP, 7_000)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let syn = host.nic.frames.pop_front().unwrap();
    let port = u16::from_be_bytes([syn[34], syn[35]]);
    let number = u32::from_be_bytes([syn[38], syn[39], syn[40], syn[41]]);
    let syn_ack = TcpRepr {
        src_port: 7_000,
        dst_port: port,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(5),
        ack_number: Some(TcpSeqNumber(number.wrapping_add(1) as i32)),
        window_len: 60_000,
        window_scale: None,
        max_seg_size: Some(90),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    assert!(host.input(&frame_of(CLIENT_MAC, CLIENT_IP, &syn_ack)).events().opened);
    assert_eq!(host.stack.counters().small_mss_in, 1);
}

#[test]
fn segments_that_a_small_window_makes_small_are_counted() {
    let mut host = StaticHost::with(config());
    let mut client = Client { window: 64, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(640)).unwrap();
    for step in 0..10 {
        host.output(conn, AckPolicy::Merge);
        assert_eq!(client.seen_one(&mut host).payload.len(), 64);
        host.input(&client.ack(1, 1 + 64 * (step + 1))).events();
    }
    // The last one is all there is.
    assert_eq!(host.stack.counters().small_segments_out, 9);
    // Full ones, and the end of what there is, are as they should be.
    let mut other = Client::on_port(9);
    let conn = other.connect(&mut host);
    host.stack.send(conn, pattern(4_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(host.stack.counters().small_segments_out, 9);
}

#[test]
fn window_that_stays_closed_for_two_probes_is_counted_once() {
    let mut host = StaticHost::with(config());
    let mut client = Client { window: 0, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(4_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut probes = 0;
    let mut held = Vec::new();
    for _ in 0..40 {
        host.wait_ms(500);
        for _ in client.seen(&mut host) {
            probes += 1;
            held.push(host.stack.counters().windows_held);
            host.input(&client.ack(1, 1)).events();
        }
    }
    assert!(probes > 3, "{probes}");
    assert_eq!(held[..2], [0, 1]);
    assert!(held[2..].iter().all(|&held| held == 1), "{held:?}");
}

/// Savage et al. 1999, 2: a window that grew by a segment with each acknowledgment would be open after a round trip.
#[test]
fn split_acknowledgments_are_counted_and_gain_nothing() {
    let room = |step: u32| {
        let mut host = StaticHost::with(config());
        let mut client = Client { window_scale: Some(4), ..Client::default() };
        let conn = client.connect(&mut host);
        host.stack.send(conn, pattern(1 << 20)).unwrap();
        host.output(conn, AckPolicy::Merge);
        assert_eq!(client.seen(&mut host).len(), 10);
        let mut ack = 1;
        while ack < 1 + 2 * MSS as u32 {
            ack = (ack + step).min(1 + 2 * MSS as u32);
            host.input(&client.ack(1, ack)).events();
        }
        host.output(conn, AckPolicy::Merge);
        (client.seen(&mut host).len(), host.stack.counters().split_acks_in)
    };
    assert_eq!(room(2 * MSS as u32), (4, 0));
    assert_eq!(room(MSS as u32), (4, 0));
    assert_eq!(room(20), (4, 146));
}

/// Small messages that are acknowledged one by one are nobody's trick.
#[test]
fn acknowledgments_of_short_segments_are_not_split_ones() {
    let (mut host, client, conn) = connected();
    host.stack.set_coalesce(conn, Coalesce::NoDelay).unwrap();
    for _ in 0..3 {
        host.stack.send(conn, pattern(100)).unwrap();
        host.output(conn, AckPolicy::Merge);
        host.wait_ms(1);
    }
    for ack in [101, 201, 301] {
        host.input(&client.ack(1, ack)).events();
    }
    assert_eq!(host.stack.counters().split_acks_in, 0);
}
