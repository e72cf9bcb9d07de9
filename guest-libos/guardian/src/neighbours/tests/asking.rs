//! Questions of clients and of the guardian itself, and how they end.

use super::*;

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
    assert_eq!(
        neighbours.ask(ms(2000), CLIENT, v6(200)),
        Err(Refusal::Quota),
        "another's question counts, too"
    );
    assert_eq!(neighbours.ask(ms(2000), OTHER, v6(10)), Ok(None), "the other's question");
    assert_eq!(sent(&mut neighbours, ms(2000)).len(), share + 1);
    neighbours.hear(ms(2001), &advertises(200, SO, Some(mac(200)), HOP_LIMIT));
    assert_eq!(neighbours.ask(ms(2001), OTHER, v6(200)), Ok(Some(mac(200))));
    neighbours.hear(ms(2001), &advertises(11, SO, Some(mac(11)), HOP_LIMIT));
    assert_eq!(neighbours.ask(ms(2001), CLIENT, v4(200)), Ok(None), "an answer makes room");
    neighbours.ended(CLIENT);
    assert_eq!(neighbours.askers(), 1 << OTHER);
    assert_eq!(sent(&mut neighbours, ms(3001)).len(), 1, "the other's: nobody asks for one that has ended");
}

#[test]
fn share_of_each_of_any_number_of_environments_is_one_at_least_and_all_have_room() {
    for environments in 1..=64 {
        let share = share_of_open(environments);
        assert!(share >= 1 && share * environments <= OPEN_MAX, "{environments}");
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
