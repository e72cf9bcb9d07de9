//! `exovm run forwarder --listen PORT --to ADDRESS:PORT`: connections to the port go on to the server, segment by segment
//! (`exos-forward`). Here are its options, its start and its last words; [`forwarding`] is its loop.
#![no_std]
#![no_main]

extern crate alloc;

mod forwarding;
mod waiting;

use abi::boot::DEVICE_NET;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use exos_event_loop::console;
use exos_forward::{Config, ConfigError, FLOWS_MAX, Forwarder, Reason};
use exos_runtime::pages;
use forwarding::Forwarding;

exos_runtime::entry!(main);

/// Why there is nothing to forward.
enum StartError {
    /// An option is missing, or not what it should be.
    Option(&'static str),
    NoNic,
    NoAddress,
    Config(ConfigError),
    Nic(exos_nic::OpenError),
    Console(console::OpenError),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(what) => write!(f, "{what}; `exovm run forwarder --help` shows an example"),
            Self::NoNic => f.write_str("the machine has no network interface; start it with --net tap=..."),
            Self::NoAddress => {
                f.write_str("the interface has no address; start the machine with --net tap=...,ip=...")
            }
            Self::Config(error) => write!(f, "{error}"),
            Self::Nic(error) => write!(f, "the NIC's queues cannot be bound: {error}"),
            Self::Console(error) => write!(f, "the console cannot be opened: {error}"),
        }
    }
}

fn main() -> u32 {
    match start() {
        Ok(mut forwarding) => {
            forwarding.run();
            last_words(forwarding.forwarder());
            0
        }
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn start() -> Result<Forwarding, StartError> {
    let options = pages::options();
    let listen: u16 = match options.parse("listen") {
        Ok(Some(port)) if port > 0 => port,
        _ => return Err(StartError::Option("--listen takes a port, 1 to 65535")),
    };
    let to: SocketAddrV4 = match options.parse("to") {
        Ok(Some(to)) => to,
        _ => return Err(StartError::Option("--to takes an IPv4 address and a port, such as 10.0.0.2:80")),
    };
    let max_connections = match options.parse("connections") {
        Ok(count) => count.unwrap_or(FLOWS_MAX),
        Err(_) => return Err(StartError::Option("--connections takes a number")),
    };
    let environment = pages::environment();
    let index = pages::device_of_kind(DEVICE_NET).ok_or(StartError::NoNic)?;
    let device = &environment.devices[index];
    let ipv4 = &environment.ipv4;
    if ipv4.address == [0; 4] {
        return Err(StartError::NoAddress);
    }
    let (mut mac, mut secret) = ([0; 6], [0; 16]);
    mac.copy_from_slice(&device.mac[..6]);
    secret.copy_from_slice(&environment.entropy[..16]);
    let mut config = Config::new(mac, ipv4.address.into(), ipv4.prefix_len as u8, listen, to, secret);
    config.gateway = Some(Ipv4Addr::from(ipv4.gateway)).filter(|gateway| !gateway.is_unspecified());
    config.max_connections = max_connections;
    let forwarder = Forwarder::new(&config).map_err(StartError::Config)?;
    let forwarding = Forwarding::open(forwarder, index)?;
    log::info!("forwarder: {}:{listen} to {to}", config.address);
    pages::status().port.store(u32::from(listen), core::sync::atomic::Ordering::Relaxed);
    pages::stamp(abi::boot::phase::READY);
    Ok(forwarding)
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
