//! The template for an image of one's own: one page of text over HTTP.
//!
//! An image is a `no_std` program. [`exos_runtime::entry`] makes `main` its entry; here `main` hands a [`Service`] to
//! the event loop, which owns the network interface and calls back for every connection.
#![no_std]
#![no_main]

use exos_event_loop::{Io, Service};
use exos_net::{ConnId, End};

exos_runtime::entry!(main);

const PORT: u16 = 80;
const CONNECTIONS: u32 = 1024;
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: exovm\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n\
    Connection: close\r\n\r\nhello from ring 3\n";

/// Answers every request with the same page and closes.
struct Hello;

impl Service for Hello {
    type Data = &'static [u8];

    fn opened(&mut self, _: ConnId) {}

    fn input(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId, bytes: &[u8]) -> usize {
        // A request ends with an empty line. Until then nothing is consumed: the stack keeps it.
        if !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            return 0;
        }
        if io.send(connection, PAGE).is_err() || io.close(connection).is_err() {
            log::warn!("a connection ended before its answer");
        }
        bytes.len()
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId) {
        // An error means that the connection is gone already, which is what we want.
        let _ = io.close(connection);
    }

    fn ended(&mut self, _: ConnId, _: End) {}
}

fn main() -> u32 {
    log::info!("{}: serving port {PORT}", env!("CARGO_PKG_NAME"));
    match exos_event_loop::serve(&mut Hello, PORT, CONNECTIONS) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}
