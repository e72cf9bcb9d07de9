//! Losses: RFC 6298's timer with Karn's algorithm, fast retransmit and NewReno recovery (RFC 5681, 6582), limited
//! transmit (RFC 3042), initial and congestion window (RFC 6928), user timeout (RFC 9293 3.8.3), path MTU (RFC 1191).

use exos_net::{AckPolicy, Config, CongestionControl, ConnId, Duration, End, TimerEvent, wire};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Address, Ipv4Packet, Ipv4Repr,
};
use wire::ethernet::{EtherType, EthernetHeader};

use crate::harness::{
    CLIENT_IP, CLIENT_MAC, Client, Host, MSS, SERVER_IP, SERVER_MAC, Seen, config, pattern,
};

type StaticHost = Host<&'static [u8]>;

const M: u32 = MSS as u32;

fn connected() -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(Config { congestion: CongestionControl::NewReno, ..config() });
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    (host, client, conn)
}

fn sending(len: usize) -> (StaticHost, Client, ConnId) {
    let (mut host, client, conn) = connected();
    host.stack.send(conn, pattern(len)).unwrap();
    host.output(conn, AckPolicy::Merge);
    (host, client, conn)
}

fn starts(seen: &[Seen]) -> Vec<u32> {
    seen.iter().map(|segment| (segment.seq - 1) / M).collect()
}

/// The client acknowledges, the server sends what that lets out.
fn acknowledge(host: &mut StaticHost, client: &Client, ack: u32) -> Vec<Seen> {
    let conn = host.input(&client.ack(1, ack)).events().conn;
    host.output(conn, AckPolicy::IfDue);
    client.seen(host)
}

#[test]
fn initial_window_is_ten_segments_and_slow_start_doubles() {
    let (mut host, client, _) = sending(200_000);
    assert_eq!(starts(&client.seen(&mut host)), (0..10).collect::<Vec<_>>());
    let sent = acknowledge(&mut host, &client, 1 + 10 * M);
    // Eight segments of growth for one acknowledgment (RFC 9406 4.2): 18 are on their way.
    assert_eq!(starts(&sent), (10..28).collect::<Vec<_>>());
}

#[test]
fn unacknowledged_segment_is_sent_again_with_backoff() {
    let (mut host, client, _) = sending(100);
    let first = client.seen_one(&mut host);
    // The handshake took no time: the RTO is its minimum, 200 ms; then 400, then 800.
    for (quiet, rto) in [(195, 10), (390, 20), (780, 40)] {
        host.wait_ms(quiet);
        assert!(client.seen(&mut host).is_empty(), "too early");
        host.wait_ms(rto);
        assert_eq!(client.seen_one(&mut host), first);
    }
    assert_eq!((host.stack.counters().timeouts, host.stack.counters().retransmits), (3, 3));
    host.input(&client.ack(1, 101)).events();
    host.wait_secs(10);
    assert!(client.seen(&mut host).is_empty());
}

#[test]
fn timeout_goes_back_to_the_first_segment_with_a_window_of_one() {
    let (mut host, client, _) = sending(200_000);
    client.seen(&mut host);
    host.wait_ms(210);
    assert_eq!(starts(&client.seen(&mut host)), [0]);
    // F-RTO (RFC 5682) asks with two new segments whether the timeout was real; a duplicate says yes.
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + M)), [10, 11]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + M)), [1]);
    // Slow start from there: two for one; what the peer has already is not sent again.
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + 2 * M)), [2]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + 5 * M)), [5, 6, 7]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + 12 * M)), [12, 13, 14, 15, 16, 17]);
}

#[test]
fn retransmitted_segment_is_not_timed() {
    let (mut host, client, conn) = sending(100);
    host.wait_ms(210);
    // The acknowledgment comes 300 ms after the first transmission: Karn's algorithm ignores it.
    host.wait_ms(90);
    client.seen(&mut host);
    host.input(&client.ack(1, 101)).events();
    host.stack.send(conn, b"next").unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    // And the timeout stays doubled until there is a measurement (RFC 6298 (5.7)).
    host.wait_ms(390);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(30);
    assert_eq!(client.seen_one(&mut host).payload, b"next");
}

#[test]
fn backoff_ends_when_something_arrives_that_was_sent_once() {
    let (mut host, client, conn) = sending(3 * MSS);
    host.wait_ms(1_500);
    assert_eq!(host.stack.counters().timeouts, 3);
    client.seen(&mut host);
    // The first of three segments was sent again, the others were not: no round trip can be measured (Karn).
    acknowledge(&mut host, &client, 1 + 3 * M);
    host.stack.send(conn, pattern(MSS)).unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    host.wait_ms(250);
    assert_eq!(client.seen(&mut host).len(), 1, "after 200 ms, not after 1,600");
}

#[test]
fn measured_round_trip_raises_the_timeout() {
    let (mut host, client, conn) = sending(100);
    host.now += Duration::from_millis(180);
    host.input(&client.ack(1, 101)).events();
    host.stack.send(conn, b"next").unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    // SRTT = 22.5 ms, RTTVAR = 45 ms after samples of 0 and 180 ms: RTO = 202.5 ms; then a second of 180.
    host.now += Duration::from_millis(180);
    host.input(&client.ack(1, 105)).events();
    host.stack.send(conn, b"more").unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    host.wait_ms(330);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(50);
    assert_eq!(client.seen_one(&mut host).payload, b"more");
}

#[test]
fn one_segment_at_a_time_is_timed_from_its_own_departure() {
    let (mut host, client, conn) = connected();
    let mut ack = 1;
    for _ in 0..2 {
        host.stack.send(conn, b"first").unwrap();
        host.output(conn, AckPolicy::Merge);
        host.now += Duration::from_millis(100);
        host.stack.send(conn, b"second").unwrap();
        host.output(conn, AckPolicy::Merge);
        host.now += Duration::from_millis(80);
        host.input(&client.ack(1, ack + 5)).events();
        ack += 11;
        host.input(&client.ack(1, ack)).events();
    }
    host.stack.send(conn, b"third").unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    // Two samples of 180 ms after one of 0: RTO = 42 + 4 * 73 ms.
    host.wait_ms(325);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(20);
    assert_eq!(client.seen_one(&mut host).payload, b"third");
}

#[test]
fn acknowledgment_of_some_data_restarts_the_timer() {
    let (mut host, client, _) = sending(2 * MSS);
    client.seen(&mut host);
    host.wait_ms(150);
    host.input(&client.ack(1, 1 + M)).events();
    host.wait_ms(190);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(60);
    assert_eq!(starts(&client.seen(&mut host)), [1]);
}

#[test]
fn third_duplicate_ack_sends_the_lost_segment_again() {
    let (mut host, client, _) = sending(200_000);
    client.seen(&mut host);
    // Limited transmit: one new segment for each of the first two.
    assert_eq!(starts(&acknowledge(&mut host, &client, 1)), [10]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1)), [11]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1)), [0]);
    assert_eq!(host.stack.counters().fast_retransmits, 1);
    // Half of the ten that the window allowed: every second of the next lets a new segment out (RFC 6937).
    let mut new = Vec::new();
    for _ in 0..8 {
        new.extend(starts(&acknowledge(&mut host, &client, 1)));
    }
    assert_eq!(new, [12, 13, 14, 15]);
    // All of it arrived: recovery ends with half the window, of which four are on their way.
    let after = acknowledge(&mut host, &client, 1 + 12 * M);
    assert_eq!(starts(&after), [16]);
    assert_eq!(host.stack.counters().timeouts, 0);
}

#[test]
fn partial_ack_sends_the_next_lost_segment_again() {
    let (mut host, client, _) = sending(14_600);
    client.seen(&mut host);
    for _ in 0..3 {
        acknowledge(&mut host, &client, 1);
    }
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + 4 * M)), [4]);
    assert_eq!(starts(&acknowledge(&mut host, &client, 1 + 7 * M)), [7]);
    assert!(acknowledge(&mut host, &client, 1 + 10 * M).is_empty());
    assert_eq!((host.stack.counters().timeouts, host.stack.counters().retransmits), (0, 3));
}

#[test]
fn acks_with_data_or_new_window_are_no_duplicates() {
    let (mut host, mut client, _) = sending(14_600);
    client.seen(&mut host);
    for window in [60_000, 61_000, 62_000, 63_000] {
        client.window = window;
        assert!(acknowledge(&mut host, &client, 1).is_empty());
    }
    for byte in 0..4 {
        host.input(&client.data(1 + byte, 1, b"x")).events();
    }
    assert_eq!(host.stack.counters().fast_retransmits, 0);
}

#[test]
fn lost_fin_with_data_is_repaired_by_duplicates() {
    let (mut host, client, conn) = connected();
    host.stack.send(conn, pattern(4 * MSS + 10)).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).last().unwrap().flags, "FPA");
    for _ in 0..3 {
        acknowledge(&mut host, &client, 1);
    }
    let again = acknowledge(&mut host, &client, 1 + 4 * M);
    assert_eq!((again[0].flags.as_str(), again[0].payload.len()), ("FPA", 10));
    assert_eq!(host.input(&client.ack(1, 12 + 4 * M)).events().ended, None);
}

#[test]
fn peer_that_stops_acknowledging_is_given_up_after_the_user_timeout() {
    let mut host = StaticHost::with(Config { user_timeout: Duration::from_secs(30), ..config() });
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    // Idle time does not count.
    host.wait_secs(100);
    host.stack.send(conn, b"anybody there?").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.wait_secs(29);
    assert!(host.ended.is_empty());
    host.wait_secs(40);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    assert_eq!((host.stack.connections(), host.stack.counters().timed_out), (0, 1));
    assert_eq!(host.stack.next_deadline(), None);
}

#[test]
fn sequence_numbers_wrap_without_notice() {
    let (mut host, client, conn) = connected();
    let data = pattern(1 << 20);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut received = Vec::new();
    while received.len() < data.len() {
        for segment in client.seen(&mut host) {
            assert_eq!(segment.seq as usize, 1 + received.len());
            received.extend(segment.payload);
        }
        host.input(&client.ack(1, 1 + received.len() as u32)).events();
        host.output(conn, AckPolicy::Merge);
    }
    assert!(received == data);
    assert_eq!(host.stack.unacked_bytes(conn), 0);
}

#[test]
fn idle_connection_starts_slowly_again() {
    let (mut host, client, conn) = connected();
    let data = pattern(400_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut received = 0;
    while received < data.len() {
        received += client.seen(&mut host).iter().map(|segment| segment.payload.len()).sum::<usize>();
        host.input(&client.ack(1, 1 + received as u32)).events();
        host.output(conn, AckPolicy::Merge);
    }
    host.wait_secs(5);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).len(), 10);
}

pub(crate) fn fragmentation_needed(client: &Client, next_mtu: u16, quoted_seq: u32) -> Vec<u8> {
    let mut tcp = [0; 8];
    tcp[..2].copy_from_slice(&80u16.to_be_bytes());
    tcp[2..4].copy_from_slice(&client.port.to_be_bytes());
    tcp[4..].copy_from_slice(&client.server_isn.wrapping_add(quoted_seq).to_be_bytes());
    let icmp = Icmpv4Repr::DstUnreachable {
        reason: Icmpv4DstUnreachable::FragRequired,
        header: Ipv4Repr {
            src_addr: SERVER_IP,
            dst_addr: CLIENT_IP,
            next_header: IpProtocol::Tcp,
            payload_len: 1460,
            hop_limit: 60,
        },
        data: &tcp,
    };
    let ip = Ipv4Repr {
        src_addr: Ipv4Address::new(10, 0, 0, 77),
        dst_addr: SERVER_IP,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 34 + icmp.buffer_len()];
    EthernetHeader { destination: SERVER_MAC, source: CLIENT_MAC, ether_type: EtherType::Ipv4 }
        .emit((&mut frame[..14]).try_into().unwrap());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &ChecksumCapabilities::default());
    let mut message = Icmpv4Packet::new_unchecked(packet.payload_mut());
    icmp.emit(&mut message, &ChecksumCapabilities::default());
    frame[14 + 20 + 6..14 + 20 + 8].copy_from_slice(&next_mtu.to_be_bytes());
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    Icmpv4Packet::new_unchecked(packet.payload_mut()).fill_checksum();
    frame
}

#[test]
fn fragmentation_needed_makes_segments_smaller_and_sends_again() {
    let (mut host, client, conn) = sending(14_600);
    client.seen(&mut host);
    let events = host.input(&fragmentation_needed(&client, 1_000, 1)).events();
    assert!(events.output_due);
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    assert_eq!((seen[0].seq, seen[0].payload.len()), (1, 960));
    assert_eq!(host.stack.counters().path_mtu_reduced, 1);
}

#[test]
fn fragmentation_needed_invalid_is_ignored() {
    let (mut host, client, conn) = sending(14_600);
    client.seen(&mut host);
    // Not on its way; larger than what is used.
    host.input(&fragmentation_needed(&client, 1_000, 20_000)).assert_nothing();
    host.input(&fragmentation_needed(&client, 1_500, 1)).assert_nothing();
    // A ridiculous MTU counts as 576.
    host.input(&fragmentation_needed(&client, 0, 1)).events();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host)[0].payload.len(), 536);
}

#[test]
fn application_is_told_once_that_the_third_timeout_was_in_vain() {
    let (mut host, mut client, conn) = sending(3 * MSS);
    let told_within = |host: &mut StaticHost, ms| {
        let mut told = Vec::new();
        for _ in 0..ms {
            host.now += Duration::from_millis(1);
            host.stack.expire(host.now, &mut host.nic, |conn, event| told.push((conn, event)));
        }
        told
    };
    // The timer comes after 200 ms and 400 ms more, and 800 ms later for the third time.
    assert_eq!(told_within(&mut host, 1_000), []);
    // Without a window nothing can be sent again, and what the timer sends then are probes.
    client.window = 0;
    host.input(&client.ack(1, 1)).events();
    assert_eq!(told_within(&mut host, 1_000), [(conn, TimerEvent::Retransmitting)]);
    client.seen(&mut host);
    assert_eq!(told_within(&mut host, 10_000), []);
    assert!(!client.seen(&mut host).is_empty(), "probes");
}
