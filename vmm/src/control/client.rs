//! The tools' side of the control socket.

use super::{Request, Response, checked_name, runtime_dir};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Why a machine cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The runtime directory.
    #[error("{dir}: {error}; set XDG_RUNTIME_DIR to a directory of your own")]
    RuntimeDir {
        /// Which.
        dir: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It belongs to somebody else.
    #[error("{dir} is not a directory that only you can write to; set XDG_RUNTIME_DIR to one")]
    UnsafeRuntimeDir {
        /// Which.
        dir: PathBuf,
    },
    /// Not a name.
    #[error("a machine's name is 1 to 48 letters, digits, '-' and '_'; {name:?} is not")]
    BadName {
        /// What was given.
        name: String,
    },
    /// The socket cannot be made.
    #[error("{path}: {error}")]
    Bind {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Names are used up.
    #[error("there are already many machines called {name:?}; choose another --name")]
    TooMany {
        /// Which.
        name: String,
    },
    /// No such machine.
    #[error("no machine called {name:?} is running{others}")]
    NotRunning {
        /// Which.
        name: String,
        /// Which ones are, in words.
        others: String,
    },
    /// None or several, and no name was given.
    #[error("{0}")]
    WhichOne(String),
    /// It went away.
    #[error("the machine did not answer: {0}")]
    NoAnswer(std::io::Error),
    /// It said something else.
    #[error("the machine answered something else ({0}); are both of the same version?")]
    Misunderstood(String),
}

/// Names of the machines of this user that answer.
pub fn running() -> Result<Vec<String>, ControlError> {
    let dir = runtime_dir()?;
    let entries = std::fs::read_dir(&dir).map_err(|error| ControlError::RuntimeDir { dir, error })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .filter(|path| UnixStream::connect(path).is_ok())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Asks a machine; `None` means the only one that runs.
pub fn ask(name: Option<&str>, request: &Request) -> Result<Response, ControlError> {
    let name = match name {
        Some(name) => checked_name(name)?.to_owned(),
        None => {
            let mut names = running()?;
            match (names.pop(), names.is_empty()) {
                (Some(name), true) => name,
                (None, _) => {
                    return Err(ControlError::WhichOne(
                        "no machine is running; start one with `exovm run`".to_owned(),
                    ));
                }
                (Some(last), false) => {
                    return Err(ControlError::WhichOne(format!(
                        "several machines are running, say which: {}, {last}",
                        names.join(", ")
                    )));
                }
            }
        }
    };
    let path = runtime_dir()?.join(format!("{name}.sock"));
    let mut stream = UnixStream::connect(path).map_err(|_| not_running(&name))?;
    let exchange = |stream: &mut UnixStream| -> std::io::Result<String> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        stream.write_all(text.as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    };
    let line = exchange(&mut stream).map_err(ControlError::NoAnswer)?;
    match serde_json::from_str(&line) {
        Ok(Response::Error { message }) => Err(ControlError::Misunderstood(message)),
        Ok(response) => Ok(response),
        Err(error) => Err(ControlError::Misunderstood(error.to_string())),
    }
}

fn not_running(name: &str) -> ControlError {
    let names = running().unwrap_or_default();
    let others = if names.is_empty() { String::new() } else { format!("; these are: {}", names.join(", ")) };
    ControlError::NotRunning { name: name.to_owned(), others }
}
