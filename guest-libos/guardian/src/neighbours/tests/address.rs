//! The guardian's own IPv6 address: finding out whether it is somebody else's, and answering for it.

use super::*;

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
    assert_eq!(neighbours.ask(ms(303), CLIENT, v6(9)), Ok(None));
    assert!(sent(&mut neighbours, ms(1299)).is_empty(), "there is no address yet to ask from");
    assert_eq!(neighbours.address(), (OWN.link_local(), AddressState::Tentative));
    assert!(neighbours.tick(ms(1300), |_| {}), "something to be shown");
    assert_eq!(neighbours.address().1, AddressState::Preferred);
    assert_eq!(sent(&mut neighbours, ms(1400)).len(), 1, "now there is");
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
