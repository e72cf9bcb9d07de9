//! Groups: who has an IPv6 address is in the group of those that are asked for it, says so by itself, and says so again when a router
//! wants to know (RFC 9777).

use super::errors::frame;
use super::once;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum};
use std::net::Ipv6Addr;

const GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 2);
const QUERIER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ICMPV6: u8 = 58;

/// A question for all groups, to be answered within 10 ms (RFC 9777 5.1).
fn query(guest: &Guest) -> Vec<u8> {
    let mut message = vec![130, 0, 0, 0, 0, 10, 0, 0];
    message.extend(Ipv6Addr::UNSPECIFIED.octets());
    message.extend([2, 125, 0, 0]);
    let addresses = [QUERIER.octets(), ALL_NODES.octets()].concat();
    let length = message.len() as u8;
    let checksum = internet_checksum(&[&addresses[..], &[0, length, 0, ICMPV6], &message].concat(), 0);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    // Hop limit 1, and the router alert option of RFC 2711 in a hop-by-hop header.
    let mut packet = vec![0x60, 0, 0, 0, 0, 8 + length, 0, 1];
    packet.extend(addresses);
    packet.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    packet.extend(message);
    let mut frame = frame(guest, 0x86dd, &packet);
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame
}

#[test]
fn questions_about_groups_and_what_is_said_of_them_are_counted() {
    in_namespace!(|| {
        let site = Site::new().file("a", "a");
        let guest = Guest::image("cheetah").site(&site).ipv6(GIVEN).start();
        let wire = Wire::open(guest.network().interface()).unwrap();
        let ip = |name: &str, at_least: u64| {
            let statistics = once(&guest, name, |seen| seen.value("ip", name) >= Some(at_least));
            statistics.value("ip", name).unwrap()
        };
        // A few are said for each of two addresses while it is made sure that nobody has it; the others because they were asked for.
        let mut said = ip("group_reports", 1);
        for asked in 1..=15 {
            wire.send(&query(&guest)).unwrap();
            assert_eq!(ip("group_queries", asked), asked);
            said = ip("group_reports", said + 1);
        }
        guest.stop();
    });
}
