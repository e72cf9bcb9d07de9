//! Servers that do not trust each other on one NIC with one address: the first environment is the guardian, the others are Cheetahs
//! that ask it for a port each, and learn from its tables where the gateway is.
//!
//! Arguments: the port of the first server, of the second, and so on; without them 80, 81 ...
#![no_std]
#![no_main]

use exos_guardian::client::{Error, Guardian, NextHops};
use exos_guardian::request::Port;
use exos_guardian::tables::Snapshot;
use exos_runtime::pages;

exos_runtime::entry!(main);

/// Of the first server, if the arguments do not say another.
const FIRST_PORT: u16 = 80;

fn main() -> u32 {
    let number = pages::environment().environment;
    if number == 0 {
        return match exos_guardian::server::serve() {
            Ok(()) => 0,
            Err(error) => {
                log::error!("{error}");
                1
            }
        };
    }
    let server = number as u16 - 1;
    let port = match pages::arguments().nth(server.into()).map(str::parse) {
        None => FIRST_PORT + server,
        Some(Ok(port)) => port,
        Some(Err(_)) => {
            log::error!("the arguments are ports, one for each server, such as `-- 80 8000`");
            return 1;
        }
    };
    match ask_for(port) {
        Ok(mut hops) => cheetah::main_behind(port, &mut || hops.gateway_mac()),
        Err(error) => {
            log::error!("port {port}: {error}");
            1
        }
    }
}

fn ask_for(port: u16) -> Result<NextHops, Error> {
    let guardian = Guardian::find()?;
    guardian.reserve(Port::tcp(port))?;
    let tables = guardian.tables()?;
    // Another look is somebody else's write away, and this one is for people only.
    if let Ok(Snapshot { ip, ports, .. }) = tables.snapshot() {
        log::info!("port {port} of {ip} is ours; {} of the address are somebody's", ports.len());
    }
    Ok(NextHops::new(tables))
}
