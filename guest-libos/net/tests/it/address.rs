//! A stack without an address, and how it gets, keeps and loses one (RFC 5227; RFC 1122 3.2.1.3; RFC 2131 4.1).

use std::net::{Ipv4Addr, SocketAddr};

use exos_net::wire::arp::{ArpPacket, Operation};
use exos_net::wire::ethernet::EthernetHeader;
use exos_net::{
    AckPolicy, AddressConflict, Config, ConfigError, ConflictOutcome, ConnectError, Duration, End, Instant,
    MacAddress, OnConflict, Probing, SendDatagramError, SendError,
};
use smoltcp::wire::{Ipv4Packet, UdpPacket};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, Host, SERVER_IP, SERVER_MAC, config};
use crate::link::{arp_reply, arp_request, echo_request};
use crate::reassembly::udp;
use crate::udp::datagram;

type StaticHost = Host<&'static [u8]>;

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const DHCP: u16 = 68;

fn probing(probing: Probing) -> Config {
    Config { probing, ..config() }
}

/// Without an address, and going to use none before it has asked.
fn nameless() -> StaticHost {
    StaticHost::with(Config { ip: NOBODY, on_conflict: OnConflict::GiveUp, ..probing(Probing::Before) })
}

fn set(host: &mut StaticHost, ip: Ipv4Addr) {
    host.stack.set_address(host.now, ip, 24, None).unwrap();
}

/// A host that has found its address free and announced it.
fn settled(on_conflict: OnConflict) -> StaticHost {
    let mut host = nameless();
    host = StaticHost::with(Config { on_conflict, ..host.stack.config().clone() });
    set(&mut host, SERVER_IP);
    host.wait_secs(12);
    assert_eq!((host.stack.address(), host.stack.next_deadline()), (Some(SERVER_IP), None));
    host.nic.frames.clear();
    host
}

/// Lets time pass until nothing is due, and returns the ARP packets that left, each with its time.
fn arp_until_quiet(host: &mut StaticHost) -> Vec<(Instant, ArpPacket)> {
    let mut seen = Vec::new();
    while let Some(deadline) = host.stack.next_deadline() {
        host.now = host.now.max(deadline);
        host.wait_ms(1);
        for frame in host.nic.frames.drain(..) {
            let (ethernet, payload) = EthernetHeader::parse(&frame).unwrap();
            assert_eq!((ethernet.destination, ethernet.source), (MacAddress::BROADCAST, SERVER_MAC));
            seen.push((deadline, ArpPacket::parse(payload).unwrap()));
        }
    }
    seen
}

/// What a probe says (from nobody) or an announcement (from the address itself).
fn asking(sender_ip: Ipv4Addr) -> ArpPacket {
    ArpPacket {
        operation: Operation::Request,
        sender_mac: SERVER_MAC,
        sender_ip,
        target_mac: MacAddress([0; 6]),
        target_ip: SERVER_IP,
    }
}

fn conflict(outcome: ConflictOutcome) -> Option<AddressConflict> {
    Some(AddressConflict { address: SERVER_IP.into(), by: CLIENT_MAC, outcome })
}

fn assert_deaf(host: &mut StaticHost) {
    host.input(&Client::default().syn()).assert_nothing();
    host.input(&echo_request(b"ping")).assert_nothing();
    for ip in [SERVER_IP, NOBODY] {
        host.input(&arp_request(CLIENT_IP, CLIENT_MAC, ip)).assert_nothing();
    }
    assert!(host.nic.frames.is_empty());
}

#[test]
fn without_an_address_nothing_is_answered() {
    let mut host = nameless();
    assert_deaf(&mut host);
    // Nor is the unspecified address one (RFC 1122 3.2.1.3 (a)).
    for protocol in [1, 6, 17, 99] {
        for fragment in [0, 0x2000] {
            let mut frame = echo_request(b"pings that ask for more");
            let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
            packet.set_dst_addr(NOBODY);
            packet.set_next_header(protocol.into());
            packet.set_more_frags(fragment != 0);
            packet.fill_checksum();
            host.input(&frame).assert_nothing();
        }
    }
    assert_eq!((host.stack.address(), host.stack.next_deadline()), (None, None));
    assert_eq!((host.stack.reassemblies(), host.stack.counters().icmp_errors_out), (0, 0));
    assert_eq!(host.stack.take_address_conflict(), None);
}

#[test]
fn address_that_is_given_at_the_start_waits_for_its_probes_too() {
    let mut host = StaticHost::with(probing(Probing::Before));
    assert_eq!((host.stack.address(), host.stack.is_probing()), (None, true));
    assert_deaf(&mut host);
    let seen = arp_until_quiet(&mut host);
    let senders: Vec<_> = seen.iter().map(|(_, packet)| packet.sender_ip).collect();
    assert_eq!(senders, [NOBODY, NOBODY, NOBODY, SERVER_IP, SERVER_IP]);
    assert_eq!((host.stack.address(), host.stack.is_probing()), (Some(SERVER_IP), false));
    assert_eq!(host.stack.config().prefix_len, 24);
    // Whoever has it keeps it.
    let mut host = StaticHost::with(probing(Probing::Before));
    host.wait_secs(2);
    host.input(&arp_request(SERVER_IP, CLIENT_MAC, SERVER_IP)).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::GivenUp));
    assert_eq!((host.stack.address(), host.stack.is_probing()), (None, false));
}

#[test]
fn without_an_address_only_dhcp_sends() {
    let mut host = nameless();
    let (server, everybody) = ((CLIENT_IP, 67).into(), (Ipv4Addr::BROADCAST, 67).into());
    host.stack.bind_udp(DHCP).unwrap();
    host.stack.bind_udp(69).unwrap();
    let mut send = |port, to| host.stack.send_udp_bytes(host.now, port, to, b"discover", &mut host.nic);
    assert_eq!(send(69, everybody), Err(SendDatagramError::NoAddress));
    assert_eq!(send(DHCP, server), Err(SendDatagramError::NoAddress));
    assert_eq!(send(DHCP, everybody), Ok(()));
    assert_eq!(host.nic.frames.len(), 1);
    let (ethernet, payload) = EthernetHeader::parse(&host.nic.frames[0]).unwrap();
    assert_eq!(ethernet.destination, MacAddress::BROADCAST);
    let packet = Ipv4Packet::new_checked(payload).unwrap();
    assert_eq!((packet.src_addr(), packet.dst_addr()), (NOBODY, Ipv4Addr::BROADCAST));
    let udp = UdpPacket::new_checked(packet.payload()).unwrap();
    assert_eq!((udp.src_port(), udp.dst_port(), udp.payload()), (DHCP, 67, &b"discover"[..]));
    assert!(udp.verify_checksum(&NOBODY.into(), &Ipv4Addr::BROADCAST.into()));
    let connected = host.stack.connect(host.now, "10.0.0.2:80".parse::<SocketAddr>().unwrap());
    assert_eq!(connected, Err(ConnectError::NoAddress));
}

#[test]
fn offer_to_an_address_that_we_do_not_have_yet_is_taken() {
    let mut host = nameless();
    let offer = datagram(SERVER_MAC, SERVER_IP, DHCP, b"offer");
    host.input(&offer).assert_nothing();
    host.stack.bind_udp(DHCP).unwrap();
    host.stack.bind_udp(69).unwrap();
    let taken = host.input(&offer).datagram();
    assert_eq!((&*taken.payload, taken.to), (&b"offer"[..], (SERVER_IP, DHCP).into()));
    let broadcast = datagram(MacAddress::BROADCAST, Ipv4Addr::BROADCAST, DHCP, b"offer");
    host.input(&broadcast).datagram();
    host.input(&datagram(SERVER_MAC, SERVER_IP, 69, b"no offer")).assert_nothing();
    let mut broken = offer.clone();
    broken[45] ^= 1;
    host.input(&broken).assert_nothing();
    // Later it would be somebody else's.
    set(&mut host, Ipv4Addr::new(10, 0, 0, 9));
    host.wait_secs(8);
    host.input(&offer).assert_nothing();
    assert_eq!(host.stack.counters().dropped_not_for_us, 3);
}

#[test]
fn address_is_asked_for_three_times_and_used_and_announced_twice_when_nobody_answers() {
    let mut host = nameless();
    let begun_at = host.now;
    set(&mut host, SERVER_IP);
    while host.stack.address().is_none() {
        assert_deaf(&mut host);
        host.now = host.stack.next_deadline().unwrap();
        host.stack.expire(host.now, &mut host.nic, |_, _| {});
        if host.stack.counters().arp_announcements == 0 {
            host.nic.frames.clear();
        }
    }
    let used_at = host.now;
    assert_eq!((host.stack.counters().arp_probes, host.stack.counters().arp_announcements), (3, 1));
    let waited = used_at.since(begun_at);
    assert!(waited >= Duration::from_secs(4) && waited <= Duration::from_secs(7), "{waited:?}");
    host.input(&arp_request(CLIENT_IP, CLIENT_MAC, SERVER_IP)).reply();
    Client::default().connect(&mut host);
    host.nic.frames.pop_front();
    let later = arp_until_quiet(&mut host);
    assert_eq!(later, [(used_at + Duration::from_secs(2), asking(SERVER_IP))]);
}

#[test]
fn probes_leave_at_random_times_within_what_rfc_5227_says() {
    let mut firsts = Vec::new();
    let secs = Duration::from_secs;
    for secret in 0..20 {
        let secret = [secret; 16];
        let mut host = StaticHost::with(Config { ip: NOBODY, secret, ..probing(Probing::Before) });
        let begun_at = host.now;
        set(&mut host, SERVER_IP);
        let seen = arp_until_quiet(&mut host);
        let packets: Vec<_> = seen.iter().map(|&(_, packet)| packet).collect();
        let (probe, announcement) = (asking(NOBODY), asking(SERVER_IP));
        assert_eq!(packets, [probe, probe, probe, announcement, announcement]);
        let wait = |place: usize| seen[place].0.since(seen[place - 1].0);
        assert!(seen[0].0.since(begun_at) <= secs(1));
        for place in [1, 2] {
            assert!(wait(place) >= secs(1) && wait(place) <= Duration::from_millis(2_001));
        }
        assert!(wait(3) >= secs(2) && wait(4) >= secs(2));
        firsts.push((seen[0].0.since(begun_at).as_micros(), wait(1).as_micros(), wait(2).as_micros()));
    }
    let all = firsts.len();
    firsts.sort_unstable();
    firsts.dedup_by_key(|first| first.0);
    assert_eq!(firsts.len(), all);
    assert!(firsts.iter().all(|&(_, second, third)| second != third));
}

#[test]
fn address_that_somebody_has_or_wants_is_not_used() {
    let probe_of = |mac| arp_request(NOBODY, mac, SERVER_IP);
    for claim in [
        arp_reply(SERVER_IP, CLIENT_MAC),
        arp_request(SERVER_IP, CLIENT_MAC, CLIENT_IP),
        probe_of(CLIENT_MAC),
    ] {
        let mut host = nameless();
        set(&mut host, SERVER_IP);
        host.wait_secs(3);
        host.input(&claim).assert_nothing();
        assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::GivenUp));
        host.nic.frames.clear();
        host.wait_secs(10);
        assert_deaf(&mut host);
        assert_eq!((host.stack.address(), host.stack.counters().arp_conflicts), (None, 1));
    }
}

#[test]
fn what_says_nothing_of_who_has_an_address_is_no_conflict() {
    let mut host = nameless();
    set(&mut host, SERVER_IP);
    host.wait_secs(2);
    let other = Ipv4Addr::new(10, 0, 0, 9);
    // Somebody wants to talk to it; somebody wants another; an answer to a probe of another; our own probe, by a repeater.
    let mut answer = arp_reply(NOBODY, CLIENT_MAC);
    answer[38..42].copy_from_slice(&SERVER_IP.octets());
    for innocent in
        [arp_request(CLIENT_IP, CLIENT_MAC, SERVER_IP), arp_request(NOBODY, CLIENT_MAC, other), answer]
    {
        host.input(&innocent).assert_nothing();
    }
    let mut own = arp_request(NOBODY, SERVER_MAC, SERVER_IP);
    own[6..12].copy_from_slice(&CLIENT_MAC.0);
    host.input(&own).assert_nothing();
    host.wait_secs(5);
    assert_eq!((host.stack.address(), host.stack.counters().arp_conflicts), (Some(SERVER_IP), 0));
}

#[test]
fn address_in_use_is_asked_for_meanwhile_and_announced_only_when_nobody_answers() {
    let mut host = StaticHost::with(probing(Probing::Meanwhile));
    Client::default().connect(&mut host);
    host.input(&arp_request(CLIENT_IP, CLIENT_MAC, SERVER_IP)).reply();
    let seen: Vec<_> = arp_until_quiet(&mut host).into_iter().map(|(_, packet)| packet).collect();
    let (probe, announcement) = (asking(NOBODY), asking(SERVER_IP));
    assert_eq!(seen, [probe, probe, probe, announcement, announcement]);
    // Somebody answers: he was first.
    let mut host = StaticHost::with(probing(Probing::Meanwhile));
    host.wait_secs(1);
    host.nic.frames.clear();
    host.input(&arp_reply(SERVER_IP, CLIENT_MAC)).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::Kept));
    assert_eq!((arp_until_quiet(&mut host), host.stack.address()), (Vec::new(), Some(SERVER_IP)));
    // Who would give it up does so at once.
    let cautious = Config { on_conflict: OnConflict::GiveUp, ..probing(Probing::Meanwhile) };
    let mut host = StaticHost::with(cautious);
    host.input(&arp_reply(SERVER_IP, CLIENT_MAC)).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::GivenUp));
    assert_deaf(&mut host);
}

#[test]
fn stack_that_is_not_to_ask_neither_asks_nor_announces() {
    let mut host = StaticHost::with(config());
    assert_eq!(arp_until_quiet(&mut host), []);
    set(&mut host, Ipv4Addr::new(10, 0, 0, 9));
    assert_eq!(arp_until_quiet(&mut host), []);
    assert_eq!(host.stack.address(), Some(Ipv4Addr::new(10, 0, 0, 9)));
}

#[test]
fn address_is_contradicted_once_and_given_up_when_that_does_not_help() {
    let mut host = settled(OnConflict::GiveUp);
    let claim = arp_reply(SERVER_IP, CLIENT_MAC);
    let announcement = arp_request(SERVER_IP, SERVER_MAC, SERVER_IP);
    let conn = Client::default().connect(&mut host);
    for _ in 0..2 {
        assert_eq!(host.input(&claim).reply(), announcement);
        assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::Kept));
        host.wait_secs(10);
    }
    assert_eq!(host.input(&claim).reply(), announcement);
    host.wait_secs(9);
    host.input(&claim).assert_nothing();
    assert_eq!(host.stack.take_address_conflict(), conflict(ConflictOutcome::GivenUp));
    assert_deaf(&mut host);
    assert_eq!(host.stack.next_deadline(), Some(Instant::ZERO));
    host.wait_ms(1);
    assert_eq!(host.ended, [(conn, End::AddressLost)]);
    assert!(host.nic.frames.is_empty());
}

#[test]
fn address_of_a_server_is_kept_however_often_it_is_claimed() {
    let mut host = settled(OnConflict::Keep);
    for _ in 0..30 {
        host.input(&arp_reply(SERVER_IP, CLIENT_MAC));
        host.wait_ms(500);
    }
    assert_eq!((host.stack.address(), host.stack.counters().arp_conflicts), (Some(SERVER_IP), 30));
    // Two when it came, and two in fifteen seconds.
    assert_eq!(host.stack.counters().arp_announcements, 4);
}

#[test]
fn after_ten_addresses_that_others_had_one_a_minute_is_tried() {
    let mut host = nameless();
    for tries in 0..12 {
        let begun_at = host.now;
        set(&mut host, SERVER_IP);
        let first_at = host.stack.next_deadline().unwrap();
        let least = if tries < 10 { 0 } else { 59 };
        let wait = first_at.since(begun_at);
        assert!(wait >= Duration::from_secs(least), "try {tries} began after {wait:?}");
        assert!(wait <= Duration::from_secs(least + 2), "try {tries} began after {wait:?}");
        host.now = first_at;
        host.wait_ms(1);
        host.input(&arp_reply(SERVER_IP, CLIENT_MAC)).assert_nothing();
        assert_eq!(host.stack.address(), None);
    }
    // One that nobody has ends it.
    set(&mut host, SERVER_IP);
    host.wait_secs(70);
    assert_eq!(host.stack.address(), Some(SERVER_IP));
    host.stack.remove_address();
    host.wait_ms(1);
    set(&mut host, SERVER_IP);
    assert!(host.stack.next_deadline().unwrap().since(host.now) <= Duration::from_secs(1));
}

#[test]
fn connections_end_with_their_address_and_their_peers_hear_nothing() {
    let mut host = settled(OnConflict::Keep);
    let open = Client::on_port(1).connect(&mut host);
    Client::on_port(2).handshake_begin(&mut host);
    let opening = host.stack.connect(host.now, "10.0.0.2:80".parse::<SocketAddr>().unwrap()).unwrap();
    let mut closer = Client::on_port(3);
    let closed = closer.connect(&mut host);
    host.stack.close(closed).unwrap();
    host.output(closed, AckPolicy::Merge);
    host.input(&closer.fin(1, 2)).events();
    assert_eq!((host.stack.connections(), host.stack.time_wait()), (3, 1));
    host.stack.send(open, b"unsent").unwrap();
    host.nic.frames.clear();

    host.stack.remove_address();
    assert_deaf(&mut host);
    host.wait_ms(1);
    host.ended.sort_unstable_by_key(|(conn, _)| conn.index());
    assert_eq!(host.ended, [(open, End::AddressLost), (opening, End::AddressLost)]);
    assert_eq!(host.stack.send(open, b"x"), Err(SendError::Stale));
    let stack = &host.stack;
    assert_eq!((stack.connections(), stack.half_open(), stack.opening()), (0, 0, 0));
    assert_eq!((stack.established(), stack.time_wait(), stack.buffered_bytes()), (0, 0, 0));
    assert_eq!((stack.counters().address_lost, stack.next_deadline()), (3, None));
    assert!(host.nic.frames.is_empty());
}

#[test]
fn answers_that_wait_for_a_full_driver_go_with_the_address_that_they_are_from() {
    let mut host = settled(OnConflict::Keep);
    host.nic.room = Some(0);
    for piece in udp(CLIENT_IP, 7, &[0; 2_000]).pieces(1_480) {
        host.input(&piece).assert_nothing();
    }
    host.wait_ms(1);
    assert_eq!(host.stack.counters().icmp_errors_out, 1);
    host.stack.remove_address();
    host.nic.room = None;
    host.wait_ms(1);
    assert!(host.nic.frames.is_empty());
}

#[test]
fn same_address_again_leaves_connections_alone_and_another_ends_them() {
    let mut host = StaticHost::with(config());
    let conn = Client::default().connect(&mut host);
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 254));
    host.stack.set_address(host.now, SERVER_IP, 16, gateway).unwrap();
    host.wait_ms(1);
    assert!(host.stack.is_alive(conn));
    assert_eq!((host.stack.config().prefix_len, host.stack.config().gateway), (16, gateway));
    let other = Ipv4Addr::new(10, 0, 0, 9);
    set(&mut host, other);
    assert_deaf(&mut host);
    assert_eq!(host.stack.address(), None, "connections of the old one are still there");
    host.wait_ms(1);
    assert_eq!((host.ended.as_slice(), host.stack.address()), (&[(conn, End::AddressLost)][..], Some(other)));
    // Ports that were listened on are listened on.
    let mut syn = Client::default().syn();
    let mut packet = Ipv4Packet::new_unchecked(&mut syn[14..]);
    packet.set_dst_addr(other);
    packet.fill_checksum();
    let mut tcp = smoltcp::wire::TcpPacket::new_unchecked(packet.payload_mut());
    tcp.fill_checksum(&CLIENT_IP.into(), &other.into());
    host.input(&syn).reply();
}

#[test]
fn another_address_is_asked_for_before_it_is_used_and_its_neighbours_are_asked_anew() {
    let mut host = settled(OnConflict::GiveUp);
    let connect = |host: &mut StaticHost| {
        let conn = host.stack.connect(host.now, SocketAddr::from((CLIENT_IP, 80))).unwrap();
        host.output(conn, AckPolicy::IfDue);
    };
    connect(&mut host);
    host.input(&arp_reply(CLIENT_IP, CLIENT_MAC)).assert_nothing();
    connect(&mut host);
    assert_eq!(host.stack.counters().arp_requests, 1);
    let other = Ipv4Addr::new(10, 0, 0, 9);
    set(&mut host, other);
    host.wait_ms(1);
    assert_eq!(host.stack.address(), None);
    host.wait_secs(8);
    assert_eq!(host.stack.address(), Some(other));
    connect(&mut host);
    assert_eq!(host.stack.counters().arp_requests, 2);
}

#[test]
fn renewed_lease_of_an_address_that_is_asked_for_does_not_ask_anew() {
    let mut host = nameless();
    set(&mut host, SERVER_IP);
    host.wait_secs(3);
    let due_at = host.stack.next_deadline();
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 254));
    host.stack.set_address(host.now, SERVER_IP, 24, gateway).unwrap();
    assert_eq!(host.stack.next_deadline(), due_at);
    host.wait_secs(5);
    assert_eq!((host.stack.address(), host.stack.config().gateway), (Some(SERVER_IP), gateway));
    assert_eq!(host.stack.counters().arp_probes, 3);
}

#[test]
fn probe_that_a_full_driver_did_not_take_is_sent_later() {
    let mut host = nameless();
    set(&mut host, SERVER_IP);
    host.nic.room = Some(0);
    host.wait_secs(30);
    assert_eq!((host.stack.address(), host.stack.counters().arp_probes), (None, 0));
    host.nic.room = None;
    host.wait_secs(8);
    assert_eq!((host.stack.address(), host.stack.counters().arp_probes), (Some(SERVER_IP), 3));
}

#[test]
fn impossible_addresses_are_refused() {
    let mut host = nameless();
    let mut error = |ip: [u8; 4], prefix_len, gateway: Option<[u8; 4]>| {
        host.stack.set_address(host.now, ip.into(), prefix_len, gateway.map(Into::into)).unwrap_err()
    };
    for ip in [[0; 4], [255; 4], [224, 0, 0, 1]] {
        assert_eq!(error(ip, 24, None), ConfigError::AddressNotUnicast);
    }
    assert_eq!(error([10, 0, 0, 1], 33, None), ConfigError::PrefixLength);
    assert_eq!(error([10, 0, 0, 1], 24, Some([10, 0, 1, 1])), ConfigError::GatewayOffLink);
    assert_eq!((host.stack.address(), host.stack.next_deadline()), (None, None));
}
