//! The forwarder as a host on its link: addresses that another host has, those that it makes for itself, and a switch that forwards
//! groups to who has asked for them.

use crate::{LISTEN, wait_until};
use abi::boot::probing;
use exovm::machine::{End, Ipv6Address, Ipv6AddressState};
use exovm_ci::{Guest, GuestBuilder};
use exovm_netns::{Interface, in_namespace};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

/// The guest's given address and the host's, on TAP 0.
const GIVEN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x80, 0, 0, 0, 2);
const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0x80, 0, 0, 0, 1);
/// What the guest on TAP 0 makes of its hardware address, and the groups that neighbours ask for both of its addresses in.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x78, 0xaff, 0xfe50, 2);
const GROUPS: [&str; 2] = ["ff02::1:ff00:2", "ff02::1:ff50:2"];
const SERVER_IPV4: &str = "10.80.0.1:8080";
const SERVER_IPV6: &str = "[2001:db8:0:80::1]:8080";

/// A forwarder on TAP 0, where the host has these addresses before it begins.
fn forwarder(to: &str, addresses: &[IpAddr]) -> GuestBuilder {
    let addresses = addresses.to_vec();
    Guest::image("forwarder").arguments(&["--listen=80", &format!("--to={to}")]).wrap_backend(
        move |backend| {
            let interface = Interface::named("tap0").unwrap();
            for address in addresses {
                interface.add_address(address, if address.is_ipv4() { 24 } else { 64 }).unwrap();
            }
            backend
        },
    )
}

/// It is found on this interface, and nobody listens there.
fn assert_is_refused_at_link_local_address(interface: &str) {
    let refused = TcpStream::connect((format!("{LINK_LOCAL}%{interface}"), LISTEN));
    assert_eq!(refused.expect_err("nobody listens there").kind(), ErrorKind::ConnectionRefused);
}

fn state(guest: &Guest, ip: Ipv6Addr) -> Option<Ipv6AddressState> {
    let addresses = guest.machine().ipv6_addresses(0);
    addresses.iter().find(|address| address.ip == ip).map(|address| address.state)
}

#[test]
fn address_that_a_host_has_is_named_and_not_used_and_the_other_version_is_served() {
    in_namespace!(|| {
        let to = format!("{SERVER_IPV4},[2001:db8:0:80::9]:8080");
        let guest = forwarder(&to, &[HOST.into(), GIVEN.into()]).ipv6(GIVEN).start();
        let line = guest.wait_for_log(&format!("has our address {GIVEN}"));
        assert!(line.contains("so we do not use it") && line.contains("ip6="), "{line}");
        assert_eq!(state(&guest, GIVEN), Some(Ipv6AddressState::Duplicate));
        let statistics = guest.statistics();
        assert_eq!(
            statistics.value("forward", "neighbour_solicitations"),
            Some(0),
            "nobody is asked from it"
        );
        assert!(statistics.value("ip", "duplicate_addresses").unwrap() >= 1);
        let _listener = TcpListener::bind(SERVER_IPV4).unwrap();
        TcpStream::connect(guest.network().guest_socket(LISTEN)).expect("IPv4 is forwarded");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn forwarder_whose_addresses_with_servers_are_taken_says_so_and_ends() {
    in_namespace!(|| {
        let ipv4 = forwarder(SERVER_IPV4, &[[10, 80, 0, 2].into()]).probing(probing::BEFORE);
        let ipv6 = forwarder("[2001:db8:0:80::9]:8080", &[GIVEN.into()]).ipv6(GIVEN);
        for (guest, address) in [(ipv4, "10.80.0.2"), (ipv6, "2001:db8:0:80::2")] {
            let (end, log) = guest.launch().wait();
            assert_eq!(end, End::PowerOff { status: 1 }, "{log:#?}");
            for said in [format!("has our address {address}"), "none is left".to_owned()] {
                assert!(log.iter().any(|line| line.contains(&said)), "{said}: {log:#?}");
            }
        }
    });
}

#[test]
fn link_local_address_is_there_and_nothing_is_forwarded_at_it() {
    in_namespace!(|| {
        let guest = forwarder(SERVER_IPV6, &[HOST.into()]).ipv6(GIVEN).start();
        let used = [(LINK_LOCAL, Ipv6AddressState::Unserved), (GIVEN, Ipv6AddressState::Used)];
        assert_eq!(guest.machine().ipv6_addresses(0), used.map(|(ip, state)| Ipv6Address { ip, state }));
        let _listener = TcpListener::bind(SERVER_IPV6).unwrap();
        TcpStream::connect(SocketAddr::from((GIVEN, LISTEN))).expect("it is forwarded");
        assert_is_refused_at_link_local_address("tap0");
        guest.stop();
    });
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split_whitespace()).status().expect("ip runs");
    assert!(status.success(), "ip {words}");
}

/// TAP 0 becomes a port of a bridge that forwards groups to who has asked for them, and asks who does.
fn behind_a_bridge_that_snoops() {
    ip("link add br0 type bridge mcast_snooping 1");
    ip("link set br0 type bridge mcast_query_response_interval 100 mcast_startup_query_interval 100");
    ip("link set br0 type bridge mcast_query_interval 100 mcast_querier 1");
    ip("addr flush dev tap0");
    ip("link set tap0 master br0");
    let bridge = Interface::named("br0").unwrap();
    bridge.add_address(HOST.into(), 64).unwrap();
    bridge.up().unwrap();
}

#[test]
fn bridge_that_snoops_hears_of_the_groups_of_its_addresses_and_forwards_the_questions_for_them() {
    in_namespace!(|| {
        let guest = forwarder(SERVER_IPV6, &[]).ipv6(GIVEN).without_ipv4().wrap_backend(|backend| {
            behind_a_bridge_that_snoops();
            backend
        });
        let guest = guest.start();
        wait_until("the groups in the bridge's database", || {
            let output =
                Command::new("bridge").args(["mdb", "show", "dev", "br0"]).output().expect("bridge runs");
            let entries = String::from_utf8_lossy(&output.stdout).into_owned();
            GROUPS.iter().all(|group| entries.contains(&format!("port tap0 grp {group} ")))
        });
        let _listener = TcpListener::bind(SERVER_IPV6).unwrap();
        TcpStream::connect(SocketAddr::from((GIVEN, LISTEN))).expect("neighbours find it");
        // From this one it has asked nobody, so who wants it has to ask in its group.
        assert_is_refused_at_link_local_address("br0");
        guest.stop();
    });
}
