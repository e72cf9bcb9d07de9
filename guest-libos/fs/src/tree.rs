//! A directory of the host, as it was when it was looked through: what a volume, or another packed form, is made from.
//! Knows the host's file system and nothing of ours.

mod scan;

pub use scan::{open, scan};

use core::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::vec::Vec;

/// More entries than this are taken for a tree of symbolic links that lead around, which multiplies what it holds.
pub const MAX_ENTRIES: usize = 1 << 22;

/// Everything below a root, in the order in which it was found. The root is the first node, and each directory comes
/// before what is in it.
#[derive(Debug)]
pub struct Tree {
    /// Files and directories.
    pub nodes: Vec<TreeNode>,
    /// What was left out, and why. A caller shows this to its user.
    pub warnings: Vec<Warning>,
}

impl Tree {
    /// How many of the nodes are files.
    pub fn file_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_file).count()
    }
}

/// A file or a directory.
#[derive(Debug)]
pub struct TreeNode {
    /// Relative to the root; empty for the root.
    pub relative: PathBuf,
    /// The number of the directory that it is in; the root is in itself.
    pub parent: usize,
    /// Otherwise it is a directory.
    pub is_file: bool,
    /// Size and time.
    pub stamp: Stamp,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its size.
    pub size_bytes: u64,
    /// Whole seconds since 1970 UTC, negative before.
    pub mtime_unix_seconds: i64,
    /// The rest of that time.
    pub mtime_nanoseconds: i64,
    /// When the host last saw it change, whole seconds since 1970 UTC. No program can set it back.
    pub ctime_unix_seconds: i64,
    /// The rest of that time.
    pub ctime_nanoseconds: i64,
    /// Its number: another file that has taken its name has another.
    pub inode: u64,
}

impl Stamp {
    /// What the host says of a file now.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            size_bytes: metadata.len(),
            mtime_unix_seconds: metadata.mtime(),
            mtime_nanoseconds: metadata.mtime_nsec(),
            ctime_unix_seconds: metadata.ctime(),
            ctime_nanoseconds: metadata.ctime_nsec(),
            inode: metadata.ino(),
        }
    }
}

/// Why a directory cannot be looked through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// There is nothing at the root's path.
    #[error("directory {root:?} does not exist: create it or name another directory")]
    Missing {
        /// The root as it was given.
        root: PathBuf,
    },
    /// The root is a file or something else.
    #[error("{root:?} is not a directory: name the directory that holds the files")]
    NotADirectory {
        /// The root as it was given.
        root: PathBuf,
    },
    /// A file or directory cannot be opened or read.
    #[error("cannot read {path:?}: {source}: make it readable for this user or take it out of the directory")]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// There are more files and directories than [`MAX_ENTRIES`].
    #[error(
        "the directory has more than {MAX_ENTRIES} entries (at {path:?}): look for symbolic links that lead around, or \
         name a smaller directory"
    )]
    TooManyEntries {
        /// The directory that was being read.
        path: PathBuf,
    },
}

/// Something that is in the directory and was left out.
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
