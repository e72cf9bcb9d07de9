//! The control socket: how a tool speaks to a running machine.
//!
//! One Unix socket a machine, in the user's runtime directory, named after the machine. A client sends one line of
//! JSON, gets one line back, and the connection ends.

mod client;
mod server;

pub use client::{ControlError, ask, running};
pub use server::Control;

use crate::account::AccountSnapshot;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The account up to now.
    Account,
}

/// What the machine answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To [`Request::Account`].
    Account(AccountSnapshot),
    /// It did not understand.
    Error {
        /// Why.
        message: String,
    },
}

/// Longest name of a machine: socket paths are short.
const NAME_BYTES_MAX: usize = 48;

/// A machine's name, if it can have it: it becomes a file name.
pub fn checked_name(name: &str) -> Result<&str, ControlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    if good { Ok(name) } else { Err(ControlError::BadName { name: name.to_owned() }) }
}

/// The directory of this user's control sockets; made if missing, refused if somebody else could write to it.
pub fn runtime_dir() -> Result<PathBuf, ControlError> {
    // SAFETY: no arguments, no failure.
    let uid = unsafe { libc::getuid() };
    let dir = match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("exovm"),
        None => std::env::temp_dir().join(format!("exovm-{uid}")),
    };
    let fail = |error| ControlError::RuntimeDir { dir: dir.clone(), error };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(fail(error)),
        _ => {}
    }
    let metadata = std::fs::symlink_metadata(&dir).map_err(fail)?;
    if !metadata.is_dir() || metadata.uid() != uid || metadata.mode() & 0o022 != 0 {
        return Err(ControlError::UnsafeRuntimeDir { dir });
    }
    Ok(dir)
}
