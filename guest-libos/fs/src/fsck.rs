//! Checks a volume: everything that [`format`](crate::format) says about it, on every block. What `exovm fsck` does.
//!
//! Believes nothing, repairs nothing, and goes on after each problem, so one run finds all damage. Memory grows with the
//! number of files (for their ids) and by a bit a block.

mod blocks;
mod superblocks;
mod walk;

use core::fmt;
use std::path::{Path, PathBuf};
use std::string::String;
use std::vec::Vec;
use std::{fs::File, io};

use crate::error::FsError;
use crate::image::device_blocks;
use blocks::Claims;

/// Problems that are kept in a report; more are only counted.
pub const MAX_PROBLEMS: usize = 10_000;

/// How much is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Every block.
    #[default]
    Full,
    /// All metadata, and not the data of files.
    Quick,
}

/// Something that is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The block where it shows.
    pub block: Option<u64>,
    /// The path of the file or directory that the block belongs to, from `/`; `None` for what belongs to none.
    pub path: Option<Vec<u8>>,
    /// What it is, for a person.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(block) = self.block {
            write!(f, "block {block}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{}: ", String::from_utf8_lossy(path).escape_debug())?;
        }
        f.write_str(&self.what)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
    /// Files that were found.
    pub files: u64,
    /// Directories that were found, with the root.
    pub directories: u64,
    /// Blocks that were read and checked.
    pub checked_blocks: u64,
    /// Blocks of the volume; 0 if neither superblock can be read.
    pub total_blocks: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    fn add(&mut self, block: Option<u64>, path: Option<&[u8]>, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem { block, path: path.map(<[u8]>::to_vec), what: what.into() });
        }
    }

    fn add_error(&mut self, path: Option<&[u8]>, error: FsError) {
        let what = match error {
            FsError::BadMetadata { kind, .. } => std::format!("it is not the {kind} that was written there"),
            FsError::BadData { .. } => "its data is not what was written there".into(),
            FsError::Corrupt { what, .. } => what.into(),
            FsError::Missing { .. } => "it is missing: the image was cut off before it".into(),
            other => std::format!("{other}"),
        };
        self.add(error.block(), path, what);
    }
}

/// Why a volume cannot be checked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FsckError {
    /// The host cannot read the image, or a part of it.
    #[error("cannot read image {path:?}: {source}")]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is no volume of this version.
    #[error("image {path:?}: {error}")]
    Refused {
        /// The image.
        path: PathBuf,
        /// What it is.
        error: FsError,
    },
    /// There is no memory for a bit a block.
    #[error("image {path:?} has {blocks} blocks, too many to keep account of in memory")]
    TooLarge {
        /// The image.
        path: PathBuf,
        /// Its blocks.
        blocks: u64,
    },
}

/// Checks the image at `path`. Calls `progress` with the numbers of blocks that were checked and that there are, every
/// megabyte or so.
pub fn fsck(
    path: impl AsRef<Path>,
    depth: Depth,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, FsckError> {
    let path = path.as_ref();
    let unreadable = |source| FsckError::Unreadable { path: path.to_path_buf(), source };
    let file = crate::tree::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    let device_blocks = device_blocks(&file).map_err(unreadable)?;
    let disk = Disk { file: &file, device_blocks };
    let mut report = Report::default();
    let volume = superblocks::check(&disk, &mut report).map_err(unreadable)?;
    let superblock = match volume {
        Ok(Some(superblock)) => superblock,
        Ok(None) => return Ok(report),
        Err(error) => return Err(FsckError::Refused { path: path.to_path_buf(), error }),
    };
    report.total_blocks = superblock.total_blocks;
    let claims = Claims::new(superblock.total_blocks, device_blocks)
        .ok_or(FsckError::TooLarge { path: path.to_path_buf(), blocks: superblock.total_blocks })?;
    walk::Walk::new(disk, superblock, depth, claims, &mut report, progress).run().map_err(unreadable)?;
    Ok(report)
}

/// The image as a disk.
#[derive(Clone, Copy)]
struct Disk<'a> {
    file: &'a File,
    device_blocks: u64,
}
