//! Extents: which runs of disk blocks an environment may read or write. An array that the VMM checks every disk request
//! against.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of the extent table. They are divided among the places for environments, so that nobody uses up what others need.
pub const EXTENTS: usize = 256;
/// Most entries of one environment.
const SHARE_MAX: usize = 128;
/// Bytes of a disk block.
pub const BLOCK_BYTES: u64 = 4096;
/// Most blocks that one request discards or fills with zeros, 256 MiB. The VMM's threads cannot be interrupted at it.
pub const DISCARD_BLOCKS_MAX: u64 = 1 << 16;

/// [`ExtentEntry::rights`]: the blocks may be read.
pub const READ: u32 = 1;
/// [`ExtentEntry::rights`]: the blocks may be written and discarded.
pub const WRITE: u32 = 2;

/// One run of blocks of one device for one environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtentEntry {
    /// First block.
    pub start_block: u64,
    /// Number of blocks; 0: the entry is free.
    pub blocks: u64,
    /// Environment.
    pub environment: u32,
    /// Index in the device table.
    pub device: u32,
    /// [`READ`] and [`WRITE`].
    pub rights: u32,
    /// Zero.
    pub reserved: u32,
}

impl ExtentEntry {
    /// Whether this entry alone allows `blocks` blocks from `start` for the environment with all of `rights`.
    pub fn allows(&self, environment: u32, device: u32, start: u64, blocks: u64, rights: u32) -> bool {
        let Some(end) = start.checked_add(blocks) else { return false };
        let Some(own_end) = self.start_block.checked_add(self.blocks) else { return false };
        blocks > 0
            && self.environment == environment
            && self.device == device
            && self.rights & rights == rights
            && start >= self.start_block
            && end <= own_end
    }
}

/// The entries of one environment, where there are so many places.
pub const fn share(environment: u32, places: u32) -> core::ops::Range<usize> {
    let even = EXTENTS / if places == 0 { 1 } else { places as usize };
    let own = if even < SHARE_MAX { even } else { SHARE_MAX };
    let first = environment as usize * own;
    first..first + own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_disjoint_inside_the_table_and_never_empty() {
        for places in 1..=crate::domain::DOMAINS as u32 {
            let shares: [_; crate::domain::DOMAINS] =
                core::array::from_fn(|number| share(number as u32, places));
            for (number, own) in shares[..places as usize].iter().enumerate() {
                assert!(!own.is_empty() && own.end <= EXTENTS);
                assert!(number == 0 || shares[number - 1].end <= own.start);
            }
        }
    }

    const ENTRY: ExtentEntry =
        ExtentEntry { start_block: 100, blocks: 10, environment: 3, device: 1, rights: READ, reserved: 0 };

    #[test]
    fn allows_what_lies_inside() {
        assert!(ENTRY.allows(3, 1, 100, 10, READ));
        assert!(ENTRY.allows(3, 1, 109, 1, READ));
    }

    #[test]
    fn refuses_foreign_environment_device_right_and_range() {
        assert!(!ENTRY.allows(2, 1, 100, 1, READ));
        assert!(!ENTRY.allows(3, 0, 100, 1, READ));
        assert!(!ENTRY.allows(3, 1, 100, 1, WRITE));
        assert!(!ENTRY.allows(3, 1, 99, 2, READ));
        assert!(!ENTRY.allows(3, 1, 109, 2, READ));
        assert!(!ENTRY.allows(3, 1, u64::MAX, 2, READ));
        assert!(!ENTRY.allows(3, 1, 100, 0, READ));
    }
}
