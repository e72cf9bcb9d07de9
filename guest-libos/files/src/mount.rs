//! Opening the volume on the disk, before anything is served: the superblock, or its backup if that is damaged.

use exos_event_loop::disk::{Disk, ReadNowError};
use exos_fs::{BLOCK_BYTES, Block, FsError, Volume};

/// Why the disk cannot be served.
#[derive(Debug)]
pub enum MountError {
    /// The disk does not give a block.
    Unreadable {
        /// Its number.
        block: u64,
        /// Why.
        error: ReadNowError,
    },
    /// It holds no volume that can be read.
    Refused(FsError),
}

impl core::fmt::Display for MountError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unreadable { block, error } => {
                write!(f, "block {block} of the disk cannot be read: {error}")
            }
            Self::Refused(error) => write!(f, "the disk cannot be served: {error}"),
        }
    }
}

/// The volume on the disk.
pub(crate) fn mount(disk: &mut Disk) -> Result<Volume, MountError> {
    let first = open(disk, Volume::SUPERBLOCK);
    let Err(error) = first else { return first };
    let Some(backup) = Volume::backup_superblock(disk.capacity_blocks()) else { return Err(error) };
    match open(disk, backup) {
        Ok(volume) => {
            log::warn!("{error}; going on with the backup of the superblock in block {backup}");
            Ok(volume)
        }
        // What is wrong with the first says more.
        Err(_) => Err(error),
    }
}

fn open(disk: &mut Disk, number: u64) -> Result<Volume, MountError> {
    let bytes = disk
        .read_now(number, BLOCK_BYTES)
        .map_err(|error| MountError::Unreadable { block: number, error })?;
    let block: &Block = bytes.first_chunk().ok_or(MountError::Refused(FsError::NotAVolume))?;
    Volume::open(block, number, disk.capacity_blocks()).map_err(MountError::Refused)
}
