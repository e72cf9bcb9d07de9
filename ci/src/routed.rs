//! Two hosts on networks of their own and a guest on a third, with the test's namespace as the router between them: for guests that
//! stand between a client and a server.
//!
//! ```text
//! clients 10.81.0.2 ── to-clients ┐
//!                                 ├ the test's namespace, which routes ── tap0 10.80.0.1 ── guest 10.80.0.2
//! servers 10.82.0.2 ── to-servers ┘
//! ```
//!
//! The same over IPv6, with 2001:db8:0:81::2 for 10.81.0.2.

use exovm_netns::{Interface, Namespace};
use exovm_test::{Guest, GuestBuilder};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

const GUESTS: u8 = 80;
const CLIENTS: u8 = 81;
const SERVERS: u8 = 82;

/// How long a client waits for its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    Ipv4,
    /// RFC 8200.
    Ipv6,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The address of the host with this number on a network.
    fn host(self, network: u8, tap: u8, number: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, network, tap, number).into(),
            Self::Ipv6 => ipv6(network, tap, number).into(),
        }
    }

    fn prefix_bits(self) -> u8 {
        match self {
            Self::Ipv4 => 24,
            Self::Ipv6 => 64,
        }
    }
}

/// In hexadecimal digits it looks like the decimal ones of IPv4.
fn ipv6(network: u8, tap: u8, number: u8) -> Ipv6Addr {
    let network = u16::from_str_radix(&network.to_string(), 16).expect("two digits");
    Ipv6Addr::new(0x2001, 0xdb8, tap.into(), network, 0, 0, 0, number.into())
}

/// A port of the guest on a TAP.
pub fn guest(version: Version, tap: u8, port: u16) -> SocketAddr {
    SocketAddr::new(version.host(GUESTS, tap, 2), port)
}

/// The IPv6 address of the guest on a TAP.
pub fn guest_ipv6(tap: u8) -> Ipv6Addr {
    ipv6(GUESTS, tap, 2)
}

/// A port of the servers' host.
pub fn server(version: Version, port: u16) -> SocketAddr {
    SocketAddr::new(version.host(SERVERS, 0, 2), port)
}

/// A port of the router, as clients reach it.
pub fn router_of_clients(version: Version, port: u16) -> SocketAddr {
    SocketAddr::new(version.host(CLIENTS, 0, 1), port)
}

/// A guest on a TAP, with addresses of both versions and the test's namespace for its router.
pub fn image(name: &str, tap: u8) -> GuestBuilder {
    let with_tap = Guest::image(name).tap(tap).wrap_backend(move |backend| {
        let interface = Interface::named(&format!("tap{tap}")).expect("a good name");
        interface.add_address(ipv6(GUESTS, tap, 1).into(), 64).expect("an address");
        backend
    });
    let gateway = Ipv4Addr::new(10, GUESTS, tap, 1);
    with_tap.gateway(gateway).ipv6(guest_ipv6(tap)).gateway6(ipv6(GUESTS, tap, 1))
}

/// The two hosts.
#[derive(Debug)]
pub struct Routed {
    /// Where clients run.
    pub clients: Namespace,
    /// Where servers run.
    pub servers: Namespace,
    /// The router's end towards the servers.
    pub to_servers: Interface,
}

impl Routed {
    /// Builds it in the namespace of the calling process, which must be private.
    ///
    /// # Panics
    /// If the host has no veth interfaces or no `ip`.
    pub fn build() -> Self {
        for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/all/keep_addr_on_down"] {
            std::fs::write(format!("/proc/sys/net/{file}"), "1").expect("a private namespace may route");
        }
        let (clients, _) = host("clients", CLIENTS);
        let (servers, to_servers) = host("servers", SERVERS);
        Self { clients, servers, to_servers }
    }

    /// A socket that listens on a port of the servers' host, by either version.
    ///
    /// # Panics
    /// If it cannot.
    pub fn listen(&self, port: u16) -> TcpListener {
        let listener = self.servers.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        listener.expect("in the namespace").expect("a free port")
    }

    /// A connection of a client.
    pub fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let connected = self.clients.run(|| TcpStream::connect_timeout(&address, PATIENCE));
        connected.expect("in the namespace")
    }
}

/// A host at 10.NUMBER.0.2 whose router is 10.NUMBER.0.1, and the router's interface to it.
fn host(name: &str, network: u8) -> (Namespace, Interface) {
    let namespace = Namespace::create().expect("a namespace");
    let near = Interface::named(&format!("to-{name}")).expect("a good name");
    let far = Interface::named(name).expect("a good name");
    let set_up = |interface: &Interface, number: u8| {
        for version in Version::ALL {
            let address = version.host(network, 0, number);
            interface.add_address(address, version.prefix_bits()).expect("an address");
        }
        interface.up().expect("an interface");
    };
    Interface::create_veth_pair(&near, &far).expect("a wire");
    far.move_to(&namespace).expect("into the namespace");
    set_up(&near, 1);
    namespace.run(|| set_up(&far, 2)).expect("in the namespace");
    for version in Version::ALL {
        // The largest segments, whatever the network between can carry: that is for path-MTU discovery to find out.
        let gateway = version.host(network, 0, 1).to_string();
        let largest = if version == Version::Ipv4 { "1460" } else { "1440" };
        let words = ["route", "add", "default", "via", &gateway, "advmss", largest];
        let mut ip = Command::new("ip");
        let status = namespace.start_here(ip.args(words)).status().expect("ip is there");
        assert!(status.success(), "ip {words:?}: {status}");
    }
    (namespace, near)
}
