//! The superblock, read and written. Reading checks it against itself.

use super::entry::RawEntry;
use super::{
    BLOCK_BYTES, Block, Kind, MAGIC, ROOT_AT, ROOT_ID, VERSION, block_u32, block_u64, metadata_checksum,
};
use crate::error::FsError;
use crate::node::{FileKind, Node};

/// Bits of a block of the free map.
pub(crate) const FREE_MAP_BITS: u64 = 4080 * 8;
/// A superblock, a block of free map and the backup; the root may be empty.
pub(crate) const MIN_BLOCKS: u64 = 3;

/// What the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) incompatible: u64,
    pub(crate) read_only_compatible: u64,
    pub(crate) compatible: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) total_blocks: u64,
    pub(crate) generation: u64,
    pub(crate) made_unix_seconds: u64,
    pub(crate) free_map_first_block: u64,
    pub(crate) free_map_blocks: u64,
    pub(crate) free_blocks: u64,
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) next_id: u64,
    pub(crate) root: Node,
}

impl Superblock {
    /// Reads the superblock that lies at `number`.
    pub(crate) fn parse(block: &Block, number: u64) -> Result<Superblock, FsError> {
        if block[8..16] != MAGIC {
            return Err(FsError::NotAVolume);
        }
        // The rule for checksums of superblocks holds in all versions, so a damaged version is not taken for another.
        if block_u64::<0>(block) != metadata_checksum(0, Kind::Superblock, number, block) {
            return Err(FsError::BadMetadata { block: number, kind: Kind::Superblock });
        }
        match block_u32::<16>(block) {
            VERSION => {}
            found => return Err(FsError::Version { found }),
        }
        let corrupt = |what| FsError::Corrupt { block: number, what };
        if block_u32::<20>(block) as usize != BLOCK_BYTES {
            return Err(corrupt("its blocks do not have 4096 bytes"));
        }
        let incompatible = block_u64::<24>(block);
        if incompatible != 0 {
            return Err(FsError::UnknownFeatures { incompatible });
        }
        let total_blocks = block_u64::<64>(block);
        let (root, _) = RawEntry::split(&block[ROOT_AT..]).map_err(corrupt)?;
        let superblock = Superblock {
            incompatible,
            read_only_compatible: block_u64::<32>(block),
            compatible: block_u64::<40>(block),
            uuid: *block[48..].first_chunk().unwrap_or(&[0; 16]),
            total_blocks,
            generation: block_u64::<72>(block),
            made_unix_seconds: block_u64::<80>(block),
            free_map_first_block: block_u64::<88>(block),
            free_map_blocks: block_u64::<96>(block),
            free_blocks: block_u64::<104>(block),
            files: block_u64::<112>(block),
            directories: block_u64::<120>(block),
            next_id: block_u64::<128>(block),
            root: root.node(total_blocks).map_err(corrupt)?,
        };
        superblock.check().map_err(corrupt)?;
        Ok(superblock)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.total_blocks < MIN_BLOCKS {
            return Err("the volume has no room for its own metadata");
        }
        let map_end = self.free_map_first_block.checked_add(self.free_map_blocks);
        if self.free_map_first_block == 0 || map_end.is_none_or(|end| end >= self.total_blocks) {
            return Err("the free map leaves the volume");
        }
        if self.free_map_blocks != self.total_blocks.div_ceil(FREE_MAP_BITS) {
            return Err("the free map has not a bit for each block");
        }
        if self.free_blocks >= self.total_blocks {
            return Err("more blocks are free than there are");
        }
        if self.root.kind != FileKind::Directory || self.root.id != ROOT_ID {
            return Err("the root is no directory");
        }
        Ok(())
    }

    /// The block to write at `number`.
    #[cfg(feature = "std")]
    pub(crate) fn encode(&self, number: u64) -> Block {
        let mut block = [0; BLOCK_BYTES];
        block[8..16].copy_from_slice(&MAGIC);
        block[16..20].copy_from_slice(&VERSION.to_le_bytes());
        block[20..24].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        block[24..32].copy_from_slice(&self.incompatible.to_le_bytes());
        block[32..40].copy_from_slice(&self.read_only_compatible.to_le_bytes());
        block[40..48].copy_from_slice(&self.compatible.to_le_bytes());
        block[48..64].copy_from_slice(&self.uuid);
        let fields = [
            self.total_blocks,
            self.generation,
            self.made_unix_seconds,
            self.free_map_first_block,
            self.free_map_blocks,
            self.free_blocks,
            self.files,
            self.directories,
            self.next_id,
        ];
        for (place, field) in block[64..].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let mut root = std::vec::Vec::new();
        super::entry::encode(&self.root, b"", 0, &mut root);
        block[ROOT_AT..ROOT_AT + root.len()].copy_from_slice(&root);
        let checksum = metadata_checksum(0, Kind::Superblock, number, &block);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}
