//! Two hosts on networks of their own and a guest on a third, with the test's namespace as the router between them: for guests that
//! stand between a client and a server.
//!
//! ```text
//! clients 10.81.0.2 ── to-clients ┐
//!                                 ├ the test's namespace, which routes ── tap0 10.80.0.1 ── guest 10.80.0.2
//! servers 10.82.0.2 ── to-servers ┘
//! ```

use exovm_netns::{Interface, Namespace};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Where the servers are.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 82, 0, 2);
/// Where the router is for those on the guest's network.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// Where the router is for the clients.
pub const ROUTER_OF_CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);

/// How long a client waits for its connection.
const PATIENCE: Duration = Duration::from_secs(10);

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
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a private namespace may route");
        let (clients, _) = host("clients", 81);
        let (servers, to_servers) = host("servers", 82);
        Self { clients, servers, to_servers }
    }

    /// A socket that listens on a port of the servers' host.
    ///
    /// # Panics
    /// If it cannot.
    pub fn listen(&self, port: u16) -> TcpListener {
        let listener = self.servers.run(|| TcpListener::bind(SocketAddrV4::new(SERVER, port)));
        listener.expect("in the namespace").expect("a free port")
    }

    /// A connection of a client.
    pub fn connect(&self, address: SocketAddrV4) -> std::io::Result<TcpStream> {
        let connected = self.clients.run(|| TcpStream::connect_timeout(&address.into(), PATIENCE));
        connected.expect("in the namespace")
    }
}

/// A host at 10.NUMBER.0.2 whose router is 10.NUMBER.0.1, and the router's interface to it.
fn host(name: &str, number: u8) -> (Namespace, Interface) {
    let namespace = Namespace::create().expect("a namespace");
    let near = Interface::named(&format!("to-{name}")).expect("a good name");
    let far = Interface::named(name).expect("a good name");
    let set_up = |interface: &Interface, last: u8| {
        interface.add_address(Ipv4Addr::new(10, number, 0, last).into(), 24).expect("an address");
        interface.up().expect("an interface");
    };
    Interface::create_veth_pair(&near, &far).expect("a wire");
    far.move_to(&namespace).expect("into the namespace");
    set_up(&near, 1);
    namespace.run(|| set_up(&far, 2)).expect("in the namespace");
    // The largest segments, whatever the network between can carry: that is for path-MTU discovery to find out.
    let gateway = format!("10.{number}.0.1");
    let words = ["route", "add", "default", "via", &gateway, "advmss", "1460"];
    let mut ip = Command::new("ip");
    let status = namespace.start_here(ip.args(words)).status().expect("ip is there");
    assert!(status.success(), "ip {words:?}: {status}");
    (namespace, near)
}
