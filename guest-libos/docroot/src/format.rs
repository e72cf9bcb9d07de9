//! The packed form of a document root, version 1: what lies where. Reader and packer both use this file and nothing
//! else about each other. Everything is little endian; offsets count from the first byte of the archive.
//!
//! ```text
//! header      72 bytes
//! entries     entry_count * 40 bytes, sorted by path (bytewise), no path twice
//! slots       slot_count * 8 bytes, the hash table over the paths
//! types       type_count * 8 bytes, where the media types lie in the strings
//! strings     string_bytes bytes: paths and media types
//! (zeros up to the next multiple of 4096)
//! data        the files in the order of their entries, each at a multiple of 4096, zeros up to the next multiple
//! ```
//!
//! Header:
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | [u8; 8] | magic `EXOSROOT` |
//! | 8 | u32 | version, 1 |
//! | 12 | u32 | bytes of the header, 72 |
//! | 16 | u64 | checksum: XXH3-64, seed 0, of the bytes 24..index_bytes |
//! | 24 | u64 | total_bytes, the length of the archive |
//! | 32 | u64 | index_bytes, the length of header, entries, slots, types and strings together |
//! | 40 | u32 | entry_count |
//! | 44 | u32 | file_count, how many of the entries are files |
//! | 48 | u32 | slot_count, a power of two and at least twice entry_count |
//! | 52 | u32 | type_count |
//! | 56 | u64 | string_bytes |
//! | 64 | u64 | hash_seed |
//!
//! Entry:
//!
//! | at | type | meaning |
//! | --- | --- | --- |
//! | 0 | u32 | offset of the path in the strings |
//! | 4 | u32 | bytes of the path |
//! | 8 | u16 | kind: 0 file, 1 directory |
//! | 10 | u16 | number of the media type (files; 0 for directories) |
//! | 12 | u32 | number of the entry of the directory's index.html, or `0xffff_ffff` (files: that, too) |
//! | 16 | u64 | size in bytes (directories: 0) |
//! | 24 | u64 | time of last modification, seconds since 1970 UTC, at most the end of the year 9999 |
//! | 32 | u64 | offset of the data (directories: 0) |
//!
//! A path is the bytes of the host's file name relative to the root: components joined with `/`, no `/` at either
//! end, no encoding assumed. The root is the directory with the empty path and is always there.
//!
//! Slot: u32 number of the entry plus 1 (0: the slot is empty), u32 the upper half of the path's hash. The hash is
//! XXH3-64 of the path with hash_seed. An entry lies in the first free slot at or after `hash & (slot_count - 1)`,
//! less than [`MAX_PROBE_SLOTS`] away, around the end of the table to its beginning. The packer picks a seed and a
//! table size for which that holds, so every look-up is bounded, also when someone chose the file names.
//!
//! The data is not covered by the checksum: reading it all would cost more than booting.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The first eight bytes of an archive.
pub const MAGIC: [u8; 8] = *b"EXOSROOT";
/// The version that this file describes.
pub const VERSION: u32 = 1;
/// Files begin at multiples of this, so that their pages can be handed to the NIC by reference.
pub const DATA_ALIGN_BYTES: u64 = 4096;
/// No path lies this many slots or more behind its first slot.
pub const MAX_PROBE_SLOTS: u32 = 64;
/// 9999-12-31 23:59:59 UTC, the last second that an HTTP date can express.
pub const MAX_MTIME_UNIX_SECONDS: u64 = 253_402_300_799;

pub(crate) const HEADER_BYTES: usize = 72;
pub(crate) const ENTRY_BYTES: usize = 40;
pub(crate) const SLOT_BYTES: usize = 8;
pub(crate) const TYPE_BYTES: usize = 8;
/// The checksum covers the index from here on; what lies before is compared byte by byte.
pub(crate) const CHECKSUM_FROM: usize = 24;
pub(crate) const NO_ENTRY: u32 = u32::MAX;
pub(crate) const INDEX_FILE_NAME: &[u8] = b"index.html";

/// The checksum of an index, which begins with the header.
pub(crate) fn checksum(index: &[u8]) -> u64 {
    xxh3_64(index.get(CHECKSUM_FROM..).unwrap_or_default())
}

/// The hash of a path: the lower bits choose the first slot, the upper half is kept in the slot.
pub(crate) fn path_hash(path: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(path, seed)
}

/// The part of a path's hash that its slot keeps.
pub(crate) fn hash_tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// `offset` rounded up to where a file may begin. `None` past the end of u64.
pub(crate) fn align_up(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(DATA_ALIGN_BYTES)
}

fn u16_at<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The header without magic, version and its own length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) checksum: u64,
    pub(crate) total_bytes: u64,
    pub(crate) index_bytes: u64,
    pub(crate) entry_count: u32,
    pub(crate) file_count: u32,
    pub(crate) slot_count: u32,
    pub(crate) type_count: u32,
    pub(crate) string_bytes: u64,
    pub(crate) hash_seed: u64,
}

impl Header {
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Header {
        Header {
            checksum: u64_at(bytes, 16),
            total_bytes: u64_at(bytes, 24),
            index_bytes: u64_at(bytes, 32),
            entry_count: u32_at(bytes, 40),
            file_count: u32_at(bytes, 44),
            slot_count: u32_at(bytes, 48),
            type_count: u32_at(bytes, 52),
            string_bytes: u64_at(bytes, 56),
            hash_seed: u64_at(bytes, 64),
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.total_bytes.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.index_bytes.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.entry_count.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.file_count.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.slot_count.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.type_count.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.string_bytes.to_le_bytes());
        bytes[64..72].copy_from_slice(&self.hash_seed.to_le_bytes());
        bytes
    }

    /// The length of the index that the counts ask for. `None` where it does not fit into u64.
    pub(crate) fn expected_index_bytes(&self) -> Option<u64> {
        let entries = u64::from(self.entry_count) * ENTRY_BYTES as u64;
        let slots = u64::from(self.slot_count) * SLOT_BYTES as u64;
        let types = u64::from(self.type_count) * TYPE_BYTES as u64;
        (HEADER_BYTES as u64 + entries + slots + types).checked_add(self.string_bytes)
    }
}

/// What an entry describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
}

/// One file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path_offset: u32,
    pub(crate) path_bytes: u32,
    pub(crate) kind: Kind,
    pub(crate) type_number: u16,
    pub(crate) index_entry: u32,
    pub(crate) size_bytes: u64,
    pub(crate) mtime_unix_seconds: u64,
    pub(crate) data_offset: u64,
}

impl Entry {
    /// `None` for a kind that version 1 does not know.
    pub(crate) fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Entry> {
        let kind = match u16_at(bytes, 8) {
            0 => Kind::File,
            1 => Kind::Directory,
            _ => return None,
        };
        Some(Entry {
            path_offset: u32_at(bytes, 0),
            path_bytes: u32_at(bytes, 4),
            kind,
            type_number: u16_at(bytes, 10),
            index_entry: u32_at(bytes, 12),
            size_bytes: u64_at(bytes, 16),
            mtime_unix_seconds: u64_at(bytes, 24),
            data_offset: u64_at(bytes, 32),
        })
    }

    #[cfg(feature = "std")]
    pub(crate) fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[0..4].copy_from_slice(&self.path_offset.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.path_bytes.to_le_bytes());
        bytes[8..10].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[10..12].copy_from_slice(&self.type_number.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.index_entry.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size_bytes.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.mtime_unix_seconds.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.data_offset.to_le_bytes());
        bytes
    }
}

/// One place of the hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Number of the entry plus 1, or 0 where the slot is empty.
    pub(crate) entry_plus_one: u32,
    pub(crate) hash_tag: u32,
}

impl Slot {
    pub(crate) fn decode(bytes: &[u8; SLOT_BYTES]) -> Slot {
        Slot { entry_plus_one: u32_at(bytes, 0), hash_tag: u32_at(bytes, 4) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0..4].copy_from_slice(&self.entry_plus_one.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.hash_tag.to_le_bytes());
        bytes
    }
}

/// Where a string lies in the strings: the form of a media type's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StringRef {
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
}

impl StringRef {
    pub(crate) fn decode(bytes: &[u8; TYPE_BYTES]) -> StringRef {
        StringRef { offset: u32_at(bytes, 0), bytes: u32_at(bytes, 4) }
    }

    #[cfg(feature = "std")]
    pub(crate) fn encode(&self) -> [u8; TYPE_BYTES] {
        let mut bytes = [0; TYPE_BYTES];
        bytes[0..4].copy_from_slice(&self.offset.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// The string, or `None` where it leaves the strings.
    pub(crate) fn within<'a>(&self, strings: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.offset as usize;
        strings.get(from..from.checked_add(self.bytes as usize)?)
    }
}
