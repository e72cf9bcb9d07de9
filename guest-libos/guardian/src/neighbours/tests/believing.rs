//! What is said on the link, and what is made of it.

use super::*;

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
    // Not for us: by its Ethernet address, and by its IPv6 address.
    assert!(!neighbours.hear(ms(2005), &flipped(5)).changed);
    let (target, target_mac) = (link_local(v6(9)), Some(mac(66)));
    let (router, solicited, overrides) = (false, true, true);
    let message = Message::Advertisement { target, router, solicited, overrides, target_mac };
    let for_another = ndisc((target, mac(9)), (link_local(v6(8)), OWN.mac), HOP_LIMIT, message);
    assert!(!neighbours.hear(ms(2005), &for_another).changed);
    // From a group, where nobody could be answered.
    let message = Message::Solicitation { target: OWN.link_local(), source_mac: None, nonce: None };
    let group = ndisc((link_local(v6(7)), mac(7)), (OWN.link_local(), OWN.mac), HOP_LIMIT, message);
    let mut from_group = group.clone();
    from_group[6] |= 1;
    assert!(neighbours.hear(ms(2005), &group).reply.is_some());
    assert!(neighbours.hear(ms(2005), &from_group).reply.is_none());
    assert_eq!(neighbours.counters().malformed, 2);
    assert!(neighbours.hear(ms(2006), &good).changed, "nothing else was wrong with it");
    assert_eq!(neighbours.iter().count(), 1);
}

#[test]
fn neighbour_that_asks_from_another_place_has_moved_and_is_in_doubt() {
    let mut neighbours = settled();
    neighbours.hear(ms(2000), &solicits_us(9, Some(mac(9))));
    neighbours.hear(ms(2001), &advertises(9, S, None, HOP_LIMIT));
    assert_eq!(find(&neighbours, v6(9)).map(|found| found.reachability), Some(Reachability::Reachable));
    assert!(neighbours.hear(ms(2002), &solicits_us(9, Some(mac(66)))).changed);
    let expected = Neighbour { ip: v6(9), mac: mac(66), router: false, reachability: Reachability::Stale };
    assert_eq!(find(&neighbours, v6(9)), Some(expected));
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
