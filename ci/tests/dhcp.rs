//! Machines whose address a DHCP server says: busybox's udhcpd on the other end of the TAP, curl, and a host that has an address
//! already.

use exovm::machine::End;
use exovm_ci::{Guest, Site};
use exovm_netns::{end_with_parent, in_namespace};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The TAP of these tests, whose host's side is 10.80.0.1.
const TAP: &str = "tap0";
/// How long for what takes seconds on a quiet host.
const PATIENCE: Duration = Duration::from_secs(60);

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 80, 0, last)
}

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Leases addresses of a range for so many seconds. It tells what it does in `log`.
fn udhcpd(scratch: &Path, range: [u8; 2], lease_secs: u32) -> Server {
    let [start, end] = range.map(address);
    let (leases, config, log) = (scratch.join("leases"), scratch.join("config"), scratch.join("log"));
    std::fs::write(&leases, "").unwrap();
    // Its own probes (-a) would find what the guest shall find.
    let text = format!(
        "interface {TAP}\nstart {start}\nend {end}\nlease_file {}\npidfile {}\nmin_lease 1\ndecline_time 3600\n\
         offer_time 60\noption subnet 255.255.255.0\noption router 10.80.0.1\noption lease {lease_secs}\n",
        leases.display(),
        scratch.join("pid").display()
    );
    std::fs::write(&config, text).unwrap();
    let log = std::fs::File::create(log).unwrap();
    let mut command = Command::new("busybox");
    command.args(["udhcpd", "-f", "-a", "0"]).arg(&config).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    end_with_parent(&mut command);
    Server(command.spawn().expect("this test needs busybox with udhcpd"))
}

fn log_of(scratch: &Path) -> String {
    std::fs::read_to_string(scratch.join("log")).unwrap()
}

/// Waits until something is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not within {} s", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn curl(address: Ipv4Addr) -> String {
    let url = format!("http://{}/", SocketAddrV4::new(address, 80));
    let arguments = ["--silent", "--show-error", "--max-time", "30", &url];
    let output = Command::new("curl").args(arguments).output().expect("this test needs curl");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn counter(guest: &Guest, name: &str) -> u64 {
    guest.log().iter().filter(|line| line.contains(name)).count() as u64
}

#[test]
fn dhcp_server_gives_an_address_that_is_served_and_renewed() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let site = Site::new().file("index.html", "home");
        let guest = Guest::image("cheetah").site(&site).dhcp().launch();
        // Before the server, whose first answer may come before this thread goes on.
        let ready_after = Instant::now();
        let _server = udhcpd(scratch.path(), [20, 20], 20);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        // Three probes that nobody answers take more than 4 s.
        assert!(ready_after.elapsed() > Duration::from_secs(3), "{:?}", ready_after.elapsed());
        assert_eq!(guest.machine().leased_address(0), Some(address(20)));
        assert_eq!(curl(address(20)), "home");
        // Longer than the lease lasts, on one connection.
        let mut client = exovm_ci::Client::connect(SocketAddrV4::new(address(20), 80)).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            assert_eq!(client.get("/").unwrap().text(), "home");
            std::thread::sleep(Duration::from_millis(500));
        }
        assert_eq!(guest.machine().leased_address(0), Some(address(20)));
        assert_eq!(counter(&guest, "no address any more"), 0, "{:#?}", guest.log());
        let log = log_of(scratch.path());
        assert!(log.matches("sending ACK").count() >= 2, "{log}");
        guest.stop();
    });
}

#[test]
fn lease_that_nobody_renews_ends_and_with_it_what_was_served() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let site = Site::new().file("index.html", "home");
        let guest = Guest::image("cheetah").site(&site).dhcp().launch();
        let server = udhcpd(scratch.path(), [20, 20], 20);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        assert_eq!(curl(address(20)), "home");
        drop(server);
        wait_until("the address is given up", || guest.machine().leased_address(0).is_none());
        let client =
            exovm_ci::Client::connect_within(SocketAddrV4::new(address(20), 80), Duration::from_secs(2));
        assert!(client.is_err());
        let _server = udhcpd(scratch.path(), [30, 30], 20);
        wait_until("there is another address", || guest.machine().leased_address(0) == Some(address(30)));
        assert_eq!(curl(address(30)), "home");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn address_that_a_host_has_already_is_declined_and_another_taken() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let site = Site::new().file("index.html", "home");
        let guest = Guest::image("cheetah").site(&site).dhcp().launch();
        // The first of the range is this host's, and its kernel answers the probes.
        let interface = guest.network().interface();
        interface.add_address(address(20).into(), 24).unwrap();
        let _server = udhcpd(scratch.path(), [20, 21], 3_600);
        wait_until("the guest is ready", || guest.machine().is_ready(Duration::ZERO));
        assert_eq!(guest.machine().leased_address(0), Some(address(21)));
        assert_eq!(curl(address(21)), "home");
        assert!(counter(&guest, "has our address 10.80.0.20") >= 1, "{:#?}", guest.log());
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}
