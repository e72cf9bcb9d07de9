//! The machine's side of the control socket.

use super::{ControlError, Request, Response, checked_name, runtime_dir};
use crate::machine::{Machine, Shared};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A request is never longer.
const REQUEST_BYTES: u64 = 4096;
/// A client that does not speak or listen for that long is left.
const PATIENCE: Duration = Duration::from_millis(500);

/// A listening control socket. Dropping it removes the file.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    machine: Arc<Shared>,
}

impl Control {
    /// Listens under `name`, or `name-2`, `name-3` ... if that runs already. What a killed VMM left behind is taken over.
    pub fn bind(name: &str, machine: &Machine) -> Result<Self, ControlError> {
        let name = checked_name(name)?;
        let dir = runtime_dir()?;
        for attempt in 1..100 {
            let name = if attempt == 1 { name.to_owned() } else { format!("{name}-{attempt}") };
            let path = dir.join(format!("{name}.sock"));
            if path.exists() {
                if UnixStream::connect(&path).is_ok() {
                    continue;
                }
                // Nobody listens: the file is a leftover.
                let _ = std::fs::remove_file(&path);
            }
            let listener = match UnixListener::bind(&path) {
                Ok(listener) => listener,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(ControlError::Bind { path, error }),
            };
            return match listener.set_nonblocking(true) {
                Ok(()) => Ok(Self { listener, path, machine: Arc::clone(machine.shared()) }),
                Err(error) => Err(ControlError::Bind { path, error }),
            };
        }
        Err(ControlError::TooMany { name: name.to_owned() })
    }

    /// The machine's name, as clients call it.
    pub fn name(&self) -> String {
        self.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Serves all clients that wait. Call it when the socket is readable.
    pub fn serve(&self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if let Err(error) = self.answer(stream) {
                tracing::debug!("control client: {error}");
            }
        }
    }

    fn answer(&self, mut stream: UnixStream) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(REQUEST_BYTES)).read_line(&mut line)?;
        let response = match serde_json::from_str(&line) {
            Ok(Request::Account) => Response::Account(self.machine.account()),
            Err(error) => Response::Error { message: format!("not a request: {error}") },
        };
        let mut text = serde_json::to_string(&response)?;
        text.push('\n');
        stream.write_all(text.as_bytes())
    }
}

impl AsRawFd for Control {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
