//! Blind attackers: RFC 5961 (RST, SYN, data and acknowledgments guessed), RFC 9293 3.10.7.4's acceptability, challenge
//! ACKs and their limit; one client's nonsense does not touch another's connection.

use exos_net::{AckPolicy, ConnId, End};
use smoltcp::wire::TcpControl;

use crate::harness::{Client, Host, config, pattern};

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
