//! An image with a test: a page at `/`, and an answer for everything else.
#![no_std]
#![no_main]

use exos_event_loop::{Io, Service};
use exos_net::{ConnId, End};

exos_runtime::entry!(main);

const PORT: u16 = 80;
const CONNECTIONS: u32 = 1024;
const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\
    Connection: close\r\n\r\ngood morning";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

struct Greeter;

impl Service for Greeter {
    type Data = &'static [u8];

    fn opened(&mut self, _: ConnId) {}

    fn input(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId, bytes: &[u8]) -> usize {
        if !bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            return 0;
        }
        // `exovm account`, and the test, divide by this counter.
        exos_trace::counter!("requests", 1);
        let answer = {
            let _span = exos_trace::span!("answer");
            if bytes.starts_with(b"GET / ") { PAGE } else { NOT_FOUND }
        };
        // An error means that the connection is gone already.
        let _ = io.send(connection, answer);
        let _ = io.close(connection);
        bytes.len()
    }

    fn peer_closed(&mut self, io: &mut Io<'_, Self::Data>, connection: ConnId) {
        let _ = io.close(connection);
    }

    fn ended(&mut self, _: ConnId, _: End) {}
}

fn main() -> u32 {
    log::info!("greeter: good morning on port {PORT}");
    match exos_event_loop::serve(&mut Greeter, PORT, CONNECTIONS) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}
