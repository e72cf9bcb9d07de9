//! The link as a guardian sees it, with a clock of the test's own.

use super::*;
use exos_net::wire::arp::{ArpPacket, Operation, PACKET_BYTES};
use exos_net::wire::ipv6::{ALL_NODES, Ipv6Header, NextHeader, multicast_mac, solicited_node};
use exos_net::wire::ndisc::{HOP_LIMIT, MESSAGE_BYTES_MAX, Message};
use std::vec::Vec;

const OWN: Interface = Interface {
    mac: MacAddress([2, 0, 0, 0, 0, 1]),
    ip: Ipv4Addr::new(10, 0, 0, 2),
    prefix_len: 24,
    gateway: None,
};
const NONCE: Nonce = [1, 2, 3, 4, 5, 6];
const CLIENT: u32 = 1;
const OTHER: u32 = 2;

fn ms(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1, last])
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn v6(last: u8) -> IpAddr {
    IpAddr::V6(ipv6::link_local(mac(last)))
}

fn link_local(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => panic!("not IPv6"),
    }
}

fn new(interface: Interface) -> Neighbours {
    let random = Random { nonce: NONCE, delay: Duration::from_millis(300) };
    Neighbours::new(interface, 3, random, ms(0))
}

/// Two seconds old, so that its address is its own.
fn settled() -> Neighbours {
    let mut neighbours = new(OWN);
    for at in [300, 1300] {
        neighbours.tick(ms(at), |_| {});
    }
    assert_eq!(neighbours.address().1, AddressState::Preferred);
    neighbours
}

fn sent(neighbours: &mut Neighbours, now: Instant) -> Vec<Frame> {
    let mut frames = Vec::new();
    neighbours.tick(now, |frame| frames.push(*frame));
    frames
}

fn arp(operation: Operation, from: (IpAddr, MacAddress), target: IpAddr) -> Vec<u8> {
    let ip = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("not IPv4"),
    };
    let mut frame = [0; HEADER_BYTES + PACKET_BYTES];
    let (header, rest) = frame.split_first_chunk_mut::<HEADER_BYTES>().expect("long enough");
    EthernetHeader { destination: OWN.mac, source: from.1, ether_type: EtherType::Arp }.emit(header);
    let packet = ArpPacket {
        operation,
        sender_mac: from.1,
        sender_ip: ip(from.0),
        target_mac: OWN.mac,
        target_ip: ip(target),
    };
    packet.emit(rest.first_chunk_mut().expect("long enough"));
    frame.to_vec()
}

fn asks_us(last: u8) -> Vec<u8> {
    arp(Operation::Request, (v4(last), mac(last)), IpAddr::V4(OWN.ip))
}

/// A frame with a message, whose hop limit may be wrong.
fn ndisc(
    from: (Ipv6Addr, MacAddress),
    to: (Ipv6Addr, MacAddress),
    hop_limit: u8,
    message: Message,
) -> Vec<u8> {
    let mut bytes = [0; MESSAGE_BYTES_MAX];
    let len = message.emit(from.0, to.0, &mut bytes);
    let mut head = [0; HEADER_BYTES];
    EthernetHeader { destination: to.1, source: from.1, ether_type: EtherType::Ipv6 }.emit(&mut head);
    let mut ip = [0; ipv6::HEADER_BYTES];
    Ipv6Header { source: from.0, destination: to.0, next_header: NextHeader::Icmpv6, hop_limit }
        .emit(len, &mut ip);
    [&head[..], &ip, &bytes[..len]].concat()
}

fn group_of(ip: Ipv6Addr) -> (Ipv6Addr, MacAddress) {
    let group = solicited_node(ip);
    (group, multicast_mac(group))
}

fn solicits_us(last: u8, source_mac: Option<MacAddress>) -> Vec<u8> {
    let message = Message::Solicitation { target: OWN.link_local(), source_mac, nonce: None };
    ndisc((link_local(v6(last)), mac(last)), group_of(OWN.link_local()), HOP_LIMIT, message)
}

/// Flags as in RFC 4861 4.4.
#[derive(Clone, Copy)]
struct Flags {
    router: bool,
    solicited: bool,
    overrides: bool,
}

const R: Flags = Flags { router: true, solicited: false, overrides: false };
const S: Flags = Flags { router: false, solicited: true, overrides: false };
const O: Flags = Flags { router: false, solicited: false, overrides: true };
const SO: Flags = Flags { router: false, solicited: true, overrides: true };
const NONE: Flags = Flags { router: false, solicited: false, overrides: false };

fn advertises(last: u8, flags: Flags, target_mac: Option<MacAddress>, hop_limit: u8) -> Vec<u8> {
    let Flags { router, solicited, overrides } = flags;
    let ip = link_local(v6(last));
    let message = Message::Advertisement { target: ip, router, solicited, overrides, target_mac };
    ndisc((ip, mac(last)), (OWN.link_local(), OWN.mac), hop_limit, message)
}

/// What a frame of ours says.
fn read(frame: &[u8]) -> (EthernetHeader, Ipv6Header, Message) {
    let (ethernet, payload) = EthernetHeader::parse(frame).expect("Ethernet");
    let (ip, bytes) = Ipv6Header::parse(payload).expect("IPv6");
    (ethernet, ip, Message::parse(&ip, bytes).expect("well formed"))
}

fn find(neighbours: &Neighbours, ip: IpAddr) -> Option<Neighbour> {
    neighbours.iter().find(|neighbour| neighbour.ip == ip)
}

#[test]
fn address_is_probed_once_and_then_ones_own() {
    let mut neighbours = new(OWN);
    assert!(sent(&mut neighbours, ms(299)).is_empty(), "waits for a random time first");
    let frames = sent(&mut neighbours, ms(300));
    let [probe] = frames.as_slice() else { panic!("one probe, not {}", frames.len()) };
    let (ethernet, ip, message) = read(probe.bytes());
    let group = group_of(OWN.link_local());
    assert_eq!((ip.source, ip.destination, ethernet.destination), (Ipv6Addr::UNSPECIFIED, group.0, group.1));
    let expected = Message::Solicitation { target: OWN.link_local(), source_mac: None, nonce: Some(NONCE) };
    assert_eq!(message, expected);
    // It comes back from the link, which is nobody's objection.
    assert!(neighbours.hear(ms(301), probe.bytes()).reply.is_none());
    assert!(neighbours.hear(ms(302), &solicits_us(9, Some(mac(9)))).reply.is_none(), "not answered yet");
    assert!(sent(&mut neighbours, ms(1299)).is_empty());
    assert_eq!(neighbours.address(), (OWN.link_local(), AddressState::Tentative));
    assert!(neighbours.tick(ms(1300), |_| {}), "something to be shown");
    assert_eq!(neighbours.address().1, AddressState::Preferred);
}

#[test]
fn address_that_somebody_else_has_or_wants_is_not_used() {
    let own = OWN.link_local();
    let (router, solicited, overrides) = (false, false, true);
    let has = Message::Advertisement { target: own, router, solicited, overrides, target_mac: Some(mac(5)) };
    let has = ndisc((own, mac(5)), (ALL_NODES, multicast_mac(ALL_NODES)), HOP_LIMIT, has);
    let wants = |nonce| {
        let message = Message::Solicitation { target: own, source_mac: None, nonce };
        ndisc((Ipv6Addr::UNSPECIFIED, OWN.mac), group_of(own), HOP_LIMIT, message)
    };
    for objection in [has, wants(None), wants(Some([6; 6]))] {
        for at in [100, 700] {
            let mut neighbours = new(OWN);
            neighbours.tick(ms(at.min(300)), |_| {});
            assert!(neighbours.hear(ms(at), &objection).changed);
            assert_eq!(neighbours.address().1, AddressState::Duplicate);
            assert_eq!(neighbours.counters().conflicts, 1);
            assert!(sent(&mut neighbours, ms(9000)).is_empty());
            assert!(neighbours.hear(ms(9000), &solicits_us(9, Some(mac(9)))).reply.is_none());
            assert_eq!(neighbours.ask(ms(9000), CLIENT, v6(9)), Err(Refusal::NoIpv6));
            assert_eq!(neighbours.ask(ms(9000), CLIENT, v4(9)), Ok(None), "IPv4 is not concerned");
        }
    }
}

#[test]
fn who_solicits_our_address_is_answered_and_learned() {
    let mut neighbours = settled();
    let heard = neighbours.hear(ms(2000), &solicits_us(9, Some(mac(9))));
    let reply = heard.reply.expect("an answer");
    let (ethernet, ip, message) = read(reply.bytes());
    assert_eq!((ethernet.destination, ethernet.source), (mac(9), OWN.mac));
    assert_eq!((ip.source, ip.destination), (OWN.link_local(), link_local(v6(9))));
    let (router, solicited, overrides) = (false, true, true);
    let target_mac = Some(OWN.mac);
    let target = OWN.link_local();
    assert_eq!(message, Message::Advertisement { target, router, solicited, overrides, target_mac });
    let expected = Neighbour { ip: v6(9), mac: mac(9), router, reachability: Reachability::Stale };
    assert!(heard.changed);
    assert_eq!(find(&neighbours, v6(9)), Some(expected));
    assert!(!neighbours.hear(ms(2001), &solicits_us(9, Some(mac(9)))).changed, "known");

    let probe = Message::Solicitation { target, source_mac: None, nonce: Some([7; 6]) };
    let probe = ndisc((Ipv6Addr::UNSPECIFIED, mac(4)), group_of(target), HOP_LIMIT, probe);
    let (ethernet, ip, message) = read(neighbours.hear(ms(2002), &probe).reply.expect("a defence").bytes());
    assert_eq!((ip.destination, ethernet.destination), (ALL_NODES, multicast_mac(ALL_NODES)));
    assert!(matches!(message, Message::Advertisement { solicited: false, overrides: true, .. }));
    assert_eq!(neighbours.address().1, AddressState::Preferred, "ours all the same");

    let other = link_local(v6(77));
    let elsewhere = Message::Solicitation { target: other, source_mac: Some(mac(3)), nonce: None };
    let elsewhere = ndisc((link_local(v6(3)), mac(3)), group_of(OWN.link_local()), HOP_LIMIT, elsewhere);
    let heard = neighbours.hear(ms(2003), &elsewhere);
    assert!(heard.reply.is_none() && !heard.changed, "not our address");
}

#[test]
fn client_asks_and_hears_when_there_is_an_answer() {
    let mut neighbours = settled();
    for (ip, last) in [(v6(9), 9), (v4(8), 8)] {
        assert_eq!(neighbours.ask(ms(2000), CLIENT, ip), Ok(None));
        assert_eq!(neighbours.ask(ms(2000), OTHER, ip), Ok(None));
        let frames = sent(&mut neighbours, ms(2000));
        assert_eq!(frames.len(), 1, "asked once for both");
        assert_eq!(neighbours.take_told(), 0);
        let answer = match ip {
            IpAddr::V6(target) => {
                let (ethernet, header, message) = read(frames[0].bytes());
                let expected = Message::Solicitation { target, source_mac: Some(OWN.mac), nonce: None };
                assert_eq!((message, header.source), (expected, OWN.link_local()));
                assert_eq!((header.destination, ethernet.destination), group_of(target));
                advertises(last, SO, Some(mac(last)), HOP_LIMIT)
            }
            IpAddr::V4(_) => arp(Operation::Reply, (ip, mac(last)), IpAddr::V4(OWN.ip)),
        };
        assert!(neighbours.hear(ms(2100), &answer).changed);
        assert_eq!(neighbours.take_told(), 1 << CLIENT | 1 << OTHER);
        assert_eq!(neighbours.take_told(), 0, "told once");
        assert_eq!(neighbours.ask(ms(2100), CLIENT, ip), Ok(Some(mac(last))));
        assert_eq!(find(&neighbours, ip).map(|found| found.reachability), Some(Reachability::Reachable));
        assert!(sent(&mut neighbours, ms(3100)).is_empty(), "nothing more is asked");
    }
}

#[test]
fn who_does_not_answer_three_times_is_unreachable_and_may_be_asked_for_again() {
    let mut neighbours = settled();
    for ip in [v6(9), v4(9)] {
        assert_eq!(neighbours.ask(ms(2000), CLIENT, ip), Ok(None));
        let asked: usize = (0..60).map(|at| sent(&mut neighbours, ms(2000 + at * 50)).len()).sum();
        assert_eq!(asked, 3);
        assert_eq!(neighbours.take_told(), 0);
        neighbours.tick(ms(5000), |_| {});
        assert_eq!(neighbours.take_told(), 1 << CLIENT);
        assert_eq!(neighbours.ask(ms(5001), CLIENT, ip), Err(Refusal::Unreachable));
        assert_eq!(neighbours.askers(), 0, "told, and forgotten");
        assert_eq!(neighbours.ask(ms(5002), CLIENT, ip), Ok(None), "begins anew");
        // Nobody comes for that.
        for at in 6..13 {
            neighbours.tick(ms(at * 1000), |_| {});
        }
        assert_eq!((neighbours.askers(), neighbours.iter().count()), (0, 0));
        neighbours.take_told();
    }
}

#[test]
fn what_is_no_neighbour_is_not_asked_for() {
    let mut neighbours = settled();
    let group = IpAddr::V6(ALL_NODES);
    let global = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let off_link = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    for ip in [group, global, off_link, IpAddr::V4(OWN.ip), IpAddr::V6(OWN.link_local())] {
        assert_eq!(neighbours.ask(ms(2000), CLIENT, ip), Err(Refusal::NotOnLink), "{ip}");
    }
    assert!(sent(&mut neighbours, ms(2000)).is_empty());
}

/// RFC 4861 7.2.5, by what is known, what is said, and what is known then.
#[test]
fn advertisements_are_believed_as_their_flags_say() {
    let known = |mac, router, reachability| Neighbour { ip: v6(9), mac, router, reachability };
    let (reachable, stale) = (Reachability::Reachable, Reachability::Stale);
    let (same, other) = (Some(mac(9)), Some(mac(66)));
    let cases = [
        ("nothing new", reachable, NONE, same, known(mac(9), false, reachable)),
        ("I a: elsewhere, may not override", reachable, NONE, other, known(mac(9), false, stale)),
        ("I a: also when solicited", reachable, S, other, known(mac(9), false, stale)),
        ("I b", stale, S, other, known(mac(9), false, stale)),
        ("II: confirmed", stale, S, same, known(mac(9), false, reachable)),
        ("II: confirmed without saying where", stale, S, None, known(mac(9), false, reachable)),
        ("II: moved, not confirmed", reachable, O, other, known(mac(66), false, stale)),
        ("II: moved and confirmed", stale, SO, other, known(mac(66), false, reachable)),
        ("II: said again, not confirmed", reachable, O, same, known(mac(9), false, reachable)),
        ("II: not confirmed", stale, O, same, known(mac(9), false, stale)),
        ("II: it is a router", stale, R, same, known(mac(9), true, stale)),
        ("I: a forger's router flag", stale, R, other, known(mac(9), false, stale)),
    ];
    for (what, before, flags, said, after) in cases {
        let mut neighbours = settled();
        neighbours.hear(ms(2000), &solicits_us(9, Some(mac(9))));
        if before == reachable {
            neighbours.hear(ms(2001), &advertises(9, S, None, HOP_LIMIT));
        }
        assert_eq!(find(&neighbours, v6(9)), Some(known(mac(9), false, before)), "{what}");
        let heard = neighbours.hear(ms(2002), &advertises(9, flags, said, HOP_LIMIT));
        assert_eq!(find(&neighbours, v6(9)), Some(after), "{what}");
        assert_eq!(heard.changed, after != known(mac(9), false, before), "{what}");
    }
}

#[test]
fn advertisement_that_nobody_asked_for_or_that_says_no_place_makes_no_neighbour() {
    let mut neighbours = settled();
    assert!(!neighbours.hear(ms(2000), &advertises(9, SO, Some(mac(9)), HOP_LIMIT)).changed);
    assert_eq!(neighbours.ask(ms(2000), CLIENT, v6(9)), Ok(None));
    assert!(!neighbours.hear(ms(2001), &advertises(9, SO, None, HOP_LIMIT)).changed);
    assert_eq!(neighbours.iter().count(), 0);
    assert!(neighbours.hear(ms(2002), &advertises(9, O, Some(mac(9)), HOP_LIMIT)).changed);
    assert_eq!(find(&neighbours, v6(9)).map(|found| found.reachability), Some(Reachability::Stale));
    assert_eq!(neighbours.take_told(), 1 << CLIENT);
}

#[test]
fn forged_and_damaged_packets_change_nothing_and_are_counted() {
    let mut neighbours = settled();
    assert_eq!(neighbours.ask(ms(2000), CLIENT, v6(9)), Ok(None));
    let good = advertises(9, SO, Some(mac(66)), HOP_LIMIT);
    let flipped = |at: usize| {
        let mut frame = good.clone();
        frame[at] ^= 0x10;
        frame
    };
    let far = advertises(9, SO, Some(mac(66)), 64);
    assert!(neighbours.hear(ms(2001), &far).changed, "the counter is to be seen");
    neighbours.hear(ms(2002), &flipped(good.len() - 1));
    neighbours.hear(ms(2003), &flipped(HEADER_BYTES));
    neighbours.hear(ms(2004), &flipped(HEADER_BYTES + ipv6::HEADER_BYTES));
    let expected = Counters { malformed: 1, hop_limit: 1, checksum: 1, unsupported: 1, conflicts: 0 };
    assert_eq!((neighbours.counters(), neighbours.iter().count()), (expected, 0));
    // Not for us.
    assert!(!neighbours.hear(ms(2005), &flipped(5)).changed);
    assert!(neighbours.hear(ms(2006), &good).changed, "nothing else was wrong with it");
    assert_eq!(neighbours.iter().count(), 1);
}

#[test]
fn stale_neighbour_is_looked_for_where_it_was_and_forgotten_if_it_is_gone() {
    for (ip, last) in [(v6(9), 9), (v4(8), 8)] {
        let mut neighbours = settled();
        let hello = if ip.is_ipv6() { solicits_us(9, Some(mac(9))) } else { asks_us(8) };
        let answer = if ip.is_ipv6() {
            advertises(9, S, None, HOP_LIMIT)
        } else {
            arp(Operation::Reply, (ip, mac(8)), IpAddr::V4(OWN.ip))
        };
        neighbours.hear(ms(2000), &hello);
        assert!(sent(&mut neighbours, ms(2000)).is_empty(), "nobody is in doubt");
        assert_eq!(neighbours.ask(ms(2000), CLIENT, ip), Ok(Some(mac(last))), "good to be used meanwhile");
        let frames = sent(&mut neighbours, ms(2001));
        assert_eq!(EthernetHeader::parse(frames[0].bytes()).expect("a frame").0.destination, mac(last));
        assert!(neighbours.hear(ms(2002), &answer).changed);
        assert_eq!(find(&neighbours, ip).map(|found| found.reachability), Some(Reachability::Reachable));
        assert!(sent(&mut neighbours, ms(9000)).is_empty());
        assert!(neighbours.tick(ms(32_002), |_| {}), "30 s later nobody knows");
        assert_eq!(neighbours.ask(ms(32_002), CLIENT, ip), Ok(Some(mac(last))));
        let asked: usize = (0..4).map(|at| sent(&mut neighbours, ms(32_002 + at * 1000)).len()).sum();
        assert_eq!((asked, neighbours.iter().count()), (3, 0), "gone");
        assert_eq!(neighbours.ask(ms(36_000), CLIENT, ip), Ok(None), "asked for anew");
    }
}

#[test]
fn greedy_client_has_its_share_of_questions_and_the_modest_one_its_own() {
    let mut neighbours = settled();
    let share = share_of_open(3);
    let asked = (10..200).filter(|&last| neighbours.ask(ms(2000), CLIENT, v6(last)).is_ok()).count();
    assert_eq!(asked, share);
    assert_eq!(neighbours.ask(ms(2000), CLIENT, v4(200)), Err(Refusal::Quota), "both families together");
    assert_eq!(neighbours.ask(ms(2000), CLIENT, v6(10)), Ok(None), "its own question");
    assert_eq!(neighbours.ask(ms(2000), OTHER, v6(200)), Ok(None));
    assert_eq!(neighbours.ask(ms(2000), OTHER, v6(10)), Ok(None), "the other's question");
    assert_eq!(sent(&mut neighbours, ms(2000)).len(), share + 1);
    neighbours.hear(ms(2001), &advertises(200, SO, Some(mac(200)), HOP_LIMIT));
    assert_eq!(neighbours.ask(ms(2001), OTHER, v6(200)), Ok(Some(mac(200))));
    neighbours.hear(ms(2001), &advertises(11, SO, Some(mac(11)), HOP_LIMIT));
    assert_eq!(neighbours.ask(ms(2001), CLIENT, v4(200)), Ok(None), "an answer makes room");
    neighbours.ended(CLIENT);
    assert_eq!(neighbours.askers(), 1 << OTHER);
    // Until the end, and what nobody answered counts as long as it is remembered.
    assert_eq!((2..64).map(share_of_open).min(), Some(1));
}

#[test]
fn share_of_each_of_any_number_of_environments_is_one_at_least_and_all_have_room() {
    for environments in 1..=64 {
        let share = share_of_open(environments);
        assert!(share >= 1 && share * environments <= OPEN_MAX, "{environments}");
    }
}

#[test]
fn flood_takes_nothing_from_whom_somebody_asked_for_nor_from_the_other_family() {
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
    let mut neighbours = new(Interface { gateway, ..OWN });
    for at in [300, 1300] {
        neighbours.tick(ms(at), |_| {});
    }
    assert!(neighbours.hear(ms(2000), &asks_us(1)).changed, "the gateway");
    assert_eq!(neighbours.ask(ms(2000), CLIENT, v6(1)), Ok(None));
    assert!(neighbours.hear(ms(2000), &advertises(1, SO, Some(mac(1)), HOP_LIMIT)).changed);
    for last in 3..=254 {
        assert!(neighbours.hear(ms(2001), &asks_us(last)).changed);
        assert!(neighbours.hear(ms(2001), &solicits_us(last, Some(mac(last)))).changed);
    }
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        assert_eq!(neighbours.iter().filter(|found| family(&found.ip)).count(), NEIGHBOURS_MAX);
    }
    for (ip, there) in
        [(v4(1), true), (v6(1), true), (v4(254), true), (v6(254), true), (v4(3), false), (v6(3), false)]
    {
        assert_eq!(find(&neighbours, ip).is_some(), there, "{ip}");
    }
}

#[test]
fn gateway_is_asked_where_it_is_until_it_answers_and_again_when_it_is_in_doubt() {
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
    let mut neighbours = new(Interface { gateway, ..OWN });
    for (at, asks) in [(10, 1), (11, 1), (12, 1), (13, 0), (14, 0), (16, 0), (17, 1)] {
        let frames = sent(&mut neighbours, ms(at * 1000));
        let arp = |frame: &&Frame| {
            EthernetHeader::parse(frame.bytes()).is_ok_and(|(header, _)| header.ether_type == EtherType::Arp)
        };
        assert_eq!(frames.iter().filter(arp).count(), asks, "at {at} s");
    }
    let frame = sent(&mut neighbours, ms(30_000));
    let packet = ArpPacket::parse(&frame[0].bytes()[HEADER_BYTES..]).expect("well formed");
    assert_eq!((packet.operation, packet.target_ip), (Operation::Request, Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!((packet.sender_ip, packet.sender_mac), (OWN.ip, OWN.mac));
    let reply = arp(Operation::Reply, (v4(1), mac(1)), IpAddr::V4(OWN.ip));
    assert!(neighbours.hear(ms(30_001), &reply).changed);
    assert!(sent(&mut neighbours, ms(50_000)).is_empty());
    assert!(neighbours.tick(ms(60_002), |_| {}), "it is in doubt");
    assert_eq!(sent(&mut neighbours, ms(60_003)).len(), 1);
    assert!(neighbours.hear(ms(60_004), &reply).changed);
    assert_eq!(neighbours.take_told(), 0, "the guardian tells itself nothing");
}

#[test]
fn who_asks_us_by_arp_is_learned_and_who_asks_others_is_not() {
    let mut neighbours = settled();
    assert!(neighbours.hear(ms(2000), &asks_us(9)).changed);
    assert!(!neighbours.hear(ms(2000), &asks_us(9)).changed, "known");
    assert!(!neighbours.hear(ms(2000), &arp(Operation::Request, (v4(8), mac(8)), v4(7))).changed);
    assert!(neighbours.hear(ms(2000), &arp(Operation::Reply, (v4(9), mac(77)), v4(7))).changed);
    assert_eq!(find(&neighbours, v4(9)).map(|found| found.mac), Some(mac(77)));
    assert!(!neighbours.hear(ms(2000), &arp(Operation::Reply, (v4(5), mac(5)), IpAddr::V4(OWN.ip))).changed);
}

#[test]
fn nonsense_by_arp_is_not_learned() {
    let mut neighbours = settled();
    for ip in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(10, 0, 1, 9))] {
        let frame = arp(Operation::Request, (ip, mac(3)), IpAddr::V4(OWN.ip));
        assert!(!neighbours.hear(ms(2000), &frame).changed, "{ip}");
    }
    let own = arp(Operation::Request, (IpAddr::V4(OWN.ip), mac(3)), IpAddr::V4(OWN.ip));
    assert!(neighbours.hear(ms(2000), &own).changed);
    assert_eq!(neighbours.counters().conflicts, 1);
    let group = arp(Operation::Request, (v4(5), MacAddress([0xFF; 6])), IpAddr::V4(OWN.ip));
    neighbours.hear(ms(2000), &group);
    assert_eq!((neighbours.counters().malformed, neighbours.iter().count()), (1, 0));
}

proptest::proptest! {
    #[test]
    fn any_frame_is_looked_at_without_harm(
        mut frame in proptest::collection::vec(proptest::num::u8::ANY, 0..120), kind in 0u8..4, asked: bool
    ) {
        let mut neighbours = settled();
        let whole = [asks_us(9), solicits_us(9, Some(mac(9))), advertises(9, SO, Some(mac(9)), HOP_LIMIT)];
        // Garbage behind a sound beginning goes deeper than garbage.
        if let Some(whole) = whole.get(usize::from(kind)) {
            let sound = frame.len().min(whole.len());
            frame[..sound / 2].copy_from_slice(&whole[..sound / 2]);
        }
        if asked {
            let _ = neighbours.ask(ms(2000), CLIENT, v6(9));
        }
        neighbours.hear(ms(2000), &frame);
        proptest::prop_assert!(neighbours.iter().count() <= 1);
    }

    /// Whatever is asked, said, and left unanswered: the tables are bounded, no client has more than its share open, everybody who
    /// waits is told in the end, and each address has one entry.
    #[test]
    fn any_order_of_questions_and_answers_keeps_the_bounds(
        steps in proptest::collection::vec((0u8..7, 1u32..3, 3u8..120, 0u64..1200), 0..400),
    ) {
        let mut neighbours = settled();
        let mut now = 2000;
        let mut waits = [const { Vec::new() }; 3];
        for (what, client, last, later) in steps {
            match what {
                0 | 1 => {
                    let ip = if what == 0 { v6(last) } else { v4(last) };
                    if neighbours.ask(ms(now), client, ip) == Ok(None) {
                        waits[client as usize].push(ip);
                    }
                }
                2 => drop(neighbours.hear(ms(now), &advertises(last, SO, Some(mac(last)), HOP_LIMIT))),
                3 => drop(neighbours.hear(ms(now), &solicits_us(last, Some(mac(last))))),
                4 => drop(neighbours.hear(ms(now), &asks_us(last))),
                5 => drop(neighbours.hear(ms(now), &arp(Operation::Reply, (v4(last), mac(last)), IpAddr::V4(OWN.ip)))),
                _ => now += later,
            }
            neighbours.tick(ms(now), |_| {});
            let told = neighbours.take_told();
            (0..3).filter(|client| told & 1 << client != 0).for_each(|client| waits[client].clear());
            let mut all: Vec<_> = neighbours.iter().map(|found| found.ip).collect();
            let count = all.len();
            all.sort();
            all.dedup();
            proptest::prop_assert_eq!(all.len(), count);
            proptest::prop_assert!(count <= 2 * NEIGHBOURS_MAX);
        }
        for later in 1..8 {
            neighbours.tick(ms(now + later * 1000), |_| {});
        }
        let told = neighbours.take_told();
        proptest::prop_assert!((1..3).all(|client| waits[client].is_empty() || told & 1 << client != 0));
        proptest::prop_assert_eq!(neighbours.askers(), 0);
        proptest::prop_assert_eq!(neighbours.next_due().is_some(), neighbours.iter().any(
            |found| found.reachability == Reachability::Reachable
        ));
    }
}
