//! TCP and UDP over IPv6: against scripted segments here, against another implementation in `transfer`.

use std::net::{IpAddr, SocketAddr};

use exos_net::wire::checksum::Sum;
use exos_net::wire::tcp::{Control, Segment, flags};
use exos_net::{AckPolicy, ConflictOutcome, End, Input, OnConflict, SendDatagramError, SynCookies};

use super::fragments::{datagram, part};
use super::*;
use crate::harness::{PORT, SERVER_IP, pattern};
use crate::link::arp_reply;

/// The other end of a connection, made of scripted segments. Numbers in calls are relative to both initial ones.
pub(crate) struct Client6 {
    pub(crate) mac: MacAddress,
    pub(crate) ip: Ipv6Addr,
    pub(crate) port: u16,
    pub(crate) ours: Ipv6Addr,
    pub(crate) our_port: u16,
    pub(crate) our_isn: u32,
}

const ISN: u32 = 0xffff_fff0;

impl Client6 {
    pub(crate) fn on_port(port: u16) -> Self {
        Self { mac: CLIENT_MAC, ip: THEIRS, port, ours: OURS, our_port: PORT, our_isn: 0 }
    }

    /// The end that the SYN asks for which was just sent.
    pub(crate) fn answering(host: &mut StaticHost) -> Self {
        let syn = read(&host.nic.frames.pop_back().unwrap());
        let segment = Segment::parse(&syn.payload, None).unwrap();
        assert_eq!(segment.control, Control::Syn);
        Self {
            mac: CLIENT_MAC,
            ip: syn.ip.destination,
            port: segment.destination_port,
            ours: syn.ip.source,
            our_port: segment.source_port,
            our_isn: segment.sequence.value(),
        }
    }

    /// A segment to us; a SYN has a segment size of 1,440.
    pub(crate) fn frame(&self, bits: &str, sequence: u32, acknowledgment: u32, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0; 20];
        tcp[..2].copy_from_slice(&self.port.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.our_port.to_be_bytes());
        tcp[4..8].copy_from_slice(&ISN.wrapping_add(sequence).to_be_bytes());
        if bits.contains('A') {
            tcp[8..12].copy_from_slice(&self.our_isn.wrapping_add(acknowledgment).to_be_bytes());
        }
        let bit = |letter| match letter {
            'S' => flags::SYN,
            'A' => flags::ACK,
            'F' => flags::FIN,
            'E' => flags::ECE,
            'C' => flags::CWR,
            _ => flags::RST,
        };
        tcp[13] = bits.chars().map(bit).sum();
        tcp[14..16].copy_from_slice(&65_535u16.to_be_bytes());
        if bits.contains('S') {
            tcp.extend([2, 4, 1_440u16.to_be_bytes()[0], 1_440u16.to_be_bytes()[1]]);
        }
        tcp[12] = (tcp.len() as u8 / 4) << 4;
        tcp.extend(payload);
        let ip = header(self.ip, self.ours, NextHeader::Tcp);
        let checksum = ip.pseudo_sum(tcp.len()).bytes(&tcp).checksum();
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        frame_from(self.mac, &ip, &tcp)
    }

    /// Reads a segment of ours, checksum included: relative numbers and payload.
    pub(crate) fn see(&self, frame: &[u8]) -> (Control, u32, Option<u32>, Vec<u8>) {
        let sent = read(frame);
        assert_eq!((sent.ip.source, sent.ip.destination, sent.to_mac), (self.ours, self.ip, self.mac));
        let segment = Segment::parse_summed(&sent.payload, Some(sent.ip.pseudo_sum(0))).unwrap();
        assert_eq!((segment.source_port, segment.destination_port), (self.our_port, self.port));
        let acknowledged = segment.acknowledgment.map(|ack| ack.value().wrapping_sub(ISN));
        let sequence = segment.sequence.value().wrapping_sub(self.our_isn);
        (segment.control, sequence, acknowledged, segment.payload.to_vec())
    }

    pub(crate) fn connect(&mut self, host: &mut StaticHost) -> exos_net::ConnId {
        let syn_ack = host.input(&self.frame("S", 0, 0, b"")).reply();
        let segment = read(&syn_ack).payload;
        self.our_isn = Segment::parse(&segment, None).unwrap().sequence.value();
        let events = host.input(&self.frame("A", 1, 1, b"")).events();
        assert!(events.opened);
        events.conn
    }
}

#[test]
fn passive_open_request_response_and_close() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    assert_eq!(host.stack.peer(conn), Some(SocketAddr::new(IpAddr::V6(THEIRS), 40_000)));
    assert_eq!(host.stack.local(conn), Some(SocketAddr::new(IpAddr::V6(OURS), PORT)));
    assert_eq!(host.input(&client.frame("A", 1, 1, b"request")).events().data, b"request");
    host.stack.send(conn, pattern(3_000)).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let seen: Vec<_> = host.nic.frames.drain(..).map(|frame| client.see(&frame)).collect();
    // Full segments of what the peer announced, which leaves room for IPv6's header.
    let sizes: Vec<_> = seen.iter().map(|segment| (segment.0, segment.2, segment.3.len())).collect();
    assert_eq!(
        sizes,
        [(Control::None, Some(8), 1_440), (Control::None, Some(8), 1_440), (Control::Fin, Some(8), 120)]
    );
    assert_eq!(seen.concat_payload(), pattern(3_000));
    let events = host.input(&client.frame("AF", 8, 3_002, b"")).events();
    assert_eq!((events.ended, host.stack.connections()), (Some(End::Closed), 0));
    // The TIME-WAIT record needs no addresses, and answers a FIN whose acknowledgment was lost.
    assert_eq!((host.stack.time_wait(), host.stack.address_pairs()), (1, 0));
    let again = host.input(&client.frame("AF", 8, 3_002, b"")).reply();
    assert_eq!(client.see(&again).2, Some(9));
    host.wait_secs(61);
    assert_eq!((host.stack.time_wait(), host.stack.address_pairs()), (0, 0));
}

trait Payloads {
    fn concat_payload(&self) -> Vec<u8>;
}

impl Payloads for Vec<(Control, u32, Option<u32>, Vec<u8>)> {
    fn concat_payload(&self) -> Vec<u8> {
        self.iter().flat_map(|segment| segment.3.clone()).collect()
    }
}

#[test]
fn device_is_asked_to_cut_ipv6_frames_and_every_segment_is_right() {
    let addresses = vec![(OURS, 64)];
    let quiet = Ipv6Config { addresses, probes: 0, router_advertisements: false, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config {
        tso_max_bytes: exos_net::MAX_TSO_BYTES,
        tx_checksum: exos_net::TxChecksum::Offload,
        ..with_ipv6(quiet)
    });
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    let data = pattern(100_000);
    host.stack.send(conn, data).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let (mut received, mut ends) = (Vec::new(), 0);
    while received.len() < data.len() {
        let frames: Vec<_> = host.nic.frames.drain(..).collect();
        assert!(!frames.is_empty());
        for frame in frames {
            let (control, sequence, _, payload) = client.see(&frame);
            assert_eq!(sequence as usize, 1 + received.len());
            assert!(payload.len() <= 1_440);
            received.extend(payload);
            ends += usize::from(control == Control::Fin);
        }
        host.input(&client.frame("A", 1, 1 + received.len() as u32, b"")).events();
        host.output(conn, AckPolicy::Merge);
    }
    assert!(received == data);
    assert_eq!(ends, 1);
    let counters = host.stack.counters();
    // A handful of frames; each segment in them is counted.
    assert_eq!((host.nic.gso_frames as u64, counters.data_segments_out), (counters.data_frames_out, 70));
    assert!(counters.data_frames_out < 10, "{}", counters.data_frames_out);
}

#[test]
fn peer_that_names_no_segment_size_gets_1220_bytes() {
    let mut host = settled();
    let mut client = Client6::on_port(40_000);
    // The option becomes padding.
    let mut syn = client.frame("S", 0, 0, b"");
    syn[74..78].fill(1);
    syn[70..72].fill(0);
    let sum = header(THEIRS, OURS, NextHeader::Tcp).pseudo_sum(24).bytes(&syn[54..]).checksum();
    syn[70..72].copy_from_slice(&sum.to_be_bytes());
    let answer = read(&host.input(&syn).reply());
    client.our_isn = Segment::parse(&answer.payload, None).unwrap().sequence.value();
    // Ours is what the MTU leaves.
    assert_eq!(answer.payload[20..24], [2, 4, 0x05, 0xa0]);
    let conn = host.input(&client.frame("A", 1, 1, b"")).events().conn;
    host.stack.send(conn, pattern(3_000)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.see(&host.nic.frames.pop_front().unwrap()).3.len(), 1_220);
}

#[test]
fn same_ports_between_other_addresses_are_another_connection() {
    let mut host = settled();
    let mut first = Client6::on_port(40_000);
    let first_conn = first.connect(&mut host);
    let mut second = Client6 { ip: Ipv6Addr::from_bits(THEIRS.to_bits() + 1), ..Client6::on_port(40_000) };
    let second_conn = second.connect(&mut host);
    assert_ne!((first_conn, first.our_isn), (second_conn, second.our_isn));
    assert_eq!((host.stack.connections(), host.stack.address_pairs()), (2, 2));
    assert_eq!(host.input(&first.frame("A", 1, 1, b"one")).events().conn, first_conn);
    assert_eq!(host.input(&second.frame("A", 1, 1, b"two")).events().conn, second_conn);
}

#[test]
fn segment_for_nobody_is_reset_and_leaves_nothing() {
    let mut host = settled();
    let client = Client6 { our_port: 81, ..Client6::on_port(40_000) };
    let (control, sequence, acknowledgment, _) =
        client.see(&host.input(&client.frame("S", 0, 0, b"")).reply());
    assert_eq!((control, sequence, acknowledgment), (Control::Rst, 0, Some(1)));
    assert_eq!((host.stack.connections(), host.stack.address_pairs()), (0, 0));
}

#[test]
fn segments_to_groups_from_impossible_sources_and_for_others_are_dropped() {
    let mut host = settled();
    for source in ["::", "::1", "::ffff:10.0.0.2", &OURS.to_string()] {
        let client = Client6 { ip: source.parse().unwrap(), ..Client6::on_port(9) };
        host.input(&client.frame("S", 0, 0, b"")).assert_nothing();
    }
    assert_eq!(host.stack.counters().dropped_bad_source, 4);
    let ip = header(THEIRS, exos_net::wire::ipv6::ALL_NODES, NextHeader::Tcp);
    let segment = Client6::on_port(9).frame("S", 0, 0, b"")[54..].to_vec();
    host.input(&frame_from(CLIENT_MAC, &ip, &segment)).assert_nothing();
    let other = header(THEIRS, THEIRS, NextHeader::Tcp);
    host.input(&frame_from(CLIENT_MAC, &other, &segment)).assert_nothing();
    // An address of ours in a frame for all.
    let mut all = Client6::on_port(9).frame("S", 0, 0, b"");
    all[..6].fill(0xff);
    host.input(&all).assert_nothing();
    assert_eq!((host.stack.counters().dropped_not_for_us, host.stack.connections()), (3, 0));
}

#[test]
fn damaged_segment_is_dropped_and_one_that_the_device_verified_is_not_read_again() {
    use exos_net::{RxChecksum, RxMeta};
    let mut host = settled();
    let mut frame = Client6::on_port(9).frame("S", 0, 0, b"");
    frame[70] ^= 1;
    host.input(&frame).assert_nothing();
    assert_eq!(host.stack.counters().dropped_checksum, 1);
    let meta = RxMeta { checksum: RxChecksum::TransportValid };
    assert!(matches!(host.stack.input(host.now, &frame, meta), Input::Reply(_)));
}

#[test]
fn peer_beyond_the_link_without_a_router_is_not_answered() {
    let mut host = settled();
    let client = Client6 { ip: FAR, ..Client6::on_port(9) };
    host.input(&client.frame("S", 0, 0, b"")).assert_nothing();
    assert_eq!(host.stack.counters().dropped_no_route, 1);
    assert_eq!(host.stack.connect(host.now, (FAR, 80)), Err(exos_net::ConnectError::NoRoute));
}

#[test]
fn udp_over_ipv6_is_lent_and_sent_and_has_a_checksum_always() {
    let mut host = settled();
    host.stack.bind_udp(5_353).unwrap();
    let ip = header(THEIRS, OURS, NextHeader::Udp);
    let mut datagram = vec![0x10, 0, 0x14, 0xe9, 0, 12, 0, 0, 1, 2, 3, 4];
    host.input(&frame_from(CLIENT_MAC, &ip, &datagram)).assert_nothing();
    assert_eq!(host.stack.counters().dropped_checksum, 1);
    let checksum = ip.pseudo_sum(12).bytes(&datagram).checksum();
    datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
    let received = host.input(&frame_from(CLIENT_MAC, &ip, &datagram)).datagram();
    assert_eq!((received.from, received.to), ((THEIRS, 4_096).into(), (OURS, 5_353).into()));
    assert_eq!(&received.payload[..], [1, 2, 3, 4]);

    let to: SocketAddr = (THEIRS, 4_096).into();
    let sent = host.stack.send_udp(host.now, 5_353, to, b"answer", &mut host.nic);
    assert_eq!(sent, Err(SendDatagramError::Unresolved));
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.nic.frames.clear();
    host.stack.send_udp(host.now, 5_353, to, b"answer", &mut host.nic).unwrap();
    host.stack.send_udp_bytes(host.now, 5_353, to, b"answer", &mut host.nic).unwrap();
    for frame in host.nic.frames.drain(..) {
        let sent = read(&frame);
        assert_eq!((sent.ip.source, sent.ip.destination, sent.to_mac), (OURS, THEIRS, CLIENT_MAC));
        assert_eq!(&sent.payload[8..], b"answer");
        assert!(Sum::ZERO.plus(sent.ip.pseudo_sum(14)).bytes(&sent.payload).is_valid());
    }
    let max = host.stack.max_datagram_bytes(host.now, THEIRS);
    assert_eq!(max, 1_500 - 48);
    let large = host.stack.send_udp(host.now, 5_353, to, pattern(max + 1), &mut host.nic);
    assert_eq!(large, Err(SendDatagramError::TooLarge { max_bytes: max as u16 }));
}

#[test]
fn connections_of_ipv6_outlive_the_ipv4_address() {
    let mut host = settled();
    let mut ours = Client6::on_port(40_000);
    let over_v6 = ours.connect(&mut host);
    let over_v4 = crate::harness::Client::default().connect(&mut host);
    host.stack.remove_address();
    host.wait_ms(1);
    assert_eq!(host.ended, [(over_v4, End::AddressLost)]);
    assert_eq!(host.input(&ours.frame("A", 1, 1, b"six")).events().conn, over_v6);
    assert_eq!(host.stack.address_pairs(), 1);
}

/// Who leased our IPv4 address takes it back, or somebody else claims it: IPv6 does not notice.
#[test]
fn conflict_about_the_ipv4_address_ends_what_has_it_and_nothing_of_ipv6() {
    let config = Config { on_conflict: OnConflict::GiveUp, ..settled().stack.config().clone() };
    let mut host = StaticHost::with(config);
    let mut ours = Client6::on_port(40_000);
    let over_v6 = ours.connect(&mut host);
    let over_v4 = crate::harness::Client::default().connect(&mut host);
    // A record of each family.
    let (mut done6, mut done4) = (Client6::on_port(40_001), crate::harness::Client::on_port(40_001));
    let conns = [done6.connect(&mut host), done4.connect(&mut host)];
    for conn in conns {
        host.stack.close(conn).unwrap();
        host.output(conn, AckPolicy::IfDue);
    }
    assert_eq!(host.input(&done6.frame("FA", 1, 2, b"")).events().ended, Some(End::Closed));
    assert_eq!(host.input(&done4.fin(1, 2)).events().ended, Some(End::Closed));
    assert_eq!(host.stack.time_wait(), 2);
    // An error that waits, about a datagram in fragments.
    let whole = datagram(2_000);
    host.input(&part(17, 7, 0, true, &whole[..1_440])).assert_nothing();
    host.input(&part(17, 7, 1_440, false, &whole[1_440..])).assert_nothing();
    host.nic.frames.clear();

    let claim = arp_reply(SERVER_IP, CLIENT_MAC);
    host.input(&claim).reply();
    host.input(&claim).assert_nothing();
    assert_eq!(host.stack.take_address_conflict().unwrap().outcome, ConflictOutcome::GivenUp);
    host.wait_ms(1);
    assert_eq!((host.ended.as_slice(), host.stack.address()), (&[(over_v4, End::AddressLost)][..], None));
    assert_eq!(host.stack.time_wait(), 1);
    let error = read(&host.nic.frames.pop_front().unwrap());
    assert_eq!((error.ip.next_header, &error.payload[..2]), (NextHeader::Icmpv6, &[1, 4][..]));
    assert_eq!(host.input(&ours.frame("A", 1, 1, b"six")).events().conn, over_v6);
    host.stack.send(over_v6, b"more").unwrap();
    assert_eq!(host.output(over_v6, AckPolicy::IfDue).bytes, 4);
    // The record's peer sends its FIN again.
    let again = done6.see(&host.input(&done6.frame("FA", 1, 2, b"")).reply());
    assert_eq!(again, (Control::None, 2, Some(2), vec![]));
    let other = Client6::on_port(40_002).connect(&mut host);
    assert!(host.stack.is_alive(other));
}

#[test]
fn connections_of_both_families_live_side_by_side() {
    let mut host = settled();
    let mut ours = Client6::on_port(40_000);
    let over_v6 = ours.connect(&mut host);
    let mut theirs = crate::harness::Client::default();
    let over_v4 = theirs.connect(&mut host);
    assert_eq!(host.input(&ours.frame("A", 1, 1, b"six")).events().conn, over_v6);
    assert_eq!(host.input(&theirs.data(1, 1, b"four")).events().conn, over_v4);
}

#[test]
fn cookie_opens_over_ipv6_and_no_other_address_has_it() {
    let mut host = settled();
    let config = Config { syn_cookies: SynCookies::Always, ..host.stack.config().clone() };
    host = StaticHost::with(config);
    let mut client = Client6::on_port(40_000);
    let syn_ack = host.input(&client.frame("S", 0, 0, b"")).reply();
    client.our_isn = Segment::parse(&read(&syn_ack).payload, None).unwrap().sequence.value();
    assert_eq!((host.stack.connections(), host.stack.address_pairs()), (0, 0));
    let ip = Ipv6Addr::from_bits(THEIRS.to_bits() + 1);
    let other = Client6 { ip, our_isn: client.our_isn, ..Client6::on_port(40_000) };
    let reset = read(&host.input(&other.frame("A", 1, 1, b"")).reply());
    assert_eq!(Segment::parse(&reset.payload, None).unwrap().control, Control::Rst);
    let events = host.input(&client.frame("A", 1, 1, b"request")).events();
    assert!(events.opened && events.data == b"request");
    assert_eq!((host.stack.connections(), host.stack.address_pairs()), (1, 1));
}
