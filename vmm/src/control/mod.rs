//! The control socket: how tools speak to a running machine.
//!
//! One Unix socket a machine, in the user's runtime directory, named after the machine. Several clients may be connected
//! at once and none can hold up another, nor the machine: sockets never block, what waits for a client is bounded, and
//! streams are pulled by who reads them, so that a slow reader loses lines (and is told how many) and costs nothing else.
//!
//! | module | what |
//! | --- | --- |
//! | [`protocol`] | requests and answers, a line of JSON each |
//! | [`directory`] | names, and where sockets lie |
//! | [`server`] | the machine's side |
//! | `http` | `GET /metrics` |
//! | [`client`] | the tools' side |
//! | `lines` | what comes over a connection that a tool has taken over |

pub mod client;
mod connection;
pub mod directory;
mod http;
mod lines;
pub mod protocol;
pub mod server;

pub use client::{Session, resolve};
pub use directory::{checked_name, machines, runtime_dir};
pub use lines::{Heard, Lines, LinesError};
pub use protocol::{Answer, Ending, Info, LogRequest, Refusal, RefusalKind, Request, StatRequest, State};
pub use server::{Control, ControlSocket, Served};

use std::path::PathBuf;

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
    /// Somebody holds its lock.
    #[error("{dir} is locked by a process that does not go on; `fuser {dir}` says which")]
    Locked {
        /// Which.
        dir: PathBuf,
    },
    /// No socket can be there.
    #[error("{path}: longer than a socket's path can be; set XDG_RUNTIME_DIR to a shorter one")]
    LongPath {
        /// Which.
        path: PathBuf,
    },
    /// Not a name.
    #[error("a machine's name is 1 to 48 letters, digits, '-' and '_'; {name:?} is not")]
    BadName {
        /// What was given.
        name: String,
    },
    /// The socket cannot be made or used.
    #[error("{path}: {error}")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A resource of the host.
    #[error("control socket: {0}")]
    Host(std::io::Error),
    /// Names are used up.
    #[error("a machine called {name:?} runs, and no number can be put behind that; choose another --name")]
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
    /// None, and no name was given.
    #[error("no machine is running; start one with `exovm run`")]
    NoneRuns,
    /// Several, and no name was given.
    #[error("several machines are running, say which: {}", .names.join(", "))]
    WhichOne {
        /// Their names.
        names: Vec<String>,
    },
    /// It is there and says nothing.
    #[error("machine {name} (process {pid}) does not answer: {error}; `exovm stop --force {name}` ends it")]
    NoAnswer {
        /// Which.
        name: String,
        /// Its process.
        pid: u32,
        /// Why.
        error: std::io::Error,
    },
    /// It has no place for one more client.
    #[error("machine {name}: {message}; try again when fewer tools look at it")]
    Busy {
        /// Which.
        name: String,
        /// Its process.
        pid: u32,
        /// What it said.
        message: String,
    },
    /// It ended while it was asked.
    #[error("machine {name} ended")]
    Gone {
        /// Which.
        name: String,
    },
    /// It understood, and does not do it.
    #[error("machine {name}: {}", .refusal.message)]
    Refused {
        /// Which.
        name: String,
        /// Why.
        refusal: Refusal,
    },
    /// It said something else.
    #[error("machine {name} answered something else ({what}); are it and this exovm of the same version?")]
    Misunderstood {
        /// Which.
        name: String,
        /// What.
        what: String,
    },
}
