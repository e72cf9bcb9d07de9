//! A load generator and a server over IPv6 on a link, by a given and by a link-local address, with and without faults; and two
//! machines that are given the same address.

use exovm::backend::link;
use exovm::machine::{End, Ipv6AddressState};
use exovm_ci::site::Pattern;
use exovm_ci::swamp::swamp_of;
use exovm_ci::{Guest, GuestBuilder, Site};
use std::net::{Ipv4Addr, Ipv6Addr};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
const GENERATOR: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
const SERVER_GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 2);
const GENERATOR_GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 3);
/// What the server makes of its hardware address.
const SERVER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x78, 0xaff, 0xfe50, 2);
const PAGE_BYTES: u64 = 60_000;

/// Has the server loaded by one of its addresses; it is given back for its counters.
fn loaded(address: Ipv6Addr, requests: u64, set: impl Fn(GuestBuilder) -> GuestBuilder) -> Guest {
    let ports = link::pair().expect("a pair");
    let site = Site::new().file("page", Pattern::bytes(3, PAGE_BYTES as usize));
    let server = Guest::image("cheetah").site(&site).link(&ports[0], SERVER).ipv6(SERVER_GIVEN);
    let server = set(server).start();
    let generator = Guest::image("webswamp").link(&ports[1], GENERATOR).ipv6(GENERATOR_GIVEN);
    let target =
        format!("--target=http://[{address}]/page --connections=8 --requests={requests} --timeout=60s");
    let outcome = swamp_of(set(generator), &target);
    assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
    assert_eq!(outcome.number("answered"), requests, "{:#}", outcome.report);
    assert_eq!(outcome.number("body_bytes"), requests * PAGE_BYTES, "{:#}", outcome.report);
    let statistics = server.statistics();
    let number = |layer, name| statistics.value(layer, name).expect(name);
    // It was asked where it is, asked for its own addresses, and no sum was wrong.
    assert!(number("ip", "neighbour_advertisements") >= 1);
    assert_eq!((number("ip", "address_probes"), number("ip", "duplicate_addresses")), (2, 0));
    assert_eq!((number("ip", "arp_requests"), number("ip", "arp_replies")), (0, 0), "IPv4 has no part in it");
    assert_eq!((number("ip", "bad_checksums"), number("ip", "malformed")), (0, 0));
    // What leaves is cut by who receives it, or by the line.
    assert!(number("tcp", "segs_out") > number("tcp", "frames_out") + 100);
    server
}

#[test]
fn generator_loads_a_server_over_ipv6_by_its_given_and_its_link_local_address() {
    for address in [SERVER_GIVEN, SERVER_LINK_LOCAL] {
        let server = loaded(address, 2_000, |guest| guest);
        let in_place = server.backend_counter("link_sent_in_place_frames");
        let queued = server.backend_counter("link_sent_queued_frames");
        assert!(queued < 20 && in_place > 1_000, "{in_place} frames in place, {queued} queued");
        server.stop();
    }
}

#[test]
fn generator_loads_a_server_over_ipv6_with_loss_delay_and_disorder() {
    for address in [SERVER_GIVEN, SERVER_LINK_LOCAL] {
        let faults = "loss=1%,delay=1ms,reorder=1%,duplicate=1%,seed=7";
        let server = loaded(address, 500, |guest| guest.impair(faults));
        let lost = |direction| server.backend_counter(&format!("impair_{direction}_lost"));
        assert!(lost("tx") > 20 && lost("rx") > 5, "{} and {}", lost("tx"), lost("rx"));
        server.stop();
    }
}

#[test]
fn second_machine_with_the_same_ipv6_address_does_not_use_it_and_says_whose_it_is() {
    let ports = link::pair().expect("a pair");
    let site = Site::new().file("file", "content");
    let first = Guest::image("cheetah").site(&site).link(&ports[0], SERVER).ipv6(SERVER_GIVEN).start();
    let second = Guest::image("cheetah").site(&site).link(&ports[1], GENERATOR).ipv6(SERVER_GIVEN).start();
    let line = second.wait_for_log(&format!("has our address {SERVER_GIVEN}"));
    assert!(line.contains("02:78:0a:50:00:02"), "{line}");
    let state = |guest: &Guest| {
        let addresses = guest.machine().ipv6_addresses(0);
        addresses.iter().find(|address| address.ip == SERVER_GIVEN).map(|address| address.state)
    };
    assert_eq!(
        (state(&first), state(&second)),
        (Some(Ipv6AddressState::Used), Some(Ipv6AddressState::Duplicate))
    );
    assert_eq!(second.end(), End::PowerOff { status: 0 });
    first.stop();
}
