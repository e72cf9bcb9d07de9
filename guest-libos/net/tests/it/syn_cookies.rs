//! SYN cookies (RFC 4987 3.6): who is served in a flood of SYNs, what comes back with a cookie, and what is none.

use exos_net::{AckPolicy, Config, Duration, End, Rate, Seq, SynCookies};
use smoltcp::wire::{Ipv4Packet, TcpOption, TcpPacket};

use crate::harness::{Client, Host, MSS, config, pattern};

type StaticHost = Host<&'static [u8]>;

/// Longer than a cookie is good for.
const TWO_TICKS_SECS: u64 = 138;

/// Every SYN is answered by a cookie.
fn always() -> StaticHost {
    StaticHost::with(Config { syn_cookies: SynCookies::Always, ..config() })
}

/// SYNs of so many clients who never say more.
fn flood(host: &mut StaticHost, ports: std::ops::Range<u16>) {
    for port in ports {
        host.input(&Client::on_port(port).syn()).reply();
    }
}

/// Segment size, window scale and whether SACK is permitted.
fn options(frame: &[u8]) -> (Option<u16>, Option<u8>, bool) {
    let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
    let mut bytes = tcp.options();
    let mut found = (None, None, false);
    while !bytes.is_empty() {
        let (rest, option) = TcpOption::parse(bytes).unwrap();
        match option {
            TcpOption::MaxSegmentSize(mss) => found.0 = Some(mss),
            TcpOption::WindowScale(shift) => found.1 = Some(shift),
            TcpOption::SackPermitted => found.2 = true,
            _ => {}
        }
        bytes = rest;
    }
    found
}

#[test]
fn client_whose_round_trip_is_longer_than_filling_the_backlog_is_served() {
    let mut host = StaticHost::with(config());
    flood(&mut host, 1_000..11_000);
    let places = host.stack.connections();
    let mut client = Client::on_port(1);
    client.handshake_begin(&mut host);
    flood(&mut host, 11_000..21_000);
    assert_eq!((host.stack.connections(), host.stack.half_open()), (places, 1_024));
    // Its acknowledgment was lost; the request brings it.
    let events = host.input(&client.data(1, 1, b"GET")).events();
    assert!(events.opened && events.data == b"GET");
    assert_eq!((host.stack.established(), host.stack.half_open()), (1, 1_024));
    host.stack.send(events.conn, b"OK").unwrap();
    host.output(events.conn, AckPolicy::Merge);
    let response = client.seen_one(&mut host);
    assert_eq!((response.seq, response.ack, &response.payload[..]), (1, 4, &b"OK"[..]));
    let counters = host.stack.counters();
    assert_eq!((counters.half_open_evicted, counters.syn_cookies_sent), (0, 20_000 - 1_024 + 1));
    assert_eq!((counters.syn_cookies_accepted, counters.syn_cookies_failed), (1, 0));
}

#[test]
fn request_with_the_end_of_the_stream_may_bring_the_cookie() {
    let mut host = always();
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    let events = host.input(&client.fin(1, 1)).events();
    assert!(events.opened && events.peer_closed);
    host.stack.close(events.conn).unwrap();
    host.output(events.conn, AckPolicy::Merge);
    assert_eq!(client.seen_one(&mut host).flags, "FA");
    assert_eq!(host.input(&client.ack(2, 2)).events().ended, Some(End::Closed));
}

#[test]
fn forged_acknowledgment_opens_nothing_and_is_reset() {
    let mut host = always();
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    let forged = [(1, 0), (1, 2), (1, 9), (1, 1 << 16), (1, 1 << 31), (2, 1), (0, 1)];
    for (seq, ack) in forged {
        let reset = client.see(&host.input(&client.ack(seq, ack)).reply());
        assert_eq!((reset.flags.as_str(), reset.seq), ("R", ack), "{seq} {ack}");
    }
    let other = Client { port: client.port + 1, ..client.clone() };
    assert_eq!(other.see(&host.input(&other.ack(1, 1)).reply()).flags, "R");
    assert_eq!((host.stack.connections(), host.stack.counters().opened), (0, 0));
    assert_eq!(host.stack.counters().syn_cookies_failed, forged.len() as u64 + 1);
    assert!(host.input(&client.ack(1, 1)).events().opened);
}

#[test]
fn cookie_of_long_ago_opens_nothing() {
    let mut host = always();
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    host.wait_secs(TWO_TICKS_SECS);
    assert_eq!(client.see(&host.input(&client.ack(1, 1)).reply()).flags, "R");
    // Nobody can have been sent a cookie that is good now: it was not even looked at.
    assert_eq!(host.stack.counters().syn_cookies_failed, 0);
    Client::on_port(7).handshake_begin(&mut host);
    assert_eq!(client.see(&host.input(&client.ack(1, 1)).reply()).flags, "R");
    assert_eq!(host.stack.counters().syn_cookies_failed, 1);
}

#[test]
fn cookie_opens_no_port_that_is_not_listened_on_any_more() {
    let mut host = always();
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    host.stack.unlisten(crate::harness::PORT);
    assert_eq!(client.see(&host.input(&client.ack(1, 1)).reply()).flags, "R");
    assert_eq!(host.stack.connections(), 0);
}

#[test]
fn options_come_back_with_timestamps() {
    let mut host = StaticHost::with(Config {
        syn_cookies: SynCookies::Always,
        receive_window_bytes: 1 << 20,
        ..config()
    });
    host.now += Duration::from_millis(12_345);
    let mut client = Client {
        window_scale: Some(7),
        window: 80,
        sack: true,
        timestamps: Some((1_000, 0)),
        ..Client::default()
    };
    let frame = client.handshake_begin(&mut host);
    assert_eq!(options(&frame), (Some(MSS as u16), Some(5), true));
    let (value, echo) = client.see(&frame).timestamps.unwrap();
    assert_eq!(echo, 1_000);
    client.timestamps = Some((1_001, value));
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.stack.send(conn, pattern(20_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    // 80 << 7 bytes fit, in segments with room for timestamps; and our clock has not gone back.
    assert_eq!(seen.iter().map(|segment| segment.payload.len()).sum::<usize>(), 7 * (MSS - 12));
    assert_eq!(u32::from(seen[0].window) << 5, 1 << 20);
    let (later, echo) = seen[0].timestamps.unwrap();
    assert!(later.wrapping_sub(value) < 64 && echo == 1_001, "{value} {later}");
    // What comes too early is reported.
    host.input(&client.data(101, 1, b"x")).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).blocks, [(101, 102)]);
}

#[test]
fn without_timestamps_the_segment_size_comes_back_alone() {
    let mut host = always();
    let mut client =
        Client { mss: Some(1_400), window_scale: Some(7), window: 2_000, sack: true, ..Client::default() };
    let frame = client.handshake_begin(&mut host);
    assert_eq!(options(&frame), (Some(MSS as u16), None, false));
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.stack.send(conn, pattern(20_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let lens: Vec<usize> = client.seen(&mut host).iter().map(|segment| segment.payload.len()).collect();
    // The next smaller size that a cookie can say, and the window as it is.
    assert_eq!(lens, [1_360]);
}

#[test]
fn configuration_without_timestamps_gives_options_up() {
    let mut host =
        StaticHost::with(Config { syn_cookies: SynCookies::Always, timestamps: false, ..config() });
    let mut client =
        Client { window: 2_000, window_scale: Some(7), timestamps: Some((5, 0)), ..Client::default() };
    let frame = client.handshake_begin(&mut host);
    assert_eq!((options(&frame), client.see(&frame).timestamps), ((Some(MSS as u16), None, false), None));
    // What looks like options in a timestamp that nobody asked for is not.
    client.timestamps = Some((6, 0x17));
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.stack.send(conn, pattern(20_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen_one(&mut host);
    assert_eq!((seen.timestamps, seen.payload.len()), (None, MSS));
}

#[test]
fn round_trip_of_a_cookie_is_not_measured() {
    let mut host = always();
    let mut client = Client { timestamps: Some((1_000, 0)), ..Client::default() };
    let frame = client.handshake_begin(&mut host);
    let (value, _) = client.see(&frame).timestamps.unwrap();
    host.wait_ms(30);
    client.timestamps = Some((1_030, value));
    let conn = host.input(&client.ack(1, 1)).events().conn;
    assert_eq!(host.stack.samples().smoothed_rtt_ns.count(), 0);
    host.stack.send(conn, b"x").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.wait_ms(30);
    host.input(&client.ack(1, 2)).events();
    let rtt = host.stack.samples().smoothed_rtt_ns;
    assert_eq!((rtt.count(), rtt.sum), (1, 30_000_000));
}

#[test]
fn checks_beyond_the_limit_are_dropped_and_counted() {
    let limit = Rate { per_second: 10, burst: 3 };
    let mut host =
        StaticHost::with(Config { syn_cookies: SynCookies::Always, syn_cookie_checks: limit, ..config() });
    let mut client = Client::default();
    client.handshake_begin(&mut host);
    for _ in 0..3 {
        host.input(&client.ack(1, 9)).reply();
    }
    for _ in 0..5 {
        host.input(&client.ack(1, 9)).assert_nothing();
    }
    // A client's among them is not reset, and comes again with its request.
    host.input(&client.ack(1, 1)).assert_nothing();
    assert_eq!(host.stack.counters().syn_cookies_limited, 6);
    host.wait_ms(100);
    assert!(host.input(&client.data(1, 1, b"GET")).events().opened);
}

#[test]
fn cookie_that_finds_all_places_taken_is_good_later() {
    let mut host =
        StaticHost::with(Config { max_connections: 1, syn_cookies: SynCookies::Always, ..config() });
    let mut client = Client::on_port(2);
    client.handshake_begin(&mut host);
    let first = Client::on_port(1).connect(&mut host);
    host.input(&client.ack(1, 1)).assert_nothing();
    assert_eq!(host.stack.counters().refused_connections_full, 1);
    host.stack.abort(first);
    assert!(host.input(&client.data(1, 1, b"GET")).events().opened);
}

#[test]
fn nothing_is_half_open_where_cookies_are_always_sent() {
    let mut host = always();
    flood(&mut host, 1..2_000);
    assert_eq!((host.stack.connections(), host.stack.counters().half_opened), (0, 0));
    assert_eq!(host.stack.next_deadline(), None);
    // A repeated SYN is another SYN.
    let mut client = Client::on_port(2_000);
    client.handshake_begin(&mut host);
    host.wait_secs(1);
    client.handshake_begin(&mut host);
    assert!(host.input(&client.ack(1, 1)).events().opened);
    assert_eq!((host.stack.connections(), host.stack.counters().half_opened), (1, 1));
}

/// What is in TIME-WAIT is answered by what it remembers, and its successor's sequence numbers lie beyond its own, which a
/// cookie's need not.
#[test]
fn time_wait_is_left_by_no_cookie() {
    let mut host = always();
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.fin(1, 2)).events();
    assert_eq!(host.stack.time_wait(), 1);
    // The acknowledgment of the cookie that opened it, once more.
    host.input(&client.ack(1, 1)).assert_nothing();
    assert_eq!((host.stack.connections(), host.stack.counters().opened), (0, 1));
    let before = client.server_isn;
    client.isn = client.isn.wrapping_add(100_000);
    client.handshake_begin(&mut host);
    assert!(Seq::new(client.server_isn).is_after(Seq::new(before)));
    assert_eq!((host.stack.half_open(), host.stack.counters().syn_cookies_sent), (1, 1));
    assert!(host.input(&client.ack(1, 1)).events().opened);
}
