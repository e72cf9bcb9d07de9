//! ICMP: errors about segments go to who sent these and quote what it sent, echo is answered.

use crate::common::*;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use etherparse::{IpNumber, PacketBuilder};
use exos_forward::{HEAD_BYTES, Mac, Meta, Reason, Verdict, Version};
use proptest::prelude::*;

const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 8];

/// Type, code and the second word of a message.
pub type Header = (u8, u8, [u8; 4]);

/// What differs from one version of IP to the other.
struct Icmp {
    router: IpAddr,
    /// "Fragmentation needed" (RFC 1191), "packet too big" (RFC 4443 3.2), for a next hop of 1,400 bytes.
    too_large: Header,
    time_exceeded: Header,
    echo: u8,
    echo_reply: u8,
}

fn icmp(hosts: Hosts) -> Icmp {
    match hosts.version {
        Version::Ipv4 => Icmp {
            router: Ipv4Addr::new(203, 0, 113, 1).into(),
            too_large: (3, 4, [0, 0, 0x05, 0x78]),
            time_exceeded: (11, 0, [0; 4]),
            echo: 8,
            echo_reply: 0,
        },
        Version::Ipv6 => Icmp {
            router: Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1).into(),
            too_large: (2, 0, [0, 0, 0x05, 0x78]),
            time_exceeded: (3, 0, [0; 4]),
            echo: 128,
            echo_reply: 129,
        },
    }
}

/// An ICMP message in a frame.
pub struct Message<'a> {
    pub macs: (Mac, Mac),
    pub addresses: (IpAddr, IpAddr),
    pub ttl: u8,
    pub header: Header,
    pub data: &'a [u8],
}

impl Message<'_> {
    /// As it is on the wire, made by the other library.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (kind, code, rest) = self.header;
        let protocol = if self.addresses.0.is_ipv4() { IpNumber::ICMP } else { IpNumber::IPV6_ICMP };
        let builder = PacketBuilder::ethernet2(self.macs.0, self.macs.1).ip(ip_headers(
            self.addresses,
            protocol,
            self.ttl,
            0,
            0,
        ));
        let written = if self.addresses.0.is_ipv4() {
            builder.icmpv4_raw(kind, code, rest).write(&mut bytes, self.data)
        } else {
            builder.icmpv6_raw(kind, code, rest).write(&mut bytes, self.data)
        };
        written.expect("a packet's length");
        bytes
    }
}

/// An error from a router about a packet, as it comes to the forwarder.
pub fn error(hosts: Hosts, data: &[u8]) -> Message<'_> {
    let Icmp { router, too_large, .. } = icmp(hosts);
    Message { macs: (ROUTER_MAC, OWN_MAC), addresses: (router, hosts.own), ttl: 60, header: too_large, data }
}

/// A client's segment as the forwarder sends it on, and as the client would have sent it with that time to live.
fn segment_of_client(hosts: Hosts, port: u16) -> [Frame; 2] {
    let as_client = Frame { ttl: 63, data: vec![7; 1400], options: vec![1; 12], ..hosts.of_client(ACK) };
    let (from, to) = (SocketAddr::new(hosts.own, port), SocketAddr::new(hosts.server, SERVER_PORT));
    [Frame { from, to, ..as_client.clone() }, as_client]
}

/// A version, and what a quote may have of the packet; one that ends within the segment's checksum has a test of its own.
fn hosts_and_quote_bytes() -> impl Strategy<Value = (Hosts, usize)> {
    let bytes = 8..1420usize;
    (hosts(), bytes.prop_filter("ends within the checksum", |&bytes| bytes != HALF_A_CHECKSUM))
        .prop_map(|(hosts, bytes)| (hosts, hosts.header_bytes() + bytes))
}

/// A segment up to the first byte of its checksum.
const HALF_A_CHECKSUM: usize = 17;

#[test]
fn half_a_quoted_checksum_is_left_and_the_messages_own_is_right() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let [sent, as_client] = segment_of_client(hosts, bench.establish(CLIENT_PORT));
        let quote_bytes = hosts.header_bytes() + HALF_A_CHECKSUM;
        let came = error(hosts, &sent.bytes()[14..][..quote_bytes]).bytes();
        let mut quote = as_client.bytes()[14..][..quote_bytes].to_vec();
        *quote.last_mut().unwrap() = *came.last().unwrap();
        let expected = Message {
            macs: (OWN_MAC, CLIENT_MAC),
            addresses: (hosts.own, hosts.client),
            ttl: 59,
            header: icmp(hosts).too_large,
            data: &quote,
        };
        assert_eq!(bench.sent(&came, Meta::default()).bytes, expected.bytes());
    }
}

proptest! {
    #[test]
    fn error_about_a_clients_segment_is_the_clients(
        (hosts, quote_bytes) in hosts_and_quote_bytes(), from_server in any::<bool>(), ttl in 2..=255u8
    ) {
        let mut bench = Bench::over(hosts, &config());
        let [sent, as_client] = segment_of_client(hosts, bench.establish(CLIENT_PORT));
        let source = if from_server { hosts.server } else { icmp(hosts).router };
        let quoted = &sent.bytes()[14..][..quote_bytes];
        let came = Message { addresses: (source, hosts.own), ttl, ..error(hosts, quoted) };
        let expected = Message {
            macs: (OWN_MAC, CLIENT_MAC),
            // The client knows of no server, and the link of no such router.
            addresses: (hosts.own, hosts.client),
            ttl: ttl - 1,
            header: icmp(hosts).too_large,
            data: &as_client.bytes()[14..][..quote_bytes],
        };
        prop_assert_eq!(bench.sent(&came.bytes(), Meta::default()).bytes, expected.bytes());
        prop_assert_eq!(bench.forwarder.counters().to_client.icmp, 1);
        prop_assert_eq!(bench.connections(), [0, 1, 0]);
    }

    #[test]
    fn error_about_a_servers_segment_is_the_servers(
        (hosts, quote_bytes) in hosts_and_quote_bytes(), from_client in any::<bool>()
    ) {
        let mut bench = Bench::over(hosts, &config());
        let port = bench.establish(CLIENT_PORT);
        let as_server = Frame { data: vec![7; 1400], ..hosts.of_server(port, ACK) };
        let (from, to) = (SocketAddr::new(hosts.own, LISTEN), SocketAddr::new(hosts.client, CLIENT_PORT));
        let sent = Frame { from, to, ..as_server.clone() };
        let source = if from_client { hosts.client } else { icmp(hosts).router };
        let quoted = &sent.bytes()[14..][..quote_bytes];
        let came = Message { addresses: (source, hosts.own), ..error(hosts, quoted) }.bytes();
        let expected = Message {
            macs: (OWN_MAC, SERVER_MAC),
            addresses: (hosts.own, hosts.server),
            ttl: 59,
            header: icmp(hosts).too_large,
            data: &as_server.bytes()[14..][..quote_bytes],
        };
        prop_assert_eq!(bench.sent(&came, Meta::default()).bytes, expected.bytes());
        prop_assert_eq!(bench.forwarder.counters().to_server.icmp, 1);
    }
}

/// All errors that are about a segment, whatever their type.
#[test]
fn errors_of_every_type_are_translated() {
    for (hosts, kinds) in [(IPV4, &[3, 11, 12][..]), (IPV6, &[1, 2, 3, 4])] {
        let mut bench = Bench::over(hosts, &config());
        let [sent, _] = segment_of_client(hosts, bench.establish(CLIENT_PORT));
        let quoted = &sent.bytes()[14..100];
        for &kind in kinds {
            let message = Message { header: (kind, 1, [0, 0, 0, 9]), ..error(hosts, quoted) };
            let sent = bench.sent(&message.bytes(), Meta::default()).bytes;
            assert_eq!(sent[hosts.tcp_at()..][..2], [kind, 1]);
        }
    }
}

#[test]
fn error_that_quotes_no_segment_of_a_connection_goes_nowhere() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let port = bench.establish(CLIENT_PORT);
        let [good, _] = segment_of_client(hosts, port);
        let quote = good.bytes()[14..114].to_vec();
        let changed = |at: usize, value: u8| {
            let mut bytes = quote.clone();
            bytes[at] = value;
            bytes
        };
        let frame = |from, to| Frame { from, to, ..good.clone() }.bytes()[14..].to_vec();
        let own = |port| SocketAddr::new(hosts.own, port);
        let client = |port| SocketAddr::new(hosts.client, port);
        let tcp_at = hosts.header_bytes();
        let of_version = match hosts.version {
            Version::Ipv4 => vec![
                ("IPv6", changed(0, 0x65)),
                ("IP options that are not there", changed(0, 0x4F)[..60].to_vec()),
                ("UDP", changed(9, 17)),
                ("a later fragment", changed(7, 1)),
            ],
            Version::Ipv6 => vec![
                ("IPv4", changed(0, 0x45)),
                ("UDP", changed(6, 17)),
                ("a fragment", changed(6, 44)),
                ("hop-by-hop options", changed(6, 0)),
            ],
        };
        for (what, data) in of_version.into_iter().chain([
            ("less than a header and 8 bytes", quote[..tcp_at + 7].to_vec()),
            ("less than a header", quote[..tcp_at - 1].to_vec()),
            ("nothing", vec![]),
            ("another sender", changed(tcp_at - tcp_at / 5 - 1, 99)),
            ("another server", changed(tcp_at - 1, 99)),
            ("another port of the server", changed(tcp_at + 3, 99)),
            ("no connection's port", frame(own(port ^ 1), good.to)),
            ("a client that is none", frame(own(LISTEN), client(1))),
            ("a client's, from another port", frame(own(81), client(CLIENT_PORT))),
        ]) {
            assert_eq!(bench.dropped(&error(hosts, &data).bytes()), Reason::Icmp, "{hosts:?}: {what}");
        }
        let others = match hosts.version {
            Version::Ipv4 => [(5, 1), (4, 0), (0, 0), (13, 0)],
            Version::Ipv6 => [(0, 0), (5, 0), (129, 0), (143, 0)],
        };
        for (kind, code) in others {
            let message = Message { header: (kind, code, [0; 4]), ..error(hosts, &quote) };
            assert_eq!(bench.dropped(&message.bytes()), Reason::Icmp, "{kind}");
        }
        let mut damaged = error(hosts, &quote).bytes();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(bench.dropped(&damaged), Reason::BadChecksum);
        assert_eq!(bench.dropped(&error(hosts, &quote).bytes()[..hosts.tcp_at() + 7]), Reason::Malformed);
        let last_hop = Message { ttl: 1, ..error(hosts, &quote) };
        assert_eq!(bench.dropped(&last_hop.bytes()), Reason::TimeToLive);
        let partial = Meta { is_partial: true, segment_bytes: None };
        let bytes = error(hosts, &quote).bytes();
        let verdict = bench.forwarder.forward(bench.now, &bytes, &mut [0; HEAD_BYTES], partial);
        assert_eq!(verdict, Verdict::Drop(Reason::Offload));
        assert_eq!(bench.connections(), [0, 1, 0]);
    }
}

#[test]
fn error_keeps_no_connection_alive() {
    let mut bench = Bench::new(&config());
    let port = bench.open(CLIENT_PORT);
    let quote = segment_of_client(IPV4, port)[0].bytes();
    for _ in 0..3 {
        bench.now += seconds(80);
        bench.look(&error(IPV4, &quote[14..100]).bytes());
    }
    bench.poll();
    assert_eq!(bench.connections(), [0; 3]);
}

#[test]
fn echo_is_answered() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let Icmp { echo, echo_reply, .. } = icmp(hosts);
        for len_bytes in [0, 1, 56, 1000] {
            let data = vec![0x5A; len_bytes];
            let message = |macs, addresses, kind, ttl| {
                Message { macs, addresses, ttl, header: (kind, 0, [1, 2, 3, 4]), data: &data }.bytes()
            };
            let request = message((CLIENT_MAC, OWN_MAC), (hosts.client, hosts.own), echo, 3);
            let reply = message((OWN_MAC, CLIENT_MAC), (hosts.own, hosts.client), echo_reply, 64);
            assert_eq!(bench.sent(&request, Meta::default()).bytes, reply, "{len_bytes}");
        }
    }
}

#[test]
fn segment_whose_time_to_live_is_over_is_complained_of() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::over(hosts, &config());
        let port = bench.establish(CLIENT_PORT);
        let client = Frame { ttl: 1, data: vec![3; 100], ..hosts.of_client(ACK) };
        let server = Frame { ttl: 0, ..hosts.of_server(port, ACK) };
        for frame in [client, server] {
            let bytes = frame.bytes();
            let expected = time_exceeded(hosts, &frame, &bytes[14..]);
            assert_eq!(bench.sent(&bytes, Meta::default()).bytes, expected);
        }
        let counters = *bench.forwarder.counters();
        assert_eq!((counters.dropped(Reason::TimeToLive), counters.errors_sent), (2, 2));
        // A new connection does not begin so.
        bench.look(&Frame { ttl: 1, ..hosts.of_client(SYN) }.port(9).bytes());
        assert_eq!(bench.connections(), [0, 1, 0]);
    }
}

/// The forwarder's answer to a frame, which quotes so much.
fn time_exceeded(hosts: Hosts, frame: &Frame, data: &[u8]) -> Vec<u8> {
    let (macs, addresses) = ((OWN_MAC, frame.macs.0), (hosts.own, frame.from.ip()));
    Message { macs, addresses, ttl: 64, header: icmp(hosts).time_exceeded, data }.bytes()
}

/// RFC 1812 4.3.2.3: an IP packet of 576 bytes; RFC 4443 2.4 (c): one of 1,280.
#[test]
fn complaint_quotes_as_much_as_fits() {
    for (hosts, fits) in [(IPV4, 576 - 20 - 8), (IPV6, 1280 - 40 - 8)] {
        let mut bench = Bench::over(hosts, &config());
        bench.establish(CLIENT_PORT);
        let headers = hosts.header_bytes() + 20;
        // About where the frame's head ends, with the error's headers and without; where no more fits; and what a device merged.
        let of_head = HEAD_BYTES - 14 - headers;
        let sizes = [0, of_head - 48, of_head - 1, of_head, of_head + 1, of_head + 49].into_iter();
        for data_bytes in sizes.chain([fits - headers - 1, fits - headers, fits - headers + 1, 1400, 60_000])
        {
            let data = (0..data_bytes).map(|at| at as u8).collect();
            let frame = Frame { ttl: 1, data, ..hosts.of_client(ACK) };
            let whole = frame.bytes();
            let quoted = &whole[14..][..fits.min(headers + data_bytes)];
            let expected = time_exceeded(hosts, &frame, quoted);
            // Ethernet's padding is not the packet's.
            for padding in [0, 200] {
                let padded = [&whole[..], &vec![0xEE; padding]].concat();
                let sent = bench.sent(&padded, Meta::default()).bytes;
                assert!(sent == expected, "{hosts:?}: {data_bytes} bytes: {sent:02x?}");
            }
            bench.now += seconds(1);
        }
    }
}

/// Over all versions together.
#[test]
fn complaints_are_at_most_100_a_second() {
    let mut bench = Bench::new(&config());
    let frames = [IPV4, IPV6].map(|hosts| Frame { ttl: 1, ..hosts.of_client(SYN) }.bytes());
    let complaints = |bench: &mut Bench| {
        (0..500).filter(|at| matches!(bench.look(&frames[at % 2]), Verdict::Send(_))).count()
    };
    assert_eq!(complaints(&mut bench), 100);
    bench.now += seconds(1);
    assert_eq!(complaints(&mut bench), 100);
    assert_eq!(bench.forwarder.counters().dropped(Reason::TimeToLive), 1000);
}
