//! What can go wrong while packing, and what is merely left out.

use core::fmt;
use std::io;
use std::path::PathBuf;

use super::MAX_ENTRIES;

/// Why a document root cannot be packed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PackError {
    /// There is nothing at the root's path.
    Missing {
        /// The root as it was given.
        root: PathBuf,
    },
    /// The root is a file or something else.
    NotADirectory {
        /// The root as it was given.
        root: PathBuf,
    },
    /// There is no file in the root or below it.
    Empty {
        /// The root as it was given.
        root: PathBuf,
        /// How many things were left out.
        left_out: usize,
    },
    /// A file or directory cannot be opened or read.
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
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
    /// There are more files and directories than [`MAX_ENTRIES`].
    TooManyEntries {
        /// The directory that was being read.
        path: PathBuf,
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
            PackError::Missing { root } => {
                write!(f, "document root {root:?} does not exist: create it or name another directory")
            }
            PackError::NotADirectory { root } => {
                write!(
                    f,
                    "document root {root:?} is not a directory: name the directory that holds the files"
                )
            }
            PackError::Empty { root, left_out: 0 } => {
                write!(f, "document root {root:?} holds no file: put at least an index.html there")
            }
            PackError::Empty { root, left_out } => write!(
                f,
                "document root {root:?} holds no file that can be served ({left_out} left out): put at least an \
                 index.html there"
            ),
            PackError::Unreadable { path, source } => write!(
                f,
                "cannot read {path:?}: {source}: make it readable for this user or take it out of the document root"
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
            PackError::TooManyEntries { path } => write!(
                f,
                "the document root has more than {MAX_ENTRIES} entries (at {path:?}): look for symbolic links that \
                 lead around, or serve a smaller directory"
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
            PackError::Unreadable { source, .. } | PackError::Sink { source } => Some(source),
            _ => None,
        }
    }
}

/// Something that is in the directory and not in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A link that leads to a directory above itself, or to itself.
    LinkLoop(PathBuf),
    /// A link to something that does not exist, or a file that went away during the scan.
    LeadsNowhere(PathBuf),
    /// A socket, pipe or device.
    NotAFile(PathBuf),
    /// A path longer than the host can open.
    PathTooLong(PathBuf),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::LinkLoop(path) => write!(f, "{path:?} left out: the link leads back to where it is"),
            Warning::LeadsNowhere(path) => write!(f, "{path:?} left out: what it names does not exist"),
            Warning::NotAFile(path) => write!(f, "{path:?} left out: it is neither a file nor a directory"),
            Warning::PathTooLong(path) => write!(f, "{path:?} left out: its path is too long to open"),
        }
    }
}
