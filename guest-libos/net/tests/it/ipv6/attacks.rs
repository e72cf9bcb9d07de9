//! Attacks from the link and from beyond it on what IPv6 hosts believe (RFC 3756, RFC 6583, RFC 5927): floods are bounded, lies about
//! strangers are not kept, and whoever is connected stays so.

use exos_net::wire::ndisc::HOP_LIMIT;
use exos_net::{AckPolicy, AddressState, Config, InterfaceId};

use super::routers::{Advert, advert};
use super::*;
use crate::harness::pattern;
use crate::ipv6::errors::error_about;
use crate::ipv6::traffic::Client6;

/// The `number`th of ever new hosts.
fn stranger(number: u16) -> (MacAddress, Ipv6Addr) {
    let [high, low] = number.to_be_bytes();
    let mac = MacAddress([2, 0, 0, 1, high, low]);
    (mac, link_local(mac))
}

/// A host of given bounds that listens to routers and has a connection over IPv6.
fn connected() -> (StaticHost, Client6, exos_net::ConnId) {
    let ipv6 = Ipv6Config { addresses: vec![(OURS, 64)], probes: 0, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { max_neighbours: 16, ..with_ipv6(ipv6) });
    let mut client = Client6::on_port(40_000);
    let conn = client.connect(&mut host);
    host.nic.frames.clear();
    (host, client, conn)
}

fn assert_served(host: &mut StaticHost, client: &Client6, conn: exos_net::ConnId) {
    assert!(host.input(&client.frame("A", 1, 1, b"GET")).events().data == b"GET");
    host.stack.send(conn, pattern(100)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let sent = read(&host.nic.frames.pop_back().unwrap());
    assert_eq!((sent.ip.source, sent.ip.destination, sent.to_mac), (OURS, THEIRS, CLIENT_MAC));
}

#[test]
fn flood_of_routers_and_prefixes_takes_the_places_there_are_and_no_more() {
    let (mut host, client, conn) = connected();
    for number in 1..5_000u16 {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0x77, number, 0, 0, 0, 0);
        let (_, source) = stranger(number);
        host.input(&Advert { prefix, source, ..advert() }.frame()).assert_nothing();
        host.stack.check();
    }
    let bounds = Ipv6Config::default();
    assert_eq!(states(&host).len(), usize::from(bounds.max_addresses));
    assert_eq!(host.stack.counters().router_advertisements, 4_999);
    assert!(states(&host).contains(&(OURS, AddressState::Preferred)));
    assert_served(&mut host, &client, conn);
    // All of it ends with the time that it was said to last.
    host.wait_secs(86_401);
    assert_eq!(states(&host).len(), 2);
}

#[test]
fn flood_of_neighbours_is_answered_and_remembers_no_more_than_it_may() {
    let (mut host, client, conn) = connected();
    for number in 1..5_000u16 {
        let (mac, source) = stranger(number);
        let message = Message::Solicitation { target: OURS, source_mac: Some(mac), nonce: None };
        let reply = read(&host.input(&nd_frame(source, solicited_node(OURS), HOP_LIMIT, &message)).reply());
        assert_eq!(reply.ip.destination, source);
        host.stack.check();
    }
    assert_served(&mut host, &client, conn);
}

#[test]
fn answers_about_strangers_or_from_beyond_the_link_are_not_believed() {
    let mut host = settled();
    let conn = host.stack.connect(host.now, (THEIRS, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    for number in 1..1_000u16 {
        let (mac, ip) = stranger(number);
        host.input(&advertisement(ip, mac, OURS)).assert_nothing();
        host.stack.check();
    }
    let evil = MacAddress([2, 0, 0, 0, 0, 0x66]);
    let answer = Message::Advertisement {
        target: THEIRS,
        router: false,
        solicited: true,
        overrides: true,
        target_mac: Some(evil),
    };
    for hop_limit in [0, 1, 64, 254] {
        host.input(&nd_frame(THEIRS, OURS, hop_limit, &answer)).assert_nothing();
    }
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert!(host.nic.frames.is_empty(), "nobody has told where it is");
    assert_eq!(host.stack.counters().dropped_off_link, 4);
    host.input(&advertisement(THEIRS, CLIENT_MAC, OURS)).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).to_mac, CLIENT_MAC);
}

/// RFC 3756 4.1.3: somebody claims each address that we ask about. What is in use already, and IPv4, are as they were.
#[test]
fn whoever_claims_every_address_keeps_us_from_new_ones_and_from_nothing_else() {
    for interface_id in [InterfaceId::FromMac, InterfaceId::Stable([3; 16])] {
        let mut host = StaticHost::with(with_ipv6(Ipv6Config { interface_id, ..Ipv6Config::default() }));
        let mut claimed = 0;
        for second in 0..120u16 {
            if second % 10 == 0 {
                let prefix = Ipv6Addr::new(0x2001, 0xdb8, 0x77, second, 0, 0, 0, 0);
                let _ = host.input(&Advert { prefix, ..advert() }.frame());
            }
            for _ in 0..100 {
                host.wait_ms(10);
                for (sent, message) in said(&mut host) {
                    let Message::Solicitation { target, .. } = message else { continue };
                    if sent.ip.source.is_unspecified() {
                        claimed += 1;
                        let claim = Message::Advertisement {
                            target,
                            router: false,
                            solicited: false,
                            overrides: true,
                            target_mac: Some(CLIENT_MAC),
                        };
                        let to = exos_net::wire::ipv6::ALL_NODES;
                        let _ = host.input(&nd_frame(target, to, HOP_LIMIT, &claim));
                    }
                }
            }
            host.stack.check();
        }
        assert!(claimed > 0 && claimed < 100, "{claimed} questions in two minutes");
        assert_eq!(host.stack.counters().duplicate_addresses, claimed, "{interface_id:?}");
        let usable = states(&host).into_iter().filter(|(_, state)| *state == AddressState::Preferred).count();
        assert_eq!(usable, 0, "{interface_id:?}: {:?}", states(&host));
        crate::harness::Client::default().connect(&mut host);
    }
}

#[test]
fn path_mtus_of_connections_that_are_none_are_not_remembered() {
    let (mut host, mut client, conn) = connected();
    host.stack.send(conn, pattern(2_880)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let first = host.nic.frames.pop_front().unwrap();
    for number in 0..2_000u16 {
        let mut forged = first.clone();
        // Another host, another port, or another number.
        let at = [52, 54, 58][usize::from(number % 3)];
        forged[at..at + 2].copy_from_slice(&(number | 0x4000).to_be_bytes());
        for mtu in [1_300, 1_280, 1_279, 68, 0] {
            host.input(&error_about(&forged, 2, 0, mtu, FAR)).assert_nothing();
        }
        host.stack.check();
    }
    assert_eq!(host.stack.counters().path_mtu_reduced, 0);
    assert_eq!(host.stack.max_datagram_bytes(host.now, THEIRS), 1_500 - 48);
    client.port += 1;
    let other = client.connect(&mut host);
    host.nic.frames.clear();
    host.stack.send(other, pattern(2_880)).unwrap();
    host.output(other, AckPolicy::IfDue);
    assert_eq!(read(&host.nic.frames.pop_front().unwrap()).payload.len(), 1_460);
}

/// RFC 5722, RFC 6946, RFC 7112: a flood of each keeps within the bounds, and an honest datagram among them arrives.
#[test]
fn floods_of_hostile_fragments_leave_room_for_honest_ones() {
    use super::fragments::{bound, datagram, part};
    let mut host = bound();
    let whole = datagram(2_000);
    for number in 1..3_000u32 {
        let _ = host.input(&part(17, number, 0, true, &[7; 64]));
        // Overlapping, atomic, and with a chain of headers that goes on elsewhere.
        let _ = host.input(&part(17, number, 32, true, &[8; 64]));
        let _ = host.input(&part(17, number, 0, false, &[9; 8]));
        let _ = host.input(&part(60, number + 10_000, 0, true, &[17, 1, 1, 4, 0, 0, 0, 0]));
        host.stack.check();
    }
    host.input(&part(17, 77_777, 0, true, &whole[..1_440])).assert_nothing();
    assert_eq!(
        host.input(&part(17, 77_777, 1_440, false, &whole[1_440..])).datagram().payload,
        pattern(2_000)
    );
    assert_eq!(host.stack.counters().datagrams_in, 1);
}
