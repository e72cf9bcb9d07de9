//! The link's MTU, as a DHCP server may say it while the stack runs (RFC 2132 5.1).

use exos_net::{AckPolicy, Config, ConfigError, ConnId, Duration, Ipv6Config};

use crate::harness::{CLIENT_IP, Client, Host, config, pattern};
use crate::ipv6::{self, OURS};
use crate::retransmission::fragmentation_needed;

type StaticHost = Host<&'static [u8]>;

/// The longest payload of those frames that were sent on a connection now that it may send.
fn longest(host: &mut StaticHost, client: &Client, conn: ConnId) -> usize {
    host.nic.frames.clear();
    host.output(conn, AckPolicy::Merge);
    client.seen(host).iter().map(|seen| seen.payload.len()).max().expect("something is sent")
}

fn begun(host: &mut StaticHost, port: u16) -> (Client, ConnId) {
    let mut client = Client::on_port(port);
    let conn = client.connect(host);
    host.stack.send(conn, pattern(100_000)).unwrap();
    (client, conn)
}

/// The segment size in a frame with a SYN over IPv4.
fn announced(frame: &[u8]) -> u16 {
    assert_eq!(frame[54..56], [2, 4]);
    u16::from_be_bytes([frame[56], frame[57]])
}

#[test]
fn handshakes_announce_the_new_mtu_and_datagrams_keep_to_it() {
    let mut host = StaticHost::with(config());
    for mtu in [1_400, 576, 1_500] {
        host.stack.set_mtu(host.now, mtu).unwrap();
        let client = Client::on_port(1_000 + mtu);
        let syn_ack = host.input(&client.syn()).reply();
        assert_eq!(announced(&syn_ack), mtu - 40);
        assert_eq!(host.stack.max_datagram_bytes(host.now, CLIENT_IP), usize::from(mtu) - 28);
    }
}

#[test]
fn connections_that_there_are_send_smaller_segments_and_larger_ones_again() {
    let mut host = StaticHost::with(config());
    let (client, conn) = begun(&mut host, 1_001);
    let mut half_open = Client::on_port(1_002);
    half_open.handshake_begin(&mut host);
    host.stack.set_mtu(host.now, 1_000).unwrap();
    assert_eq!(longest(&mut host, &client, conn), 960);
    // One that was half open then.
    let opened = host.input(&half_open.ack(1, 1)).events().conn;
    host.stack.send(opened, pattern(100_000)).unwrap();
    assert_eq!(longest(&mut host, &half_open, opened), 960);
    host.stack.set_mtu(host.now, 1_500).unwrap();
    host.input(&client.ack(1, 9_601)).events();
    assert_eq!(longest(&mut host, &client, conn), 1_460);
}

/// The least that IPv4 allows (RFC 791) is less than the least segment size that a peer may name.
#[test]
fn no_packet_is_larger_than_the_narrowest_link_takes() {
    for (timestamps, min_mss) in [(None, 48), (Some((1, 0)), 48), (Some((1, 0)), 216)] {
        let mut host = StaticHost::with(Config { min_mss, ..config() });
        let (before, conn) = begun(&mut host, 1_001);
        host.stack.set_mtu(host.now, 68).unwrap();
        let mut client = Client { timestamps, ..Client::on_port(1_002) };
        let other = client.connect(&mut host);
        host.stack.send(other, pattern(1_000)).unwrap();
        assert_eq!(longest(&mut host, &before, conn), 28);
        let options = if timestamps.is_some() { 12 } else { 0 };
        assert_eq!(longest(&mut host, &client, other), 28 - options);
        host.stack.check();
    }
}

#[test]
fn path_that_is_narrower_than_the_new_mtu_stays_so() {
    let mut host = StaticHost::with(config());
    let (client, conn) = begun(&mut host, 1_001);
    host.output(conn, AckPolicy::Merge);
    host.input(&fragmentation_needed(&client, 800, 1)).events();
    host.stack.set_mtu(host.now, 1_000).unwrap();
    assert_eq!(longest(&mut host, &client, conn), 760);
    let (other, other_conn) = begun(&mut host, 1_002);
    assert_eq!(longest(&mut host, &other, other_conn), 760);
    // The path may be wider again, the link is not.
    host.input(&client.ack(1, 14_601));
    let (_, seen) = (host.output(conn, AckPolicy::Merge), client.seen(&mut host));
    host.input(&client.ack(1, seen.iter().map(|seen| seen.seq + seen.payload.len() as u32).max().unwrap()));
    host.now += Duration::from_secs(600);
    host.wait_ms(1);
    assert_eq!(longest(&mut host, &client, conn), 960);
}

#[test]
fn size_from_before_a_suspected_black_hole_does_not_outlive_the_new_mtu() {
    for waits_secs in [0, 601] {
        let mut host = StaticHost::with(config());
        let (client, conn) = begun(&mut host, 1_001);
        assert_eq!(longest(&mut host, &client, conn), 1_460);
        while host.stack.counters().black_holes == 0 {
            host.wait_ms(100);
        }
        if waits_secs == 0 {
            // Nothing smaller arrives either.
            host.wait_secs(120);
        }
        host.stack.set_mtu(host.now, 1_000).unwrap();
        host.input(&client.ack(1, 14_601)).events();
        host.now += Duration::from_secs(waits_secs);
        assert_eq!(longest(&mut host, &client, conn), 960);
    }
}

#[test]
fn mtu_that_a_family_cannot_live_with_is_refused_and_nothing_changes() {
    let mut host = StaticHost::with(config());
    assert_eq!(host.stack.set_mtu(host.now, 67), Err(ConfigError::MtuTooSmall));
    assert_eq!(host.stack.config().mtu, 1_500);
    let ipv6 = Ipv6Config { addresses: vec![(OURS, 64)], ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { ipv6: Some(ipv6), ..config() });
    assert_eq!(host.stack.set_mtu(host.now, 1_279), Err(ConfigError::MtuTooSmallForIpv6));
    assert_eq!(host.stack.config().mtu, 1_500);
    assert_eq!(host.stack.max_datagram_bytes(host.now, ipv6::THEIRS), 1_500 - 48);
}
