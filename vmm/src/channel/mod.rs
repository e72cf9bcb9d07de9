//! Clients of the host channel: each is a connected Unix socket, and a thread that moves bytes between it and the port's
//! buffers (`device::virtio::console::host`).
//!
//! A client that is slow, floods or dies costs its own thread and the port's two bounded buffers, and nothing else: neither the
//! device work nor the other ports wait for it.

mod pump;

#[cfg(test)]
mod tests;

use crate::device::virtio::console::{AttachError, Begin, HostPort, Session, TerminalSize};
use pump::Pump;
use serde::{Deserialize, Serialize};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a client wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttachRequest {
    /// Name of the port.
    pub port: String,
    /// Columns and rows of the client's terminal, if it is one.
    pub terminal: Option<(u16, u16)>,
    /// Whether a little of what earlier clients have read is wanted as well.
    pub recent: bool,
    /// Once the client has said all (shut its side down) and the guest has taken it, the session ends when nothing came
    /// from the guest for so long.
    pub linger_ms: u64,
}

/// Why a client is not attached.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No such port.
    #[error("there is no port {name:?}; these are: {ports}")]
    NoSuchPort {
        /// What was asked for.
        name: String,
        /// What there is.
        ports: String,
    },
    /// The machine has ended.
    #[error("the machine has ended")]
    Ended,
    /// The port.
    #[error("port {name:?}: {error}")]
    Port {
        /// Which.
        name: String,
        /// Why.
        error: AttachError,
    },
    /// A resource of the host.
    #[error("{what}: {error}")]
    Host {
        /// What was wanted.
        what: &'static str,
        /// Why not.
        error: std::io::Error,
    },
}

/// The ports of one machine, and who is attached.
pub struct Clients {
    ports: Vec<Arc<HostPort>>,
    ended: Arc<AtomicBool>,
    pumps: Mutex<Vec<Running>>,
}

/// A client's thread.
struct Running {
    thread: JoinHandle<()>,
    /// Wakes it.
    wake: Arc<EventFd>,
}

impl Clients {
    /// Nobody is attached.
    pub(crate) fn new(ports: Vec<Arc<HostPort>>) -> Self {
        Self { ports, ended: Arc::default(), pumps: Mutex::default() }
    }

    /// Reserves a port for a client.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attached, ClientError> {
        if self.ended.load(Ordering::Acquire) {
            return Err(ClientError::Ended);
        }
        let port = self.ports.iter().find(|port| port.config().name == request.port).ok_or_else(|| {
            let names: Vec<_> = self.ports.iter().map(|port| port.config().name).collect();
            ClientError::NoSuchPort { name: request.port.clone(), ports: names.join(", ") }
        })?;
        let begin = if request.recent { Begin::Recent } else { Begin::Unseen };
        let (columns, rows) = request.terminal.unwrap_or_default();
        let session = port
            .attach(begin, TerminalSize { columns, rows })
            .map_err(|error| ClientError::Port { name: request.port.clone(), error })?;
        let linger = Duration::from_millis(request.linger_ms);
        Ok(Attached { session, linger })
    }

    /// From now on, bytes go between an attached client's port and its `socket`; `first` are bytes that were read from it
    /// already.
    pub fn start(&self, attached: Attached, socket: UnixStream, first: Vec<u8>) -> Result<(), ClientError> {
        let Attached { session, linger } = attached;
        let host = |what| move |error| ClientError::Host { what, error };
        socket.set_nonblocking(true).map_err(host("socket"))?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK).map_err(host("event descriptor"))?);
        let pump = Pump::new(session, socket, first, linger, Arc::clone(&wake), Arc::clone(&self.ended));
        // Under the lock, so that whoever ends the machine sees the thread, or it the end.
        let mut pumps = self.pumps.lock().unwrap_or_else(PoisonError::into_inner);
        pumps.retain(|pump| !pump.thread.is_finished());
        let thread = std::thread::Builder::new()
            .name("exovm-client".to_owned())
            .spawn(move || pump.run())
            .map_err(host("thread"))?;
        pumps.push(Running { thread, wake });
        Ok(())
    }

    /// The machine has ended: clients get what is left, and then the end.
    pub(crate) fn say_end(&self) {
        self.ended.store(true, Ordering::Release);
        for pump in self.pumps.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = pump.wake.write(1);
        }
    }

    /// Waits until all clients have gone, which is soon after [`Self::say_end`].
    pub(crate) fn end(&self) {
        self.say_end();
        let pumps = std::mem::take(&mut *self.pumps.lock().unwrap_or_else(PoisonError::into_inner));
        for pump in pumps {
            if pump.thread.join().is_err() {
                tracing::error!("the thread of a channel client panicked");
            }
        }
    }
}

/// A port that is reserved for a client. Dropping it gives the port back.
#[derive(Debug)]
pub struct Attached {
    session: Session,
    linger: Duration,
}
