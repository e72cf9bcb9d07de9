//! Passive open: RFC 9293 3.5, 3.7.1, 3.10.7.2; window scaling by RFC 7323 2; bounds on what a SYN can take.

use std::net::Ipv6Addr;

use exos_net::{
    AckPolicy, Config, ConfigError, Data, Duration, Ipv6Config, ListenError, Rate, Stack, SynCookies,
};
use smoltcp::wire::{Ipv4Packet, TcpControl, TcpOption, TcpPacket};

use crate::harness::{Client, Host, MSS, config};

/// The options of a SYN-ACK: segment size and window scale.
fn options(frame: &[u8]) -> (Option<u16>, Option<u8>) {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let mut bytes = tcp.options();
    let mut found = (None, None);
    while !bytes.is_empty() {
        let (rest, option) = TcpOption::parse(bytes).unwrap();
        match option {
            TcpOption::MaxSegmentSize(mss) => found.0 = Some(mss),
            TcpOption::WindowScale(shift) => found.1 = Some(shift),
            _ => {}
        }
        bytes = rest;
    }
    found
}

#[test]
fn syn_returns_syn_ack_and_its_ack_opens() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    let frame = client.handshake_begin(&mut host);
    let syn_ack = client.see(&frame);
    assert_eq!((syn_ack.flags.as_str(), syn_ack.seq, syn_ack.ack, syn_ack.window), ("SA", 0, 1, 65_535));
    assert_eq!(options(&frame), (Some(1460), None));
    assert_eq!((host.stack.connections(), host.stack.half_open()), (1, 1));

    let events = host.input(&client.ack(1, 1)).events();
    assert!(events.opened && events.data.is_empty() && events.ended.is_none());
    assert_eq!(host.stack.half_open(), 0);
    assert_eq!(host.stack.peer(events.conn).unwrap().port(), client.port);
    assert_eq!(host.stack.local_port(events.conn), Some(80));
}

#[test]
fn syn_with_window_scale_returns_ours_and_scales_both_ways() {
    let mut host = Host::<&'static [u8]>::with(Config { receive_window_bytes: 1 << 20, ..config() });
    let mut client = Client { window_scale: Some(7), window: 80, ..Client::default() };
    let frame = client.handshake_begin(&mut host);
    assert_eq!(options(&frame), (Some(1460), Some(5)));
    let conn = host.input(&client.ack(1, 1)).events().conn;

    host.stack.send(conn, crate::harness::pattern(20_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    // 80 << 7 bytes fit: seven segments and a rest not worth sending.
    assert_eq!(seen.iter().map(|segment| segment.payload.len()).sum::<usize>(), 7 * MSS);
    assert_eq!(u32::from(seen[0].window) << 5, 1 << 20);
}

#[test]
fn syn_without_window_scale_gets_none_and_an_unscaled_window() {
    let mut host = Host::<&'static [u8]>::with(Config { receive_window_bytes: 1 << 20, ..config() });
    let mut client = Client::default();
    let frame = client.handshake_begin(&mut host);
    assert_eq!(options(&frame).1, None);
    let conn = host.input(&client.data(1, 1, b"x")).events().conn;
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).window, 65_534);
}

#[test]
fn data_with_the_opening_ack_is_delivered() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    let events = host.input(&client.data(1, 1, b"GET")).events();
    assert!(events.opened);
    assert_eq!(events.data, b"GET");
}

#[test]
fn lost_opening_ack_is_made_up_by_data() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    // The second data segment overtakes everything else.
    let events = host.input(&client.data(4, 1, b"def")).events();
    assert!(events.opened && events.data.is_empty());
    let events = host.input(&client.data(1, 1, b"abc")).events();
    assert!(!events.opened && events.readable);
    assert_eq!(host.stack.pending(events.conn), b"abcdef");
}

#[test]
fn repeated_syn_returns_same_syn_ack() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    let first = client.handshake_begin(&mut host);
    assert_eq!(host.input(&client.syn()).reply(), first);
    assert_eq!(host.stack.connections(), 1);
}

#[test]
fn unanswered_syn_ack_is_repeated_with_backoff_then_forgotten() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    host.wait_ms(990);
    assert_eq!(client.seen(&mut host).len(), 0);
    host.wait_ms(20);
    let again = client.seen_one(&mut host);
    assert_eq!((again.flags.as_str(), again.seq, again.ack), ("SA", 0, 1));
    host.wait_ms(1_980);
    assert_eq!(client.seen(&mut host).len(), 0);
    host.wait_ms(40);
    assert_eq!(client.seen(&mut host).len(), 1);
    host.wait_secs(200);
    assert_eq!(client.seen(&mut host).len(), 5);
    assert_eq!((host.stack.connections(), host.stack.half_open()), (0, 0));
    assert!(host.ended.is_empty(), "the application never knew of it");
    assert_eq!(host.stack.counters().half_open_dropped, 1);
}

#[test]
fn after_a_lost_syn_ack_the_initial_window_is_one_segment() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    host.wait_ms(1_100);
    host.nic.frames.clear();
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.stack.send(conn, crate::harness::pattern(100_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).len(), 1);
}

#[test]
fn wrong_ack_in_syn_received_returns_reset_and_keeps_the_connection() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    let reset = client.see(&host.input(&client.ack(1, 77)).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 77));
    assert!(host.input(&client.ack(1, 1)).events().opened);
}

#[test]
fn reset_in_syn_received_forgets_silently() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    host.input(&client.rst(1)).assert_nothing();
    assert_eq!((host.stack.connections(), host.stack.half_open()), (0, 0));
}

#[test]
fn closed_port_returns_reset() {
    let mut host = Host::<&'static [u8]>::with(config());
    let client = Client::default();
    assert!(host.stack.unlisten(80));
    let reset = client.see(&host.input(&client.syn()).reply());
    assert_eq!((reset.flags.as_str(), reset.ack), ("RA", 1));
    // With an ACK, its number is the sequence number (RFC 9293 3.10.7.1).
    let reset = client.see(&host.input(&client.ack(5, 9)).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 9));
    host.input(&client.rst(5)).assert_nothing();
}

#[test]
fn syn_ack_from_a_stranger_returns_reset() {
    let mut host = Host::<&'static [u8]>::with(config());
    let client = Client::default();
    let reset = client.see(&host.input(&client.frame(TcpControl::Syn, 0, Some(3), &[])).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 3));
    assert_eq!(host.stack.connections(), 0);
}

#[test]
fn peer_without_mss_option_gets_segments_of_536() {
    let mut host = Host::<&'static [u8]>::with(config());
    let mut client = Client { mss: None, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, crate::harness::pattern(2_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host)[0].payload.len(), 536);
}

#[test]
fn peer_with_absurd_mss_gets_bounded_segments() {
    let mut host = Host::<&'static [u8]>::with(config());
    for (port, mss, expected) in [(1, 0, 48), (2, 65_535, MSS)] {
        let mut client = Client { mss: Some(mss), ..Client::on_port(port) };
        let conn = client.connect(&mut host);
        host.stack.send(conn, crate::harness::pattern(4_000)).unwrap();
        host.output(conn, AckPolicy::Merge);
        assert_eq!(client.seen(&mut host)[0].payload.len(), expected);
    }
}

#[test]
fn syns_beyond_connection_limit_are_dropped_and_counted() {
    let mut host = Host::<&'static [u8]>::with(Config { max_connections: 2, ..config() });
    let first = Client::on_port(1).connect(&mut host);
    let second = Client::on_port(2).connect(&mut host);
    host.input(&Client::on_port(3).syn()).assert_nothing();
    assert_eq!(host.stack.counters().refused_connections_full, 1);
    assert!(first.index() < 2 && second.index() < 2 && first.index() != second.index());
    assert!(host.stack.abort(first).is_some());
    let third = Client::on_port(3).connect(&mut host);
    assert_eq!(third.index(), first.index());
    assert_ne!(third, first);
    assert_eq!(host.stack.peer(first), None);
}

#[test]
fn listen_invalid_port_returns_error() {
    let mut stack = Stack::<&'static [u8]>::new(config(), exos_net::Instant::ZERO).unwrap();
    assert_eq!(stack.listen(0), Err(ListenError::PortZero));
    assert_eq!(stack.listen(80), Ok(()));
    assert_eq!(stack.listen(80), Err(ListenError::InUse));
    assert!(stack.unlisten(80) && !stack.unlisten(80));
}

#[test]
fn config_invalid_values_return_their_error() {
    fn error(change: impl FnOnce(&mut Config)) -> ConfigError {
        let mut config = config();
        change(&mut config);
        Stack::<&'static [u8]>::new(config, exos_net::Instant::ZERO).unwrap_err()
    }
    assert_eq!(error(|c| c.mac.0 = [1, 0, 0, 0, 0, 1]), ConfigError::MacNotUnicast);
    assert_eq!(error(|c| c.ip = [224, 0, 0, 1].into()), ConfigError::AddressNotUnicast);
    assert_eq!(error(|c| c.prefix_len = 33), ConfigError::PrefixLength);
    assert_eq!(error(|c| c.gateway = Some([10, 0, 1, 1].into())), ConfigError::GatewayOffLink);
    assert_eq!(error(|c| c.mtu = 67), ConfigError::MtuTooSmall);
    assert_eq!(error(|c| c.max_connections = 0), ConfigError::NoConnections);
    assert_eq!(error(|c| c.receive_window_bytes = 100), ConfigError::ReceiveWindow);
    assert_eq!(error(|c| c.tso_max_bytes = 60_000), ConfigError::TsoWithoutChecksum);
    assert_eq!(error(|c| c.delayed_ack = Duration::from_secs(1)), ConfigError::DelayedAckTooLong);
    assert_eq!(error(|c| c.min_mss = 47), ConfigError::MinMss);
    assert_eq!(error(|c| c.min_mss = 537), ConfigError::MinMss);
    assert_eq!(error(|c| c.min_rto = Duration::ZERO), ConfigError::MinRtoZero);
    assert_eq!(error(|c| c.min_rto = Duration::from_secs(61)), ConfigError::MinRtoTooLong);
    assert_eq!(error(|c| c.max_half_open = 0), ConfigError::NoConnections);
    assert_eq!(error(|c| c.max_neighbours = 0), ConfigError::NoNeighbours);
    assert_eq!(error(|c| c.ephemeral_ports = 0..=9), ConfigError::EphemeralPorts);
    assert_eq!(error(|c| c.receive_window_bytes = u32::MAX), ConfigError::ReceiveWindow);
    assert_eq!(error(|c| c.tso_max_bytes = 65_456), ConfigError::TsoTooLarge);
    assert_eq!(error(|c| c.syn_retries = 17), ConfigError::TooManyRetries);
    assert_eq!(error(|c| c.syn_ack_retries = 17), ConfigError::TooManyRetries);
    assert_eq!(error(|c| c.user_timeout = Duration::ZERO), ConfigError::TimeoutZero);
    assert_eq!(error(|c| c.fin_wait_2 = Duration::ZERO), ConfigError::TimeoutZero);
    assert_eq!(error(|c| c.idle_timeout = Some(Duration::ZERO)), ConfigError::TimeoutZero);
    assert_eq!(error(|c| c.reassembly_timeout = Duration::ZERO), ConfigError::ReassemblyTimeoutZero);
    assert_eq!(error(|c| c.echo_replies.burst = 0), ConfigError::RateWithoutBurst);
    assert_eq!(error(|c| c.icmp_errors.burst = 0), ConfigError::RateWithoutBurst);
    assert_eq!(error(|c| c.syn_cookie_checks.burst = 0), ConfigError::RateWithoutBurst);
    assert_eq!(error(|c| c.syn_cookie_checks.per_second = 0), ConfigError::CookiesUnchecked);
    assert_eq!(error(|c| c.max_reassembly_bytes = 6_511), ConfigError::ReassemblyTooSmall);
    let ours: Ipv6Addr = "2001:db8::1".parse().unwrap();
    let with = |addresses: &[Ipv6Addr], gateway| Ipv6Config {
        addresses: addresses.iter().map(|&ip| (ip, 64)).collect(),
        gateway,
        ..Ipv6Config::default()
    };
    assert_eq!(error(|c| c.ipv6 = Some(with(&[ours, ours], None))), ConfigError::Ipv6AddressTwice);
    assert_eq!(error(|c| c.ipv6 = Some(with(&[ours], Some(ours)))), ConfigError::Ipv6GatewayOurs);
    assert_eq!(error(|c| c.ipv6 = Some(with(&[Ipv6Addr::LOCALHOST], None))), ConfigError::Ipv6Addresses);
    assert_eq!(error(|c| c.ipv6 = Some(with(&[ours; 8], None))), ConfigError::Ipv6Addresses);
}

#[test]
fn config_values_at_their_bounds_are_accepted() {
    let never = Rate { per_second: 0, burst: 0 };
    let config = Config {
        syn_retries: 16,
        syn_ack_retries: 0,
        min_rto: Duration::from_secs(60),
        echo_replies: never,
        icmp_errors: never,
        syn_cookies: SynCookies::Never,
        syn_cookie_checks: never,
        max_reassembly_bytes: 6_512,
        max_time_wait: 0,
        max_path_mtus: 0,
        max_udp_ports: 0,
        ..config()
    };
    assert!(Stack::<&'static [u8]>::new(config.clone(), exos_net::Instant::ZERO).is_ok());
    let no_fragments =
        Config { max_reassemblies: 0, max_reassembly_bytes: 0, reassembly_timeout: Duration::ZERO, ..config };
    assert!(Stack::<&'static [u8]>::new(no_fragments, exos_net::Instant::ZERO).is_ok());
}

#[test]
fn data_reference_of_static_bytes_is_itself() {
    let data: &'static [u8] = b"abc";
    assert_eq!((Data::len(&data), data.bytes(), Data::is_empty(&data)), (3, &b"abc"[..], false));
}
