//! ICMP: errors about segments go to who sent these and quote what it sent, echo is answered.

use crate::common::*;
use core::net::{Ipv4Addr, SocketAddrV4};
use etherparse::{IpFragOffset, IpHeaders, IpNumber, Ipv4Header, PacketBuilder};
use exos_forward::{HEAD_BYTES, Mac, Meta, Reason, Verdict};
use proptest::prelude::*;

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const ROUTER_MAC: Mac = [2, 0, 0, 0, 0, 8];

/// Type, code and the second word of "fragmentation needed" (RFC 1191) for a next hop of 1,400 bytes.
const TOO_LARGE: (u8, u8, [u8; 4]) = (3, 4, [0, 0, 0x05, 0x78]);

struct Message<'a> {
    macs: (Mac, Mac),
    addresses: (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    header: (u8, u8, [u8; 4]),
    data: &'a [u8],
}

impl Message<'_> {
    /// As it is on the wire, made by the other library.
    fn bytes(&self) -> Vec<u8> {
        let ip = Ipv4Header {
            identification: 0,
            dont_fragment: true,
            fragment_offset: IpFragOffset::ZERO,
            time_to_live: self.ttl,
            protocol: IpNumber::ICMP,
            source: self.addresses.0.octets(),
            destination: self.addresses.1.octets(),
            ..Ipv4Header::default()
        };
        let mut bytes = Vec::new();
        let (kind, code, rest) = self.header;
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ip(IpHeaders::Ipv4(ip, Default::default()))
            .icmpv4_raw(kind, code, rest)
            .write(&mut bytes, self.data)
            .expect("a packet's length");
        bytes
    }
}

/// An error from a router about a packet, as it comes to the forwarder.
fn error(data: &[u8]) -> Message<'_> {
    Message { macs: (ROUTER_MAC, OWN_MAC), addresses: (ROUTER, OWN), ttl: 60, header: TOO_LARGE, data }
}

/// A client's segment as the forwarder sends it on, and as the client would have sent it with that time to live.
fn segment_of_client(port: u16) -> [Frame; 2] {
    let as_client = Frame { ttl: 63, data: vec![7; 1400], options: vec![1; 12], ..Frame::of_client(ACK) };
    let own = SocketAddrV4::new(OWN, port);
    [Frame { from: own, to: SocketAddrV4::new(SERVER, SERVER_PORT), ..as_client.clone() }, as_client]
}

/// What a quote may have of the packet; one that ends within the segment's checksum has a test of its own.
fn quote_bytes() -> impl Strategy<Value = usize> {
    (28..576usize).prop_filter("ends within the checksum", |&bytes| bytes != HALF_A_CHECKSUM)
}

/// An IP header, and a segment's up to the first byte of its checksum.
const HALF_A_CHECKSUM: usize = 20 + 17;

#[test]
fn half_a_quoted_checksum_is_left_and_the_messages_own_is_right() {
    let mut bench = Bench::new(&config());
    let [sent, as_client] = segment_of_client(bench.establish(CLIENT_PORT));
    let came = error(&sent.bytes()[14..][..HALF_A_CHECKSUM]).bytes();
    let mut quote = as_client.bytes()[14..][..HALF_A_CHECKSUM].to_vec();
    *quote.last_mut().unwrap() = *came.last().unwrap();
    let expected = Message {
        macs: (OWN_MAC, CLIENT_MAC),
        addresses: (OWN, CLIENT),
        ttl: 59,
        header: TOO_LARGE,
        data: &quote,
    };
    assert_eq!(bench.sent(&came, Meta::default()).bytes, expected.bytes());
}

proptest! {
    #[test]
    fn error_about_a_clients_segment_is_the_clients(
        quote_bytes in quote_bytes(), from_server in any::<bool>(), ttl in 2..=255u8
    ) {
        let mut bench = Bench::new(&config());
        let [sent, as_client] = segment_of_client(bench.establish(CLIENT_PORT));
        let source = if from_server { SERVER } else { ROUTER };
        let quoted = &sent.bytes()[14..][..quote_bytes];
        let came = Message { addresses: (source, OWN), ttl, ..error(quoted) };
        let expected = Message {
            macs: (OWN_MAC, CLIENT_MAC),
            // The client knows of no server, and the link of no such router.
            addresses: (OWN, CLIENT),
            ttl: ttl - 1,
            header: TOO_LARGE,
            data: &as_client.bytes()[14..][..quote_bytes],
        };
        prop_assert_eq!(bench.sent(&came.bytes(), Meta::default()).bytes, expected.bytes());
        prop_assert_eq!(bench.forwarder.counters().to_client.icmp, 1);
        prop_assert_eq!(bench.connections(), [0, 1, 0]);
    }

    #[test]
    fn error_about_a_servers_segment_is_the_servers(quote_bytes in quote_bytes(), from_client in any::<bool>()) {
        let mut bench = Bench::new(&config());
        let port = bench.establish(CLIENT_PORT);
        let as_server = Frame { data: vec![7; 1400], ..Frame::of_server(port, ACK) };
        let (from, to) = (SocketAddrV4::new(OWN, LISTEN), SocketAddrV4::new(CLIENT, CLIENT_PORT));
        let sent = Frame { from, to, ..as_server.clone() };
        let source = if from_client { CLIENT } else { ROUTER };
        let came = Message { addresses: (source, OWN), ..error(&sent.bytes()[14..][..quote_bytes]) }.bytes();
        let expected = Message {
            macs: (OWN_MAC, SERVER_MAC),
            addresses: (OWN, SERVER),
            ttl: 59,
            header: TOO_LARGE,
            data: &as_server.bytes()[14..][..quote_bytes],
        };
        prop_assert_eq!(bench.sent(&came, Meta::default()).bytes, expected.bytes());
        prop_assert_eq!(bench.forwarder.counters().to_server.icmp, 1);
    }
}

#[test]
fn error_that_quotes_no_segment_of_a_connection_goes_nowhere() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    let good = segment_of_client(port)[0].clone();
    let quote = good.bytes()[14..].to_vec();
    let changed = |at: usize, value: u8| {
        let mut bytes = quote.clone();
        bytes[at] = value;
        bytes
    };
    for (what, data) in [
        ("less than a header and 8 bytes", quote[..27].to_vec()),
        ("nothing", vec![]),
        ("IPv6", changed(0, 0x65)),
        ("IP options that are not there", changed(0, 0x4F)[..60].to_vec()),
        ("UDP", changed(9, 17)),
        ("a later fragment", changed(7, 1)),
        ("another sender", changed(15, 99)),
        ("another server", changed(19, 99)),
        ("another port of the server", changed(23, 99)),
        (
            "no connection's port",
            Frame { from: SocketAddrV4::new(OWN, port ^ 1), ..good.clone() }.bytes()[14..].to_vec(),
        ),
        (
            "a client that is none",
            Frame { from: SocketAddrV4::new(OWN, LISTEN), to: SocketAddrV4::new(CLIENT, 1), ..good.clone() }
                .bytes()[14..]
                .to_vec(),
        ),
        (
            "a client's, from another port",
            Frame {
                from: SocketAddrV4::new(OWN, 81),
                to: SocketAddrV4::new(CLIENT, CLIENT_PORT),
                ..good.clone()
            }
            .bytes()[14..]
                .to_vec(),
        ),
    ] {
        assert_eq!(bench.dropped(&error(&data).bytes()), Reason::Icmp, "{what}");
    }
    for header in [(5, 1, [0; 4]), (4, 0, [0; 4]), (0, 0, [0; 4]), (13, 0, [0; 4])] {
        assert_eq!(bench.dropped(&Message { header, ..error(&quote) }.bytes()), Reason::Icmp, "{header:?}");
    }
    let mut damaged = error(&quote).bytes();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(bench.dropped(&damaged), Reason::BadChecksum);
    assert_eq!(bench.dropped(&Message { ttl: 1, ..error(&quote) }.bytes()), Reason::TimeToLive);
    let partial = Meta { is_partial: true, segment_bytes: None };
    let verdict = bench.forwarder.forward(bench.now, &error(&quote).bytes(), &mut [0; HEAD_BYTES], partial);
    assert_eq!(verdict, Verdict::Drop(Reason::Offload));
    assert_eq!(bench.connections(), [0, 1, 0]);
}

#[test]
fn error_keeps_no_connection_alive() {
    let mut bench = Bench::new(&config());
    let port = bench.open(CLIENT_PORT);
    let quote = segment_of_client(port)[0].bytes();
    for _ in 0..3 {
        bench.now += seconds(80);
        bench.look(&error(&quote[14..100]).bytes());
    }
    bench.poll();
    assert_eq!(bench.connections(), [0; 3]);
}

#[test]
fn echo_is_answered() {
    let mut bench = Bench::new(&config());
    for len_bytes in [0, 1, 56, 1000] {
        let data = vec![0x5A; len_bytes];
        let echo = |macs, addresses, kind, ttl| {
            Message { macs, addresses, ttl, header: (kind, 0, [1, 2, 3, 4]), data: &data }.bytes()
        };
        let request = echo((CLIENT_MAC, OWN_MAC), (CLIENT, OWN), 8, 3);
        let reply = echo((OWN_MAC, CLIENT_MAC), (OWN, CLIENT), 0, 64);
        assert_eq!(bench.sent(&request, Meta::default()).bytes, reply, "{len_bytes}");
    }
}

#[test]
fn segment_whose_time_to_live_is_over_is_complained_of() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    let client = Frame { ttl: 1, data: vec![3; 100], ..Frame::of_client(ACK) };
    let server = Frame { ttl: 0, ..Frame::of_server(port, ACK) };
    for frame in [client, server] {
        let bytes = frame.bytes();
        let quoted = &bytes[14..bytes.len().min(14 + HEAD_BYTES - 42)];
        let expected = Message {
            macs: (OWN_MAC, frame.macs.0),
            addresses: (OWN, *frame.from.ip()),
            ttl: 64,
            header: (11, 0, [0; 4]),
            data: quoted,
        };
        assert_eq!(bench.sent(&bytes, Meta::default()).bytes, expected.bytes());
    }
    let counters = *bench.forwarder.counters();
    assert_eq!((counters.dropped(Reason::TimeToLive), counters.errors_sent), (2, 2));
    // A new connection does not begin so.
    bench.look(&Frame { ttl: 1, ..Frame::of_client(SYN) }.port(9).bytes());
    assert_eq!(bench.connections(), [0, 1, 0]);
}

#[test]
fn complaints_are_at_most_100_a_second() {
    let mut bench = Bench::new(&config());
    let bytes = Frame { ttl: 1, ..Frame::of_client(SYN) }.bytes();
    let complaints =
        |bench: &mut Bench| (0..500).filter(|_| matches!(bench.look(&bytes), Verdict::Send(_))).count();
    assert_eq!(complaints(&mut bench), 100);
    bench.now += seconds(1);
    assert_eq!(complaints(&mut bench), 100);
    assert_eq!(bench.forwarder.counters().dropped(Reason::TimeToLive), 1000);
}
