//! Timestamps: negotiated and echoed (RFC 7323 3, 4.3), round trips by them (4), segments that they show to be old (5),
//! connections that follow each other fast (RFC 6191), segment sizes beside them (RFC 6691).

use exos_net::{AckPolicy, Config, CongestionControl, ConnId, Duration, MAX_TSO_BYTES, TxChecksum};
use smoltcp::wire::TcpControl;

use crate::harness::{Client, Host, MSS, config, pattern};

type StaticHost = Host<&'static [u8]>;

/// A client whose clock shows `value`.
fn client(value: u32) -> Client {
    Client { timestamps: Some((value, 0)), ..Client::default() }
}

fn connected() -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config());
    let mut client = client(1_000);
    let conn = client.connect(&mut host);
    (host, client, conn)
}

#[test]
fn timestamps_are_answered_and_every_segment_has_them() {
    let mut host = StaticHost::with(config());
    let mut client = client(1_000);
    let frame = client.handshake_begin(&mut host);
    let (value, echo) = client.see(&frame).timestamps.unwrap();
    assert_eq!(echo, 1_000);
    client.timestamps = Some((1_001, value));
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.now += Duration::from_millis(500);
    client.timestamps = Some((1_002, value));
    host.input(&client.data(1, 1, b"GET")).events();
    host.stack.send(conn, b"OK").unwrap();
    host.output(conn, AckPolicy::Now);
    let (later, echo) = client.seen_one(&mut host).timestamps.unwrap();
    assert_eq!(echo, 1_002);
    let ticks = later.wrapping_sub(value);
    assert!((470..=500).contains(&ticks), "{ticks} ticks in 500 ms");
    host.input(&client.data(4, 3, b"GET")).events();
    host.output(conn, AckPolicy::Now);
    assert!(client.seen_one(&mut host).timestamps.is_some());
}

#[test]
fn peer_or_configuration_without_timestamps_gets_none() {
    for (offered, timestamps) in [(false, true), (true, false)] {
        let mut host = StaticHost::with(Config { timestamps, ..config() });
        let mut client = Client { timestamps: offered.then_some((1, 0)), ..Client::default() };
        let frame = client.handshake_begin(&mut host);
        assert_eq!(client.see(&frame).timestamps, None);
        client.timestamps = None;
        let conn = host.input(&client.ack(1, 1)).events().conn;
        host.stack.send(conn, pattern(5_000)).unwrap();
        host.output(conn, AckPolicy::Merge);
        let seen = client.seen(&mut host);
        assert_eq!((seen[0].timestamps, seen[0].payload.len()), (None, MSS));
    }
}

#[test]
fn clock_of_each_connection_has_an_offset_of_its_own() {
    let mut host = StaticHost::with(config());
    let mut value = |port| {
        let mut client = Client { timestamps: Some((1, 0)), ..Client::on_port(port) };
        let frame = client.handshake_begin(&mut host);
        client.see(&frame).timestamps.unwrap().0
    };
    let values = [value(1), value(2), value(3)];
    assert!(values[0].abs_diff(values[1]) > 1_000 && values[1].abs_diff(values[2]) > 1_000, "{values:?}");
}

#[test]
fn full_segments_leave_room_for_the_option() {
    for (tso_max_bytes, tx_checksum) in [(0, TxChecksum::Software), (65_000, TxChecksum::Offload)] {
        let mut host = StaticHost::with(Config { tso_max_bytes, tx_checksum, ..config() });
        let mut client = client(1_000);
        let conn = client.connect(&mut host);
        let data = pattern(10_000);
        host.stack.send(conn, data).unwrap();
        host.output(conn, AckPolicy::Merge);
        assert!(host.nic.frames.iter().all(|frame| frame.len() <= 1_514));
        let seen = client.seen(&mut host);
        assert_eq!(seen[0].payload.len(), MSS - 12);
        assert!(seen.iter().all(|segment| segment.timestamps == seen[0].timestamps));
        assert_eq!(seen.iter().flat_map(|segment| segment.payload.clone()).collect::<Vec<_>>(), data);
    }
}

#[test]
fn frames_that_a_device_cuts_are_no_longer_than_a_datagram_can_be() {
    // 59 segments of 1,110 bytes are 65,490: with IPv4's, TCP's and the option's 52 bytes, more than 65,535.
    let offload = Config { tso_max_bytes: MAX_TSO_BYTES, tx_checksum: TxChecksum::Offload, ..config() };
    let mut host = StaticHost::with(Config { congestion: CongestionControl::Uncontrolled, ..offload });
    let mut client = Client { mss: Some(1_122), window_scale: Some(4), ..client(1_000) };
    let conn = client.connect(&mut host);
    let data = pattern(200_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(host.nic.gso_frames > 1);
    assert!(
        client.seen(&mut host).iter().flat_map(|segment| segment.payload.clone()).eq(data.iter().copied())
    );
}

#[test]
fn full_segments_of_a_peer_with_timestamps_are_acknowledged_every_second() {
    let (mut host, client, _) = connected();
    let data = pattern(2 * (MSS - 12));
    host.input(&client.data(1, 1, &data[..MSS - 12])).events();
    let events = host.input(&client.data(1 + (MSS - 12) as u32, 1, &data[MSS - 12..])).events();
    assert_eq!(events.reply, exos_net::AckDue::Now);
}

#[test]
fn segment_with_an_old_timestamp_is_acknowledged_and_not_taken() {
    let (mut host, mut client, _) = connected();
    host.input(&client.data(1, 1, b"abc")).events();
    client.timestamps = Some((999, 0));
    // In the window, next in order, and of the last incarnation of these numbers.
    let ack = client.see(&host.input(&client.data(4, 1, b"old")).reply());
    assert_eq!((ack.flags.as_str(), ack.ack), ("A", 4));
    assert_eq!(host.stack.counters().old_timestamps_in, 1);
    client.timestamps = Some((1_000, 0));
    assert_eq!(host.input(&client.data(4, 1, b"new")).events().data, b"new");
}

#[test]
fn reset_is_not_held_to_timestamps() {
    let (mut host, mut client, conn) = connected();
    client.timestamps = Some((1, 0));
    assert!(host.input(&client.rst(1)).events().ended.is_some());
    assert!(!host.stack.is_alive(conn));
}

#[test]
fn timestamp_is_valid_again_after_24_days() {
    let (mut host, mut client, _) = connected();
    client.timestamps = Some((999, 0));
    host.now += Duration::from_secs(23 * 86_400);
    host.input(&client.data(1, 1, b"old")).reply();
    host.now += Duration::from_secs(2 * 86_400);
    assert_eq!(host.input(&client.data(1, 1, b"new")).events().data, b"new");
}

#[test]
fn segment_without_timestamps_is_dropped() {
    let (mut host, mut client, _) = connected();
    client.timestamps = None;
    host.input(&client.data(1, 1, b"abc")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_unacceptable, 1);
}

#[test]
fn echo_is_of_the_segment_that_the_delayed_acknowledgment_waits_for() {
    let (mut host, mut client, conn) = connected();
    client.timestamps = Some((1_010, 0));
    host.input(&client.data(1, 1, b"abc")).events();
    client.timestamps = Some((1_020, 0));
    host.input(&client.data(4, 1, b"def")).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).timestamps.unwrap().1, 1_010);
    // Out of order: the echo stays that of the last segment in order (RFC 7323 4.3, case B).
    client.timestamps = Some((1_030, 0));
    host.input(&client.data(107, 1, b"out of order")).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).timestamps.unwrap().1, 1_010);
    // The segment that fills the hole is the one to be echoed (case C).
    client.timestamps = Some((1_025, 0));
    host.input(&client.data(7, 1, pattern(100))).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).timestamps.unwrap().1, 1_025);
}

#[test]
fn round_trip_of_a_retransmission_is_measured_by_its_echo() {
    let (mut host, mut client, conn) = connected();
    host.stack.send(conn, b"lost").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.wait_ms(250);
    let again = client.seen(&mut host).pop().unwrap();
    host.now += Duration::from_millis(600);
    client.timestamps = Some((1_001, again.timestamps.unwrap().0));
    host.input(&client.ack(1, 5)).events();
    // A sample of some 640 ms after one of 0: the timeout is 720 ms, and without the sample 200.
    host.stack.send(conn, b"next").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.nic.frames.clear();
    host.wait_ms(640);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(120);
    assert_eq!(client.seen_one(&mut host).payload, b"next");
}

/// A connection that we closed first, with its record in TIME-WAIT.
fn in_time_wait() -> (StaticHost, Client, u32) {
    let (mut host, mut client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let value = client.seen_one(&mut host).timestamps.unwrap().0;
    client.timestamps = Some((2_000, value));
    host.input(&client.fin(1, 2)).events();
    assert_eq!(host.stack.time_wait(), 1);
    (host, client, value)
}

#[test]
fn time_wait_gives_way_to_a_syn_with_a_later_timestamp() {
    let (mut host, mut client, value) = in_time_wait();
    host.now += Duration::from_millis(20);
    // The same addresses, a sequence number from before.
    let mut next = Client { isn: client.isn - 100_000, timestamps: Some((2_001, 0)), ..client.clone() };
    let frame = next.handshake_begin(&mut host);
    let syn_ack = next.see(&frame);
    assert_eq!((syn_ack.flags.as_str(), host.stack.counters().time_wait_reused), ("SA", 1));
    // Our clock goes on, so that the peer can tell the two apart as well.
    let ticks = syn_ack.timestamps.unwrap().0.wrapping_sub(value);
    assert!((1..100).contains(&ticks), "{ticks}");
    client.port += 1;
    assert_eq!(host.stack.time_wait(), 0);
}

#[test]
fn time_wait_answers_an_older_syn_and_a_repeated_fin_with_its_timestamps() {
    let (mut host, client, value) = in_time_wait();
    for (timestamp, control, seq) in [(1_999, TcpControl::Syn, 200), (2_000, TcpControl::Fin, 1)] {
        let acked = (control == TcpControl::Fin).then_some(2);
        let client = Client { timestamps: Some((timestamp, 0)), ..client.clone() };
        let answer = client.see(&host.input(&client.frame(control, seq, acked, &[])).reply());
        assert_eq!((answer.flags.as_str(), answer.ack), ("A", 2));
        assert_eq!(answer.timestamps, Some((value, 2_000)));
    }
    assert_eq!(host.stack.time_wait(), 1);
}
