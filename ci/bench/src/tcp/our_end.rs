//! The session on our sockets, on a TAP.

use super::ends::{End, PORT};
use super::session::Session;
use crate::BenchError;
use crate::network::PREFIX_BITS;
use exos_net::{Config, Duration, MAX_TSO_BYTES, MacAddress, TxChecksum};
use exos_sockets::{Error, SocketOption, Sockets, Spawner, TcpStream};
use exovm_netns::{Interface, TapQueues, attach_tap};
use exovm_tap_stack::{Faults, Wire, run};
use std::io;

/// How long an empty TAP is polled before the process sleeps: longer than a client takes to answer on another CPU.
pub(crate) const SPIN_US: u64 = 50;
/// The Ethernet address of a stack on a TAP.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Connections that wait to be accepted.
const BACKLOG: usize = 64;

pub(crate) fn serve(end: &End) -> Result<(), BenchError> {
    let name = end.tap.as_deref().unwrap_or_default();
    let tap = attach_tap(&Interface::named(name)?, TapQueues::Single)?;
    let mut secret = [0; 16];
    rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| BenchError::system("get random bytes", error.into()))?;
    let mut config = Config::new(MacAddress(MAC), end.address, PREFIX_BITS, secret);
    config.tx_checksum = TxChecksum::Offload;
    config.tso_max_bytes = if end.stack.segments_are_offloaded() { MAX_TSO_BYTES } else { 0 };
    config.receive_window_bytes = end.buffer_bytes;
    let wire = Wire { tap: &tap, faults: Faults::default(), spin: Duration::from_micros(SPIN_US) };
    let buffer_bytes = end.buffer_bytes as usize;
    let ended = run(&wire, config, move |sockets, spawner| accept(sockets, spawner, buffer_bytes), || ());
    match ended {
        Ok((error, _)) => Err(BenchError::system(
            format!("accept connections on our stack ({error:?})"),
            io::Error::from(io::ErrorKind::NotConnected),
        )),
        Err(error) => Err(BenchError::system("run our stack on the TAP", io::Error::other(error))),
    }
}

/// Ends with an error only.
async fn accept(sockets: Sockets, spawner: Spawner, buffer_bytes: usize) -> Error {
    let listener = match sockets.listen(PORT, BACKLOG) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return error,
        };
        spawner.spawn(async move {
            // A client that goes away in the middle ends its connection.
            let _ = converse(stream, buffer_bytes).await;
        });
    }
}

/// Until the client closes, or talks nonsense.
async fn converse(mut stream: TcpStream, buffer_bytes: usize) -> Result<(), Error> {
    stream.set_nodelay(true);
    stream.set(SocketOption::SendBuffer(buffer_bytes));
    stream.set(SocketOption::ReceiveBuffer(buffer_bytes));
    let mut session = Session::new();
    loop {
        if !session.output().is_empty() {
            let len = stream.write(session.output()).await?;
            session.written(len);
            continue;
        }
        let goes_on = |bytes: &[u8]| (bytes.len(), !bytes.is_empty() && session.read(bytes).is_ok());
        if !stream.read_in_place(goes_on).await? {
            return Ok(());
        }
    }
}
