//! The bytes of a volume, version 1. Reader and tools both use this and nothing else about each other. Everything is
//! little endian; blocks have 4096 bytes and are counted from the volume's first byte; what is called reserved is zero
//! and not looked at by readers.
//!
//! ```text
//! block 0                  superblock
//! block 1 ..               free map
//! then                     directories, checksum blocks and data
//! block total_blocks - 1   the superblock once more
//! ```
//!
//! # Checksums
//!
//! XXH3-64. Each block of metadata begins with the checksum of the other 4088 bytes. Its seed is
//! `key ^ block number ^ kind << 56`, where the key is the XXH3-64 (seed 0) of the volume's UUID, so that a block of
//! another place, kind or volume does not pass; for superblocks, which hold the UUID, the key is 0. The kinds are in
//! [`Kind`]. A block of data has the XXH3-64 with seed 0 of all its 4096 bytes; behind the end of the file they are zero.
//!
//! # Superblock
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u64 | checksum; this and the next three keep their places and meanings in all versions |
//! | 8 | [u8; 8] | magic `EXOS-FS` and a line feed |
//! | 16 | u32 | version, 1 |
//! | 20 | u32 | bytes of a block, 4096 |
//! | 24 | u64 | incompatible features: who does not know one of them must not read |
//! | 32 | u64 | read-only-compatible features: who does not know one of them must not write |
//! | 40 | u64 | compatible features: who does not know them may ignore them |
//! | 48 | [u8; 16] | UUID |
//! | 64 | u64 | total_blocks |
//! | 72 | u64 | generation: 1 from mkfs, one more with each change of the superblock |
//! | 80 | u64 | when the volume was made, seconds since 1970 UTC |
//! | 88 | u64 | first block of the free map |
//! | 96 | u64 | blocks of the free map |
//! | 104 | u64 | blocks that are free |
//! | 112 | u64 | files |
//! | 120 | u64 | directories, with the root |
//! | 128 | u64 | the id that the next new file gets; all ids are below |
//! | 136 | [u8; 120] | reserved |
//! | 256 | entry | the root directory: an entry (below) with an empty name |
//! | behind | | reserved |
//!
//! Version 1 knows no features. The backup differs from the superblock in its checksum alone, because its place does.
//!
//! # Free map
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u64 | checksum |
//! | 8 | u64 | number of the block that the first bit stands for |
//! | 16 | [u8; 4080] | a bit a block, from the lowest of each byte: 1 means used; 0 behind the end of the volume |
//!
//! # Directory
//!
//! A hash table whose buckets are blocks: all entries whose names fall into a bucket are in its block, so a look-up reads
//! one block for each component of the path. A directory without entries may have no block.
//!
//! With `hash`, the XXH3-64 of the name with the directory's hash seed, the bucket is
//! `(hash >> 32) * bucket_count >> 32`, and the entry's hash tag is the lower half of `hash`.
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u64 | checksum |
//! | 8 | u64 | id of the directory |
//! | 16 | u32 | number of the bucket |
//! | 20 | u32 | bucket_count |
//! | 24 | u16 | entries in this bucket |
//! | 26 | u16 | bytes used in this block, with this header |
//! | 28 | u32 | reserved |
//! | 32 | entries | one directly behind the other, sorted by name (bytewise) |
//! | behind | | zeros |
//!
//! # Entry: a name and its inode
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u16 | bytes of the entry, a multiple of 8 |
//! | 2 | u8 | bytes of the name |
//! | 3 | u8 | kind: 1 file, 2 directory |
//! | 4 | u8 | extents, at most 4 |
//! | 5 | u8 | checksums in the entry, at most 8 |
//! | 6 | u16 | media type: its number in [`mime`](crate::mime) (directories: 0) |
//! | 8 | u32 | hash tag of the name (root: 0) |
//! | 12 | u32 | time of last modification, nanoseconds |
//! | 16 | u64 | time of last modification, seconds since 1970 UTC, at most the end of the year 9999 |
//! | 24 | u64 | size in bytes (directories: of their blocks) |
//! | 32 | u64 | id: unique in the volume, never used again, not 0; the root has 1 |
//! | 40 | u64 | directories: hash seed of the names in it (files: 0) |
//! | 48 | u64 | reserved: block of stored attributes (response header, entity tag, checksums of segments) |
//! | 56 | u32 | reserved: group, files that lie together and are fetched together |
//! | 60 | u16 | flags: bit 0, the file is striped |
//! | 62 | u16 | reserved |
//! | 64 | extents | 16 bytes each: u64 first block, u32 blocks, u32 reserved |
//! | then | checksums | u64 each, of the file's data blocks in order |
//! | then | name | no `/`, no NUL, not `.` or `..`; no encoding assumed; zeros up to a multiple of 8 |
//!
//! # Data
//!
//! The extents of a directory hold its buckets, those of a file its data, both in order. A file of at most 8 blocks has
//! its checksums in the entry. A larger one is **striped**: each of its extents is cut into stripes of 512 blocks (the
//! last may be shorter, but has at least 2), whose first block holds the checksums of the up to 511 blocks of data behind it.
//! So the checksums come in with the disk request that fetches the data, wherever in the file it begins.
//!
//! Checksum block:
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u64 | checksum |
//! | 8 | [u64; 511] | of the data blocks behind; 0 where the stripe is shorter |

use core::fmt;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod superblock;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// The content of a block.
pub type Block = [u8; BLOCK_BYTES];

/// What tells a superblock from others.
pub const MAGIC: [u8; 8] = *b"EXOS-FS\n";
/// The version that this file describes.
pub const VERSION: u32 = 1;
/// Longest name of a file, in bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most extents of a file.
pub const MAX_EXTENTS: usize = 4;
/// A file of at most this many blocks has its checksums in its entry.
pub const MAX_ENTRY_CHECKSUMS: usize = 8;
/// Blocks of a stripe: one of checksums, then data.
pub const STRIPE_BLOCKS: u64 = 512;
/// Blocks of data in a stripe.
pub const STRIPE_DATA_BLOCKS: u64 = STRIPE_BLOCKS - 1;
/// 9999-12-31 23:59:59 UTC, the last second that an HTTP date can express.
pub const MAX_MTIME_UNIX_SECONDS: u64 = 253_402_300_799;
/// The id of the root directory.
pub const ROOT_ID: u64 = 1;
/// Where the root's entry lies in the superblock.
pub(crate) const ROOT_AT: usize = 256;

/// Kinds of metadata blocks, as they go into the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The superblock or its backup.
    Superblock = 1,
    /// A block of the free map.
    FreeMap = 2,
    /// A bucket of a directory.
    Directory = 3,
    /// The checksums of a stripe.
    Checksums = 4,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Superblock => "superblock",
            Kind::FreeMap => "block of the free map",
            Kind::Directory => "directory block",
            Kind::Checksums => "checksum block",
        })
    }
}

/// What the checksums of a volume's metadata depend on, besides place and kind.
pub(crate) fn key_of(uuid: &[u8; 16]) -> u64 {
    xxh3_64(uuid)
}

/// The checksum that belongs into the first eight bytes of a metadata block.
pub(crate) fn metadata_checksum(key: u64, kind: Kind, number: u64, block: &Block) -> u64 {
    let key = if kind == Kind::Superblock { 0 } else { key };
    let (_, content) = block.split_at(8);
    xxh3_64_with_seed(content, key ^ number ^ (kind as u64) << 56)
}

/// The checksum of a block of data.
pub(crate) fn data_checksum(block: &Block) -> u64 {
    xxh3_64(block)
}

/// Where a name belongs in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameHash(u64);

impl NameHash {
    pub(crate) fn of(name: &[u8], hash_seed: u64) -> NameHash {
        NameHash(xxh3_64_with_seed(name, hash_seed))
    }

    /// Below `bucket_count`, or 0 if that is 0.
    pub(crate) fn bucket(self, bucket_count: u32) -> u32 {
        (((self.0 >> 32) * u64::from(bucket_count)) >> 32) as u32
    }

    pub(crate) fn tag(self) -> u32 {
        self.0 as u32
    }
}

/// The number of blocks that hold so many bytes.
pub(crate) fn blocks_for(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES as u64)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// A field of a block at a place known to lie in it.
pub(crate) fn block_u64<const AT: usize>(block: &Block) -> u64 {
    const { assert!(AT + 8 <= BLOCK_BYTES) };
    u64_at(block, AT).unwrap_or_default()
}

/// The same for u32.
pub(crate) fn block_u32<const AT: usize>(block: &Block) -> u32 {
    const { assert!(AT + 4 <= BLOCK_BYTES) };
    u32_at(block, AT).unwrap_or_default()
}
