//! Whose place goes to whom when all are taken, and any order of everything.

use super::*;

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
fn who_passes_by_is_not_learned_when_all_places_are_asked_for() {
    let mut neighbours = settled();
    for last in 0..NEIGHBOURS_MAX as u8 {
        assert_eq!(neighbours.ask(ms(2000), CLIENT, v6(last)), Ok(None));
        assert!(neighbours.hear(ms(2000), &advertises(last, SO, Some(mac(last)), HOP_LIMIT)).changed);
    }
    let heard = neighbours.hear(ms(2001), &solicits_us(200, Some(mac(200))));
    assert!(heard.reply.is_some() && !heard.changed);
    assert_eq!(neighbours.ask(ms(2002), OTHER, v6(201)), Ok(None));
    assert!(neighbours.hear(ms(2002), &advertises(201, SO, Some(mac(201)), HOP_LIMIT)).changed);
    assert_eq!(find(&neighbours, v6(0)), None, "who was asked for gives way to who is");
    assert_eq!(neighbours.iter().count(), NEIGHBOURS_MAX);
}

#[test]
fn flood_leaves_the_gateway_also_when_it_is_in_doubt() {
    let gateway = Some(Ipv4Addr::new(10, 0, 0, 1));
    let mut neighbours = new(Interface { gateway, ..OWN });
    neighbours.tick(ms(2000), |_| {});
    assert!(neighbours.hear(ms(2000), &arp(Operation::Reply, (v4(1), mac(1)), IpAddr::V4(OWN.ip))).changed);
    neighbours.tick(ms(32_000), |_| {});
    assert_eq!(find(&neighbours, v4(1)).map(|found| found.reachability), Some(Reachability::Stale));
    for last in 3..=254 {
        neighbours.hear(ms(32_001), &asks_us(last));
    }
    assert_eq!(find(&neighbours, v4(1)).map(|found| found.mac), Some(mac(1)));
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
