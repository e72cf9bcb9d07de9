//! A volume in a file of the host, read through the same reader as in the guest: what `exovm ls`, `cat` and `df` use.
//! Checks what it reads; keeps a bounded number of metadata blocks in memory.

use std::boxed::Box;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use crate::error::FsError;
use crate::format::{BLOCK_BYTES, Block, Kind};
use crate::node::Node;
use crate::step::{Blocks, Step};
use crate::volume::{Volume, check_data};

/// Blocks of metadata that are kept at most, besides those of the question at hand: 16 MiB.
const MAX_CACHED_BLOCKS: usize = 4096;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The host cannot read the file.
    #[error("cannot read image {path:?}: {source}")]
    Unreadable {
        /// The image.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is not a volume, or damaged.
    #[error("image {path:?}: {error}{}", advice(.error))]
    Refused {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        error: FsError,
    },
    /// What was read cannot be written to where it should go.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

fn advice(error: &FsError) -> &'static str {
    match error.block() {
        Some(_) => " (`exovm fsck` finds all damage and the files it is in)",
        None => "",
    }
}

/// An open image.
pub struct Image {
    path: PathBuf,
    file: File,
    volume: Volume,
    superblock: u64,
    cache: HashMap<u64, Box<Block>>,
}

impl Image {
    /// Opens the image at `path` for reading. Where its superblock is damaged, the backup is used.
    pub fn open(path: impl AsRef<Path>) -> Result<Image, ImageError> {
        let path = path.as_ref();
        let unreadable = |source| ImageError::Unreadable { path: path.to_path_buf(), source };
        // A directory can be opened; reading it then fails with a message that says nothing.
        let file = crate::tree::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            return Err(unreadable(io::ErrorKind::IsADirectory.into()));
        }
        let (volume, superblock) = open_volume(&file)
            .map_err(unreadable)?
            .map_err(|error| ImageError::Refused { path: path.to_path_buf(), error })?;
        Ok(Image { path: path.to_path_buf(), file, volume, superblock, cache: HashMap::new() })
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Whether the first superblock is damaged and the backup was used.
    pub fn uses_backup(&self) -> bool {
        self.superblock != Volume::SUPERBLOCK
    }

    /// What `path` names; see [`Volume::lookup`].
    pub fn lookup(&mut self, path: &[u8]) -> Result<Option<Node>, ImageError> {
        self.ask(|volume, blocks| volume.lookup(blocks, path))
    }

    /// All entries of a directory, sorted by name.
    pub fn entries(&mut self, directory: &Node) -> Result<Vec<(Vec<u8>, Node)>, ImageError> {
        let mut all = Vec::new();
        for bucket in 0..self.volume.bucket_count(directory) {
            let entries = self.ask(|volume, blocks| match volume.entries(blocks, directory, bucket)? {
                Step::Done(entries) => {
                    let entries: Result<Vec<_>, _> =
                        entries.map(|entry| entry.map(|entry| (entry.name.to_vec(), entry.node))).collect();
                    entries.map(Step::Done)
                }
                Step::Need(need) => Ok(Step::Need(need)),
            })?;
            all.extend(entries);
        }
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(all)
    }

    /// Writes the content of a file to `output`.
    pub fn copy(&mut self, file: &Node, output: &mut dyn Write) -> Result<(), ImageError> {
        let mut left_bytes = file.size_bytes();
        let mut file_block = 0;
        let mut data = Vec::new();
        while left_bytes > 0 {
            let (first_block, checksums) = self.ask(|volume, blocks| {
                let run = volume.data_run(blocks, file, file_block)?;
                Ok(run.map(|run| (run.first_block, run.checksums().collect::<Vec<_>>())))
            })?;
            data.resize(checksums.len() * BLOCK_BYTES, 0);
            self.read_at(first_block, &mut data)?;
            let blocks = data.as_chunks().0;
            for ((number, block), checksum) in (first_block..).zip(blocks).zip(&checksums) {
                check_data(*checksum, number, block).map_err(|error| self.refuse(error))?;
            }
            let bytes = usize::try_from(left_bytes).map_or(data.len(), |left| left.min(data.len()));
            output.write_all(&data[..bytes]).map_err(ImageError::Output)?;
            left_bytes -= bytes as u64;
            file_block += checksums.len() as u64;
        }
        Ok(())
    }

    /// An error if the image has been cut off; what is left of it can be read.
    pub fn check_complete(&self) -> Result<(), ImageError> {
        self.volume.check_complete().map_err(|error| self.refuse(error))
    }

    /// Asks until the answer is there.
    fn ask<T>(
        &mut self,
        question: impl Fn(&Volume, &HashMap<u64, Box<Block>>) -> Result<Step<T>, FsError>,
    ) -> Result<T, ImageError> {
        if self.cache.len() > MAX_CACHED_BLOCKS {
            self.cache.clear();
        }
        loop {
            match question(&self.volume, &self.cache) {
                Ok(Step::Done(answer)) => return Ok(answer),
                Ok(Step::Need(need)) => {
                    for number in need.metadata_blocks() {
                        self.fetch(need.kind, number)?;
                    }
                }
                Err(error) => return Err(self.refuse(error)),
            }
        }
    }

    fn fetch(&mut self, kind: Kind, number: u64) -> Result<(), ImageError> {
        if self.cache.block(number).is_none() {
            let mut block = Box::new([0; BLOCK_BYTES]);
            self.read_at(number, &mut block[..])?;
            self.volume.check(kind, number, &block).map_err(|error| self.refuse(error))?;
            self.cache.insert(number, block);
        }
        Ok(())
    }

    fn read_at(&self, first_block: u64, bytes: &mut [u8]) -> Result<(), ImageError> {
        self.file
            .read_exact_at(bytes, first_block * BLOCK_BYTES as u64)
            .map_err(|source| ImageError::Unreadable { path: self.path.clone(), source })
    }

    fn refuse(&self, error: FsError) -> ImageError {
        ImageError::Refused { path: self.path.clone(), error }
    }
}

/// Opens the volume in a file by its superblock, or by the backup of it, and says by which.
pub(crate) fn open_volume(file: &File) -> io::Result<Result<(Volume, u64), FsError>> {
    let device_blocks = device_blocks(file)?;
    let open = |number: u64| -> io::Result<Result<(Volume, u64), FsError>> {
        if number >= device_blocks {
            return Ok(Err(FsError::NotAVolume));
        }
        let mut block = [0; BLOCK_BYTES];
        file.read_exact_at(&mut block, number * BLOCK_BYTES as u64)?;
        Ok(Volume::open(&block, number, device_blocks).map(|volume| (volume, number)))
    };
    let first = open(Volume::SUPERBLOCK)?;
    let damaged =
        matches!(first, Err(FsError::NotAVolume | FsError::BadMetadata { .. } | FsError::Corrupt { .. }));
    if damaged
        && let Some(number) = Volume::backup_superblock(device_blocks)
        && let Ok(backup) = open(number)?
    {
        return Ok(Ok(backup));
    }
    Ok(first)
}

/// Whole blocks of a file.
pub(crate) fn device_blocks(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    // Not from the metadata: a block device has no length there.
    let mut file = file;
    Ok(file.seek(SeekFrom::End(0))? / BLOCK_BYTES as u64)
}
