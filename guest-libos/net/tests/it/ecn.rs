//! Explicit congestion notification (RFC 3168) beside offloads, fragments, SYN cookies and losses; the rest is in
//! `scripts/ecn`.

use exos_net::{
    AckPolicy, Config, CongestionControl, ConnId, Duration, Ecn, SlowStart, SynCookies, TxChecksum,
};
use smoltcp::wire::{EthernetFrame, Ipv4Packet, TcpPacket};

use crate::harness::{Client, Host, SERVER_IP, config, pattern};

type StaticHost = Host<&'static [u8]>;

const CONGESTED: u8 = 3;
const RTT: Duration = Duration::from_millis(40);

/// The frame with an ECN field and, if they are set, the bits ECE and CWR.
fn with(mut frame: Vec<u8>, ecn: u8, ece: bool, cwr: bool) -> Vec<u8> {
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.set_ecn(ecn);
    ip.fill_checksum();
    let source = ip.src_addr();
    let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
    tcp.set_ece(ece);
    tcp.set_cwr(cwr);
    tcp.fill_checksum(&source.into(), &SERVER_IP.into());
    frame
}

/// ECN field, ECE and CWR of a frame of ours.
fn bits(frame: &[u8]) -> (u8, bool, bool) {
    let ip = Ipv4Packet::new_checked(EthernetFrame::new_unchecked(frame).payload()).unwrap();
    assert!(ip.verify_checksum());
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    assert!(tcp.verify_checksum(&SERVER_IP.into(), &ip.dst_addr().into()));
    (ip.ecn(), tcp.ece(), tcp.cwr())
}

/// A connection whose SYNs agreed, with a round trip of 40 ms.
fn connect(host: &mut StaticHost, client: &mut Client) -> ConnId {
    let syn_ack = host.input(&with(client.syn(), 0, true, true)).reply();
    assert_eq!(bits(&syn_ack), (0, true, false));
    let ip = Ipv4Packet::new_checked(&syn_ack[14..]).unwrap();
    client.server_isn = TcpPacket::new_checked(ip.payload()).unwrap().seq_number().0 as u32;
    if let Some((value, _)) = client.timestamps {
        client.timestamps = client.see(&syn_ack).timestamps.map(|(ours, _)| (value + 1, ours));
    }
    host.now += RTT;
    host.input(&client.ack(1, 1)).events().conn
}

/// What the device was given: ECN field, CWR and payload bytes.
fn sent(host: &mut StaticHost, client: &Client) -> Vec<(u8, bool, usize)> {
    let frames = host.nic.frames.drain(..);
    let see = |frame: Vec<u8>| (bits(&frame).0, bits(&frame).2, client.see(&frame).payload.len());
    frames.map(see).collect()
}

#[test]
fn frame_that_says_that_the_window_was_reduced_is_not_cut_by_the_device() {
    let mut host =
        StaticHost::with(Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..config() });
    let mut client = Client { mss: Some(1_000), ..Client::default() };
    let conn = connect(&mut host, &mut client);
    host.stack.send(conn, pattern(40_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!((host.nic.gso_frames, sent(&mut host, &client)), (1, vec![(2, false, 1_000); 10]));
    host.input(&with(client.ack(1, 8_001), 0, true, false)).events();
    // If the device is full, it is yet to be said.
    host.nic.room = Some(0);
    assert!(host.output(conn, AckPolicy::Merge).blocked);
    host.nic.room = None;
    host.output(conn, AckPolicy::Merge);
    let mut expected = vec![(2, false, 1_000); 5];
    expected[0].1 = true;
    assert_eq!((host.nic.gso_frames, sent(&mut host, &client)), (2, expected));
}

#[test]
fn loss_in_a_window_that_an_echo_has_reduced_reduces_it_no_further() {
    for (echo, left) in [(true, 7_000), (false, 7_000)] {
        let mut host = StaticHost::with(config());
        let mut client = Client { mss: Some(1_000), ..Client::default() };
        let conn = connect(&mut host, &mut client);
        host.stack.send(conn, pattern(60_000)).unwrap();
        host.output(conn, AckPolicy::Merge);
        host.input(&with(client.ack(1, 1), 0, echo, false)).events();
        for _ in 0..3 {
            host.input(&client.ack(1, 1)).events();
            host.output(conn, AckPolicy::Merge);
        }
        assert_eq!(host.stack.counters().fast_retransmits, 1);
        host.nic.frames.clear();
        // All that was on its way is there: as much as the window allows leaves, or as the recovery's end lets out.
        host.input(&client.ack(1, 10_001)).events();
        for acked in [11_001, 12_001, 13_001, 14_001, 15_001, 16_001] {
            host.output(conn, AckPolicy::Merge);
            host.input(&client.ack(1, acked)).events();
        }
        host.output(conn, AckPolicy::Merge);
        let flight = host.stack.unacked_bytes(conn) - host.stack.unsent_bytes(conn);
        assert!((left..=left + 1_000).contains(&flight), "{echo}: {flight}");
        let answered = u64::from(echo);
        assert_eq!(host.stack.counters().congestion_echoes_answered, answered);
    }
}

/// A connection of NewReno's with ten segments of 1,000 bytes on their way to a client with SACK.
fn ten_on_their_way() -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(Config {
        congestion: CongestionControl::NewReno,
        slow_start: SlowStart::Standard,
        ..config()
    });
    let mut client = Client { mss: Some(1_000), sack: true, ..Client::default() };
    let conn = connect(&mut host, &mut client);
    host.stack.send(conn, pattern(90_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).len(), 10);
    (host, client, conn)
}

/// Acknowledges ten segments one by one from `acked` on, and returns the bytes that are on their way then.
fn flight_after_ten(host: &mut StaticHost, client: &Client, conn: ConnId, acked: u32) -> usize {
    for number in 1..=10 {
        host.output(conn, AckPolicy::Merge);
        host.input(&client.ack(1, acked + 1_000 * number)).events();
    }
    host.output(conn, AckPolicy::Merge);
    host.stack.unacked_bytes(conn) - host.stack.unsent_bytes(conn)
}

/// SACK blocks of a client with everything before `ack`.
fn sack(host: &mut StaticHost, client: &Client, conn: ConnId, ack: u32, blocks: &[(u32, u32)]) {
    let client = Client { blocks: blocks.to_vec(), ..client.clone() };
    host.input(&client.ack(1, ack)).events();
    host.output(conn, AckPolicy::Merge);
}

/// The first segment was only late: it is sent again needlessly, and the client says so.
fn recover_in_vain(host: &mut StaticHost, client: &Client, conn: ConnId) {
    host.now += RTT;
    for end in [2_001, 3_001, 4_001] {
        sack(host, client, conn, 1, &[(1_001, end)]);
    }
    sack(host, client, conn, 4_001, &[]);
    sack(host, client, conn, 4_001, &[(1, 1_001)]);
    assert_eq!(host.stack.counters().spurious_recoveries, 1);
}

#[test]
fn acknowledgments_with_echoes_grow_no_window() {
    let (mut host, client, conn) = ten_on_their_way();
    for number in 1..=10 {
        host.input(&with(client.ack(1, 1 + 1_000 * number), 0, true, false)).events();
    }
    host.output(conn, AckPolicy::Merge);
    assert_eq!(host.stack.unacked_bytes(conn) - host.stack.unsent_bytes(conn), 5_000);
    let counters = host.stack.counters();
    assert_eq!((counters.congestion_echoes_in, counters.congestion_echoes_answered), (10, 1));
}

#[test]
fn mistaken_recovery_does_not_take_back_what_an_echo_took() {
    let (mut host, client, conn) = ten_on_their_way();
    host.input(&with(client.ack(1, 1), 0, true, false)).events();
    recover_in_vain(&mut host, &client, conn);
    let flight = flight_after_ten(&mut host, &client, conn, 4_001);
    assert!(flight <= 7_000, "{flight}");
}

#[test]
fn loss_after_a_mistaken_recovery_of_the_same_window_reduces_it() {
    let (mut host, client, conn) = ten_on_their_way();
    recover_in_vain(&mut host, &client, conn);
    let before = host.stack.unacked_bytes(conn) - host.stack.unsent_bytes(conn);
    assert!(before >= 10_000, "{before}");
    for end in [6_001, 7_001, 8_001] {
        sack(&mut host, &client, conn, 4_001, &[(5_001, end)]);
    }
    assert_eq!(host.stack.counters().fast_retransmits, 2);
    // All that has left until now arrives.
    let sent = host.stack.unacked_bytes(conn) - host.stack.unsent_bytes(conn);
    host.input(&client.ack(1, 4_001 + sent as u32)).events();
    let flight = flight_after_ten(&mut host, &client, conn, 4_001 + sent as u32);
    assert!(flight <= 9_000, "{flight}");
}

#[test]
fn cookie_remembers_ecn_beside_timestamps_only() {
    for timestamps in [Some((1_000, 0)), None] {
        let mut host = StaticHost::with(Config { syn_cookies: SynCookies::Always, ..config() });
        let mut client = Client { timestamps, ..Client::default() };
        let agrees = timestamps.is_some();
        let conn = if agrees {
            connect(&mut host, &mut client)
        } else {
            let syn_ack = host.input(&with(client.syn(), 0, true, true)).reply();
            assert_eq!(bits(&syn_ack), (0, false, false));
            client.connect(&mut host)
        };
        host.stack.send(conn, b"x").unwrap();
        host.output(conn, AckPolicy::Merge);
        assert_eq!(sent(&mut host, &client), [(if agrees { 2 } else { 0 }, false, 1)]);
    }
    let mut host = StaticHost::with(Config { syn_cookies: SynCookies::Always, ecn: Ecn::Never, ..config() });
    let client = Client { timestamps: Some((1_000, 0)), ..Client::default() };
    assert_eq!(bits(&host.input(&with(client.syn(), 0, true, true)).reply()), (0, false, false));
}

/// The datagram in two fragments, with an ECN field each.
fn fragments(frame: &[u8], fields: [u8; 2]) -> [Vec<u8>; 2] {
    const CUT: usize = 24;
    let (headers, payload) = frame.split_at(34);
    [0, 1].map(|which| {
        let part = if which == 0 { &payload[..CUT] } else { &payload[CUT..] };
        let mut frame = [headers, part].concat();
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.set_total_len(20 + part.len() as u16);
        ip.set_ident(7);
        ip.set_dont_frag(false);
        ip.set_more_frags(which == 0);
        ip.set_frag_offset(if which == 0 { 0 } else { CUT as u16 });
        ip.set_ecn(fields[which]);
        ip.fill_checksum();
        frame
    })
}

#[test]
fn mark_on_one_fragment_marks_the_datagram_unless_another_could_not_be_marked() {
    for (fields, echoes) in
        [([2, 3], Some(true)), ([3, 1], Some(true)), ([2, 2], Some(false)), ([0, 3], None)]
    {
        let mut host = StaticHost::with(config());
        let mut client = Client::default();
        let conn = connect(&mut host, &mut client);
        let [first, second] = fragments(&client.data(1, 1, &[7; 100]), fields);
        host.input(&first).assert_nothing();
        let outcome = host.input(&second);
        let Some(echoes) = echoes else {
            // The datagram is given up, as RFC 3168 5.3 allows.
            outcome.assert_nothing();
            assert_eq!(host.stack.counters().reassembly_fails, 1);
            continue;
        };
        outcome.events();
        host.output(conn, AckPolicy::Now);
        let acknowledgment = host.nic.frames.pop_front().unwrap();
        assert_eq!(bits(&acknowledgment), (0, echoes, false), "{fields:?}");
        let marks = host.stack.counters().congestion_marks_in;
        assert_eq!(marks, u64::from(fields.contains(&CONGESTED)));
    }
}
