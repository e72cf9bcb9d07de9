//! Reading blocks, and the account of which are used.

use std::io;
use std::os::unix::fs::FileExt;
use std::vec::Vec;

use super::Disk;
use crate::error::FsError;
use crate::format::superblock::FREE_MAP_BITS;
use crate::format::{BLOCK_BYTES, Block};

impl Disk<'_> {
    /// Reads blocks into `to`; as many of them as there are, whose number is returned.
    pub(super) fn read(&self, first_block: u64, to: &mut [u8]) -> io::Result<usize> {
        let there = self.device_blocks.saturating_sub(first_block);
        let blocks = usize::try_from(there).unwrap_or(usize::MAX).min(to.len() / BLOCK_BYTES);
        self.file.read_exact_at(&mut to[..blocks * BLOCK_BYTES], first_block * BLOCK_BYTES as u64)?;
        Ok(blocks)
    }

    /// Reads a block, which may be missing.
    pub(super) fn block(&self, number: u64) -> io::Result<Result<Block, FsError>> {
        let mut block = [0; BLOCK_BYTES];
        Ok(match self.read(number, &mut block)? {
            0 => Err(FsError::Missing { block: number, device_blocks: self.device_blocks }),
            _ => Ok(block),
        })
    }
}

/// A bit for each block of the volume that somebody has, as in the free map.
pub(super) struct Claims {
    bits: Vec<u8>,
    total_blocks: u64,
}

impl Claims {
    /// `None` where that would take more memory than an image of the disk's size gives reason for.
    pub(super) fn new(total_blocks: u64, device_blocks: u64) -> Option<Claims> {
        const MAX_MISSING_BLOCKS: u64 = 1 << 31;
        if total_blocks.saturating_sub(device_blocks) > MAX_MISSING_BLOCKS {
            return None;
        }
        // Whole blocks of the map, so that they compare as they are.
        let bytes = usize::try_from(total_blocks.div_ceil(FREE_MAP_BITS) * (FREE_MAP_BITS / 8)).ok()?;
        let mut bits = Vec::new();
        bits.try_reserve_exact(bytes).ok()?;
        bits.resize(bytes, 0);
        Some(Claims { bits, total_blocks })
    }

    /// Notes that somebody has the blocks, which lie in the volume, and returns the first that was taken already.
    pub(super) fn claim(&mut self, first_block: u64, blocks: u64) -> Option<u64> {
        let mut taken = None;
        for number in first_block..first_block + blocks {
            let (byte, bit) = (&mut self.bits[(number / 8) as usize], 1 << (number % 8));
            if *byte & bit != 0 {
                taken = taken.or(Some(number));
            }
            *byte |= bit;
        }
        taken
    }

    /// How many blocks nobody has.
    pub(super) fn free_blocks(&self) -> u64 {
        self.total_blocks - self.bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
    }

    /// The part of the map that belongs into a block of it.
    pub(super) fn map_block(&self, number: u64) -> &[u8] {
        let bytes = (FREE_MAP_BITS / 8) as usize;
        &self.bits[number as usize * bytes..][..bytes]
    }
}

/// Runs of bits that are set, as ranges of blocks counted from `first_block`.
pub(super) fn runs(bits: impl Iterator<Item = u8>, first_block: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (at, byte) in bits.enumerate().filter(|(_, byte)| *byte != 0) {
        for number in (0..8).filter(|bit| byte >> bit & 1 != 0).map(|bit| first_block + at as u64 * 8 + bit) {
            match runs.last_mut() {
                Some((_, end)) if *end == number => *end += 1,
                _ => runs.push((number, number + 1)),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_of_taken_blocks_returns_the_first_of_them() {
        let mut claims = Claims::new(100, 100).unwrap();
        assert_eq!(claims.claim(10, 5), None);
        assert_eq!(claims.claim(8, 2), None);
        assert_eq!(claims.claim(8, 9), Some(8));
        assert_eq!(claims.claim(15, 2), Some(15));
        assert_eq!(claims.free_blocks(), 100 - 9);
    }

    #[test]
    fn runs_join_over_bytes() {
        assert_eq!(runs([0, 0b1110_0000, 0b1, 0b100].into_iter(), 100), [(113, 117), (126, 127)]);
    }
}
