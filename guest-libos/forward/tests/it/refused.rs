//! What does not go on, each for its reason.

use crate::common::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use exos_forward::{Config, ConfigError, FLOWS_MAX, Forwarder, HEAD_BYTES, Meta, Network, Reason, Verdict};

/// A frame of a connection with a byte of its IP header changed, and a checksum that fits.
fn with_ip(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut bytes = Frame { data: vec![1; 20], ..Frame::of_client(SYN) }.bytes();
    change(&mut bytes[14..34]);
    bytes[24..26].fill(0);
    let sum: u32 = bytes[14..34].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    bytes
}

fn from(address: [u8; 4]) -> Vec<u8> {
    Frame { from: SocketAddr::new(Ipv4Addr::from(address).into(), 5000), ..Frame::of_client(SYN) }.bytes()
}

fn from6(address: &str) -> Vec<u8> {
    let address: Ipv6Addr = address.parse().expect("an address");
    Frame { from: SocketAddr::new(address.into(), 5000), ..IPV6.of_client(SYN) }.bytes()
}

#[test]
fn frames_are_refused_for_their_reason() {
    let mut bench = Bench::new(&config());
    let good = Frame { data: vec![1; 20], ..Frame::of_client(SYN) }.bytes();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    for (what, bytes, reason) in [
        ("nothing", vec![], Reason::Malformed),
        ("half an Ethernet header", good[..13].to_vec(), Reason::Malformed),
        ("no more than one", good[..14].to_vec(), Reason::Malformed),
        ("half an IP header", good[..33].to_vec(), Reason::Malformed),
        ("the packet's end is missing", good[..good.len() - 1].to_vec(), Reason::Malformed),
        ("IP version 5", with_ip(|ip| ip[0] = 0x55), Reason::Malformed),
        ("an IP header of 16 bytes", with_ip(|ip| ip[0] = 0x44), Reason::Malformed),
        ("IP options", with_ip(|ip| ip[0] = 0x46), Reason::IpOptions),
        ("an IP packet without a header", with_ip(|ip| ip[3] = 19), Reason::Malformed),
        ("no whole TCP header", with_ip(|ip| ip[3] = 39), Reason::Malformed),
        ("a wrong IP checksum", changed(25, good[25] ^ 1), Reason::BadChecksum),
        ("another address", with_ip(|ip| ip[19] = 99), Reason::NotForUs),
        ("a broadcast", with_ip(|ip| ip[16..].fill(255)), Reason::NotForUs),
        ("another station", changed(5, 99), Reason::NotForUs),
        ("a broadcast to all stations", [&[0xFF; 6], &good[6..]].concat(), Reason::NotForUs),
        ("the first fragment", with_ip(|ip| ip[6] = 0x20), Reason::Fragment),
        ("a later one", with_ip(|ip| ip[7] = 1), Reason::Fragment),
        ("UDP", with_ip(|ip| ip[9] = 17), Reason::Unsupported),
        ("no IP", changed(12, 0x87), Reason::Unsupported),
        ("a TCP header of 16 bytes", changed(46, 0x40), Reason::Malformed),
        ("one longer than the segment", changed(46, 0xF0), Reason::Malformed),
        ("SYN and FIN", changed(47, SYN | FIN), Reason::Malformed),
        ("SYN and RST", changed(47, SYN | RST), Reason::Malformed),
        ("from port 0", Frame::of_client(SYN).port(0).bytes(), Reason::BadSource),
        ("from 0.0.0.0", from([0; 4]), Reason::BadSource),
        ("from a multicast address", from([224, 0, 0, 1]), Reason::BadSource),
        ("from a broadcast address", from([255; 4]), Reason::BadSource),
        ("from 127.0.0.1", from([127, 0, 0, 1]), Reason::BadSource),
        ("from a group of stations", changed(6, 1), Reason::BadSource),
        ("from no station", [&good[..6], &[0; 6], &good[12..]].concat(), Reason::BadSource),
        ("from ourselves", from(OWN.octets()), Reason::BadSource),
        ("another port", changed(37, 81), Reason::NotListened),
    ] {
        assert_eq!(bench.dropped(&bytes), reason, "{what}");
    }
    assert_eq!(bench.connections(), [0; 3]);
    bench.sent(&good, Meta::default());
}

#[test]
fn frames_of_ipv6_are_refused_for_their_reason() {
    let mut bench = Bench::over(IPV6, &config());
    let good = Frame { data: vec![1; 20], ..IPV6.of_client(SYN) }.bytes();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let next_header = |value| changed(20, value);
    for (what, bytes, reason) in [
        ("no more than an Ethernet header", good[..14].to_vec(), Reason::Malformed),
        ("half an IP header", good[..53].to_vec(), Reason::Malformed),
        ("the packet's end is missing", good[..good.len() - 1].to_vec(), Reason::Malformed),
        ("a length beyond the frame", changed(18, 1), Reason::Malformed),
        ("IP version 4", changed(14, 0x45), Reason::Malformed),
        ("no whole TCP header", changed(19, 19), Reason::Malformed),
        ("another address", changed(53, 99), Reason::NotForUs),
        ("another network's", changed(38, 0x21), Reason::NotForUs),
        ("a group of IP", changed(38, 0xFF), Reason::NotForUs),
        ("another station", changed(5, 99), Reason::NotForUs),
        ("a group of stations", [&[0x33, 0x33, 0, 0, 0, 1], &good[6..]].concat(), Reason::NotForUs),
        ("a fragment", next_header(44), Reason::Fragment),
        ("hop-by-hop options", next_header(0), Reason::IpOptions),
        ("a routing header", next_header(43), Reason::IpOptions),
        ("an authentication header", next_header(51), Reason::IpOptions),
        ("destination options", next_header(60), Reason::IpOptions),
        ("UDP", next_header(17), Reason::Unsupported),
        ("ICMP for IPv4", next_header(1), Reason::Unsupported),
        ("no next header", next_header(59), Reason::Unsupported),
        ("a TCP header of 16 bytes", changed(66, 0x40), Reason::Malformed),
        ("one longer than the segment", changed(66, 0xF0), Reason::Malformed),
        ("SYN and FIN", changed(67, SYN | FIN), Reason::Malformed),
        ("from port 0", IPV6.of_client(SYN).port(0).bytes(), Reason::BadSource),
        ("from ::", from6("::"), Reason::BadSource),
        ("from ::1", from6("::1"), Reason::BadSource),
        ("from a group", from6("ff02::1"), Reason::BadSource),
        ("from an IPv4 address in IPv6's clothes", from6("::ffff:10.0.0.77"), Reason::BadSource),
        ("from a group of stations", changed(6, 0x33), Reason::BadSource),
        ("from ourselves", from6(&OWN6.to_string()), Reason::BadSource),
        ("another port", changed(57, 81), Reason::NotListened),
    ] {
        assert_eq!(bench.dropped(&bytes), reason, "{what}");
    }
    assert_eq!(bench.connections(), [0; 3]);
    bench.sent(&good, Meta::default());
    bench.sent(&from6("fe80::77"), Meta::default());
}

#[test]
fn nobody_but_the_server_gets_through_to_a_client() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let port = bench.establish(CLIENT_PORT);
        let server = hosts.of_server(port, ACK);
        let others = [(hosts.client, SERVER_PORT), (hosts.server, SERVER_PORT + 1)];
        for from in others.map(|(address, port)| SocketAddr::new(address, port)) {
            assert_eq!(bench.dropped(&Frame { from, ..server.clone() }.bytes()), Reason::NoFlow);
        }
        for port in [port ^ 1, 0, 1023, 65_535] {
            let to = SocketAddr::new(hosts.own, port);
            assert_eq!(bench.dropped(&Frame { to, ..server.clone() }.bytes()), Reason::NoFlow, "{port}");
        }
        bench.forwarded(&server);
    }
}

#[test]
fn version_that_the_interface_does_not_have_is_not_supported() {
    for (config, hosts) in
        [(Config { ipv6: None, ..config() }, IPV6), (Config { ipv4: None, ..config() }, IPV4)]
    {
        let mut bench = Bench::new(&config);
        assert_eq!(bench.dropped(&hosts.of_client(SYN).bytes()), Reason::Unsupported);
        assert_eq!(bench.forwarder.connections_max(), FLOWS_MAX, "one table");
    }
    let mut bench = Bench::new(&Config { ipv4: None, ..config() });
    assert_eq!(bench.dropped(&arp(1, (CLIENT_MAC, CLIENT), ([0; 6], OWN))), Reason::Unsupported);
}

#[test]
fn syn_to_an_address_without_a_server_is_refused_by_an_error_and_echo_answered() {
    let ipv4 = Config { ipv4: config().ipv4.map(|ipv4| Network { to: None, ..ipv4 }), ..config() };
    let ipv6 = Config { ipv6: config().ipv6.map(|ipv6| Network { to: None, ..ipv6 }), ..config() };
    for (config, hosts, unreachable, other) in [(ipv4, IPV4, [3, 3], IPV6), (ipv6, IPV6, [1, 4], IPV4)] {
        let mut bench = Bench::over(hosts, &config);
        let syn = hosts.of_client(SYN);
        let sent = bench.sent(&syn.bytes(), Meta::default()).bytes;
        assert_eq!(sent[hosts.tcp_at()..][..2], unreachable);
        assert_eq!(sent[..6], CLIENT_MAC);
        assert_eq!(sent[hosts.tcp_at() + 8..], syn.bytes()[14..], "the whole of it is quoted");
        for flags in [ACK, SYN | ACK, RST, FIN | ACK] {
            assert_eq!(bench.dropped(&hosts.of_client(flags).bytes()), Reason::NoServer, "{flags}");
        }
        assert_eq!(bench.dropped(&hosts.of_server(5000, ACK).bytes()), Reason::NoFlow);
        assert_eq!(bench.forwarder.counters().dropped(Reason::NoServer), 5);
        assert_eq!(bench.forwarder.next_hop(hosts.version), None);
        bench.hosts = other;
        bench.establish(CLIENT_PORT);
        assert_eq!((bench.connections(), bench.forwarder.connections_max()), ([0, 1, 0], FLOWS_MAX));
    }
}

#[test]
fn what_the_device_says_of_segments_without_a_checksum_to_complete_is_refused() {
    let mut bench = Bench::new(&config());
    for hosts in [IPV4, IPV6] {
        bench.hosts = hosts;
        bench.open(CLIENT_PORT);
        let bytes = hosts.of_client(ACK).bytes();
        for meta in [
            Meta { is_partial: false, segment_bytes: Some(1448) },
            Meta { is_partial: true, segment_bytes: Some(0) },
        ] {
            let verdict = bench.forwarder.forward(bench.now, &bytes, &mut [0; HEAD_BYTES], meta);
            assert_eq!(verdict, Verdict::Drop(Reason::Offload));
        }
    }
}

#[test]
fn configurations_that_lead_nowhere_are_refused() {
    let ipv4 = |network| Config { ipv4: Some(network), ..config() };
    let ipv6 = |network| Config { ipv6: Some(network), ..config() };
    let to = |address: [u8; 4], port| ipv4(Network::new(OWN, 24, (address.into(), port)));
    let to6 =
        |address: &str, port| ipv6(Network::new(OWN6, 64, (address.parse().expect("an address"), port)));
    let no_host = |address: &str| ConfigError::NoHost(address.parse().expect("an address"));
    let far: IpAddr = "2001:db8:0:2::2".parse().unwrap();
    let [link_local, router] = ["fe80::1", "fe80::fe"].map(|text| text.parse::<Ipv6Addr>().unwrap());
    for (config, error) in [
        (Config { listen: 0, ..config() }, ConfigError::PortZero),
        (to(SERVER.octets(), 0), ConfigError::PortZero),
        (to(OWN.octets(), 80), ConfigError::ToItself),
        (to([224, 0, 0, 5], 80), no_host("224.0.0.5")),
        (to([127, 0, 0, 1], 80), no_host("127.0.0.1")),
        (ipv4(Network::new([0; 4].into(), 24, (SERVER, 80))), no_host("0.0.0.0")),
        (to([10, 0, 1, 2], 80), ConfigError::NoWay([10, 0, 1, 2].into())),
        (to6("2001:db8:0:1::2", 0), ConfigError::PortZero),
        (to6(&OWN6.to_string(), 80), ConfigError::ToItself),
        (to6("ff02::5", 80), no_host("ff02::5")),
        (to6("::1", 80), no_host("::1")),
        (to6("::ffff:10.0.0.2", 80), no_host("::ffff:10.0.0.2")),
        (ipv6(Network::new(Ipv6Addr::UNSPECIFIED, 64, (SERVER6, 80))), no_host("::")),
        (to6(&far.to_string(), 80), ConfigError::NoWay(far)),
        (
            ipv6(Network { gateway: Some(router), ..Network::new(link_local, 64, (SERVER6, 80)) }),
            ConfigError::LinkOnly(link_local.into()),
        ),
        (Config { ipv4: None, ipv6: None, ..config() }, ConfigError::NoServer),
        (
            Config { ipv4: config().ipv4.map(|ipv4| Network { to: None, ..ipv4 }), ipv6: None, ..config() },
            ConfigError::NoServer,
        ),
        (Config { max_connections: 0, ..config() }, ConfigError::Connections(0)),
        (Config { max_connections: FLOWS_MAX + 1, ..config() }, ConfigError::Connections(FLOWS_MAX + 1)),
    ] {
        assert_eq!(Forwarder::new(&config).expect_err("refused"), error);
    }
    let message = |error: ConfigError| error.to_string();
    assert!(message(ConfigError::NoWay([10, 0, 1, 2].into())).contains(",gw=ADDRESS"));
    assert!(message(ConfigError::NoWay(far)).contains(",gw6=ADDRESS"));
    assert!(message(ConfigError::LinkOnly(link_local.into())).contains(",ip6=ADDRESS"));
    assert!(Forwarder::new(&ipv6(Network::new(link_local, 64, (router, 80)))).is_ok(), "both on the link");
}
