//! What routers advertise (RFC 4861 6.3, RFC 4862 5.5), and who does not get to be one.

use exos_net::wire::ndisc::HOP_LIMIT;
use exos_net::wire::router::SOLICITATION_BYTES;
use exos_net::{AckPolicy, AddressState, Config, Ipv6Config};

use super::*;
use crate::harness::{Client, pattern};
use crate::ipv6::errors::error_about;
use crate::ipv6::traffic::Client6;
use crate::retransmission::fragmentation_needed;
use exos_net::wire::ipv6::{ALL_NODES, ALL_ROUTERS, multicast_mac};

pub(super) const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xfe]);
pub(super) const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 7, 0, 0, 0, 0);

/// What an advertisement says.
#[derive(Clone, Copy)]
pub(super) struct Advert {
    pub(super) router_s: u16,
    pub(super) prefix: Ipv6Addr,
    pub(super) prefix_len: u8,
    /// On-link and autonomous.
    pub(super) flags: u8,
    pub(super) valid_s: u32,
    pub(super) preferred_s: u32,
    pub(super) mtu: u32,
    pub(super) source: Ipv6Addr,
    pub(super) hop_limit: u8,
}

pub(super) fn advert() -> Advert {
    Advert {
        router_s: 1_800,
        prefix: PREFIX,
        prefix_len: 64,
        flags: 0xc0,
        valid_s: 86_400,
        preferred_s: 14_400,
        mtu: 1_400,
        source: link_local(ROUTER_MAC),
        hop_limit: HOP_LIMIT,
    }
}

impl Advert {
    pub(super) fn frame(self) -> Vec<u8> {
        let mut bytes = vec![134, 0, 0, 0, 64, 0];
        bytes.extend(self.router_s.to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend([1, 1]);
        bytes.extend(ROUTER_MAC.0);
        bytes.extend([5, 1, 0, 0]);
        bytes.extend(self.mtu.to_be_bytes());
        bytes.extend([3, 4, self.prefix_len, self.flags]);
        bytes.extend(self.valid_s.to_be_bytes());
        bytes.extend(self.preferred_s.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.prefix.octets());
        let ip =
            Ipv6Header { hop_limit: self.hop_limit, ..header(self.source, ALL_NODES, NextHeader::Icmpv6) };
        let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        frame_from(ROUTER_MAC, &ip, &bytes)
    }
}

/// Our address in the advertised prefix.
pub(super) fn made() -> Ipv6Addr {
    Ipv6Addr::from_bits(PREFIX.to_bits() | own_link_local().to_bits() & u128::from(u64::MAX))
}

fn listening() -> StaticHost {
    StaticHost::with(with_ipv6(Ipv6Config { probes: 0, ..Ipv6Config::default() }))
}

pub(super) fn state_of(host: &StaticHost, ip: Ipv6Addr) -> Option<AddressState> {
    states(host).into_iter().find(|(address, _)| *address == ip).map(|(_, state)| state)
}

#[test]
fn routers_are_asked_for_three_times_or_until_one_answers() {
    let mut host = listening();
    host.wait_secs(30);
    assert_eq!(host.nic.frames.len(), 3);
    for frame in host.nic.frames.drain(..) {
        let sent = read(&frame);
        assert_eq!((sent.ip.source, sent.ip.destination), (own_link_local(), ALL_ROUTERS));
        assert_eq!((sent.ip.hop_limit, sent.to_mac), (HOP_LIMIT, multicast_mac(ALL_ROUTERS)));
        assert_eq!((sent.payload[0], sent.payload.len()), (133, SOLICITATION_BYTES));
    }
    let mut host = listening();
    host.wait_ms(5);
    host.input(&advert().frame()).assert_nothing();
    host.wait_secs(30);
    assert_eq!(host.nic.frames.len(), 1);
}

#[test]
fn advertised_prefix_gives_an_address_that_is_asked_about_first() {
    let mut host = StaticHost::with(with_ipv6(Ipv6Config::default()));
    host.wait_secs(3);
    host.input(&advert().frame()).assert_nothing();
    assert_eq!(state_of(&host, made()), Some(AddressState::Tentative));
    host.wait_secs(2);
    assert_eq!(state_of(&host, made()), Some(AddressState::Preferred));
    assert_eq!(host.stack.ipv6_source_for(FAR, host.now), Some(made()));
    // Within the link the link's address is enough.
    assert_eq!(host.stack.ipv6_source_for(link_local(CLIENT_MAC), host.now), Some(own_link_local()));
    assert_eq!(host.stack.counters().router_advertisements, 1);
}

#[test]
fn peer_beyond_the_link_is_reached_through_the_router() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    let conn = host.stack.connect(host.now, (FAR, 80)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let syn = read(&host.nic.frames.pop_back().unwrap());
    assert_eq!((syn.ip.source, syn.ip.destination, syn.to_mac), (made(), FAR, ROUTER_MAC));
}

#[test]
fn router_that_answers_as_a_host_is_none() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    host.input(&advertisement(link_local(ROUTER_MAC), ROUTER_MAC, own_link_local())).assert_nothing();
    assert!(host.stack.connect(host.now, (FAR, 80)).is_err());
}

#[test]
fn router_that_says_it_is_none_is_none() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    assert!(host.stack.connect(host.now, (FAR, 80)).is_ok());
    host.input(&Advert { router_s: 0, ..advert() }.frame()).assert_nothing();
    assert!(host.stack.connect(host.now, (FAR, 80)).is_err());
    host.input(&advert().frame()).assert_nothing();
    host.wait_secs(1_799);
    assert!(host.stack.connect(host.now, (FAR, 80)).is_ok());
    host.wait_secs(1);
    assert!(host.stack.connect(host.now, (FAR, 80)).is_err());
}

#[test]
fn advertisements_that_no_router_of_this_link_can_send_are_dropped() {
    let mut host = listening();
    host.input(&Advert { hop_limit: 254, ..advert() }.frame()).assert_nothing();
    host.input(&Advert { source: THEIRS, ..advert() }.frame()).assert_nothing();
    assert_eq!(states(&host).len(), 1);
    let counters = host.stack.counters();
    assert_eq!((counters.dropped_off_link, counters.dropped_malformed), (1, 1));
    assert_eq!(counters.router_advertisements, 0);
    assert!(host.stack.connect(host.now, (FAR, 80)).is_err());
}

#[test]
fn advertisements_are_ignored_where_they_are_not_wanted() {
    let mut host = settled();
    host.input(&advert().frame()).assert_nothing();
    assert_eq!((states(&host).len(), host.stack.counters().dropped_unsupported), (2, 1));
}

#[test]
fn prefixes_that_make_no_address_are_ignored() {
    let mut host = listening();
    for advert in [
        Advert { prefix_len: 63, ..advert() },
        Advert { prefix_len: 65, ..advert() },
        Advert { flags: 0x80, ..advert() },
        Advert { preferred_s: 86_401, ..advert() },
        Advert { valid_s: 0, preferred_s: 0, ..advert() },
        Advert { prefix: "fe80::".parse().unwrap(), ..advert() },
        Advert { prefix: "ff02::".parse().unwrap(), ..advert() },
    ] {
        host.input(&advert.frame()).assert_nothing();
        assert_eq!(states(&host).len(), 1);
    }
}

#[test]
fn address_is_deprecated_and_then_gone() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    host.wait_secs(14_401);
    assert_eq!(state_of(&host, made()), Some(AddressState::Deprecated));
    // Better than none.
    assert_eq!(host.stack.ipv6_source_for(THEIRS, host.now), Some(made()));
    host.wait_secs(86_400 - 14_401);
    assert_eq!(state_of(&host, made()), None);
}

#[test]
fn deprecated_address_gives_way_to_a_preferred_one() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    let other = Advert { prefix: "2001:db8:0:8::".parse().unwrap(), ..advert() };
    host.wait_secs(14_000);
    host.input(&other.frame()).assert_nothing();
    host.wait_secs(500);
    let source = host.stack.ipv6_source_for(made(), host.now).unwrap();
    assert_eq!(source, made(), "to itself");
    let near = Ipv6Addr::from_bits(PREFIX.to_bits() | 9);
    assert_eq!(host.stack.ipv6_source_for(near, host.now).unwrap().segments()[3], 8);
}

#[test]
fn nobody_shortens_what_is_left_below_two_hours() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    // Who wants our address gone at once gets two hours.
    let short = Advert { valid_s: 1, preferred_s: 1, ..advert() };
    host.input(&short.frame()).assert_nothing();
    host.wait_secs(7_199);
    assert_eq!(state_of(&host, made()), Some(AddressState::Deprecated));
    host.input(&short.frame()).assert_nothing();
    host.wait_secs(1);
    assert_eq!(state_of(&host, made()), None);
    // Longer is believed.
    host.input(&advert().frame()).assert_nothing();
    host.input(&Advert { valid_s: 10_000, preferred_s: 10_000, ..advert() }.frame()).assert_nothing();
    host.wait_secs(9_999);
    assert!(state_of(&host, made()).is_some());
    host.wait_secs(1);
    assert_eq!(state_of(&host, made()), None);
}

#[test]
fn prefixes_and_routers_beyond_the_bounds_are_ignored() {
    let mut host = listening();
    for number in 0..50u16 {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 9, number, 0, 0, 0, 0);
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number);
        host.input(&Advert { prefix, source, ..advert() }.frame()).assert_nothing();
    }
    assert_eq!(states(&host).len(), 8);
    // The first four are routers: when they are gone, so are all.
    for number in 0..4u16 {
        assert!(host.stack.connect(host.now, (FAR, 80)).is_ok(), "{number}");
        let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, number);
        host.input(&Advert { router_s: 0, source, ..advert() }.frame()).assert_nothing();
    }
    assert!(host.stack.connect(host.now, (FAR, 80)).is_err());
}

/// Whoever advertises on this link cannot take the places of addresses that were given.
#[test]
fn twenty_prefixes_leave_the_given_and_the_link_local_address_alone_and_are_counted() {
    let addresses: Vec<_> =
        (1..=3u16).map(|last| (Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last), 64)).collect();
    let given: Vec<_> = addresses.iter().map(|&(ip, _)| ip).collect();
    let mut host = StaticHost::with(with_ipv6(Ipv6Config { addresses, ..Ipv6Config::default() }));
    // Before the first question about ours has left.
    for number in 0..20u16 {
        let prefix = Ipv6Addr::new(0x2001, 0xdb8, 9, number, 0, 0, 0, 0);
        host.input(&Advert { prefix, ..advert() }.frame()).assert_nothing();
    }
    host.wait_secs(5);
    let used: Vec<_> = states(&host).iter().map(|&(ip, _)| ip).collect();
    assert_eq!(used[..4], [&[own_link_local()], &given[..]].concat());
    assert_eq!((used.len(), host.stack.counters().prefixes_refused), (8, 16));
    assert!(states(&host).iter().all(|&(_, state)| state == AddressState::Preferred));
    // One that has its address is not refused when it is advertised again, and neither is one without a lifetime.
    let known = Ipv6Addr::new(0x2001, 0xdb8, 9, 3, 0, 0, 0, 0);
    host.input(&Advert { prefix: known, ..advert() }.frame()).assert_nothing();
    host.input(&Advert { valid_s: 0, preferred_s: 0, ..advert() }.frame()).assert_nothing();
    assert_eq!(host.stack.counters().prefixes_refused, 16);
}

#[test]
fn links_mtu_that_a_router_says_bounds_segments_unless_it_is_impossible() {
    let max = |mtu| {
        let mut host = listening();
        host.input(&Advert { mtu, ..advert() }.frame()).assert_nothing();
        host.stack.max_datagram_bytes(host.now, FAR)
    };
    assert_eq!((max(1_400), max(1_280)), (1_400 - 48, 1_280 - 48));
    assert_eq!((max(1_279), max(1_501), max(0)), (1_500 - 48, 1_500 - 48, 1_500 - 48));
    let mut host = settled();
    let client = Client6 { ip: THEIRS, ..Client6::on_port(7) };
    assert!(matches!(host.input(&client.frame("S", 0, 0, b"")), Outcome::Reply(_)));
}

#[test]
fn redirect_is_ignored() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    let mut bytes = vec![137, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(link_local(CLIENT_MAC).octets());
    bytes.extend(FAR.octets());
    let ip = Ipv6Header {
        hop_limit: HOP_LIMIT,
        ..header(link_local(ROUTER_MAC), own_link_local(), NextHeader::Icmpv6)
    };
    let checksum = ip.pseudo_sum(bytes.len()).bytes(&bytes).checksum();
    bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
    let before = host.stack.counters().dropped_unsupported;
    host.input(&frame_from(ROUTER_MAC, &ip, &bytes)).assert_nothing();
    assert_eq!(host.stack.counters().dropped_unsupported, before + 1);
}

#[test]
fn packets_keep_to_what_a_router_says_of_the_link_or_the_link_itself_whichever_is_less() {
    let mut host = listening();
    let largest = |host: &StaticHost| host.stack.max_datagram_bytes(host.now, FAR) + 48;
    for mtu in [1_400, 1_500] {
        host.stack.set_mtu(host.now, mtu).unwrap();
        assert_eq!(largest(&host), usize::from(mtu));
    }
    host.input(&Advert { mtu: 1_450, ..advert() }.frame()).assert_nothing();
    assert_eq!(largest(&host), 1_450);
    for (mtu, expected) in
        [(1_480, 1_450), (1_300, 1_300), (1_500, 1_450), (1_450, 1_450), (1_500, 1_450), (1_300, 1_300)]
    {
        host.stack.set_mtu(host.now, mtu).unwrap();
        assert_eq!(largest(&host), expected);
    }
    // More than the link takes now counts when it takes more.
    host.input(&Advert { mtu: 1_301, ..advert() }.frame()).assert_nothing();
    assert_eq!(largest(&host), 1_300);
    host.stack.set_mtu(host.now, 1_500).unwrap();
    assert_eq!(largest(&host), 1_301);
    host.input(&Advert { mtu: 0x0001_0500, ..advert() }.frame()).assert_nothing();
    assert_eq!(largest(&host), 1_500);
}

#[test]
fn reports_of_groups_keep_to_what_a_router_says_of_the_link() {
    let ipv6 = Ipv6Config { probes: 0, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { group_reports: true, max_groups: 64, ..with_ipv6(ipv6) });
    host.wait_ms(3_000);
    host.input(&Advert { mtu: 1_280, ..advert() }.frame()).assert_nothing();
    for number in 0..64 {
        let group = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 9, number);
        host.stack.join_group(host.now, group.into()).unwrap();
    }
    host.nic.frames.clear();
    host.wait_ms(2_000);
    let largest = host.nic.frames.iter().map(|frame| frame.len() - 14).max();
    assert_eq!(largest, Some(48 + 8 + 61 * 20));
}

/// Or whoever says now this and now that would have all connections visited each time.
#[test]
fn open_connections_send_smaller_segments_at_once_and_larger_ones_when_nobody_took_it_back_for_a_second() {
    let mut host = listening();
    host.input(&advert().frame()).assert_nothing();
    let open = |host: &mut StaticHost, port| {
        let mut client = Client6 { mac: ROUTER_MAC, ours: made(), ..Client6::on_port(port) };
        let conn = client.connect(host);
        (client, conn, 1)
    };
    // The first segment of two that leave now, both of which arrive.
    let longest = |host: &mut StaticHost, (client, conn, at): &mut (Client6, exos_net::ConnId, u32)| {
        host.nic.frames.clear();
        host.stack.send(*conn, pattern(1_441)).unwrap();
        host.output(*conn, AckPolicy::Merge);
        *at += 1_441;
        host.input(&client.frame("A", 1, *at, b""));
        host.stack.check();
        client.see(&host.nic.frames[0]).3.len()
    };
    let mut old = open(&mut host, 7);
    for mtu in [1_280, 1_500, 1_280, 1_500] {
        host.input(&Advert { mtu, ..advert() }.frame()).assert_nothing();
        assert_eq!(longest(&mut host, &mut old), 1_220, "{mtu}");
    }
    let mut new = open(&mut host, 8);
    assert_eq!(longest(&mut host, &mut new), 1_220);
    host.wait_ms(999);
    assert_eq!([longest(&mut host, &mut old), longest(&mut host, &mut new)], [1_220, 1_220]);
    host.wait_ms(1);
    assert_eq!([longest(&mut host, &mut old), longest(&mut host, &mut new)], [1_440, 1_440]);
    host.input(&Advert { mtu: 1_300, ..advert() }.frame()).assert_nothing();
    assert_eq!([longest(&mut host, &mut old), longest(&mut host, &mut new)], [1_240, 1_240]);
}

/// Even where nothing is remembered of paths.
#[test]
fn advertisements_are_nothing_to_ipv4_and_make_no_segment_larger_where_the_path_takes_less() {
    let ipv6 = Ipv6Config { addresses: vec![(OURS, 64)], probes: 0, ..Ipv6Config::default() };
    let mut host = StaticHost::with(Config { max_path_mtus: 0, ..with_ipv6(ipv6) });
    let (mut over_v4, mut over_v6, mut wide) = (Client::on_port(7), Client6::on_port(8), Client::on_port(9));
    let conns = [over_v4.connect(&mut host), over_v6.connect(&mut host), wide.connect(&mut host)];
    for (conn, headers) in conns.into_iter().zip([40, 60, 40]) {
        host.nic.frames.clear();
        host.stack.send(conn, pattern(1_441)).unwrap();
        host.output(conn, AckPolicy::Merge);
        let first = host.nic.frames[0].clone();
        assert!(first.len() - 14 - headers >= 1_440);
        if conn == conns[0] {
            host.input(&fragmentation_needed(&over_v4, 800, 1)).events();
        } else if conn == conns[1] {
            host.input(&error_about(&first, 2, 0, 1_300, THEIRS)).events();
        }
    }
    let mut at = 1;
    let mut largest = |host: &mut StaticHost| {
        at += 1_441;
        host.input(&over_v4.ack(1, at));
        host.input(&over_v6.frame("A", 1, at, b""));
        host.input(&wide.ack(1, at));
        host.stack.check();
        conns.map(|conn| {
            host.nic.frames.clear();
            host.stack.send(conn, pattern(1_441)).unwrap();
            host.output(conn, AckPolicy::Merge);
            host.nic.frames.iter().map(|frame| frame.len() - 14).max().expect("something is sent")
        })
    };
    for mtu in [1_400, 1_301, 1_500] {
        host.input(&Advert { mtu, ..advert() }.frame()).assert_nothing();
        host.wait_ms(1_000);
        assert_eq!(largest(&mut host), [800, 1_300, 1_481], "{mtu}");
    }
    for mtu in [1_450, 1_500] {
        host.stack.set_mtu(host.now, mtu).unwrap();
        assert_eq!(largest(&mut host), [800, 1_300, mtu.min(1_481).into()], "a lease of {mtu}");
    }
    host.input(&Advert { mtu: 1_280, ..advert() }.frame()).assert_nothing();
    assert_eq!(largest(&mut host), [800, 1_280, 1_481]);
}
