//! Published TCP ports: clients of the host are accepted and connected to the guest.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::Tcp;
use crate::flow::Surroundings;
use crate::host_sockets;
use crate::reactor::{Reactor, Source};

/// Clients accepted at once, before others get their turn.
const BATCH: usize = 32;
/// How long to wait when there is no room, or the process may not have more descriptors.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// One published port.
#[derive(Debug)]
pub(crate) struct TcpPort {
    listener: TcpListener,
    guest_port: u16,
    /// Clients may be waiting, from this time on.
    waiting_since: Option<Duration>,
    /// The log has said that clients have to wait.
    complained: bool,
}

/// What came of a look at a port.
enum Accepted {
    /// No client waits.
    None,
    /// More may wait.
    More,
    /// Clients have to wait.
    Later(io::Error),
}

impl TcpPort {
    /// Binds it.
    pub(crate) fn bind(address: SocketAddr, guest_port: u16) -> io::Result<Self> {
        let listener = host_sockets::listen(address)?;
        Ok(Self { listener, guest_port, waiting_since: Some(Duration::ZERO), complained: false })
    }

    /// Where it is bound.
    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Has its clients told as `source`.
    pub(crate) fn watch(&self, reactor: &Reactor, source: Source) -> io::Result<()> {
        Ok(reactor.watch_input(&self.listener, source)?)
    }

    /// A client waits.
    pub(crate) fn client_waits(&mut self, now: Duration) {
        self.waiting_since.get_or_insert(now);
    }

    /// When to look for clients again.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.waiting_since
    }

    /// Accepts clients that wait, some at most. `true`: more may wait now.
    pub(crate) fn accept(&mut self, tcp: &mut Tcp, around: &mut Surroundings) -> bool {
        if self.waiting_since.is_none_or(|at| at > around.now) {
            return false;
        }
        for _ in 0..BATCH {
            match self.accept_one(tcp, around) {
                Accepted::More => {}
                Accepted::None => {
                    self.waiting_since = None;
                    return false;
                }
                Accepted::Later(error) => {
                    self.waiting_since = Some(around.now + RETRY_AFTER);
                    if !self.complained {
                        self.complained = true;
                        tracing::warn!("clients of the published port for {} wait: {error}", self.guest_port);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn accept_one(&mut self, tcp: &mut Tcp, around: &mut Surroundings) -> Accepted {
        // A client is only taken off the queue when there is a place for it.
        if tcp.is_full() && !self.has_client() {
            return Accepted::None;
        }
        if !tcp.make_room(around) {
            around.counters.tcp_accept_waits += 1;
            return Accepted::Later(io::Error::other(format!(
                "all {} connections are in use",
                super::CONNECTIONS_MAX
            )));
        }
        match host_sockets::accept(&self.listener) {
            Ok(stream) => {
                around.counters.tcp_accepted += 1;
                if let Err(error) = tcp.open_inbound(stream, self.guest_port, around) {
                    tracing::debug!("a client was turned away: {error}");
                }
                Accepted::More
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::None,
            // RFC-conforming stacks report a client that gave up as an error of accept; the next one may be there.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                Accepted::More
            }
            Err(error) => {
                around.counters.tcp_accept_waits += 1;
                Accepted::Later(error)
            }
        }
    }

    fn has_client(&self) -> bool {
        host_sockets::is_readable(&self.listener)
    }
}
