//! Why a disk image cannot be attached.

use std::path::PathBuf;

use super::file::BLOCK_BYTES;

/// An image that cannot be attached. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// No such file.
    #[error("disk {}: there is no such file; make one, for example with `truncate -s 64M {}`{}", .path.display(), .path.display(), hint(.path))]
    NotFound {
        /// The image.
        path: PathBuf,
    },
    /// No rights.
    #[error("disk {}: no permission to {verb} it; change its mode or owner, or attach it with `,ro` if reading is enough", .path.display())]
    Permission {
        /// The image.
        path: PathBuf,
        /// Read, or read and write.
        verb: &'static str,
    },
    /// Something else than a regular file.
    #[error("disk {}: this is {what}, not a disk image; give a regular file", .path.display())]
    NotAFile {
        /// The image.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// Not whole blocks.
    #[error(
        "disk {}: {len_bytes} bytes are not a whole number of {BLOCK_BYTES}-byte blocks. If the file was cut short, make it \
         again; if its last block is meant to be filled up with zeros: `truncate -s {} {}`",
        .path.display(), .len_bytes.next_multiple_of(BLOCK_BYTES), .path.display()
    )]
    NotWholeBlocks {
        /// The image.
        path: PathBuf,
        /// Its length.
        len_bytes: u64,
    },
    /// No blocks.
    #[error("disk {}: the file is empty; give it a size, for example with `truncate -s 64M {}`", .path.display(), .path.display())]
    Empty {
        /// The image.
        path: PathBuf,
    },
    /// Somebody else has it.
    #[error(
        "disk {}: {} has it attached{}; stop that machine first, or attach the image with `,ro` in both",
        .path.display(), who(.holder), if *.wanted_exclusively { "" } else { " for writing" }
    )]
    Locked {
        /// The image.
        path: PathBuf,
        /// Who, if it can be known.
        holder: Option<u32>,
        /// Whether it was to be written here; readers do not disturb each other.
        wanted_exclusively: bool,
    },
    /// A system call failed.
    #[error("disk {}: {what} failed: {source}", .path.display())]
    System {
        /// The image.
        path: PathBuf,
        /// Which call.
        what: &'static str,
        /// How.
        source: std::io::Error,
    },
}

/// Somebody who wrote an option that does not exist should hear of it.
fn hint(path: &std::path::Path) -> &'static str {
    if path.to_string_lossy().contains(',') { " (the only option behind a comma is `,ro`)" } else { "" }
}

fn who(holder: &Option<u32>) -> String {
    match holder {
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    }
}
