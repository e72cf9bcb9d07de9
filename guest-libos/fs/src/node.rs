//! A file or directory as the reader hands it out: its inode without the name. A value of some two hundred bytes that
//! can be kept beside the caches: it refers to no block that must stay in memory.

use crate::format::{MAX_ENTRY_CHECKSUMS, MAX_EXTENTS, STRIPE_BLOCKS, STRIPE_DATA_BLOCKS, blocks_for};
use crate::mime;

/// Names a file or directory of a volume for good: unique in it, and not used again after the file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
}

/// A run of blocks of a file. It lies inside the volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Its first block.
    pub first_block: u64,
    /// How many blocks: for a striped file with the checksum blocks.
    pub blocks: u32,
}

impl Extent {
    /// How many of the blocks are data.
    pub(crate) fn data_blocks(&self, striped: Striped) -> u64 {
        let blocks = u64::from(self.blocks);
        match striped {
            Striped::No => blocks,
            Striped::Yes => blocks - blocks.div_ceil(STRIPE_BLOCKS),
        }
    }
}

/// Where the checksums of a file's data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Striped {
    /// In its entry.
    No,
    /// In the first block of each stripe.
    Yes,
}

/// A file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub(crate) id: u64,
    pub(crate) kind: FileKind,
    pub(crate) striped: Striped,
    pub(crate) media_type: u16,
    pub(crate) mtime_nanoseconds: u32,
    pub(crate) mtime_unix_seconds: u64,
    pub(crate) size_bytes: u64,
    pub(crate) hash_seed: u64,
    pub(crate) extent_count: u8,
    pub(crate) checksum_count: u8,
    pub(crate) extents: [Extent; MAX_EXTENTS],
    pub(crate) checksums: [u64; MAX_ENTRY_CHECKSUMS],
}

impl Node {
    /// The same for every look-up of the file, whatever its name.
    pub fn id(&self) -> FileId {
        FileId(self.id)
    }

    /// File or directory.
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Whether this is a file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// The size in bytes; of a directory, that of its blocks.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How many blocks of data the file has: those of [`Volume::data_run`](crate::Volume::data_run). The last one is
    /// filled up with zeros.
    pub fn data_blocks(&self) -> u64 {
        blocks_for(self.size_bytes)
    }

    /// When it was last modified, in whole seconds since 1970 UTC; at most
    /// [`MAX_MTIME_UNIX_SECONDS`](crate::format::MAX_MTIME_UNIX_SECONDS).
    pub fn mtime_unix_seconds(&self) -> u64 {
        self.mtime_unix_seconds
    }

    /// The rest of that time; less than a second.
    pub fn mtime_nanoseconds(&self) -> u32 {
        self.mtime_nanoseconds
    }

    /// The value for a `Content-Type` field.
    pub fn media_type(&self) -> &'static str {
        mime::by_number(self.media_type)
    }

    /// Where its blocks are.
    pub fn extents(&self) -> &[Extent] {
        self.extents.get(..usize::from(self.extent_count)).unwrap_or_default()
    }

    /// The checksums in the entry, one for each block of data, or none.
    pub(crate) fn checksums(&self) -> &[u64] {
        self.checksums.get(..usize::from(self.checksum_count)).unwrap_or_default()
    }

    /// The number of blocks on disk, with checksum blocks.
    pub fn blocks_on_disk(&self) -> u64 {
        self.extents().iter().map(|extent| u64::from(extent.blocks)).sum()
    }

    /// Where the block `index` of the content lies, and how many blocks of content follow each other there, this one
    /// included.
    pub(crate) fn place(&self, index: u64) -> Option<Place> {
        let mut left = index;
        for extent in self.extents() {
            let data_blocks = extent.data_blocks(self.striped);
            if left >= data_blocks {
                left -= data_blocks;
                continue;
            }
            return Some(match self.striped {
                Striped::No => Place {
                    block: extent.first_block + left,
                    blocks: data_blocks - left,
                    checksum_block: None,
                    in_stripe: 0,
                },
                Striped::Yes => {
                    let (stripe, in_stripe) = (left / STRIPE_DATA_BLOCKS, left % STRIPE_DATA_BLOCKS);
                    let checksum_block = extent.first_block + stripe * STRIPE_BLOCKS;
                    Place {
                        block: checksum_block + 1 + in_stripe,
                        blocks: (STRIPE_DATA_BLOCKS - in_stripe).min(data_blocks - left),
                        checksum_block: Some(checksum_block),
                        in_stripe,
                    }
                }
            });
        }
        None
    }
}

/// Where a run of a node's content lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// First block on disk.
    pub(crate) block: u64,
    /// Blocks from there on.
    pub(crate) blocks: u64,
    /// The block with their checksums, if the file is striped.
    pub(crate) checksum_block: Option<u64>,
    /// The number of the first of them in its stripe.
    pub(crate) in_stripe: u64,
}
