//! The private network of a benchmark: the client's namespace with a TAP for each server that is no Linux, and a veth pair
//! to a second namespace in which the Linux servers run.
//!
//! ```text
//! client's namespace                                second namespace
//!   wrk                                               nginx 10.81.0.2:8080, :8081   lighttpd 10.81.0.2:8082
//!                                                     plain on Linux's sockets 10.81.0.2:8083
//!   10.81.0.1 --------------- veth ----------------- 10.81.0.2
//!   10.80.0.1 --- TAP --- 10.80.0.2 cheetah
//!   10.83.0.1 --- TAP --- 10.83.0.2 cheetah, both CPUs
//!   10.82.0.1 --- TAP --- 10.82.0.2 bare responder
//!   10.88.0.1 --- TAP --- 10.88.0.2 plain
//! ```
//!
//! For those that stand between client and server, the client's namespace routes: a forwarder has a TAP (10.94.0.2), a relay a
//! namespace of its own (10.95.0.2), and both reach nginx in the second namespace through it.

use crate::BenchError;
use exovm_netns::{Interface, Namespace, TapQueues, create_tap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;

/// Address of a relay.
pub(crate) const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 95, 0, 2);
const ROUTER_ADDRESS_TO_RELAY: Ipv4Addr = Ipv4Addr::new(10, 95, 0, 1);

/// Of all connections, on both sides: a comparison of servers, not of congestion controls.
pub(crate) const CONGESTION_CONTROL: &str = "cubic";

/// Prefix length of every network here.
pub(crate) const PREFIX_BITS: u8 = 24;

/// Address of the Linux servers; the port tells which.
pub(crate) const PEERS_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 2);
const CLIENT_ADDRESS_TO_PEERS: Ipv4Addr = Ipv4Addr::new(10, 81, 0, 1);

/// Frames that the host keeps for a TAP that is slow to read, and for the veth pair: more than 256 clients send at once.
const QUEUE_FRAMES: u32 = 4000;

/// A TAP between the client and one server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TapLink {
    pub(crate) name: &'static str,
    pub(crate) client: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
}

/// Both ends. Ends with the process.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) peers: Namespace,
}

impl Network {
    /// Builds it in the network namespace of the calling process, which must be private.
    pub(crate) fn build(taps: &[TapLink]) -> Result<Self, BenchError> {
        tune_this_namespace()?;
        for tap in taps {
            let interface = Interface::named(tap.name)?;
            create_tap(&interface, TapQueues::Single)?; // as `exovm run` attaches
            interface.set_transmit_queue_length(QUEUE_FRAMES)?;
            configure(&interface, tap.client)?;
        }
        let peers = Namespace::create()?;
        let (near, far) = (Interface::named("to-peers")?, Interface::named("to-client")?);
        Interface::create_veth_pair(&near, &far)?;
        far.move_to(&peers)?;
        configure(&near, CLIENT_ADDRESS_TO_PEERS)?;
        peers.run(|| {
            tune_this_namespace()?;
            configure(&far, PEERS_ADDRESS)
        })??;
        let network = Network { peers };
        network.check_congestion_control()?;
        Ok(network)
    }

    /// Lets this namespace route between the servers and those that stand before them.
    pub(crate) fn route(&self) -> Result<(), BenchError> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            .map_err(|source| BenchError::system("let the client's namespace route", source))?;
        route_by(&self.peers, CLIENT_ADDRESS_TO_PEERS)
    }

    /// Adds a namespace for a relay, which reaches the servers through this one.
    pub(crate) fn add_relay(&self) -> Result<Namespace, BenchError> {
        let relay = Namespace::create()?;
        let (near, far) = (Interface::named("to-relay")?, Interface::named("to-router")?);
        Interface::create_veth_pair(&near, &far)?;
        far.move_to(&relay)?;
        configure(&near, ROUTER_ADDRESS_TO_RELAY)?;
        relay.run(|| {
            tune_this_namespace()?;
            configure(&far, RELAY_ADDRESS)
        })??;
        route_by(&relay, ROUTER_ADDRESS_TO_RELAY)?;
        Ok(relay)
    }

    /// Makes a connection and asks both of its sockets.
    fn check_congestion_control(&self) -> Result<(), BenchError> {
        let failed = |source| BenchError::system("make a connection between the namespaces", source);
        let address = SocketAddr::from((PEERS_ADDRESS, 9));
        let listener = self.peers.run(|| TcpListener::bind(address))?.map_err(failed)?;
        let client = TcpStream::connect(address).map_err(failed)?;
        let (server, _) = listener.accept().map_err(failed)?;
        check_socket(&client, "the client")?;
        check_socket(&server, "the namespace of the servers")
    }
}

/// Refuses a connection with another congestion control.
pub(crate) fn check_socket(socket: &TcpStream, side: &'static str) -> Result<(), BenchError> {
    let found = rustix::net::sockopt::tcp_congestion(socket)
        .map_err(|error| BenchError::system("ask a socket for its congestion control", error.into()))?;
    if found != CONGESTION_CONTROL {
        return Err(BenchError::CongestionControl { side, found, wanted: CONGESTION_CONTROL });
    }
    Ok(())
}

fn configure(interface: &Interface, address: Ipv4Addr) -> Result<(), BenchError> {
    interface.add_address(IpAddr::V4(address), PREFIX_BITS)?;
    interface.up()?;
    interface.set_route_congestion_control(address, PREFIX_BITS, CONGESTION_CONTROL)?;
    Ok(())
}

fn route_by(namespace: &Namespace, router: Ipv4Addr) -> Result<(), BenchError> {
    let mut ip = Command::new("ip");
    ip.args(["route", "add", "default", "via", &router.to_string(), "congctl", CONGESTION_CONTROL]);
    ip.env("PATH", crate::machine::search_path());
    let failed = |source| BenchError::system("add a route with `ip` (apt-get install iproute2)", source);
    let output = namespace.start_here(&mut ip).output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}

/// What a client and a server under load want of a namespace, each the same on both sides.
fn tune_this_namespace() -> Result<(), BenchError> {
    let settings = [
        // A connection per request at 50,000 a second uses up the usual 28,000 ports within a second.
        ("net/ipv4/ip_local_port_range", "1024 65535"),
        // Where the client closes first, it would wait a minute for each port; beyond this many it does not.
        ("net/ipv4/tcp_max_tw_buckets", "2048"),
        // The backlog that the servers ask for.
        ("net/core/somaxconn", "16384"),
        ("net/ipv4/tcp_max_syn_backlog", "16384"),
        // A burst of new connections is no attack here, and cookies cost options and time.
        ("net/ipv4/tcp_syncookies", "0"),
    ];
    for (name, value) in settings {
        std::fs::write(format!("/proc/sys/{name}"), value).map_err(|source| {
            BenchError::system(format!("set {name} to `{value}` in the namespace"), source)
        })?;
    }
    Ok(())
}
