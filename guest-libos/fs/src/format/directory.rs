//! Directory blocks: the header of a bucket, and the walk over its entries.

use super::entry::RawEntry;
use super::{BLOCK_BYTES, Block, block_u32, block_u64, u16_at};

pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes for entries in a block.
#[cfg(feature = "std")]
pub(crate) const CAPACITY_BYTES: usize = BLOCK_BYTES - HEADER_BYTES;

/// The block of a bucket.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'a> {
    entries: &'a [u8],
    count: u16,
}

impl<'a> Bucket<'a> {
    /// Checks that the block is bucket `number` of `bucket_count` of the directory.
    pub(crate) fn parse(
        block: &'a Block,
        directory_id: u64,
        number: u32,
        bucket_count: u32,
    ) -> Result<Bucket<'a>, &'static str> {
        if block_u64::<8>(block) != directory_id {
            return Err("it belongs to another directory");
        }
        if block_u32::<16>(block) != number || block_u32::<20>(block) != bucket_count {
            return Err("it is another bucket of its directory");
        }
        let count = u16_at(block, 24).unwrap_or_default();
        let used = usize::from(u16_at(block, 26).unwrap_or_default());
        if !(HEADER_BYTES..=BLOCK_BYTES).contains(&used) {
            return Err("it uses more bytes than it has");
        }
        Ok(Bucket { entries: block.get(HEADER_BYTES..used).unwrap_or_default(), count })
    }

    pub(crate) fn entries(&self) -> RawEntries<'a> {
        RawEntries { rest: self.entries, left: self.count }
    }
}

/// The entries of a bucket. Ends after an error.
#[derive(Clone, Copy)]
pub(crate) struct RawEntries<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> Iterator for RawEntries<'a> {
    type Item = Result<RawEntry<'a>, &'static str>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            if self.rest.is_empty() {
                return None;
            }
            self.rest = &[];
            return Some(Err("it has more entries than it counts"));
        }
        Some(match RawEntry::split(self.rest) {
            Ok((entry, rest)) => {
                self.rest = rest;
                self.left -= 1;
                Ok(entry)
            }
            Err(what) => {
                self.rest = &[];
                self.left = 0;
                Err(what)
            }
        })
    }
}

/// Writes the header of a bucket, without the checksum.
#[cfg(feature = "std")]
pub(crate) fn encode_header(
    block: &mut Block,
    directory_id: u64,
    number: u32,
    bucket_count: u32,
    entries: u16,
    used: u16,
) {
    block[8..16].copy_from_slice(&directory_id.to_le_bytes());
    block[16..20].copy_from_slice(&number.to_le_bytes());
    block[20..24].copy_from_slice(&bucket_count.to_le_bytes());
    block[24..26].copy_from_slice(&entries.to_le_bytes());
    block[26..28].copy_from_slice(&used.to_le_bytes());
}
