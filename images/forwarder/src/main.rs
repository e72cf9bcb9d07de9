//! `exovm run forwarder --listen PORT --to ADDRESS:PORT`: connections to the port go on to the server, segment by segment
//! (`exos-forward`), those over IPv4 and IPv6 each to a server of their own. Here are its options, its start and its last words;
//! [`forwarding`] is what the event loop runs.
#![no_std]
#![no_main]

extern crate alloc;

mod forwarding;
mod statistics;

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use exos_event_loop::{Host, Interface, StartError};
use exos_forward::{Config, ConfigError, FLOWS_MAX, Forwarder, Network, Reason, Servers};
use exos_runtime::pages;
use forwarding::{Forwarding, Own};

exos_runtime::entry!(main);

/// Why there is nothing to forward.
enum Failure {
    /// An option is missing, or not what it should be.
    Option(&'static str),
    Config(ConfigError),
    Start(StartError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(what) => write!(f, "{what}; `exovm run forwarder --help` shows an example"),
            Self::Config(error) => write!(f, "{error}"),
            Self::Start(error) => write!(f, "{error}"),
        }
    }
}

fn main() -> u32 {
    match forward() {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn forward() -> Result<(), Failure> {
    let options = pages::options();
    let listen: u16 = match options.parse("listen") {
        Ok(Some(port)) if port > 0 => port,
        _ => return Err(Failure::Option("--listen takes a port, 1 to 65535")),
    };
    let to: Servers = match options.parse("to") {
        Ok(Some(to)) => to,
        _ => {
            return Err(Failure::Option(
                "--to takes a server's address and port, such as 10.0.0.2:80 or [2001:db8::2]:80, or one of each version of IP with a comma between (no %ZONE)",
            ));
        }
    };
    let max_connections = match options.parse("connections") {
        Ok(count) => count.unwrap_or(FLOWS_MAX),
        Err(_) => return Err(Failure::Option("--connections takes a number")),
    };
    let interface = Interface::first().map_err(|error| match error {
        StartError::NoAddress => Failure::Option(
            "the forwarder asks no DHCP server; give it ip=ADDRESS/BITS, or ip=none,ip6=ADDRESS/BITS, or both addresses",
        ),
        error => Failure::Start(error),
    })?;
    let mut config = Config::new(interface.mac.0, listen, interface.secret);
    config.max_connections = max_connections;
    (config.ipv4, config.ipv6) = (ipv4(&interface, to.ipv4)?, ipv6(&interface, to.ipv6)?);
    let forwarder = Forwarder::new(&config).map_err(Failure::Config)?;
    let host = Host::new(&interface).map_err(Failure::Start)?;
    if to.ipv4.is_none() {
        host.tell_ipv4_unserved();
    }
    let own = [
        config
            .ipv4
            .map(|Network { address, .. }| Own { address: address.into(), to: to.ipv4.map(SocketAddr::V4) }),
        config
            .ipv6
            .map(|Network { address, .. }| Own { address: address.into(), to: to.ipv6.map(SocketAddr::V6) }),
    ];
    let mut forwarding = Forwarding::new(forwarder, host, listen, own);
    exos_event_loop::run(&mut forwarding, &interface, None).map_err(Failure::Start)?;
    forwarding.result().map_err(Failure::Start)?;
    last_words(forwarding.forwarder());
    Ok(())
}

/// The interface's IPv4, with the server for it.
fn ipv4(interface: &Interface, to: Option<SocketAddrV4>) -> Result<Option<Network<Ipv4Addr>>, Failure> {
    let Interface { address, prefix_len, gateway, .. } = *interface;
    if !address.is_unspecified() {
        let to = to.map(|to| (*to.ip(), to.port()));
        return Ok(Some(Network { address, prefix_len, gateway, to }));
    }
    match to {
        None => Ok(None),
        Some(_) => Err(Failure::Option(
            "--to has an IPv4 server and the interface no IPv4 address; start the machine with --net tap=...,ip=ADDRESS/BITS",
        )),
    }
}

/// The interface's IPv6, with the server for it.
fn ipv6(interface: &Interface, to: Option<SocketAddrV6>) -> Result<Option<Network<Ipv6Addr>>, Failure> {
    if interface.hears_routers() {
        return Err(Failure::Option(
            "the forwarder hears no routers: leave ip6=auto out; for IPv6, ip6=ADDRESS/BITS (and gw6= if a router leads to the server)",
        ));
    }
    let given = interface.given_ipv6();
    let to = to.map(|to| (*to.ip(), to.port()));
    match given {
        Some((address, prefix_len, gateway)) => Ok(Some(Network { address, prefix_len, gateway, to })),
        None if to.is_none() => Ok(None),
        None => Err(Failure::Option(
            "--to has an IPv6 server and the interface no IPv6 address; start the machine with --net tap=...,ip6=ADDRESS/BITS",
        )),
    }
}

/// What was done, in a few lines.
fn last_words(forwarder: &Forwarder) {
    let counters = forwarder.counters();
    let (to_server, to_client) = (counters.to_server, counters.to_client);
    log::info!(
        "forwarder: {} connections; to the server {} frames with {} bytes, to clients {} frames with {} bytes",
        counters.opened,
        to_server.frames,
        to_server.data_bytes,
        to_client.frames,
        to_client.data_bytes
    );
    for (reason, name) in Reason::ALL {
        if counters.dropped(reason) > 0 {
            log::info!("forwarder: dropped {} frames: {name}", counters.dropped(reason));
        }
    }
}
