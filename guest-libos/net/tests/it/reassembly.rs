//! Datagrams in fragments (RFC 791 3.2, RFC 815, RFC 1122 3.3.2, RFC 5722): whole ones reach their protocol whatever their
//! order, and what a sender can make us keep is bounded.

use std::net::Ipv4Addr;

use exos_net::wire::ethernet::{EtherType, EthernetHeader};
use exos_net::{Config, Counters, Duration, Rate};
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, UdpPacket, UdpRepr,
};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, Host, SERVER_IP, SERVER_MAC, config, pattern};

type StaticHost = Host<&'static [u8]>;

const UDP_PORT: u16 = 5_000;

/// A datagram cut into pieces, as its sender would.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) source: Ipv4Addr,
    pub(crate) protocol: IpProtocol,
    pub(crate) identification: u16,
    pub(crate) payload: Vec<u8>,
}

impl Cut {
    /// Bytes `from..to` of the payload in a frame.
    pub(crate) fn piece(&self, from: usize, to: usize) -> Vec<u8> {
        self.piece_with(from, &self.payload[from..to], to < self.payload.len())
    }

    pub(crate) fn piece_with(&self, offset: usize, bytes: &[u8], more: bool) -> Vec<u8> {
        let ip = Ipv4Repr {
            src_addr: self.source,
            dst_addr: SERVER_IP,
            next_header: self.protocol,
            payload_len: bytes.len(),
            hop_limit: 64,
        };
        let mut frame = vec![0; 34 + bytes.len()];
        EthernetHeader { destination: SERVER_MAC, source: CLIENT_MAC, ether_type: EtherType::Ipv4 }
            .emit((&mut frame[..14]).try_into().unwrap());
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.emit(&mut packet, &Default::default());
        packet.set_ident(self.identification);
        packet.set_dont_frag(false);
        packet.set_more_frags(more);
        packet.set_frag_offset(offset as u16);
        packet.fill_checksum();
        packet.payload_mut().copy_from_slice(bytes);
        frame
    }

    /// All of it in pieces of `len` bytes.
    pub(crate) fn pieces(&self, len: usize) -> Vec<Vec<u8>> {
        (0..self.payload.len())
            .step_by(len)
            .map(|at| self.piece(at, (at + len).min(self.payload.len())))
            .collect()
    }
}

pub(crate) fn udp(source: Ipv4Addr, identification: u16, data: &[u8]) -> Cut {
    let repr = UdpRepr { src_port: 700, dst_port: UDP_PORT };
    let mut payload = vec![0; 8 + data.len()];
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut payload),
        &source.into(),
        &SERVER_IP.into(),
        data.len(),
        |out| out.copy_from_slice(data),
        &Default::default(),
    );
    Cut { source, protocol: IpProtocol::Udp, identification, payload }
}

fn echo(identification: u16, data: &[u8]) -> Cut {
    let repr = Icmpv4Repr::EchoRequest { ident: 7, seq_no: 9, data };
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut payload), &Default::default());
    Cut { source: CLIENT_IP, protocol: IpProtocol::Icmp, identification, payload }
}

fn bound(config: Config) -> StaticHost {
    let mut host = StaticHost::with(config);
    host.stack.bind_udp(UDP_PORT).unwrap();
    host
}

/// Required, whole, given up.
fn counted(counters: &Counters) -> (u64, u64, u64) {
    (counters.reassembly_required, counters.reassembly_ok, counters.reassembly_fails)
}

#[test]
fn udp_in_fragments_arrives_whole_in_any_order_and_with_repeats() {
    let mut host = bound(config());
    let data = pattern(5_000);
    for (number, order) in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]].into_iter().enumerate() {
        let pieces = udp(CLIENT_IP, number as u16, data).pieces(1_480);
        for &index in &order[..3] {
            host.input(&pieces[index]).assert_nothing();
            host.input(&pieces[index]).assert_nothing();
        }
        let datagram = host.input(&pieces[order[3]]).datagram();
        assert_eq!((datagram.from, datagram.to.port()), ((CLIENT_IP, 700).into(), UDP_PORT));
        assert!(datagram.payload == data);
    }
    assert_eq!(counted(host.stack.counters()), (21, 3, 0));
    assert_eq!((host.stack.reassemblies(), host.stack.reassembly_bytes()), (0, 0));
    assert_eq!(host.stack.next_deadline(), None);
}

#[test]
fn largest_datagram_arrives_and_a_larger_one_cannot() {
    let mut host = bound(config());
    let largest = udp(CLIENT_IP, 1, pattern(65_507));
    let pieces = largest.pieces(1_480);
    for piece in &pieces[..pieces.len() - 1] {
        host.input(piece).assert_nothing();
    }
    assert_eq!(host.input(&pieces[pieces.len() - 1]).datagram().payload.len(), 65_507);
    // The "ping of death": a last fragment that ends beyond what a length field can say.
    host.input(&largest.piece_with(65_512, &[0; 8], false)).assert_nothing();
    assert_eq!((host.stack.counters().dropped_fragment, host.stack.reassemblies()), (1, 0));
}

#[test]
fn fragments_of_different_datagrams_are_not_mixed() {
    let mut host = bound(config());
    let ours = udp(CLIENT_IP, 7, &[1; 24]);
    let others = [
        Cut { identification: 8, ..udp(CLIENT_IP, 7, &[2; 24]) },
        udp(Ipv4Addr::new(10, 0, 0, 3), 7, &[3; 24]),
        Cut { protocol: IpProtocol::Icmp, ..udp(CLIENT_IP, 7, &[4; 24]) },
    ];
    host.input(&ours.piece(0, 16)).assert_nothing();
    for other in &others {
        host.input(&other.piece(16, 32)).assert_nothing();
    }
    assert_eq!(*host.input(&ours.piece(16, 32)).datagram().payload, [1; 24]);
    assert_eq!(host.stack.reassemblies(), 3);
}

#[test]
fn overlap_gives_the_datagram_up_and_what_follows_of_it() {
    for (offset, len) in [(8, 16), (0, 24), (0, 8), (16, 16)] {
        let mut host = bound(config());
        let cut = udp(CLIENT_IP, 1, &[5; 40]);
        host.input(&cut.piece(0, 24)).assert_nothing();
        host.input(&cut.piece_with(offset, &[6; 40][..len], true)).assert_nothing();
        assert_eq!((host.stack.counters().reassembly_fails, host.stack.reassembly_bytes()), (1, 0));
        // Everything again, as it should be, comes too late; another datagram does not suffer.
        for piece in cut.pieces(24) {
            host.input(&piece).assert_nothing();
        }
        let other = udp(CLIENT_IP, 2, &[5; 40]);
        host.input(&other.piece(0, 24)).assert_nothing();
        host.input(&other.piece(24, 48)).datagram();
        // And with time the identification may be used again.
        host.wait_secs(31);
        host.input(&cut.piece(0, 24)).assert_nothing();
        host.input(&cut.piece(24, 48)).datagram();
        assert!(host.nic.frames.is_empty());
    }
}

#[test]
fn same_place_with_other_bytes_is_an_overlap() {
    let mut host = bound(config());
    let cut = udp(CLIENT_IP, 1, &[5; 40]);
    host.input(&cut.piece(24, 48)).assert_nothing();
    host.input(&cut.piece_with(24, &[6; 24], false)).assert_nothing();
    host.input(&cut.piece(0, 24)).assert_nothing();
    assert_eq!(counted(host.stack.counters()), (3, 0, 1));
}

#[test]
fn two_ends_or_bytes_behind_the_end_give_the_datagram_up() {
    for (offset, len, more) in [(48, 8, true), (48, 8, false), (32, 8, false)] {
        let mut host = bound(config());
        let cut = udp(CLIENT_IP, 1, &[5; 40]);
        host.input(&cut.piece(40, 48)).assert_nothing();
        host.input(&cut.piece_with(offset, &[5; 8][..len], more)).assert_nothing();
        assert_eq!(host.stack.counters().reassembly_fails, 1, "{offset} {more}");
    }
    // An end before what is there already.
    let mut host = bound(config());
    let cut = udp(CLIENT_IP, 1, &[5; 40]);
    host.input(&cut.piece(24, 40)).assert_nothing();
    host.input(&cut.piece_with(8, &cut.payload[8..16], false)).assert_nothing();
    assert_eq!(host.stack.counters().reassembly_fails, 1);
}

#[test]
fn impossible_and_tiny_fragments_are_dropped_alone() {
    let mut host = bound(config());
    let cut = udp(CLIENT_IP, 1, &[5; 40]);
    host.input(&cut.piece(0, 24)).assert_nothing();
    // Not a multiple of eight; nothing at all.
    host.input(&cut.piece_with(24, &[5; 12], true)).assert_nothing();
    host.input(&cut.piece_with(24, &[], true)).assert_nothing();
    // A TCP header cut after eight bytes (RFC 1858).
    let tcp = Cut { protocol: IpProtocol::Tcp, ..cut.clone() };
    host.input(&tcp.piece_with(8, &[0; 16], true)).assert_nothing();
    assert_eq!((host.stack.counters().dropped_fragment, host.stack.reassemblies()), (3, 1));
    host.input(&cut.piece(24, 48)).datagram();
}

#[test]
fn datagram_with_a_wrong_checksum_is_dropped_when_it_is_whole() {
    let mut host = bound(config());
    let mut cut = udp(CLIENT_IP, 1, &[5; 40]);
    cut.payload[47] ^= 1;
    host.input(&cut.piece(0, 24)).assert_nothing();
    host.input(&cut.piece(24, 48)).assert_nothing();
    assert_eq!((host.stack.counters().reassembly_ok, host.stack.counters().dropped_checksum), (1, 1));
    assert_eq!(host.stack.counters().datagrams_bad, 1);
    // One whose length says more than is there.
    let mut cut = udp(CLIENT_IP, 2, &[5; 40]);
    cut.payload[5] += 1;
    host.input(&cut.piece(0, 24)).assert_nothing();
    host.input(&cut.piece(24, 48)).assert_nothing();
    assert_eq!((host.stack.counters().reassembly_ok, host.stack.counters().datagrams_bad), (2, 2));
}

#[test]
fn missing_fragment_gives_up_after_thirty_seconds_and_tells_the_sender_if_it_has_the_first() {
    let mut host = bound(config());
    let cut = udp(CLIENT_IP, 1, &[5; 40]);
    host.input(&cut.piece(0, 24)).assert_nothing();
    host.input(&Cut { identification: 2, ..cut.clone() }.piece(24, 48)).assert_nothing();
    host.wait_ms(15_000);
    // Hearing of it again does not prolong its time.
    host.input(&cut.piece(0, 24)).assert_nothing();
    host.wait_ms(14_999);
    assert_eq!((host.stack.reassemblies(), host.nic.frames.len()), (2, 0));
    host.wait_ms(1);
    assert_eq!((host.stack.reassemblies(), host.stack.next_deadline()), (0, None));
    assert_eq!(host.stack.counters().reassembly_fails, 2);
    assert_eq!(host.nic.frames.len(), 1, "one for the datagram whose first fragment came");
    let frame = host.nic.frames.pop_front().unwrap();
    assert_eq!(frame[..6], CLIENT_MAC.0);
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((packet.dst_addr(), packet.verify_checksum()), (CLIENT_IP, true));
    let icmp = Icmpv4Packet::new_checked(packet.payload()).unwrap();
    assert!(icmp.verify_checksum());
    assert_eq!((u8::from(icmp.msg_type()), icmp.msg_code()), (11, 1));
    assert_eq!(icmp.data(), &cut.piece(0, 24)[14..][..44]);
}

#[test]
fn time_exceeded_messages_are_limited() {
    let errors = Rate { per_second: 1, burst: 2 };
    let mut host = bound(Config { icmp_errors: errors, ..config() });
    for number in 0..10 {
        host.input(&udp(CLIENT_IP, number, &[5; 40]).piece(0, 24)).assert_nothing();
    }
    host.wait_secs(31);
    assert_eq!(host.nic.frames.len(), 2);
    assert_eq!(host.stack.counters().icmp_errors_limited, 8);
}

#[test]
fn one_source_fills_its_share_only_and_others_are_served() {
    let mut host = bound(Config { max_reassemblies: 16, ..config() });
    let honest = udp(Ipv4Addr::new(10, 0, 0, 9), 1, &[5; 40]);
    host.input(&honest.piece(0, 24)).assert_nothing();
    for number in 0..10_000 {
        host.input(&udp(CLIENT_IP, number, &[6; 1_400]).piece(0, 1_200)).assert_nothing();
        assert!(host.stack.reassemblies() <= 5);
    }
    host.input(&honest.piece(24, 48)).datagram();
    assert_eq!(host.stack.counters().reassembly_fails, 10_000 - 4);
}

#[test]
fn many_sources_fill_the_bounds_only_and_the_newest_are_served() {
    let mut host = bound(Config { max_reassemblies: 16, max_reassembly_bytes: 400_000, ..config() });
    for number in 0..2_000u32 {
        let source = Ipv4Addr::from_bits(0x0a00_0010 + number % 200);
        for piece in &udp(source, number as u16, pattern(60_000)).pieces(1_480)[1..] {
            host.input(piece).assert_nothing();
            assert!(host.stack.reassemblies() <= 16 && host.stack.reassembly_bytes() <= 400_000);
        }
        if number % 100 == 0 {
            let honest = udp(Ipv4Addr::new(10, 0, 0, 9), number as u16, &[5; 40]);
            host.input(&honest.piece(0, 24)).assert_nothing();
            host.input(&honest.piece(24, 48)).datagram();
        }
    }
}

#[test]
fn byte_share_of_a_source_is_kept_and_its_own_oldest_give_way() {
    let mut host = bound(Config { max_reassembly_bytes: 400_000, ..config() });
    let honest = udp(Ipv4Addr::new(10, 0, 0, 9), 1, &[5; 40]);
    host.input(&honest.piece(0, 24)).assert_nothing();
    for number in 0..20 {
        for piece in &udp(CLIENT_IP, number, pattern(60_000)).pieces(1_480)[1..] {
            host.input(piece).assert_nothing();
            assert!(host.stack.reassembly_bytes() <= 100_000 + 100);
        }
    }
    host.input(&honest.piece(24, 48)).datagram();
    // The last one is whole with its first fragment.
    host.input(&udp(CLIENT_IP, 19, pattern(60_000)).piece(0, 1_480)).datagram();
}

#[test]
fn fragments_of_eight_bytes_are_bounded_in_number() {
    let mut host = bound(config());
    let cut = udp(CLIENT_IP, 1, pattern(4_000));
    for piece in cut.pieces(8) {
        host.input(&piece).assert_nothing();
        assert!(host.stack.reassembly_bytes() <= 128 * 72);
    }
    assert_eq!(counted(host.stack.counters()), (501, 0, 1));
    assert_eq!(host.stack.reassembly_bytes(), 0);
}

#[test]
fn without_reassemblies_fragments_are_dropped() {
    let mut host = bound(Config { max_reassemblies: 0, ..config() });
    let cut = udp(CLIENT_IP, 1, &[5; 40]);
    host.input(&cut.piece(0, 24)).assert_nothing();
    host.input(&cut.piece(24, 48)).assert_nothing();
    assert_eq!((host.stack.counters().dropped_fragment, host.stack.next_deadline()), (2, None));
}

#[test]
fn fragments_for_others_or_from_impossible_sources_are_dropped() {
    let mut host = bound(config());
    let cut = |source| udp(source, 1, &[5; 40]).piece(0, 24);
    host.input(&cut(Ipv4Addr::new(127, 0, 0, 1))).assert_nothing();
    host.input(&cut(SERVER_IP)).assert_nothing();
    let mut other = cut(CLIENT_IP);
    other[33] = 77;
    Ipv4Packet::new_unchecked(&mut other[14..]).fill_checksum();
    host.input(&other).assert_nothing();
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_bad_source, counters.dropped_not_for_us), (2, 1));
    assert_eq!(host.stack.reassemblies(), 0);
}

/// The IPv4 payload of a frame of the client as a datagram to be cut.
fn tcp(frame: &[u8], identification: u16) -> Cut {
    Cut { source: CLIENT_IP, protocol: IpProtocol::Tcp, identification, payload: frame[34..].to_vec() }
}

#[test]
fn tcp_in_fragments_opens_carries_data_and_closes() {
    let mut host = StaticHost::with(config());
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    let data = pattern(1_000);
    let cut = tcp(&client.data(1, 1, data), 1);
    host.input(&cut.piece(512, cut.payload.len())).assert_nothing();
    let events = host.input(&cut.piece(0, 512)).events();
    // Nobody's frame holds it, so it is not lent.
    assert!(events.data.is_empty() && events.readable);
    assert_eq!(host.stack.pending(conn), data);
    host.stack.consume(conn, data.len()).unwrap();
    // What comes in one piece is lent as before.
    assert_eq!(host.input(&client.data(1_001, 1, b"whole")).events().data, b"whole");
    // Our FIN, then data and FIN in one segment that comes in fragments: the data is there when the connection ends.
    host.stack.close(conn).unwrap();
    host.output(conn, exos_net::AckPolicy::Now);
    let last = client.frame(TcpControl::Fin, 1_006, Some(2), pattern(100));
    let cut = tcp(&last, 2);
    host.input(&cut.piece(0, 64)).assert_nothing();
    let events = host.input(&cut.piece(64, cut.payload.len())).events();
    assert!(events.peer_closed && events.readable && events.ended.is_none());
    assert_eq!(host.stack.pending(conn), pattern(100));
    host.stack.consume(conn, 100).unwrap();
    host.wait_ms(2);
    assert_eq!((host.stack.connections(), host.stack.time_wait()), (0, 1));
}

#[test]
fn syn_in_fragments_is_answered() {
    let mut host = StaticHost::with(config());
    let client = Client::default();
    let cut = tcp(&client.syn(), 1);
    host.input(&cut.piece(0, 16)).assert_nothing();
    host.input(&cut.piece(16, cut.payload.len())).assert_nothing();
    // The answer could be handed back as well, but a reply may refer to a frame, and here is none.
    host.wait_ms(1);
    assert_eq!(client.see(&host.nic.frames.pop_front().unwrap()).flags, "SA");
}

#[test]
fn echo_request_in_fragments_returns_all_its_data_in_fragments() {
    let mut host = StaticHost::with(config());
    let data = pattern(4_000);
    let pieces = echo(5, data).pieces(1_480);
    for piece in &pieces {
        host.input(piece).assert_nothing();
    }
    assert!(host.stack.next_deadline().is_some_and(|at| at <= host.now));
    host.wait_ms(1);
    assert_eq!(host.nic.frames.len(), 3);
    let mut payload = vec![0; 4_008];
    let mut identification = None;
    for (index, frame) in host.nic.frames.iter().enumerate() {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(packet.verify_checksum() && !packet.dont_frag());
        assert_eq!(*identification.get_or_insert(packet.ident()), packet.ident());
        assert_eq!(packet.more_frags(), index < 2);
        let at = usize::from(packet.frag_offset());
        payload[at..at + packet.payload().len()].copy_from_slice(packet.payload());
    }
    let icmp = Icmpv4Packet::new_checked(&payload).unwrap();
    let repr = Icmpv4Repr::parse(&icmp, &Default::default()).unwrap();
    assert_eq!(repr, Icmpv4Repr::EchoReply { ident: 7, seq_no: 9, data });
    assert_eq!(host.stack.next_deadline(), None);
}

#[test]
fn echo_replies_that_wait_for_a_full_driver_are_bounded() {
    let mut host = StaticHost::with(config());
    host.nic.room = Some(0);
    for number in 0..50 {
        for piece in echo(number, pattern(30_000)).pieces(1_480) {
            host.input(&piece).assert_nothing();
        }
        host.wait_ms(1);
    }
    host.nic.room = None;
    host.wait_ms(1);
    // Three datagrams of 21 fragments each fit the 64 places.
    assert_eq!(host.nic.frames.len(), 63);
    host.now += Duration::from_secs(1);
    host.wait_ms(1);
    assert_eq!(host.nic.frames.len(), 63);
}
