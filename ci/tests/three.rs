//! Three machines in one process, on a switch: webswamp asks the forwarder, which has a Cheetah behind it. With faults at every port,
//! what is lost is repaired by the two ends alone.

use exovm::backend::link;
use exovm_ci::site::Pattern;
use exovm_ci::swamp::swamp_of;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::net::Ipv4Addr;

const CHEETAH: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
const FORWARDER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
const WEBSWAMP: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 4);

/// Runs them, and asserts that every answer came, by way of the forwarder.
fn run(faults: Option<&str>) {
    let ports = link::switch(3).expect("a switch");
    let on = |image: &str, port: usize, address| {
        let guest = Guest::image(image).link(&ports[port], address);
        match faults {
            Some(faults) => guest.impair(&format!("{faults},seed={port}")),
            None => guest,
        }
    };
    let site = Site::new().file("body", Pattern::bytes(1, 20_000));
    let cheetah = on("cheetah", 0, CHEETAH).site(&site).start();
    let to = format!("--to={CHEETAH}:80");
    let forwarder = on("forwarder", 1, FORWARDER).arguments(&["--listen=8000", &to]).start();
    let target = format!("--target=http://{FORWARDER}:8000/body --connections=8 --duration=2s");
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

#[test]
fn webswamp_is_served_by_cheetah_through_the_forwarder() {
    in_namespace!(|| run(None));
}

#[test]
fn webswamp_is_served_through_the_forwarder_over_links_with_faults() {
    in_namespace!(|| run(Some("loss=1%,delay=1ms,reorder=1%,duplicate=1%")));
}
