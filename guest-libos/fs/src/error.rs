//! What can be wrong with a volume, as seen by the reader. Each error names the block where it shows, so that a log
//! line leads to what `exovm fsck` says about it.

use core::fmt;

use crate::format::{BLOCK_BYTES, Kind, VERSION};

/// Why a volume, a file or a block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FsError {
    /// The block is no superblock: there is another file system on this disk, or none.
    NotAVolume,
    /// The volume was made by another version.
    Version {
        /// Its version.
        found: u32,
    },
    /// The volume uses features without which it cannot be read.
    UnknownFeatures {
        /// Those that are not known here.
        incompatible: u64,
    },
    /// The volume uses features without which it must not be written.
    ReadOnly {
        /// Those that are not known here.
        read_only_compatible: u64,
    },
    /// The disk ends before the volume does: the image has been cut off.
    Truncated {
        /// Blocks of the volume.
        total_blocks: u64,
        /// Blocks of the disk.
        device_blocks: u64,
    },
    /// A block lies behind the end of the disk: the image has been cut off.
    Missing {
        /// Its number.
        block: u64,
        /// Blocks of the disk.
        device_blocks: u64,
    },
    /// A block of metadata is not what was written there.
    BadMetadata {
        /// Its number.
        block: u64,
        /// What it should be.
        kind: Kind,
    },
    /// A block of a file's data is not what was written there.
    BadData {
        /// Its number.
        block: u64,
    },
    /// A block has the right checksum and makes no sense.
    Corrupt {
        /// Its number.
        block: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Data was asked for behind the end of the file.
    BehindTheEnd {
        /// The block of the file that was asked for.
        file_block: u64,
    },
    /// Data was asked for, and this is a directory.
    NotAFile,
}

impl FsError {
    /// The block where the error shows, where it is about one.
    pub fn block(&self) -> Option<u64> {
        match *self {
            FsError::BadMetadata { block, .. }
            | FsError::BadData { block }
            | FsError::Corrupt { block, .. }
            | FsError::Missing { block, .. } => Some(block),
            _ => None,
        }
    }
}

impl fmt::Display for FsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            FsError::NotAVolume => f.write_str(
                "no exos file system here: make one with `exovm mkfs DIR -o IMAGE`, or name another image",
            ),
            FsError::Version { found } => write!(
                f,
                "the volume has format version {found} and this program reads {VERSION}: make it again with this \
                 program's `exovm mkfs`, or use the exovm that made it"
            ),
            FsError::UnknownFeatures { incompatible } => write!(
                f,
                "the volume uses features that this program does not know ({incompatible:#x}): use the exovm that \
                 made it, or a newer one"
            ),
            FsError::ReadOnly { read_only_compatible } => write!(
                f,
                "the volume uses features that this program does not know ({read_only_compatible:#x}) and can only \
                 be read: write it with the exovm that made it, or a newer one"
            ),
            FsError::Truncated { total_blocks, device_blocks } => write!(
                f,
                "the volume has {total_blocks} blocks of {BLOCK_BYTES} bytes and the disk ends after {device_blocks}: \
                 the image was cut off; copy or make it again"
            ),
            FsError::Missing { block, device_blocks } => write!(
                f,
                "block {block} is missing: the disk ends after {device_blocks} blocks of {BLOCK_BYTES} bytes; the image \
                 was cut off"
            ),
            FsError::BadMetadata { block, kind } => {
                write!(f, "block {block} is damaged: it is not the {kind} that was written there")
            }
            FsError::BadData { block } => {
                write!(f, "block {block} is damaged: its data is not what was written there")
            }
            FsError::Corrupt { block, what } => write!(f, "block {block} makes no sense: {what}"),
            FsError::BehindTheEnd { file_block } => write!(f, "the file has no block {file_block}"),
            FsError::NotAFile => f.write_str("this is a directory and has no data"),
        }
    }
}

impl core::error::Error for FsError {}
