//! Three machines in one process, on a switch: webswamp asks the forwarder, which has a Cheetah behind it. With faults at every port,
//! what is lost is repaired by the two ends alone.

use exovm::backend::link;
use exovm_ci::site::Pattern;
use exovm_ci::swamp::swamp_of;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A machine's addresses.
type Addresses = (Ipv4Addr, Ipv6Addr);

const CHEETAH: Addresses = addresses(2);
const FORWARDER: Addresses = addresses(3);
const WEBSWAMP: Addresses = addresses(4);

const fn addresses(number: u8) -> Addresses {
    (Ipv4Addr::new(10, 80, 0, number), Ipv6Addr::new(0x2001, 0xdb8, 0, 0x80, 0, 0, 0, number as u16))
}

/// Runs them, and asserts that every answer came, by way of the forwarder at one of its addresses.
fn run(of: fn(Addresses) -> IpAddr, faults: Option<&str>) {
    let ports = link::switch(3).expect("a switch");
    let on = |image: &str, port: usize, (ipv4, ipv6): Addresses| {
        let guest = Guest::image(image).link(&ports[port], ipv4).ipv6(ipv6);
        match faults {
            Some(faults) => guest.impair(&format!("{faults},seed={port}")),
            None => guest,
        }
    };
    let site = Site::new().file("body", Pattern::bytes(1, 20_000));
    let cheetah = on("cheetah", 0, CHEETAH).site(&site).start();
    let at = |addresses: Addresses, port| SocketAddr::new(of(addresses), port);
    let to = format!("--to={}", at(CHEETAH, 80));
    let forwarder = on("forwarder", 1, FORWARDER).arguments(&["--listen=8000", &to]).start();
    // A handshake that is lost three times takes more than the seconds that a request may take otherwise.
    let target =
        format!("--target=http://{}/body --connections=8 --duration=2s --timeout=60s", at(FORWARDER, 8000));
    let outcome = swamp_of(on("webswamp", 2, WEBSWAMP), &target);
    assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
    let answered = outcome.number("answered");
    assert!(answered > 50, "{answered} answers");
    let (_, log) = forwarder.end_with_log();
    let said = log.iter().find(|line| line.contains("connections; to the server")).expect("its last words");
    let to_clients: u64 = said
        .rsplit("with ")
        .next()
        .and_then(|rest| rest.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    assert!(to_clients >= answered * 20_000, "{to_clients} bytes went through it: {said}");
    cheetah.stop();
}

fn ipv4((ipv4, _): Addresses) -> IpAddr {
    ipv4.into()
}

fn ipv6((_, ipv6): Addresses) -> IpAddr {
    ipv6.into()
}

const FAULTS: &str = "loss=1%,delay=1ms,reorder=1%,duplicate=1%";

#[test]
fn webswamp_is_served_by_cheetah_through_the_forwarder() {
    in_namespace!(|| run(ipv4, None));
}

#[test]
fn webswamp_is_served_through_the_forwarder_over_links_with_faults() {
    in_namespace!(|| run(ipv4, Some(FAULTS)));
}

#[test]
fn webswamp_is_served_by_cheetah_through_the_forwarder_over_ipv6() {
    in_namespace!(|| run(ipv6, None));
}

#[test]
fn webswamp_is_served_through_the_forwarder_over_ipv6_and_links_with_faults() {
    in_namespace!(|| run(ipv6, Some(FAULTS)));
}
