//! Names by sockets, asked of a real server: dnsmasq, beside us on the TAP.

use crate::ends::*;
use exos_sockets::{Error, Failure, Family, Sockets};
use exovm_netns::{end_with_parent, in_namespace};
use exovm_tap_stack::Faults;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const WWW: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
const WWW_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 80);
/// Addresses of one name: more than 512 bytes of answer.
const MANY: usize = 60;

/// The server, and the names that it has.
struct Server {
    child: Child,
    hosts: PathBuf,
}

impl Server {
    fn start() -> Self {
        let mut lines = format!("{WWW} www.exovm.test\n{WWW_V6} www.exovm.test\n{WWW} four.exovm.test\n");
        (1..=MANY).for_each(|last| writeln!(lines, "198.51.100.{last} many.exovm.test").expect("a string"));
        let hosts = std::env::temp_dir().join(format!("exovm-names-{}", std::process::id()));
        std::fs::write(&hosts, lines).expect("room for a file");
        let mut command = Command::new("dnsmasq");
        command
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .args(["--local=/exovm.test/", "--cname=alias.exovm.test,www.exovm.test"])
            .arg(format!("--listen-address={LINUX_V4},{LINUX}"))
            .arg(format!("--addn-hosts={}", hosts.display()))
            .stderr(Stdio::null());
        end_with_parent(&mut command);
        let child = command.spawn().expect("dnsmasq runs; install dnsmasq-base");
        Self { child, hosts }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.hosts);
    }
}

/// The first answer, as soon as the server is there and our address is ours.
async fn first(sockets: &Sockets) -> Vec<IpAddr> {
    loop {
        match sockets.resolve("www.exovm.test").await {
            Ok(addresses) if addresses.len() == 2 => return addresses,
            Ok(_) | Err(Error::Name(Failure::TimedOut) | Error::Unreachable) => {
                sockets.sleep(exos_net::Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn ask(sockets: Sockets, server: IpAddr) {
    sockets.set_name_servers([server]);
    assert_eq!(first(&sockets).await, [IpAddr::from(WWW_V6), WWW.into()]);
    assert_eq!(sockets.resolve("ALIAS.exovm.test.").await, Ok(vec![WWW_V6.into(), WWW.into()]));
    assert_eq!(sockets.resolve("four.exovm.test").await, Ok(vec![WWW.into()]));
    let none = sockets.lookup("four.exovm.test", Family::V6).await;
    assert_eq!(none, Err(Error::Name(Failure::NoAddress)));
    let nobody = sockets.resolve("nobody.exovm.test").await;
    assert_eq!(nobody, Err(Error::Name(Failure::NoSuchName)));
    let many = sockets.lookup("many.exovm.test", Family::V4).await.expect("over TCP");
    assert_eq!(many.len(), exos_dns::MAX_ADDRESSES);
    let is_one = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [198, 51, 100]);
    assert!(many.iter().all(is_one), "{many:?}");
    assert_eq!(sockets.udp_sockets(), 0, "all questions were answered");
}

#[test]
fn dnsmasq_is_asked_over_both_families_and_over_tcp_where_a_datagram_does_not_do() {
    in_namespace!(|| {
        let interface = interface();
        for server in [IpAddr::from(LINUX_V4), LINUX.into()] {
            let _server = Server::start();
            let running = start(&interface, given(), Faults::NONE, move |sockets| ask(sockets, server));
            let left = running.join().expect("our part");
            assert_nothing_is_left(&left);
            assert_eq!(left.counters.active_opens, 1, "one answer was too large for a datagram");
        }
    });
}

#[test]
fn names_are_found_on_a_bad_wire() {
    let bad =
        Faults { lost: 100, repeated: 100, held: 100, delay_ms: 1, hold_ms: 2, seed: 5, ..Faults::NONE };
    in_namespace!(|| {
        let interface = interface();
        let _server = Server::start();
        let running = start(&interface, given(), bad, |sockets| async move {
            sockets.set_name_servers([LINUX_V4.into(), LINUX.into()]);
            assert_eq!(first(&sockets).await, [IpAddr::from(WWW_V6), WWW.into()]);
            assert_eq!(sockets.resolve("alias.exovm.test").await.map(|found| found.len()), Ok(2));
        });
        running.join().expect("our part");
    });
}
