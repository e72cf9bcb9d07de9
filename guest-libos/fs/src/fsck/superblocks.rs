//! The two superblocks: each against the format, and against each other.

use std::io;

use super::{Disk, Report};
use crate::error::FsError;
use crate::format::superblock::Superblock;
use crate::volume::Volume;

/// Returns the superblock to go on with. `None`: there is none, which the report says. An error: this is no volume, or one
/// of another version.
pub(super) fn check(disk: &Disk<'_>, report: &mut Report) -> io::Result<Result<Option<Superblock>, FsError>> {
    let first = read(disk, Volume::SUPERBLOCK)?;
    match first {
        Ok(superblock) => {
            if superblock.total_blocks > disk.device_blocks {
                let (total_blocks, device_blocks) = (superblock.total_blocks, disk.device_blocks);
                report.add_error(None, FsError::Truncated { total_blocks, device_blocks });
            }
            match read(disk, superblock.total_blocks - 1)? {
                Ok(backup) if backup == superblock => {}
                Ok(_) => report.add(
                    Some(superblock.total_blocks - 1),
                    None,
                    "the backup of the superblock differs from the superblock",
                ),
                Err(FsError::NotAVolume) => report.add(
                    Some(superblock.total_blocks - 1),
                    None,
                    "it is not the backup of the superblock",
                ),
                Err(error) => report.add_error(None, error),
            }
            Ok(Ok(Some(superblock)))
        }
        Err(error @ (FsError::Version { .. } | FsError::UnknownFeatures { .. })) => Ok(Err(error)),
        Err(first_error) => {
            let backup = match Volume::backup_superblock(disk.device_blocks) {
                Some(number) => read(disk, number)?,
                None => Err(FsError::NotAVolume),
            };
            match (first_error, backup) {
                (FsError::NotAVolume, Err(FsError::NotAVolume)) => return Ok(Err(FsError::NotAVolume)),
                (FsError::NotAVolume, _) => report.add(Some(0), None, "it is not a superblock"),
                (error, _) => report.add_error(None, error),
            }
            match backup {
                Ok(backup) => Ok(Ok(Some(backup))),
                Err(FsError::NotAVolume) => {
                    // An image that was cut off, or one on a larger disk: the backup is not where it is looked for.
                    report.add(
                        Volume::backup_superblock(disk.device_blocks),
                        None,
                        "there is no backup of the superblock",
                    );
                    Ok(Ok(None))
                }
                Err(error) => {
                    report.add_error(None, error);
                    Ok(Ok(None))
                }
            }
        }
    }
}

fn read(disk: &Disk<'_>, number: u64) -> io::Result<Result<Superblock, FsError>> {
    let block = match disk.block(number)? {
        Ok(block) => block,
        // An empty file is no volume that was cut off.
        Err(_) if number == Volume::SUPERBLOCK => return Ok(Err(FsError::NotAVolume)),
        Err(error) => return Ok(Err(error)),
    };
    Ok(Superblock::parse(&block, number).and_then(|superblock| {
        // Whoever does not know a compatible feature does not know either what it does with reserved bytes.
        match superblock.compatible == 0
            && superblock.read_only_compatible == 0
            && superblock.encode(number) != block
        {
            true => {
                Err(FsError::Corrupt { block: number, what: "reserved bytes of the superblock are not zero" })
            }
            false => Ok(superblock),
        }
    }))
}
