//! Accepting connections, and a task for each.

use crate::connection::connection;
use crate::counters::Counters;
use crate::files::Files;
use core::convert::Infallible;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::pin;
use core::task::Poll;
use edge_nal::{TcpAccept, TcpBind};
use embedded_io_async::{Error, ErrorKind};
use futures_util::stream::{FuturesUnordered, StreamExt};

/// Serves `files` at `local`, to so many clients at a time, until a connection cannot be accepted for a reason that lies with us.
pub async fn serve<N: TcpBind, F: Files>(
    network: &N,
    local: SocketAddr,
    files: &F,
    counters: &Counters,
    connections_max: usize,
) -> Result<Infallible, N::Error> {
    let listener = network.bind(local).await?;
    let mut connections = FuturesUnordered::new();
    let mut accepting = pin!(listener.accept());
    poll_fn(|context| {
        loop {
            while let Poll::Ready(Some(())) = connections.poll_next_unpin(context) {}
            // Whoever comes when all places are taken waits in the listener; the end of a connection brings us back here.
            if connections.len() >= connections_max {
                return Poll::Pending;
            }
            match accepting.as_mut().poll(context) {
                Poll::Ready(Ok((_, stream))) => connections.push(connection(stream, files, counters)),
                Poll::Ready(Err(error)) if is_over_already(error.kind()) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
            accepting.set(listener.accept());
        }
    })
    .await
}

/// Whether the client was gone before its connection was accepted.
fn is_over_already(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::NotConnected)
}
