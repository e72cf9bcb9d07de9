//! Neighbor Discovery both ways (RFC 4861), and where frames over IPv6 go on the link.

use crate::common::*;
use core::net::Ipv6Addr;
use exos_forward::{
    Config, ConfigError, Forwarder, Mac, Meta, Network, REQUEST_BYTES, Reason, Verdict, Version,
};

const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xfe);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 9, 0, 0, 0, 9);
const ELSEWHERE: Mac = [2, 0, 0, 0, 0, 9];
const SERVER_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff56, 2);

fn ipv6_only() -> Config {
    Config { ipv4: None, ..config() }
}

fn bench() -> Bench {
    Bench::over(IPV6, &ipv6_only())
}

/// What is asked now, if anything is.
fn asked(bench: &mut Bench) -> Option<Vec<u8>> {
    let mut request = [0xA5; REQUEST_BYTES];
    let len_bytes = bench.forwarder.poll(bench.now, &mut request)?;
    Some(request[..len_bytes].to_vec())
}

fn next_hop(bench: &Bench) -> Option<Mac> {
    bench.forwarder.next_hop(Version::Ipv6)
}

/// The server is asked for, at `mac` or wherever it may be.
fn solicitation_of_server(at: Option<Mac>) -> Discovery {
    let group = ([0x33, 0x33, 0xff, 0x56, 0, 2], SERVER_GROUP);
    let (mac, to) = at.map_or(group, |mac| (mac, SERVER6));
    Discovery {
        macs: (OWN_MAC, mac),
        addresses: (OWN6, to),
        target: SERVER6,
        option: Some((1, OWN_MAC)),
        ..Discovery::solicitation()
    }
}

#[test]
fn solicitations_of_its_address_are_left_to_the_host_that_has_it() {
    let mut bench = bench();
    let request = Discovery::solicitation();
    let unicast = Discovery { macs: (CLIENT_MAC, OWN_MAC), addresses: (CLIENT6, OWN6), ..request };
    let router = Discovery { addresses: (ROUTER, OWN_GROUP), option: Some((1, ELSEWHERE)), ..request };
    let probe = Discovery { addresses: (Ipv6Addr::UNSPECIFIED, OWN_GROUP), option: None, ..request };
    for message in [request, unicast, Discovery { option: None, ..unicast }, router, probe] {
        assert_eq!(bench.look(&message.bytes()), Verdict::Heard);
    }
    assert_eq!(next_hop(&bench), Some(SERVER_MAC), "none of them was the server");
    let mut padded = request.bytes();
    padded.resize(100, 0xEE);
    assert_eq!(bench.look(&padded), Verdict::Heard);
}

#[test]
fn address_that_is_not_used_is_nobodys_and_asks_nobody() {
    for hosts in [IPV4, IPV6] {
        let mut bench = Bench::without_server(&config());
        bench.forwarder.set_used(hosts.version, false);
        let other = if hosts == IPV4 { Version::Ipv6 } else { Version::Ipv4 };
        let is_of_other = |frame: &[u8]| (frame[12..14] == [8, 6]) == (other == Version::Ipv4);
        assert!(asked(&mut bench).is_some_and(|frame| is_of_other(&frame)));
        assert_eq!(asked(&mut bench), None);
        assert_eq!(bench.forwarder.deadline(), seconds(1), "the other one's");
        bench.forwarder.set_used(other, false);
        assert_eq!(bench.forwarder.deadline(), core::time::Duration::MAX);
        // Where the server is, is heard all the same.
        bench.look(&arp(2, (SERVER_MAC, SERVER), (OWN_MAC, OWN)));
        bench.look(&Discovery::advertisement().bytes());
        let syn = hosts.of_client(SYN);
        assert_eq!(bench.dropped(&syn.bytes()), Reason::NotForUs);
        bench.forwarder.set_used(hosts.version, true);
        assert_eq!(bench.forwarded(&syn)[..6], SERVER_MAC);
    }
}

#[test]
fn solicitations_that_are_not_for_it_or_nobodys_are_heard() {
    let mut bench = bench();
    let request = Discovery::solicitation();
    for (what, message) in [
        (
            "another target of the same group",
            Discovery { target: "2001:db8:0:1:1::1".parse().unwrap(), ..request },
        ),
        ("our own address", Discovery { addresses: (OWN6, OWN_GROUP), ..request }),
        ("our own station", Discovery { macs: (OWN_MAC, OWN_GROUP_MAC), ..request }),
        ("a group's station", Discovery { macs: ([0x33; 6], OWN_GROUP_MAC), ..request }),
        ("a router's advertisement", Discovery { kind: 134, addresses: (ROUTER, ALL_NODES), ..request }),
        ("a router solicitation", Discovery { kind: 133, ..request }),
        (
            "a redirect",
            Discovery { kind: 137, macs: (CLIENT_MAC, OWN_MAC), addresses: (ROUTER, OWN6), ..request },
        ),
    ] {
        assert_eq!(bench.look(&message.bytes()), Verdict::Heard, "{what}");
    }
}

#[test]
fn messages_that_break_a_rule_are_refused() {
    let mut bench = bench();
    let (request, reply) = (Discovery::solicitation(), Discovery::advertisement());
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 5);
    let probe = Discovery { addresses: (Ipv6Addr::UNSPECIFIED, OWN_GROUP), option: None, ..request };
    for (what, message, reason) in [
        ("from beyond a router", Discovery { hop_limit: 254, ..request }, Reason::Malformed),
        ("an advertisement from there", Discovery { hop_limit: 254, ..reply }, Reason::Malformed),
        ("another code", Discovery { code: 1, ..request }, Reason::Malformed),
        ("a group's target", Discovery { target: group, ..request }, Reason::Malformed),
        ("an advertisement of a group", Discovery { target: group, ..reply }, Reason::Malformed),
        ("from a group", Discovery { addresses: (group, OWN_GROUP), ..request }, Reason::Malformed),
        (
            "a probe that says where it is from",
            Discovery { option: request.option, ..probe },
            Reason::Malformed,
        ),
        (
            "a probe of one",
            Discovery { addresses: (Ipv6Addr::UNSPECIFIED, OWN6), macs: (CLIENT_MAC, OWN_MAC), ..probe },
            Reason::Malformed,
        ),
        (
            "an answer to everybody",
            Discovery {
                addresses: (SERVER6, ALL_NODES),
                macs: (SERVER_MAC, [0x33, 0x33, 0, 0, 0, 1]),
                ..reply
            },
            Reason::Malformed,
        ),
        ("another group", Discovery { addresses: (CLIENT6, group), ..request }, Reason::NotForUs),
        ("another address", Discovery { addresses: (SERVER6, CLIENT6), ..reply }, Reason::NotForUs),
        ("another station", Discovery { macs: (SERVER_MAC, ELSEWHERE), ..reply }, Reason::NotForUs),
        ("a broadcast", Discovery { macs: (CLIENT_MAC, [0xFF; 6]), ..request }, Reason::NotForUs),
    ] {
        assert_eq!(bench.dropped(&message.bytes()), reason, "{what}");
    }
    let mut damaged = request.bytes();
    damaged[85] ^= 1;
    assert_eq!(bench.dropped(&damaged), Reason::BadChecksum);
    assert_eq!(bench.dropped(&request.bytes()[..85]), Reason::Malformed, "the frame's end is missing");
    assert_eq!(bench.dropped(&without_length(request)), Reason::Malformed, "an option of no length");
    assert_eq!(bench.dropped(&cut(request)), Reason::Malformed, "no whole target");
    let partial = Meta { is_partial: true, segment_bytes: None };
    let verdict = bench.forwarder.forward(bench.now, &request.bytes(), &mut [0; 128], partial);
    assert_eq!(verdict, Verdict::Drop(Reason::Offload));
    assert_eq!(next_hop(&bench), Some(SERVER_MAC), "nothing of it was believed");
}

/// With an option whose length is 0; the checksum fits.
fn without_length(message: Discovery) -> Vec<u8> {
    let mut bytes = message.bytes();
    bytes[79] = 0;
    with_sum(bytes, 1)
}

/// Without the last byte of the target and all behind it.
fn cut(message: Discovery) -> Vec<u8> {
    let mut bytes =
        Discovery { target: Ipv6Addr::from_bits(OWN6.to_bits() & !0xFF), option: None, ..message }.bytes();
    bytes.truncate(77);
    bytes[19] = 23;
    with_sum(bytes, 1)
}

/// With an option of 16 bytes in place of 8, zeros at its end; the checksum fits.
fn with_long_address(message: Discovery) -> Vec<u8> {
    let mut bytes = message.bytes();
    (bytes[19], bytes[79]) = (bytes[19] + 8, 2);
    bytes.extend([0; 8]);
    let sum = u16::from_be_bytes([bytes[56], bytes[57]]);
    bytes[56..58].copy_from_slice(&(sum - 8 - 1).to_be_bytes());
    bytes
}

/// Sums that were right, of a message that has `less` now.
fn with_sum(mut bytes: Vec<u8>, less: u16) -> Vec<u8> {
    let sum = u16::from_be_bytes([bytes[56], bytes[57]]);
    bytes[56..58].copy_from_slice(&(sum + less).to_be_bytes());
    bytes
}

#[test]
fn server_is_asked_for_once_a_second_until_it_answers_and_then_at_its_place() {
    let mut bench = Bench::without_server(&ipv6_only());
    for second in 0..5 {
        bench.now = seconds(second);
        assert_eq!(asked(&mut bench), Some(solicitation_of_server(None).bytes()));
        assert_eq!(asked(&mut bench), None, "twice in a second");
        assert_eq!(bench.forwarder.deadline(), seconds(second + 1));
    }
    assert_eq!(bench.look(&Discovery::advertisement().bytes()), Verdict::Heard);
    assert_eq!(next_hop(&bench), Some(SERVER_MAC));
    assert_eq!(bench.forwarder.counters().neighbour_solicitations, 5);
    bench.now = seconds(33);
    assert_eq!(asked(&mut bench), None);
    bench.now = seconds(34);
    assert_eq!(asked(&mut bench), Some(solicitation_of_server(Some(SERVER_MAC)).bytes()));
    // That it is there is no answer if nobody asked (RFC 4861 7.2.5).
    bench.look(&Discovery { option: None, flags: OVERRIDE, ..Discovery::advertisement() }.bytes());
    bench.now = seconds(35);
    assert_eq!(asked(&mut bench), Some(solicitation_of_server(Some(SERVER_MAC)).bytes()));
    // It may say that it is there and not where (RFC 4861 4.4).
    bench.look(&Discovery { option: None, ..Discovery::advertisement() }.bytes());
    bench.now = seconds(64);
    assert_eq!(asked(&mut bench), None);
    // Nobody answers any more: it is believed for a while.
    for second in 65..68 {
        bench.now = seconds(second);
        assert_eq!(next_hop(&bench), Some(SERVER_MAC), "{second}");
        assert_eq!(asked(&mut bench), Some(solicitation_of_server(Some(SERVER_MAC)).bytes()));
    }
    bench.now = seconds(68);
    assert_eq!(asked(&mut bench), Some(solicitation_of_server(None).bytes()));
    assert_eq!(next_hop(&bench), None);
    // Elsewhere, perhaps: it is asked for as at the start before a client hears that it is gone (RFC 4861 7.3.3).
    let syn = IPV6.of_client(SYN).bytes();
    for second in 69..71 {
        assert_eq!(bench.dropped(&syn), Reason::Unresolved, "{second}");
        bench.now = seconds(second);
        assert_eq!(asked(&mut bench), Some(solicitation_of_server(None).bytes()));
    }
    assert_eq!(bench.dropped(&syn), Reason::Unresolved);
    bench.now = seconds(71);
    assert!(asked(&mut bench).is_some());
    assert_eq!(bench.sent(&syn, Meta::default()).bytes[54..56], [1, 3]);
}

#[test]
fn server_that_moves_says_so_and_nobody_else_can() {
    let reply = Discovery { option: Some((2, ELSEWHERE)), ..Discovery::advertisement() };
    let mut bench = bench();
    for (what, message) in [
        ("another target", Discovery { target: CLIENT6, ..reply }),
        ("without override", Discovery { flags: SOLICITED, ..reply }),
        ("a group's station", Discovery { option: Some((2, [1, 0, 0, 0, 0, 9])), ..reply }),
        ("ours", Discovery { option: Some((2, OWN_MAC)), ..reply }),
        ("the option of a solicitation", Discovery { option: Some((1, ELSEWHERE)), ..reply }),
    ] {
        assert_eq!(bench.look(&message.bytes()), Verdict::Heard);
        assert_eq!(next_hop(&bench), Some(SERVER_MAC), "{what}");
    }
    assert_eq!(bench.look(&with_long_address(reply)), Verdict::Heard);
    assert_eq!(next_hop(&bench), Some(SERVER_MAC), "an address of another kind of link");
    let ours = Discovery {
        addresses: (SERVER6, OWN_GROUP),
        option: Some((1, OWN_MAC)),
        ..Discovery::solicitation()
    };
    assert_eq!(bench.look(&ours.bytes()), Verdict::Heard, "it asks for us");
    assert_eq!(next_hop(&bench), Some(SERVER_MAC), "our own station");
    let others =
        Discovery { target: "2001:db8:0:1:1::1".parse().unwrap(), option: Some((1, ELSEWHERE)), ..ours };
    assert_eq!(bench.look(&others.bytes()), Verdict::Heard);
    assert_eq!(next_hop(&bench), Some(SERVER_MAC), "asks for another of our group (RFC 4861 7.2.3)");
    assert_eq!(bench.look(&reply.bytes()), Verdict::Heard);
    assert_eq!(next_hop(&bench), Some(ELSEWHERE));
    assert_eq!(bench.forwarded(&IPV6.of_client(SYN))[..6], ELSEWHERE);
}

#[test]
fn what_the_server_says_unasked_is_believed_and_asked_for_at_most_once_a_second() {
    let unasked = |mac| Discovery { flags: OVERRIDE, option: Some((2, mac)), ..Discovery::advertisement() };
    let solicitation = |mac| Discovery {
        macs: (mac, OWN_GROUP_MAC),
        addresses: (SERVER6, OWN_GROUP),
        option: Some((1, mac)),
        ..Discovery::solicitation()
    };
    for message in [unasked(ELSEWHERE), solicitation(ELSEWHERE)] {
        let mut bench = bench();
        bench.now = seconds(10);
        bench.look(&message.bytes());
        assert_eq!(next_hop(&bench), Some(ELSEWHERE));
        assert_eq!(asked(&mut bench), Some(solicitation_of_server(Some(ELSEWHERE)).bytes()));
        // And again, as an attacker would.
        for mac in [SERVER_MAC, ELSEWHERE, SERVER_MAC] {
            bench.look(&Discovery { option: message.option.map(|(kind, _)| (kind, mac)), ..message }.bytes());
            assert_eq!(asked(&mut bench), None);
        }
        bench.now = seconds(11);
        assert_eq!(asked(&mut bench), Some(solicitation_of_server(Some(SERVER_MAC)).bytes()));
        // What is known already keeps nobody alive who does not answer.
        for second in 12..14 {
            bench.now = seconds(second);
            bench.look(
                &Discovery { option: message.option.map(|(kind, _)| (kind, SERVER_MAC)), ..message }.bytes(),
            );
            assert!(asked(&mut bench).is_some());
        }
        bench.now = seconds(14);
        assert!(asked(&mut bench).is_some());
        assert_eq!(next_hop(&bench), None);
    }
}

#[test]
fn server_on_another_network_is_reached_through_the_router_and_one_on_the_link_by_its_link_local_address() {
    let with = |network| Config { ipv6: Some(network), ..ipv6_only() };
    let mut network = Network::new(OWN6, 64, (FAR, SERVER_PORT));
    assert_eq!(Forwarder::new(&with(network)).expect_err("no way there"), ConfigError::NoWay(FAR.into()));
    network.gateway = Some(FAR);
    assert!(Forwarder::new(&with(network)).is_err(), "a router that is not on the network either");
    network.gateway = Some(ROUTER);
    let mut bench = Bench::without_server(&with(network));
    assert_eq!(asked(&mut bench).expect("a request")[62..78], ROUTER.octets());
    let answer = Discovery { target: ROUTER, addresses: (ROUTER, OWN6), ..Discovery::advertisement() };
    bench.look(&answer.bytes());
    let sent = bench.forwarded(&IPV6.of_client(SYN));
    assert_eq!((&sent[..6], &sent[38..54]), (&SERVER_MAC[..], &FAR.octets()[..]));
    let mut bench = Bench::without_server(&with(Network::new(OWN6, 64, (ROUTER, SERVER_PORT))));
    assert_eq!(asked(&mut bench).expect("a request")[62..78], ROUTER.octets());
}

#[test]
fn segment_for_a_server_that_does_not_answer_is_complained_of_after_three_requests() {
    let mut bench = Bench::without_server(&ipv6_only());
    let syn = IPV6.of_client(SYN).bytes();
    for second in 0..3 {
        bench.now = seconds(second);
        bench.poll();
        assert_eq!(bench.dropped(&syn), Reason::Unresolved);
    }
    bench.now = seconds(3);
    bench.poll();
    let error = bench.sent(&syn, Meta::default()).bytes;
    assert_eq!(
        (&error[..6], &error[38..54], &error[54..56]),
        (&CLIENT_MAC[..], &CLIENT6.octets()[..], &[1, 3][..])
    );
    let counters = bench.forwarder.counters();
    assert_eq!((counters.dropped(Reason::Unresolved), counters.errors_sent, counters.opened), (4, 1, 0));
}
