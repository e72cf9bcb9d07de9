//! A load generator and a server, a machine each, in one process, with nothing of the host between them.

use exovm::backend::Backend;
use exovm::backend::link::{self, Port};
use exovm::backend::tap::Tap;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::site::Pattern;
use exovm_ci::{Guest, GuestBuilder, Site};
use exovm_netns::{Interface, in_namespace};
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::process::Command;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 2);
const GENERATOR: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
const PAGE_BYTES: u64 = 9000;

/// A field of the generator's report.
fn field(report: &str, name: &str) -> u64 {
    let start = report.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {report}"));
    let digits = report[start + name.len() + 3..].split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("{name} in {report}"))
}

/// A server that has been loaded, for its counters, and the rate in requests per second.
fn loaded(
    ports: &[Port],
    requests: u64,
    words: &[&str],
    set: impl Fn(GuestBuilder) -> GuestBuilder,
) -> (Guest, f64) {
    let site = Site::new().file("page", Pattern::bytes(3, PAGE_BYTES as usize));
    let server = set(Guest::image("cheetah").site(&site).link(&ports[0], SERVER)).start();
    let asked = format!("--requests={requests}");
    let mut arguments = vec!["--target=http://10.80.0.2/page", "--json", &asked];
    arguments.extend(words);
    let generator = set(Guest::image("webswamp").link(&ports[1], GENERATOR).arguments(&arguments)).launch();
    let (end, log) = generator.wait();
    assert_eq!(end, End::PowerOff { status: 0 }, "every request is answered; it logged {log:#?}");
    let report = log.iter().find(|line| line.contains('{')).unwrap_or_else(|| panic!("no report: {log:#?}"));
    assert_eq!(field(report, "answered"), requests, "{report}");
    assert_eq!(field(report, "body_bytes"), requests * PAGE_BYTES, "{report}");
    let rate = requests as f64 / (field(report, "elapsed_ns") as f64 / 1e9);
    (server, rate)
}

/// Everything that the server sent went straight into the generator's buffers, and the other way round.
fn assert_one_copy(server: &Guest) {
    let in_place = server.backend_counter("link_sent_in_place_frames");
    let queued = server.backend_counter("link_sent_queued_frames");
    assert!(queued < 10 && in_place > 1000, "{in_place} frames in place, {queued} queued");
    for dropped in ["full", "length", "unfinished"] {
        assert_eq!(server.backend_counter(&format!("link_dropped_{dropped}")), 0, "{dropped}");
    }
    let copied = server.machine().placement().nic().expect("a NIC").metrics().receive_copied;
    assert!(copied < 10, "{copied} frames were copied twice");
}

#[test]
fn generator_loads_a_server_over_a_pair() {
    for mode in [IoMode::Turn, IoMode::Thread, IoMode::Auto] {
        let ports = link::pair().expect("a pair");
        let (server, rate) = loaded(&ports, 20_000, &["--connections=16"], |guest| guest.io(mode));
        println!("{mode:?}: {rate:.0} requests/s");
        assert_one_copy(&server);
        server.stop();
    }
}

#[test]
fn generator_makes_a_connection_for_each_request_over_a_switch() {
    let ports = link::switch(3).expect("a switch");
    let (server, rate) = loaded(&ports, 5000, &["--connections=16", "--close"], |guest| guest);
    println!("{rate:.0} connections/s");
    assert!(server.backend_counter("link_flooded_frames") < 5);
    server.stop();
}

#[test]
fn generator_loads_a_server_over_loss_delay_and_jitter() {
    let ports = link::pair().expect("a pair");
    let faults = "loss=2%,delay=1ms,jitter=500us,seed=7";
    let (server, rate) =
        loaded(&ports, 1000, &["--connections=16", "--timeout=60s"], |guest| guest.impair(faults));
    println!("{faults}: {rate:.0} requests/s");
    let lost = |direction| server.backend_counter(&format!("impair_{direction}_lost"));
    assert!(lost("tx") > 20 && lost("rx") > 5, "{} and {}", lost("tx"), lost("rx"));
    server.stop();
}

/// A TAP in the bridge br0, which vanishes with it.
fn bridged(name: &str) -> Box<dyn Backend> {
    let tap = Tap::create(name).unwrap_or_else(|error| panic!("{error}"));
    let interface = Interface::named(name).expect("a good name");
    interface.set_transmit_queue_length(4000).expect("ours");
    interface.up().expect("ours");
    ip(&["link", "set", "dev", name, "master", "br0"]);
    Box::new(tap)
}

fn ip(words: &[&str]) {
    let status = Command::new("ip").args(words).status().expect("ip runs");
    assert!(status.success(), "ip {words:?}: {status}");
}

/// The same two machines, the same requests, over a link and over two TAPs in a bridge, in turn; prints both.
#[test]
fn link_serves_more_requests_than_two_taps_and_a_bridge() {
    const TIMES: usize = 5;
    in_namespace!(|| {
        ip(&["link", "add", "br0", "type", "bridge"]);
        ip(&["link", "set", "dev", "br0", "up"]);
        let (mut over_link, mut over_taps) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            let ports = link::pair().expect("a pair");
            let (server, rate) = loaded(&ports, 20_000, &["--connections=64"], |guest| guest);
            over_link.push(rate);
            server.stop();
            let number = Cell::new(0);
            let on_tap = |guest: GuestBuilder| {
                let name = format!("bridged{}", number.replace(number.get() + 1));
                guest.wrap_backend(move |_| bridged(&name))
            };
            let (server, rate) = loaded(&ports, 20_000, &["--connections=64"], on_tap);
            over_taps.push(rate);
            server.stop();
        }
        over_link.sort_by(f64::total_cmp);
        over_taps.sort_by(f64::total_cmp);
        println!("link {over_link:.0?}, TAPs and a bridge {over_taps:.0?} requests/s");
        assert!(over_link[TIMES / 2] > over_taps[TIMES / 2], "{over_link:?} {over_taps:?}");
    });
}
