//! Servers for names that routers advertise (RFC 8106): how long, how many, and by whom.

use exos_net::Ipv6Config;
use exos_net::wire::ndisc::HOP_LIMIT;

use super::routers::ROUTER_MAC;
use super::*;
use exos_net::wire::ipv6::ALL_NODES;

/// For ever.
const FOREVER_S: u32 = u32::MAX;

fn server(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 53, 0, 0, 0, last)
}

/// An advertisement of a router at `from` that says nothing but whom to ask.
fn advertised_by(from: Ipv6Addr, servers: &[Ipv6Addr], lifetime_s: u32) -> Vec<u8> {
    let mut bytes = vec![134, 0, 0, 0, 64, 0, 0, 0];
    bytes.extend([0; 8]);
    bytes.extend([25, 1 + 2 * servers.len() as u8, 0, 0]);
    bytes.extend(lifetime_s.to_be_bytes());
    bytes.extend(servers.iter().flat_map(|server| server.octets()));
    let ip = Ipv6Header { hop_limit: HOP_LIMIT, ..header(from, ALL_NODES, NextHeader::Icmpv6) };
    let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame_from(ROUTER_MAC, &ip, &bytes)
}

fn advertised(servers: &[Ipv6Addr], lifetime_s: u32) -> Vec<u8> {
    advertised_by(link_local(ROUTER_MAC), servers, lifetime_s)
}

fn listening() -> StaticHost {
    StaticHost::with(with_ipv6(Ipv6Config { probes: 0, ..Ipv6Config::default() }))
}

fn known(host: &StaticHost) -> Vec<Ipv6Addr> {
    host.stack.ipv6_name_servers(host.now).collect()
}

#[test]
fn servers_are_known_for_their_time_or_until_a_router_takes_them_back() {
    let mut host = listening();
    host.input(&advertised(&[server(1), server(2)], 60)).assert_nothing();
    host.input(&advertised(&[server(3)], FOREVER_S)).assert_nothing();
    assert_eq!(known(&host), [server(1), server(2), server(3)]);
    host.wait_secs(30);
    // Said again: its time begins again, its place is what it was.
    host.input(&advertised(&[server(2)], 60)).assert_nothing();
    assert_eq!(known(&host), [server(1), server(2), server(3)]);
    host.wait_secs(30);
    assert_eq!(known(&host), [server(2), server(3)]);
    // Of no time: not any more (RFC 8106 5.1).
    host.input(&advertised(&[server(3), server(4)], 0)).assert_nothing();
    assert_eq!(known(&host), [server(2)]);
    host.wait_secs(29);
    assert_eq!(known(&host), [server(2)]);
    host.wait_secs(1);
    assert!(known(&host).is_empty());
}

#[test]
fn whoever_asks_for_names_is_told_of_each_change() {
    let mut host = listening();
    let mut changes = vec![host.stack.ipv6_changes()];
    host.input(&advertised(&[server(1)], 60)).assert_nothing();
    changes.push(host.stack.ipv6_changes());
    host.input(&advertised(&[server(1)], 50)).assert_nothing();
    assert_eq!(host.stack.ipv6_changes(), changes[1], "the same server");
    host.input(&advertised(&[server(3)], 0)).assert_nothing();
    assert_eq!(host.stack.ipv6_changes(), changes[1], "one that nobody knew, and of no time");
    host.input(&advertised(&[server(2)], 70)).assert_nothing();
    changes.push(host.stack.ipv6_changes());
    host.input(&advertised(&[server(2)], 0)).assert_nothing();
    changes.push(host.stack.ipv6_changes());
    // Routers are asked for meanwhile.
    host.wait_secs(40);
    changes.push(host.stack.ipv6_changes());
    // The stack itself comes round when a time is over.
    host.wait_secs(10);
    changes.push(host.stack.ipv6_changes());
    let told = changes.len();
    changes.dedup();
    assert_eq!(changes.len(), told, "{changes:?}");
}

#[test]
fn servers_of_several_routers_are_known_and_either_can_take_one_back() {
    let mut host = listening();
    let other = link_local(MacAddress([2, 0, 0, 0, 0, 0xfd]));
    host.input(&advertised(&[server(1)], 600)).assert_nothing();
    host.input(&advertised_by(other, &[server(2), server(1)], 60)).assert_nothing();
    assert_eq!(known(&host), [server(1), server(2)]);
    // The latest word counts (RFC 8106 6.2).
    host.wait_secs(60);
    assert!(known(&host).is_empty());
}

#[test]
fn servers_beyond_the_bound_are_ignored_until_there_is_room() {
    let mut host = listening();
    let many: Vec<_> = (1..40).map(server).collect();
    host.input(&advertised(&many, 600)).assert_nothing();
    assert_eq!(known(&host), [server(1), server(2), server(3)]);
    host.input(&advertised(&[server(9)], FOREVER_S)).assert_nothing();
    assert_eq!(known(&host), [server(1), server(2), server(3)]);
    host.input(&advertised(&[server(1)], 0)).assert_nothing();
    host.input(&advertised(&[server(9)], FOREVER_S)).assert_nothing();
    assert_eq!(known(&host), [server(2), server(3), server(9)]);
}

#[test]
fn servers_may_be_link_local_and_not_what_no_host_can_have() {
    let mut host = listening();
    let link_local = link_local(ROUTER_MAC);
    let others = ["::", "::1", "ff02::1", "::ffff:10.0.0.1"].map(|ip| ip.parse().unwrap());
    host.input(&advertised(&others, 600)).assert_nothing();
    assert!(known(&host).is_empty());
    host.input(&advertised(&[link_local], 600)).assert_nothing();
    assert_eq!(known(&host), [link_local]);
}

#[test]
fn servers_that_no_router_of_this_link_can_advertise_or_that_are_not_wanted_are_ignored() {
    let mut host = listening();
    host.input(&advertised_by(THEIRS, &[server(1)], 600)).assert_nothing();
    let mut from_afar = advertised(&[server(1)], 600);
    from_afar[14 + 7] = 254;
    host.input(&from_afar).assert_nothing();
    assert!(known(&host).is_empty());
    let mut host = settled();
    host.input(&advertised(&[server(1)], 600)).assert_nothing();
    assert_eq!((known(&host).len(), host.stack.counters().dropped_unsupported), (0, 1));
}
