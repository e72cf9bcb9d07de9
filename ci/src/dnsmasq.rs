//! dnsmasq, for guests that ask it for names and addresses.

use exovm_netns::end_with_parent;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server at all addresses of this namespace, whenever they come. It ends with the test.
#[derive(Debug)]
pub struct Dnsmasq {
    child: Child,
    scratch: TempDir,
}

impl Dnsmasq {
    /// Knows the names that these options say, and that there are no others below `test.`. Gives back when it listens.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(options: &[&str]) -> Self {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let log = File::create(scratch.path().join("log")).expect("room for a file");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("dnsmasq");
        command
            .env("PATH", path + ":/usr/sbin:/sbin")
            .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-queries"])
            .args(["--local=/test/", "--log-dhcp"])
            .arg(format!("--dhcp-leasefile={}", scratch.path().join("leases").display()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        end_with_parent(&mut command);
        let child = command.spawn().expect("dnsmasq runs; install dnsmasq-base");
        let server = Self { child, scratch };
        let started = Instant::now();
        while !server.log().contains("started, version") {
            assert!(started.elapsed() < PATIENCE, "dnsmasq does not start: {}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("log")).expect("its log is there")
    }

    /// How often it was asked for a record of this type of a name, such as `("A", "www.test")`.
    pub fn questions(&self, kind: &str, name: &str) -> usize {
        self.log().matches(&format!("query[{kind}] {name} ")).count()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
