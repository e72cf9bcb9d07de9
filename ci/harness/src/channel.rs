//! A client of the guest's host channel: a connected socket at the other end of one of its ports.

use crate::Guest;
use exovm::channel::{AttachRequest, ClientError};
use exovm::device::virtio::console::AttachError;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a guest may take to open a port, or to answer. Long, for hosts that are emulated.
const PATIENCE: Duration = Duration::from_secs(30);

impl Guest {
    /// Attaches to a port ("console", "control"), once the guest has opened it.
    ///
    /// # Panics
    /// If it does not, or somebody is attached already.
    pub fn attach(&self, port: &str) -> UnixStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_attach(port) {
                Ok(stream) => return stream,
                Err(ClientError::Port { error: AttachError::NotOpen, .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(error) => panic!("{error}; the guest logged {:#?}", self.log()),
            }
        }
    }

    /// Attaches to a port as it is now.
    pub fn try_attach(&self, port: &str) -> Result<UnixStream, ClientError> {
        let clients = self.machine().clients();
        let request = AttachRequest { port: port.to_owned(), linger_ms: 500, ..AttachRequest::default() };
        let attached = clients.attach(&request)?;
        let pair = UnixStream::pair().and_then(|(here, there)| {
            here.set_read_timeout(Some(PATIENCE))?;
            here.set_write_timeout(Some(PATIENCE))?;
            Ok((here, there))
        });
        let (here, there) = pair.unwrap_or_else(|error| panic!("a pair of sockets: {error}"));
        clients.start(attached, there, Vec::new())?;
        Ok(here)
    }
}
