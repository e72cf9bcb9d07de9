//! Entries: a name and its inode, as they lie in directory blocks and the superblock. Reading one checks everything
//! that can be checked without other blocks, so that a [`Node`] never leads out of its volume.

use super::{
    MAX_ENTRY_CHECKSUMS, MAX_EXTENTS, MAX_MTIME_UNIX_SECONDS, STRIPE_BLOCKS, u16_at, u32_at, u64_at,
};
use crate::node::{Extent, FileKind, Node, Striped};

pub(crate) const FIXED_BYTES: usize = 64;
pub(crate) const EXTENT_BYTES: usize = 16;
const KIND_FILE: u8 = 1;
const KIND_DIRECTORY: u8 = 2;
const FLAG_STRIPED: u16 = 1;

/// An entry whose parts have been found but not looked at.
#[derive(Clone, Copy)]
pub(crate) struct RawEntry<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) name: &'a [u8],
    pub(crate) tag: u32,
}

impl<'a> RawEntry<'a> {
    /// Splits the first entry off `bytes`.
    #[inline]
    pub(crate) fn split(bytes: &'a [u8]) -> Result<(RawEntry<'a>, &'a [u8]), &'static str> {
        const TOO_SHORT: &str = "an entry leaves its block";
        let length = usize::from(u16_at(bytes, 0).ok_or(TOO_SHORT)?);
        let (entry, rest) = bytes.split_at_checked(length).ok_or(TOO_SHORT)?;
        let fixed: &[u8; FIXED_BYTES] = entry.first_chunk().ok_or("an entry is shorter than its fields")?;
        let (extents, checksums) = (usize::from(fixed[4]), usize::from(fixed[5]));
        if extents > MAX_EXTENTS {
            return Err("an entry has too many extents");
        }
        if checksums > MAX_ENTRY_CHECKSUMS {
            return Err("an entry has too many checksums");
        }
        let name_at = FIXED_BYTES + extents * EXTENT_BYTES + checksums * 8;
        let name_bytes = usize::from(fixed[2]);
        if length != (name_at + name_bytes).next_multiple_of(8) {
            return Err("the length of an entry is not that of its parts");
        }
        let name = entry.get(name_at..name_at + name_bytes).unwrap_or_default();
        Ok((RawEntry { bytes: entry, name, tag: u32_at(fixed, 8).unwrap_or_default() }, rest))
    }

    /// The inode, checked against a volume of `total_blocks`.
    pub(crate) fn node(&self, total_blocks: u64) -> Result<Node, &'static str> {
        let field = |at| u64_at(self.bytes, at).unwrap_or_default();
        let mut node = Node {
            id: field(32),
            kind: match self.bytes.get(3) {
                Some(&KIND_FILE) => FileKind::File,
                Some(&KIND_DIRECTORY) => FileKind::Directory,
                _ => return Err("an entry has an unknown kind"),
            },
            striped: match u16_at(self.bytes, 60).unwrap_or_default() {
                0 => Striped::No,
                FLAG_STRIPED => Striped::Yes,
                _ => return Err("an entry has unknown flags"),
            },
            media_type: u16_at(self.bytes, 6).unwrap_or_default(),
            mtime_nanoseconds: u32_at(self.bytes, 12).unwrap_or_default(),
            mtime_unix_seconds: field(16),
            size_bytes: field(24),
            hash_seed: field(40),
            extent_count: self.bytes.get(4).copied().unwrap_or_default(),
            checksum_count: self.bytes.get(5).copied().unwrap_or_default(),
            extents: [Extent::default(); MAX_EXTENTS],
            checksums: [0; MAX_ENTRY_CHECKSUMS],
        };
        let mut at = FIXED_BYTES;
        for extent in node.extents.iter_mut().take(usize::from(node.extent_count)) {
            extent.first_block = field(at);
            extent.blocks = u32_at(self.bytes, at + 8).unwrap_or_default();
            at += EXTENT_BYTES;
        }
        for checksum in node.checksums.iter_mut().take(usize::from(node.checksum_count)) {
            *checksum = field(at);
            at += 8;
        }
        check(&node, total_blocks)?;
        Ok(node)
    }
}

fn check(node: &Node, total_blocks: u64) -> Result<(), &'static str> {
    if node.id == 0 {
        return Err("an entry has no id");
    }
    if node.mtime_unix_seconds > MAX_MTIME_UNIX_SECONDS || node.mtime_nanoseconds >= 1_000_000_000 {
        return Err("an entry has an impossible time");
    }
    for extent in node.extents() {
        let end = extent.first_block.checked_add(u64::from(extent.blocks));
        // Neither superblock is anybody's content.
        if extent.first_block == 0 || extent.blocks == 0 || end.is_none_or(|end| end >= total_blocks) {
            return Err("an extent leaves the volume");
        }
        if node.striped == Striped::Yes && u64::from(extent.blocks) % STRIPE_BLOCKS == 1 {
            return Err("a stripe has no data");
        }
    }
    let content_blocks: u64 = node.extents().iter().map(|extent| extent.data_blocks(node.striped)).sum();
    if content_blocks != node.data_blocks() {
        return Err("the extents of an entry do not hold its size");
    }
    let checksums = match (node.kind, node.striped) {
        (FileKind::File, Striped::No) => content_blocks,
        (FileKind::File, Striped::Yes) | (FileKind::Directory, Striped::No) => 0,
        (FileKind::Directory, Striped::Yes) => return Err("a directory is striped"),
    };
    if u64::from(node.checksum_count) != checksums {
        return Err("an entry does not have a checksum for each block");
    }
    if node.kind == FileKind::Directory
        && (u32::try_from(content_blocks).is_err()
            || !node.size_bytes.is_multiple_of(super::BLOCK_BYTES as u64))
    {
        return Err("a directory has an impossible size");
    }
    Ok(())
}

/// The length of an entry with these parts.
#[cfg(feature = "std")]
pub(crate) fn entry_bytes(name_bytes: usize, extents: usize, checksums: usize) -> usize {
    (FIXED_BYTES + extents * EXTENT_BYTES + checksums * 8 + name_bytes).next_multiple_of(8)
}

/// Appends an entry. The name has at most 255 bytes.
#[cfg(feature = "std")]
pub(crate) fn encode(node: &Node, name: &[u8], tag: u32, to: &mut std::vec::Vec<u8>) {
    let from = to.len();
    let length = entry_bytes(name.len(), node.extents().len(), node.checksums().len());
    to.extend_from_slice(&(length as u16).to_le_bytes());
    to.push(name.len() as u8);
    to.push(match node.kind {
        FileKind::File => KIND_FILE,
        FileKind::Directory => KIND_DIRECTORY,
    });
    to.push(node.extent_count);
    to.push(node.checksum_count);
    to.extend_from_slice(&node.media_type.to_le_bytes());
    to.extend_from_slice(&tag.to_le_bytes());
    to.extend_from_slice(&node.mtime_nanoseconds.to_le_bytes());
    to.extend_from_slice(&node.mtime_unix_seconds.to_le_bytes());
    to.extend_from_slice(&node.size_bytes.to_le_bytes());
    to.extend_from_slice(&node.id.to_le_bytes());
    to.extend_from_slice(&node.hash_seed.to_le_bytes());
    to.extend_from_slice(&[0; 12]);
    let flags = if node.striped == Striped::Yes { FLAG_STRIPED } else { 0 };
    to.extend_from_slice(&flags.to_le_bytes());
    to.extend_from_slice(&[0; 2]);
    for extent in node.extents() {
        to.extend_from_slice(&extent.first_block.to_le_bytes());
        to.extend_from_slice(&extent.blocks.to_le_bytes());
        to.extend_from_slice(&[0; 4]);
    }
    for checksum in node.checksums() {
        to.extend_from_slice(&checksum.to_le_bytes());
    }
    to.extend_from_slice(name);
    to.resize(from + length, 0);
}
