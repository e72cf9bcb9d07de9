//! ICMP (RFC 792, RFC 1122 3.2.2): echo and its limit, and the sizes that paths take (RFC 1191, RFC 4821).

use exos_net::{AckPolicy, Config, ConnId, Rate};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpProtocol};

use crate::harness::{CLIENT_IP, Client, Host, Outcome, config, pattern};
use crate::reassembly::Cut;
use crate::retransmission::fragmentation_needed;

type StaticHost = Host<&'static [u8]>;

fn echo_request() -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data: b"data" };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut payload), &Default::default());
    Cut { source: CLIENT_IP, protocol: IpProtocol::Icmp, identification: 0, payload }.piece(0, 12)
}

/// A connection on port `port` whose first ten segments were sent.
fn sending(host: &mut StaticHost, port: u16) -> (Client, ConnId) {
    let mut client = Client::on_port(port);
    let conn = client.connect(host);
    host.stack.send(conn, pattern(100_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    (client, conn)
}

/// Payload lengths of what the device was given for `client` since the last time; what others were sent is dropped.
fn lengths(host: &mut StaticHost, client: &Client) -> Vec<usize> {
    let frames: Vec<_> = host.nic.frames.drain(..).collect();
    let of_client = frames.iter().filter(|frame| frame[36..38] == client.port.to_be_bytes());
    of_client.map(|frame| client.see(frame).payload.len()).collect()
}

#[test]
fn echo_requests_are_answered_as_often_as_allowed() {
    let mut host = StaticHost::with(Config { echo_replies: Rate { per_second: 10, burst: 4 }, ..config() });
    let answered = (0..50).filter(|_| matches!(host.input(&echo_request()), Outcome::Reply(_))).count();
    assert_eq!(answered, 4);
    let counters = host.stack.counters();
    assert_eq!((counters.echo_replies, counters.echo_replies_limited), (4, 46));
    host.wait_ms(100);
    host.input(&echo_request()).reply();
    host.input(&echo_request()).assert_nothing();
}

#[test]
fn errors_are_not_answered_with_errors() {
    let mut host = StaticHost::with(config());
    // The first fragments of an error and of an echo request, whose rest never comes.
    for (identification, kind) in [(1, 11), (2, 8)] {
        let payload = [&[kind][..], &[0; 47]].concat();
        let cut = Cut { source: CLIENT_IP, protocol: IpProtocol::Icmp, identification, payload };
        host.input(&cut.piece(0, 40)).assert_nothing();
    }
    host.wait_secs(31);
    assert_eq!((host.stack.counters().icmp_errors_out, host.nic.frames.len()), (1, 1));
    // What it quotes is the echo request.
    assert_eq!(host.nic.frames[0][42 + 20], 8);
}

#[test]
fn path_mtu_of_one_connection_counts_for_all_to_the_same_host() {
    let mut host = StaticHost::with(config());
    let (first, first_conn) = sending(&mut host, 1_001);
    let (second, second_conn) = sending(&mut host, 1_002);
    let mut elsewhere = Client { ip: [10, 0, 0, 3].into(), ..Client::on_port(1_003) };
    let elsewhere_conn = elsewhere.connect(&mut host);
    host.nic.frames.clear();
    host.input(&fragmentation_needed(&first, 1_000, 1)).events();
    host.output(first_conn, AckPolicy::Merge);
    assert_eq!(lengths(&mut host, &first)[0], 960);
    // One that was there, when it sends more; one that comes later; not one to another host.
    host.input(&second.ack(1, 14_601)).events();
    host.output(second_conn, AckPolicy::Merge);
    assert_eq!(lengths(&mut host, &second)[0], 960);
    let (third, _) = sending(&mut host, 1_004);
    assert_eq!(lengths(&mut host, &third)[0], 960);
    host.stack.send(elsewhere_conn, pattern(10_000)).unwrap();
    host.output(elsewhere_conn, AckPolicy::Merge);
    assert_eq!(lengths(&mut host, &elsewhere)[0], 1_460);
}

#[test]
fn path_mtu_is_tried_again_after_ten_minutes() {
    let mut host = StaticHost::with(config());
    let (client, conn) = sending(&mut host, 1_001);
    host.input(&fragmentation_needed(&client, 1_000, 1)).events();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.ack(1, 14_601)).events();
    host.nic.frames.clear();
    host.output(conn, AckPolicy::Merge);
    let sent: usize = lengths(&mut host, &client).iter().sum();
    host.input(&client.ack(1, 14_601 + sent as u32)).events();
    host.now += exos_net::Duration::from_secs(599);
    host.wait_ms(1);
    host.output(conn, AckPolicy::Merge);
    assert_eq!(lengths(&mut host, &client)[0], 960);
    host.now += exos_net::Duration::from_secs(1);
    host.wait_ms(1);
    let (later, _) = sending(&mut host, 1_002);
    assert_eq!(lengths(&mut host, &later)[0], 1_460);
}

#[test]
fn full_segments_that_time_out_again_and_again_become_smaller() {
    let mut host = StaticHost::with(config());
    let (client, _) = sending(&mut host, 1_001);
    host.nic.frames.clear();
    let mut longest = Vec::new();
    for _ in 0..40 {
        host.wait_ms(1_000);
        longest.extend(lengths(&mut host, &client).into_iter().max());
    }
    longest.dedup();
    assert_eq!(longest, [1_460, 1_160, 536]);
    assert_eq!(host.stack.counters().black_holes, 2);
}

#[test]
fn forged_path_mtus_stay_above_the_least_and_need_the_window() {
    let mut host = StaticHost::with(config());
    let (client, conn) = sending(&mut host, 1_001);
    host.nic.frames.clear();
    for sequence in [20_000, 0x8000_0000, 0xffff_0000] {
        host.input(&fragmentation_needed(&client, 68, sequence)).assert_nothing();
    }
    host.input(&fragmentation_needed(&client, 68, 1)).events();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(lengths(&mut host, &client)[0], 536);
}
