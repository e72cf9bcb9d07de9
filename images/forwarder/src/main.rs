//! `exovm run forwarder --listen PORT --to ADDRESS:PORT`: connections to the port go on to the server, segment by segment
//! (`exos-forward`). Here are its options, its start and its last words; [`forwarding`] is what the event loop runs.
#![no_std]
#![no_main]

extern crate alloc;

mod forwarding;
mod statistics;

use core::fmt;
use core::net::SocketAddrV4;
use exos_event_loop::{Interface, StartError};
use exos_forward::{Config, ConfigError, FLOWS_MAX, Forwarder, Reason};
use exos_runtime::pages;
use forwarding::Forwarding;

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
    let to: SocketAddrV4 = match options.parse("to") {
        Ok(Some(to)) => to,
        _ => return Err(Failure::Option("--to takes an IPv4 address and a port, such as 10.0.0.2:80")),
    };
    let max_connections = match options.parse("connections") {
        Ok(count) => count.unwrap_or(FLOWS_MAX),
        Err(_) => return Err(Failure::Option("--connections takes a number")),
    };
    let interface = Interface::first_with_ipv4().map_err(Failure::Start)?;
    if interface.has_ipv6() {
        return Err(Failure::Option("what is forwarded is IPv4; start the machine without ip6="));
    }
    let Interface { address, prefix_len, mac, secret, .. } = interface;
    let mut config = Config::new(mac.0, address, prefix_len, listen, to, secret);
    config.gateway = interface.gateway;
    config.max_connections = max_connections;
    let forwarder = Forwarder::new(&config).map_err(Failure::Config)?;
    log::info!("forwarder: {address}:{listen} to {to}");
    let mut forwarding = Forwarding::new(forwarder, listen);
    exos_event_loop::run(&mut forwarding, &interface, None).map_err(Failure::Start)?;
    last_words(forwarding.forwarder());
    Ok(())
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
