//! The page from both sides.

use super::*;
use crate::neighbours::{AddressState, Counters, Interface, Neighbour, Reachability};
use crate::request::Port;
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering;
use exos_net::MacAddress;
use std::vec;

fn page() -> Page {
    [const { AtomicU64::new(0) }; WORDS]
}

const INTERFACE: Interface = Interface {
    mac: MacAddress([2, 0, 0, 0, 0, 1]),
    ip: Ipv4Addr::new(10, 0, 0, 2),
    prefix_len: 24,
    gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
};

const QUIET: Link = Link {
    ipv6: AddressState::Tentative,
    counters: Counters { malformed: 0, hop_limit: 0, checksum: 0, unsupported: 0, conflicts: 0 },
};

fn neighbour(last: u8) -> Neighbour {
    Neighbour {
        ip: IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)),
        mac: MacAddress([2, 0, 0, 0, 1, last]),
        router: false,
        reachability: Reachability::Stale,
    }
}

fn neighbour6(last: u8) -> Neighbour {
    let ip = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into()));
    Neighbour { ip, router: true, reachability: Reachability::Reachable, ..neighbour(last) }
}

#[test]
fn what_is_written_is_read() {
    let page = page();
    let writer = Writer::new(&page, INTERFACE);
    let reader = Reader::open(&page).expect("a page of ours");
    assert!(reader.snapshot().expect("quiet").ports.is_empty());
    let counters = Counters { malformed: 1, hop_limit: 2, checksum: 3, unsupported: 4, conflicts: 5 };
    let link = Link { ipv6: AddressState::Preferred, counters };
    let (ports, neighbours) =
        (vec![(Port::tcp(80), 1), (Port::udp(53), 63)], vec![neighbour(1), neighbour(9), neighbour6(1)]);
    writer.publish(ports.iter().copied(), neighbours.iter().copied(), link);
    let snapshot = reader.snapshot().expect("quiet");
    assert_eq!((snapshot.ports.clone(), snapshot.neighbours.clone()), (ports, neighbours));
    assert_eq!((snapshot.ip, snapshot.prefix_len, snapshot.mac), (INTERFACE.ip, 24, INTERFACE.mac));
    assert_eq!((snapshot.ipv6, snapshot.ipv6_state), (INTERFACE.link_local(), AddressState::Preferred));
    assert_eq!(snapshot.counters, counters);
    assert_eq!(snapshot.next_hop(Ipv4Addr::new(10, 0, 0, 77)), Some(Ipv4Addr::new(10, 0, 0, 77).into()));
    assert_eq!(snapshot.next_hop(Ipv4Addr::new(192, 0, 2, 1)), INTERFACE.gateway.map(IpAddr::V4));
    assert_eq!(snapshot.next_hop_mac(Ipv4Addr::new(192, 0, 2, 1)), Some(neighbour(1).mac));
    assert_eq!(snapshot.next_hop_mac(Ipv4Addr::new(10, 0, 0, 77)), None);
    writer.publish([].into_iter(), [].into_iter(), QUIET);
    assert!(reader.snapshot().expect("quiet").neighbours.is_empty());
}

#[test]
fn without_a_gateway_only_the_link_is_reached() {
    let page = page();
    Writer::new(&page, Interface { gateway: None, ..INTERFACE });
    let snapshot = Reader::open(&page).expect("ours").snapshot().expect("quiet");
    assert_eq!(snapshot.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None);
}

#[test]
fn link_local_addresses_have_a_route_when_ours_is_ours() {
    let page = page();
    let writer = Writer::new(&page, INTERFACE);
    let reader = Reader::open(&page).expect("ours");
    let there = neighbour6(7).ip;
    for (ipv6, hop) in [
        (AddressState::Tentative, None),
        (AddressState::Preferred, Some(there)),
        (AddressState::Duplicate, None),
    ] {
        writer.publish([].into_iter(), [neighbour6(7)].into_iter(), Link { ipv6, ..QUIET });
        let snapshot = reader.snapshot().expect("quiet");
        assert_eq!(snapshot.next_hop(there), hop);
        assert_eq!(snapshot.next_hop_mac(there), hop.map(|_| neighbour6(7).mac));
        let elsewhere = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(snapshot.next_hop(elsewhere), None, "routers are not listened to yet");
        assert_eq!(
            snapshot.next_hop(Ipv6Addr::new(0xfe80, 0, 0, 1, 0, 0, 0, 1)),
            None,
            "not the link's prefix"
        );
    }
}

#[test]
fn the_longest_prefix_leads_and_families_do_not_mix() {
    let route = |prefix: &str, prefix_len, gateway: Option<&str>| Route {
        prefix: prefix.parse().expect("an address"),
        prefix_len,
        gateway: gateway.map(|gateway| gateway.parse().expect("an address")),
    };
    let page = page();
    Writer::new(&page, INTERFACE);
    let mut snapshot = Reader::open(&page).expect("ours").snapshot().expect("quiet");
    snapshot.routes = vec![
        route("0.0.0.0", 0, Some("10.0.0.1")),
        route("10.1.0.0", 16, Some("10.0.0.2")),
        route("10.1.2.0", 24, None),
        route("::", 0, Some("fe80::1")),
        route("2001:db8::", 200, None),
    ];
    let hop = |to: &str| {
        snapshot.next_hop(to.parse::<IpAddr>().expect("an address")).map(|hop| std::format!("{hop}"))
    };
    assert_eq!(hop("192.0.2.1").as_deref(), Some("10.0.0.1"));
    assert_eq!(hop("10.1.9.9").as_deref(), Some("10.0.0.2"));
    assert_eq!(hop("10.1.2.9").as_deref(), Some("10.1.2.9"));
    assert_eq!(
        hop("2001:db8::9").as_deref(),
        Some("fe80::1"),
        "a length that no prefix has is that of an address"
    );
    snapshot.routes.remove(0);
    assert_eq!(snapshot.next_hop(Ipv4Addr::new(192, 0, 2, 1)), None, "IPv6's default route is not IPv4's");
}

#[test]
fn other_layout_and_other_page_are_refused_with_what_was_found() {
    let page = page();
    assert_eq!(Reader::open(&page).expect_err("empty"), OpenError::NotTables);
    Writer::new(&page, INTERFACE);
    for found in [LAYOUT - 1, LAYOUT + 1] {
        page[AT_LAYOUT].store(found, Ordering::Relaxed);
        let error = Reader::open(&page).expect_err("of another version");
        assert_eq!(error, OpenError::OtherLayout { found });
        assert!(
            std::format!("{error}").contains(&std::format!("layout {found} and this program reads layout 2"))
        );
    }
}

#[test]
fn what_is_being_written_is_not_read() {
    let page = page();
    Writer::new(&page, INTERFACE);
    let reader = Reader::open(&page).expect("ours");
    page[AT_SEQUENCE].fetch_add(1, Ordering::Relaxed);
    assert_eq!(reader.snapshot(), Err(Changing));
    page[AT_SEQUENCE].fetch_add(1, Ordering::Relaxed);
    assert!(reader.snapshot().is_ok());
}

/// A writer that never rests: whatever a reader gets is one of the states, and not a mixture.
#[test]
fn reader_beside_a_writer_sees_whole_states_only() {
    let page = page();
    let writer = Writer::new(&page, INTERFACE);
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut mixed = None;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0u32.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let count = round as usize % PORTS_MAX;
                writer.publish((0..count).map(|_| (Port::tcp(round as u16), round)), [].into_iter(), QUIET);
                std::thread::yield_now();
            }
        });
        let reader = Reader::open(&page).expect("ours");
        let mut whole = 0;
        while whole < 2000 && mixed.is_none() {
            let Ok(snapshot) = reader.snapshot() else { continue };
            let round = snapshot.ports.first().map_or(0, |(_, round)| *round);
            let of_one = |(port, other): &(Port, u32)| *other == round && port.number == round as u16;
            let all = snapshot.ports.iter().all(of_one) && snapshot.ports.len() == round as usize % PORTS_MAX;
            mixed = (!all).then_some(snapshot.ports);
            whole += 1;
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(mixed, None);
}

proptest::proptest! {
    /// The page is another environment's: whatever it holds, reading it is harmless.
    #[test]
    fn any_page_is_read_without_harm(words in proptest::collection::vec(proptest::num::u64::ANY, WORDS)) {
        let page = page();
        for (slot, word) in page.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        page[AT_MAGIC].store(MAGIC, Ordering::Relaxed);
        page[AT_LAYOUT].store(LAYOUT, Ordering::Relaxed);
        if let Ok(snapshot) = Reader::open(&page).expect("says it is ours").snapshot() {
            proptest::prop_assert!(snapshot.ports.len() <= PORTS_MAX);
            snapshot.next_hop_mac(Ipv4Addr::new(192, 0, 2, 1));
        }
    }
}
