//! Making a volume from a directory of the host: what `exovm mkfs` does. [`Plan::scan`] looks at every file and fixes where
//! all of it will lie; [`Plan::write`] reads the files once and writes the image from front to back.
//!
//! Memory grows with the number of files, about a hundred bytes and a name for each, and not with their sizes.

mod buckets;
mod contents;
mod error;
mod plan;
mod source;
mod target;
mod writer;

pub use error::MakeError;
pub use plan::Plan;

/// What can be chosen about a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Size of the volume; rounded down to whole blocks. The least that holds everything, if not given.
    pub size_bytes: Option<u64>,
    /// The volume's UUID; random if not given.
    pub uuid: Option<[u8; 16]>,
    /// When it says it was made, in seconds since 1970 UTC; now, if not given. With this and `uuid`, the same files give the
    /// same image, byte for byte.
    pub made_unix_seconds: Option<u64>,
}

/// How far the writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of files that have been read and written.
    pub done_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// What is being done.
    pub stage: Stage,
}

/// The two things that take time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Files are read and written into the image.
    Copying,
    /// The host brings what has been written to its disk.
    Syncing,
}

/// A volume that has been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// How many files it has.
    pub files: u64,
    /// How many directories, with the root.
    pub directories: u64,
    /// Bytes of the files.
    pub file_bytes: u64,
    /// Bytes of the image.
    pub image_bytes: u64,
    /// Its UUID.
    pub uuid: [u8; 16],
}
