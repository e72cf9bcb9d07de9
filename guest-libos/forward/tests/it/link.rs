//! ARP both ways, and where frames go on the link.

use crate::common::*;
use core::net::Ipv4Addr;
use exos_forward::{Config, ConfigError, Meta, Network, REQUEST_BYTES, Reason, Verdict, Version};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

fn ipv4_only() -> Config {
    Config { ipv6: None, ..config() }
}

#[test]
fn requests_are_left_to_the_host_that_has_the_address() {
    let mut bench = Bench::new(&ipv4_only());
    let request = arp(1, (CLIENT_MAC, CLIENT), ([0; 6], OWN));
    assert_eq!(bench.look(&request), Verdict::Heard);
    let mut padded = request.clone();
    padded.resize(60, 0);
    assert_eq!(bench.look(&padded), Verdict::Heard);
    assert_eq!(bench.look(&arp(1, ([0xFF; 6], CLIENT), ([0; 6], OWN))), Verdict::Heard);
    assert_eq!(bench.dropped(&request[..41]), Reason::Malformed);
}

#[test]
fn server_is_asked_for_once_a_second_until_it_answers_and_then_now_and_again() {
    let mut bench = Bench::without_server(&ipv4_only());
    let mut request = [0; REQUEST_BYTES];
    for second in 0..5 {
        bench.now = seconds(second);
        let len_bytes = bench.forwarder.poll(bench.now, &mut request).expect("a request");
        assert_eq!(request[..len_bytes], arp(1, (OWN_MAC, OWN), ([0; 6], SERVER)));
        assert!(!bench.poll(), "twice in a second");
        assert_eq!(bench.forwarder.deadline(), seconds(second + 1));
    }
    assert_eq!(bench.look(&arp(2, (SERVER_MAC, SERVER), (OWN_MAC, OWN))), Verdict::Heard);
    assert_eq!(bench.forwarder.next_hop(Version::Ipv4), Some(SERVER_MAC));
    bench.now = seconds(33);
    assert!(!bench.poll());
    // Nobody answers any more: it is believed for a while.
    for second in 34..38 {
        bench.now = seconds(second);
        assert_eq!(bench.forwarder.next_hop(Version::Ipv4), Some(SERVER_MAC), "{second}");
        assert!(bench.poll());
    }
    assert_eq!(bench.forwarder.next_hop(Version::Ipv4), None);
}

#[test]
fn server_that_moves_says_so_and_nobody_else_can() {
    let mut bench = Bench::new(&ipv4_only());
    let elsewhere = [2, 0, 0, 0, 0, 9];
    bench.look(&arp(2, (elsewhere, CLIENT), (OWN_MAC, OWN)));
    bench.look(&arp(2, ([1, 0, 0, 0, 0, 9], SERVER), (OWN_MAC, OWN)));
    bench.look(&arp(2, (OWN_MAC, SERVER), (OWN_MAC, OWN)));
    assert_eq!(bench.forwarder.next_hop(Version::Ipv4), Some(SERVER_MAC));
    bench.look(&arp(1, (elsewhere, SERVER), ([0; 6], SERVER)));
    assert_eq!(bench.forwarder.next_hop(Version::Ipv4), Some(elsewhere));
    assert_eq!(bench.forwarded(&Frame::of_client(SYN))[..6], elsewhere);
}

#[test]
fn server_on_another_network_is_reached_through_the_gateway() {
    let mut network = Network::new(OWN, 24, (FAR, SERVER_PORT));
    let with = |network| Config { ipv4: Some(network), ..ipv4_only() };
    let refused = exos_forward::Forwarder::new(&with(network)).expect_err("no way there");
    assert_eq!(refused, ConfigError::NoWay(FAR.into()));
    network.gateway = Some(FAR);
    assert!(
        exos_forward::Forwarder::new(&with(network)).is_err(),
        "a gateway that is not on the network either"
    );
    network.gateway = Some(GATEWAY);
    let config = with(network);
    let mut bench = Bench::without_server(&config);
    let mut request = [0; REQUEST_BYTES];
    assert_eq!(bench.forwarder.poll(bench.now, &mut request), Some(42));
    assert_eq!(request[38..42], GATEWAY.octets());
    bench.look(&arp(2, (SERVER_MAC, GATEWAY), (OWN_MAC, OWN)));
    let sent = bench.forwarded(&Frame::of_client(SYN));
    assert_eq!((&sent[..6], &sent[30..34]), (&SERVER_MAC[..], &FAR.octets()[..]));
}

#[test]
fn client_is_where_its_last_segment_came_from() {
    let mut bench = Bench::new(&ipv4_only());
    let port = bench.establish(CLIENT_PORT);
    let router = [2, 0, 0, 0, 0, 8];
    bench.forwarded(&Frame { macs: (router, OWN_MAC), ..Frame::of_client(ACK) });
    assert_eq!(bench.forwarded(&Frame::of_server(port, ACK))[..6], router);
}

#[test]
fn segment_for_a_server_that_does_not_answer_is_complained_of_after_three_requests() {
    let mut bench = Bench::without_server(&ipv4_only());
    for second in 0..3 {
        bench.now = seconds(second);
        bench.poll();
        assert_eq!(bench.dropped(&Frame::of_client(SYN).bytes()), Reason::Unresolved);
    }
    bench.now = seconds(3);
    bench.poll();
    let error = bench.sent(&Frame::of_client(SYN).bytes(), Meta::default()).bytes;
    assert_eq!(
        (&error[..6], &error[30..34], &error[34..36]),
        (&CLIENT_MAC[..], &CLIENT.octets()[..], &[3, 1][..])
    );
    let counters = bench.forwarder.counters();
    assert_eq!((counters.dropped(Reason::Unresolved), counters.errors_sent, counters.opened), (4, 1, 0));
}
