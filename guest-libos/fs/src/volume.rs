//! The reader. Every function is a pure one over the blocks that are in memory, allocates nothing, and can be asked
//! again after what it needs has been fetched.

use crate::error::FsError;
use crate::format::directory::{Bucket, RawEntries};
use crate::format::superblock::Superblock;
use crate::format::{
    self, BLOCK_BYTES, Block, Kind, MAX_NAME_BYTES, NameHash, STRIPE_DATA_BLOCKS, block_u64, u64_at,
};
use crate::node::Node;
use crate::step::{Blocks, Need, Step};

/// A volume whose superblock has been read.
///
/// It is a value of a few hundred bytes; copy it freely.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    superblock: Superblock,
    key: u64,
    device_blocks: u64,
}

impl Volume {
    /// Where the superblock is.
    pub const SUPERBLOCK: u64 = 0;

    /// Where the backup of the superblock is, on a disk of `device_blocks` that a volume fills.
    pub fn backup_superblock(device_blocks: u64) -> Option<u64> {
        device_blocks.checked_sub(1).filter(|&number| number > 0)
    }

    /// Opens the volume whose superblock, or its backup, is the block `number` of a disk of `device_blocks`. Checks the
    /// block; this is the one that needs no check before. Where the first one is damaged, the caller tries the backup.
    ///
    /// A disk that ends before the volume does is opened all the same: what lies before its end can be read, and the rest is
    /// [`FsError::Missing`]. [`check_complete`](Volume::check_complete) tells.
    pub fn open(superblock: &Block, number: u64, device_blocks: u64) -> Result<Volume, FsError> {
        let superblock = Superblock::parse(superblock, number)?;
        Ok(Volume { superblock, key: format::key_of(&superblock.uuid), device_blocks })
    }

    /// An error if the disk ends before the volume does.
    pub fn check_complete(&self) -> Result<(), FsError> {
        let (total_blocks, device_blocks) = (self.total_blocks(), self.device_blocks);
        match total_blocks <= device_blocks {
            true => Ok(()),
            false => Err(FsError::Truncated { total_blocks, device_blocks }),
        }
    }

    /// An error if the disk ends before this block.
    fn check_there(&self, block: u64) -> Result<(), FsError> {
        match block < self.device_blocks {
            true => Ok(()),
            false => Err(FsError::Missing { block, device_blocks: self.device_blocks }),
        }
    }

    /// How many of `blocks` blocks from `first_block` on, which is there, are there.
    fn there(&self, first_block: u64, blocks: u64) -> u32 {
        // At most a stripe, or the eight blocks of a small file.
        blocks.min(self.device_blocks.saturating_sub(first_block)) as u32
    }

    /// An error if the volume uses features that a writer would have to know.
    pub fn check_writable(&self) -> Result<(), FsError> {
        match self.superblock.read_only_compatible {
            0 => Ok(()),
            read_only_compatible => Err(FsError::ReadOnly { read_only_compatible }),
        }
    }

    /// Checks a block of metadata that has just arrived.
    pub fn check(&self, kind: Kind, number: u64, block: &Block) -> Result<(), FsError> {
        match block_u64::<0>(block) == format::metadata_checksum(self.key, kind, number, block) {
            true => Ok(()),
            false => Err(FsError::BadMetadata { block: number, kind }),
        }
    }

    /// The root directory.
    pub fn root(&self) -> Node {
        self.superblock.root
    }

    /// What `path` names. It is absolute and normalised: it begins with `/` and has no dot segments, doubled slashes or
    /// percent-encoding. A slash at its end is for directories only. A path that is not so is simply not found.
    ///
    /// Reads one block for each component.
    pub fn lookup(&self, blocks: &impl Blocks, path: &[u8]) -> Result<Step<Option<Node>>, FsError> {
        let Some(mut rest) = path.strip_prefix(b"/") else { return Ok(Step::Done(None)) };
        let mut node = self.root();
        while !rest.is_empty() {
            let (name, behind) = match rest.iter().position(|&byte| byte == b'/') {
                Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
                None => (rest, None),
            };
            node = match self.lookup_in(blocks, &node, name)? {
                Step::Done(Some(node)) => node,
                other => return Ok(other),
            };
            if behind.is_some() && !node.is_directory() {
                return Ok(Step::Done(None));
            }
            rest = behind.unwrap_or_default();
        }
        Ok(Step::Done(Some(node)))
    }

    /// What `name` names in `directory`. Reads one block.
    pub fn lookup_in(
        &self,
        blocks: &impl Blocks,
        directory: &Node,
        name: &[u8],
    ) -> Result<Step<Option<Node>>, FsError> {
        let bucket_count = self.bucket_count(directory);
        if bucket_count == 0 || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Ok(Step::Done(None));
        }
        let hash = NameHash::of(name, directory.hash_seed);
        let (number, bucket) = match self.bucket(blocks, directory, hash.bucket(bucket_count))? {
            Step::Done(bucket) => bucket,
            Step::Need(need) => return Ok(Step::Need(need)),
        };
        let corrupt = |what| FsError::Corrupt { block: number, what };
        for entry in bucket.entries() {
            let entry = entry.map_err(corrupt)?;
            if entry.tag == hash.tag() && entry.name == name {
                return entry
                    .node(self.superblock.total_blocks)
                    .map(|node| Step::Done(Some(node)))
                    .map_err(corrupt);
            }
        }
        Ok(Step::Done(None))
    }

    /// How many buckets a directory has: see [`entries`](Volume::entries). 0 for a file.
    pub fn bucket_count(&self, directory: &Node) -> u32 {
        match directory.is_directory() {
            // The entry was checked to be so.
            true => u32::try_from(directory.data_blocks()).unwrap_or(0),
            false => 0,
        }
    }

    /// The entries of one bucket of a directory, sorted by name. All buckets from 0 to below
    /// [`bucket_count`](Volume::bucket_count) hold all of them.
    pub fn entries<'b>(
        &self,
        blocks: &'b impl Blocks,
        directory: &Node,
        bucket: u32,
    ) -> Result<Step<DirectoryEntries<'b>>, FsError> {
        Ok(self.bucket(blocks, directory, bucket)?.map(|(block, bucket)| DirectoryEntries {
            block,
            total_blocks: self.superblock.total_blocks,
            entries: bucket.entries(),
        }))
    }

    fn bucket<'b>(
        &self,
        blocks: &'b impl Blocks,
        directory: &Node,
        number: u32,
    ) -> Result<Step<(u64, Bucket<'b>)>, FsError> {
        let place = directory.place(u64::from(number)).filter(|_| directory.is_directory());
        let place = place.ok_or(FsError::BehindTheEnd { file_block: u64::from(number) })?;
        let Some(block) = blocks.block(place.block) else {
            self.check_there(place.block)?;
            return Ok(Step::Need(Need {
                first_block: place.block,
                blocks: 1,
                kind: Kind::Directory,
                data_blocks_behind: 0,
            }));
        };
        Bucket::parse(block, directory.id, number, self.bucket_count(directory))
            .map(|bucket| Step::Done((place.block, bucket)))
            .map_err(|what| FsError::Corrupt { block: place.block, what })
    }

    /// Where the data of `file` from its block `file_block` on lies: the longest run of blocks that follow each other on
    /// disk and whose checksums are known. A stripe is the most, 511 blocks or nearly 2 MiB.
    ///
    /// Where the checksums of a large file are not in memory, what is needed is their block, with the data directly behind
    /// it, so that one disk request brings both.
    pub fn data_run<'b>(
        &self,
        blocks: &'b impl Blocks,
        file: &Node,
        file_block: u64,
    ) -> Result<Step<DataRun<'b>>, FsError> {
        if !file.is_file() {
            return Err(FsError::NotAFile);
        }
        let place = file.place(file_block).ok_or(FsError::BehindTheEnd { file_block })?;
        let checksums = match place.checksum_block {
            None => {
                let mut checksums = [0; format::MAX_ENTRY_CHECKSUMS];
                let known = file.checksums().get(file_block as usize..).unwrap_or_default();
                checksums.iter_mut().zip(known).for_each(|(to, from)| *to = *from);
                Checksums::Entry(checksums)
            }
            Some(number) => {
                let Some(block) = blocks.block(number) else {
                    self.check_there(number)?;
                    let data_blocks = place.blocks + place.in_stripe;
                    return Ok(Step::Need(Need {
                        first_block: number,
                        blocks: 1,
                        kind: Kind::Checksums,
                        data_blocks_behind: self.there(number + 1, data_blocks),
                    }));
                };
                Checksums::Block { block, from: place.in_stripe as usize }
            }
        };
        self.check_there(place.block)?;
        let blocks = self.there(place.block, place.blocks);
        Ok(Step::Done(DataRun { file_block, first_block: place.block, blocks, checksums }))
    }

    /// Blocks of the volume.
    pub fn total_blocks(&self) -> u64 {
        self.superblock.total_blocks
    }

    /// Blocks that hold nothing.
    pub fn free_blocks(&self) -> u64 {
        self.superblock.free_blocks
    }

    /// How many files there are.
    pub fn file_count(&self) -> u64 {
        self.superblock.files
    }

    /// How many directories there are, with the root.
    pub fn directory_count(&self) -> u64 {
        self.superblock.directories
    }

    /// What tells this volume from all others.
    pub fn uuid(&self) -> [u8; 16] {
        self.superblock.uuid
    }

    /// How often the volume has been changed, from 1.
    pub fn generation(&self) -> u64 {
        self.superblock.generation
    }

    /// When it was made, in seconds since 1970 UTC.
    pub fn made_unix_seconds(&self) -> u64 {
        self.superblock.made_unix_seconds
    }
}

/// Checks a block of data that has just arrived, the block `number` of the volume, against its checksum.
pub fn check_data(checksum: u64, number: u64, block: &Block) -> Result<(), FsError> {
    match format::data_checksum(block) == checksum {
        true => Ok(()),
        false => Err(FsError::BadData { block: number }),
    }
}

/// Data of a file that lies together on disk.
#[derive(Clone, Copy)]
pub struct DataRun<'b> {
    /// The block of the file that is the first here.
    pub file_block: u64,
    /// Where it lies in the volume.
    pub first_block: u64,
    /// How many blocks; at least one.
    pub blocks: u32,
    checksums: Checksums<'b>,
}

#[derive(Clone, Copy)]
enum Checksums<'b> {
    Entry([u64; format::MAX_ENTRY_CHECKSUMS]),
    Block { block: &'b Block, from: usize },
}

impl DataRun<'_> {
    /// The checksum of the block `index` of the run, below [`blocks`](DataRun::blocks).
    pub fn checksum(&self, index: u32) -> Option<u64> {
        if index >= self.blocks {
            return None;
        }
        match &self.checksums {
            Checksums::Entry(checksums) => checksums.get(index as usize).copied(),
            Checksums::Block { block, from } => u64_at(*block, 8 * (1 + from + index as usize)),
        }
    }

    /// The checksums of the run's blocks, in order: for who cannot keep the run while the disk works.
    pub fn checksums(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.blocks).map_while(|index| self.checksum(index))
    }

    /// Checks the block `index` of the run, which has just arrived.
    pub fn check(&self, index: u32, block: &Block) -> Result<(), FsError> {
        let checksum = self.checksum(index).ok_or(FsError::BehindTheEnd { file_block: u64::from(index) })?;
        check_data(checksum, self.first_block + u64::from(index), block)
    }
}

impl core::fmt::Debug for DataRun<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "file blocks {}.. at {} ({} blocks)", self.file_block, self.first_block, self.blocks)
    }
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'b> {
    /// Its name, as the host's bytes.
    pub name: &'b [u8],
    /// What it names.
    pub node: Node,
}

/// The entries of a bucket. Ends after an error.
#[derive(Clone, Copy)]
pub struct DirectoryEntries<'b> {
    block: u64,
    total_blocks: u64,
    entries: RawEntries<'b>,
}

impl<'b> Iterator for DirectoryEntries<'b> {
    type Item = Result<DirectoryEntry<'b>, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let corrupt = |what| FsError::Corrupt { block: self.block, what };
        Some(match self.entries.next()? {
            Ok(entry) => entry
                .node(self.total_blocks)
                .map(|node| DirectoryEntry { name: entry.name, node })
                .map_err(corrupt),
            Err(what) => Err(corrupt(what)),
        })
    }
}

// The compiler's proof that the two sizes fit each other.
const _: () = assert!(8 * (1 + STRIPE_DATA_BLOCKS as usize) == BLOCK_BYTES);
