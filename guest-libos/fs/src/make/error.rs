//! What can go wrong while a volume is made.

use std::io;
use std::path::PathBuf;

use crate::format::BLOCK_BYTES;
use crate::tree::ScanError;

/// Why a volume cannot be made. Nothing is left behind, whichever it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The directory cannot be looked through, or a file of it not read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// A file is not what it was when the directory was scanned.
    #[error("{path:?} changed while it was being copied ({}): start again when nothing writes to it", change(.scanned_bytes, .found_bytes))]
    FileChanged {
        /// Its path.
        path: PathBuf,
        /// Its size then.
        scanned_bytes: u64,
        /// Its size now; the same where only the time of modification has changed.
        found_bytes: u64,
    },
    /// A file is larger than the format can hold.
    #[error("{path:?} has {size_bytes} bytes, more than a volume can hold: leave it out")]
    TooLarge {
        /// Its path.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// No table with one block a bucket was found for the names in a directory.
    #[error(
        "the file names in {path:?} collide in every hash table tried: rename some of them, or use subdirectories"
    )]
    NamesCollide {
        /// The directory.
        path: PathBuf,
    },
    /// The size that was asked for is not enough.
    #[error(
        "the files need a volume of {needed_bytes} bytes and it shall have {given_bytes}: give it more, or leave the size out"
    )]
    TooSmall {
        /// The least that holds everything.
        needed_bytes: u64,
        /// What was asked for.
        given_bytes: u64,
    },
    /// The place for the image is something else than a file.
    #[error("{path:?} is not a file and will not be replaced: name another place for the image")]
    NotAFile {
        /// The place.
        path: PathBuf,
    },
    /// The disk is full.
    #[error(
        "no room for the image {path:?}, which needs {image_bytes} bytes ({source}): make room or name another place; nothing was left there"
    )]
    NoRoom {
        /// The place.
        path: PathBuf,
        /// The size of the image.
        image_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The host allows no file of that size: `ulimit -f`, or its file system.
    #[error(
        "the image {path:?} needs {image_bytes} bytes, more than a file may have there ({source}): raise `ulimit -f` or name another place; nothing was left there"
    )]
    TooLargeForHost {
        /// The place.
        path: PathBuf,
        /// The size of the image.
        image_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("cannot write the image {path:?}: {source}")]
    Unwritable {
        /// The place.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

fn change(scanned_bytes: &u64, found_bytes: &u64) -> std::string::String {
    match scanned_bytes == found_bytes {
        true => std::string::String::from("it was modified"),
        false => std::format!("from {scanned_bytes} to {found_bytes} bytes"),
    }
}

/// Bytes of so many blocks, for messages.
pub(super) fn bytes_of(blocks: u64) -> u64 {
    blocks.saturating_mul(BLOCK_BYTES as u64)
}
