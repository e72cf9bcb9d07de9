//! The other end as a process of its own: which stack plays the [`session`](super::session), and where.

use super::options::Stack;
use super::session::Session;
use super::{client, our_end, smoltcp_end};
use crate::BenchError;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Where every stack listens.
pub(crate) const PORT: u16 = 7_000;
/// What is read at once.
const READ_BYTES: usize = 256 << 10;

/// What such a process must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) stack: Stack,
    pub(crate) address: Ipv4Addr,
    /// Of a stack that is not the kernel's.
    pub(crate) tap: Option<String>,
    pub(crate) buffer_bytes: u32,
}

/// Serves until the process ends.
pub(crate) fn play(end: &End) -> Result<(), BenchError> {
    match end.stack {
        Stack::Loopback | Stack::Veth => linux(end.address),
        Stack::Ours | Stack::OursSegments => our_end::serve(end),
        Stack::Smoltcp | Stack::SmoltcpSegments => smoltcp_end::serve(end),
    }
}

/// Connections of the kernel's that are served at a time.
const THREADS: usize = 8;

/// Blocking sockets, each thread with one connection at a time.
fn linux(address: Ipv4Addr) -> Result<(), BenchError> {
    let failed = |source| BenchError::system(format!("listen on port {PORT} of {address}"), source);
    let listener = TcpListener::bind((address, PORT)).map_err(failed)?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| accept(&listener))).collect();
        threads.into_iter().try_for_each(|thread| {
            let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map_err(failed)
        })
    })
}

/// Ends with an error only.
fn accept(listener: &TcpListener) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let (stream, peer) = listener.accept()?;
        // A client that goes away in the middle ends its connection.
        let _ = serve(stream, peer, &mut buffer);
    }
}

/// Until the client closes, or talks nonsense.
fn serve(mut stream: TcpStream, peer: SocketAddr, buffer: &mut [u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    client::choose_congestion_control(&stream, peer)?;
    let mut session = Session::new();
    loop {
        if !session.output().is_empty() {
            let len = stream.write(session.output())?;
            session.written(len);
            continue;
        }
        let len = stream.read(buffer)?;
        if len == 0 || session.read(&buffer[..len]).is_err() {
            return Ok(());
        }
    }
}
