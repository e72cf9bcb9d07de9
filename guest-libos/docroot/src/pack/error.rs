//! What can go wrong while packing.

use core::fmt;
use std::io;
use std::path::PathBuf;

use super::ScanError;

/// Why a document root cannot be packed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PackError {
    /// The directory cannot be looked through, or a file of it not read.
    Scan(ScanError),
    /// There is no file in the root or below it.
    Empty {
        /// The root as it was given.
        root: PathBuf,
        /// How many things were left out.
        left_out: usize,
    },
    /// A file is not what it was when the directory was scanned.
    FileChanged {
        /// Its path.
        path: PathBuf,
        /// Its size then.
        scanned_bytes: u64,
        /// Its size now; the same where only the time of modification has changed.
        found_bytes: u64,
    },
    /// Names or sizes add up to more than the format can hold.
    TooLarge,
    /// No table with bounded look-ups was found for the names.
    NamesCollide,
    /// The memory to pack into is smaller than the archive.
    TooLittleMemory {
        /// The size of the archive.
        needed_bytes: u64,
        /// The size of the memory.
        found_bytes: u64,
    },
    /// The place to pack into refused the bytes.
    Sink {
        /// What it said.
        source: io::Error,
    },
}

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PackError::Scan(error) => error.fmt(f),
            PackError::Empty { root, left_out: 0 } => {
                write!(f, "document root {root:?} holds no file: put at least an index.html there")
            }
            PackError::Empty { root, left_out } => write!(
                f,
                "document root {root:?} holds no file that can be served ({left_out} left out): put at least an \
                 index.html there"
            ),
            PackError::FileChanged { path, scanned_bytes, found_bytes } if scanned_bytes == found_bytes => {
                write!(
                    f,
                    "{path:?} was modified while it was being packed: start again when nothing writes to it"
                )
            }
            PackError::FileChanged { path, scanned_bytes, found_bytes } => write!(
                f,
                "{path:?} changed from {scanned_bytes} to {found_bytes} bytes while it was being packed: start again \
                 when nothing writes to it"
            ),
            PackError::TooLarge => f.write_str(
                "the document root is larger than the packed form can hold: serve a smaller directory",
            ),
            PackError::NamesCollide => f.write_str(
                "the file names of the document root collide in every hash table tried: rename some of them",
            ),
            PackError::TooLittleMemory { needed_bytes, found_bytes } => write!(
                f,
                "the document root needs {needed_bytes} bytes packed and there are {found_bytes}: give the guest more \
                 memory or serve a smaller directory"
            ),
            PackError::Sink { source } => write!(f, "cannot write the packed document root: {source}"),
        }
    }
}

impl std::error::Error for PackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PackError::Scan(error) => error.source(),
            PackError::Sink { source } => Some(source),
            _ => None,
        }
    }
}

impl From<ScanError> for PackError {
    fn from(error: ScanError) -> PackError {
        PackError::Scan(error)
    }
}
