//! Guests with IPv6: curl and the kernel's sockets on the other end of the TAP, by given, link-local and advertised addresses,
//! large frames both ways, and hosts that have an address already.

mod capture;
mod conflicts;
mod environments;
mod prefixes;
mod router;

use capture::{Direction, Seen};
use exovm::machine::{End, Ipv6AddressState};
use exovm_ci::swamp::{Manners, Server, swamp_of};
use exovm_ci::{Guest, GuestBuilder, Site};
use exovm_netns::{Interface, in_namespace};
use router::Router;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// The guest's given address and the host's, on TAP 0.
const GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 2);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 80, 0, 0, 0, 1);
const HOST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// The host's as well, but on no link of the guest's.
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 99, 0, 0, 0, 1);
const PREFIX_BITS: u8 = 64;
/// Data of an IPv6 segment at an MTU of 1,500 bytes: more in one frame is for the device to cut, or was merged by the host.
const SEGMENT_BYTES: usize = 1_440;
const PATIENCE: Duration = Duration::from_secs(60);

/// Has the host have these addresses on TAP 0 before the guest begins.
fn with_host_addresses(guest: GuestBuilder, addresses: &[Ipv6Addr]) -> GuestBuilder {
    let addresses = addresses.to_vec();
    guest.wrap_backend(move |backend| {
        let interface = Interface::named("tap0").unwrap();
        for address in addresses {
            interface.add_address(address.into(), PREFIX_BITS).unwrap();
        }
        backend
    })
}

/// Reads `url` into a file.
fn curl(url: &str, to: &Path, options: &[&str]) -> Child {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--globoff", "--max-time", "60", "--output"]);
    command.arg(to).args(options).arg(url).spawn().expect("this test needs curl")
}

fn assert_reads(url: &str, options: &[&str], expected: &[u8]) {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("body");
    assert!(curl(url, &file, options).wait().unwrap().success(), "{url}");
    assert!(std::fs::read(file).unwrap() == expected, "{url}");
}

/// Bytes that say where they belong.
fn patterned(len: usize) -> Vec<u8> {
    let word = |at: usize| (at as u64 / 8 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len).map(|at| (word(at) >> (at % 8 * 8)) as u8).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The addresses that the guest says it uses.
fn used(guest: &Guest) -> Vec<Ipv6Addr> {
    let addresses = guest.machine().ipv6_addresses(0);
    let used = addresses.iter().filter(|address| address.state == Ipv6AddressState::Used);
    used.map(|address| address.ip).collect()
}

/// The address that the guest makes of the /64 prefix of this one.
fn made_of(guest: &Guest, prefix: Ipv6Addr) -> Ipv6Addr {
    let [a, b, c, d, ..] = prefix.segments();
    let [.., e, f, g, h] = guest.network().guest_link_local().segments();
    Ipv6Addr::new(a, b, c, d, e, f, g, h)
}

#[test]
fn curl_reads_a_large_file_by_every_address_at_once_in_frames_that_the_host_cuts() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let large = patterned(8 << 20);
        let site = Site::new().file("large", &large);
        let capture = scratch.path().join("frames.pcapng");
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL])
            .ipv6(GIVEN)
            .pcap(&capture)
            .start();
        let link_local = guest.network().guest_link_local();
        assert_eq!(used(&guest), [link_local, GIVEN]);
        let urls = [
            format!("http://[{GIVEN}]/large"),
            format!("http://[{link_local}%tap0]/large"),
            format!("http://{}/large", guest.network().guest_address()),
        ];
        let files = [0, 1, 2].map(|number: u8| scratch.path().join(number.to_string()));
        let reading: Vec<_> = urls.iter().zip(&files).map(|(url, file)| curl(url, file, &[])).collect();
        for (mut curl, (url, file)) in reading.into_iter().zip(urls.iter().zip(&files)) {
            assert!(curl.wait().unwrap().success(), "{url}");
            assert!(std::fs::read(file).unwrap() == large, "{url}");
        }
        let statistics = guest.statistics();
        let number = |layer, name| statistics.value(layer, name).unwrap();
        assert_eq!((number("ip", "bad_checksums"), number("ip", "malformed")), (0, 0));
        assert!(number("ip", "neighbour_advertisements") >= 2, "{statistics:?}");
        assert_eq!(number("ip", "address_probes"), 2);
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
        let seen = Seen::read(&capture);
        // Each frame of the guest's carries several segments, and all of it left over IPv6 twice.
        let sent = seen.tcp6(Direction::FromGuest);
        assert!(sent.bytes >= 2 * large.len(), "{sent:?}");
        assert!(
            sent.largest > 10 * SEGMENT_BYTES && sent.bytes > 4 * SEGMENT_BYTES * sent.frames,
            "{sent:?}"
        );
    });
}

/// The host takes a large frame as it is, whatever it says; a line with faults cuts it as its header says, and drops what does
/// not fit together.
#[test]
fn large_frames_say_what_they_are_and_arrive_over_a_line_that_cuts_and_loses_them() {
    in_namespace!(|| {
        let body = patterned(2 << 20);
        let site = Site::new().file("file", &body);
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6(GIVEN).impair("tx:loss=1%,seed=7").start();
        assert_reads(&format!("http://[{GIVEN}]/file"), &[], &body);
        assert!(guest.backend_counter("impair_tx_lost") > 0);
        let statistics = guest.statistics();
        let number = |name| statistics.value("tcp", name).unwrap();
        assert!(number("segs_out") > number("frames_out") + 100, "frames were cut");
        guest.stop();
    });
}

#[test]
fn webswamp_asks_linux_over_ipv6_and_takes_frames_that_the_host_has_merged() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let capture = scratch.path().join("frames.pcapng");
        let server = Server::start(Manners::Good(200_000));
        for host in [HOST, HOST_LINK_LOCAL] {
            let guest = with_host_addresses(Guest::image("webswamp"), &[HOST, HOST_LINK_LOCAL]);
            let before = server.counts();
            let target = format!("--target http://[{host}]:{}/x -c 8 -n 200", server.port);
            let outcome = swamp_of(guest.ipv6(GIVEN).without_ipv4().pcap(&capture), &target);
            assert_eq!((outcome.status, outcome.errors()), (0, 0), "{:#}", outcome.report);
            assert_eq!(outcome.number("answered"), 200);
            let [_, requests, bytes] = server.counts();
            assert_eq!((requests - before[1], bytes - before[2]), (200, outcome.number("bytes")));
            let received = Seen::read(&capture).tcp6(Direction::ToGuest);
            assert!(received.bytes >= 200 * 200_000 && received.largest > 4 * SEGMENT_BYTES, "{received:?}");
        }
    });
}

#[test]
fn plain_server_on_sockets_is_reached_by_both_addresses() {
    in_namespace!(|| {
        let body = patterned(300_000);
        let site = Site::new().file("file", &body);
        let guest = with_host_addresses(Guest::image("plain").site(&site), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6(GIVEN).start();
        assert_reads(&format!("http://[{GIVEN}]/file"), &[], &body);
        let link_local = guest.network().guest_link_local();
        assert_reads(&format!("http://[{link_local}%tap0]/file"), &[], &body);
        assert_reads(&format!("http://{}/file", guest.network().guest_address()), &[], &body);
        guest.stop();
    });
}

#[test]
fn advertised_prefix_makes_an_address_and_the_router_leads_beyond_the_link() {
    in_namespace!(|| {
        Interface::named("lo").unwrap().add_address(FAR.into(), 128).unwrap();
        let body = patterned(1 << 20);
        let site = Site::new().file("file", &body);
        let guest = with_host_addresses(Guest::image("cheetah").site(&site), &[HOST, HOST_LINK_LOCAL]);
        let guest = guest.ipv6_auto().launch();
        let router = Router::advertise("tap0", HOST_LINK_LOCAL, HOST);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        let made = made_of(&guest, HOST);
        wait_until("there is an address of the prefix", || used(&guest).contains(&made));
        assert_reads(&format!("http://[{made}]/file"), &[], &body);
        assert_reads(&format!("http://[{made}]/file"), &["--interface", &FAR.to_string()], &body);
        let statistics = guest.statistics();
        assert!(statistics.value("ip", "router_advertisements").unwrap() >= 1);
        router.stop();
        guest.stop();
    });
}
