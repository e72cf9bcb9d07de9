//! The check of a disk request against the extent table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use abi::extent::{EXTENTS, ExtentEntry};

use super::Memory;
use super::shared::{Shared, TableError};

/// Words of an [`ExtentEntry`]: start, blocks, environment and device, rights and nothing.
const WORDS: usize = size_of::<ExtentEntry>() / 8;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// No single extent of the environment allows it.
    #[error(
        "environment {environment} holds no extent with rights {rights:#x} for blocks {start_block}..+{blocks} of device {device}"
    )]
    NotGranted {
        /// Who asked.
        environment: u32,
        /// Which disk.
        device: u32,
        /// First block.
        start_block: u64,
        /// How many.
        blocks: u64,
        /// What was to be done ([`abi::extent::READ`], [`abi::extent::WRITE`]).
        rights: u32,
    },
}

/// The table. The kernel takes an extent back by storing `blocks = 0` and grants one by storing `blocks` last.
#[derive(Clone, Debug)]
pub struct Extents {
    entries: Shared<[[AtomicU64; WORDS]]>,
}

impl Extents {
    /// The table at `gpa`.
    pub fn open(memory: &Arc<Memory>, gpa: u64) -> Result<Self, TableError> {
        Ok(Self { entries: Shared::slice(memory, "the extent table", gpa, EXTENTS)? })
    }

    /// Whether one extent allows the whole request. Two adjacent extents do not add up: the library OS that holds both
    /// asks twice.
    pub fn check(
        &self,
        environment: u32,
        device: u32,
        start_block: u64,
        blocks: u64,
        rights: u32,
    ) -> Result<(), ExtentError> {
        let allowed = self.entries.iter().any(|words| {
            read(words).is_some_and(|entry| entry.allows(environment, device, start_block, blocks, rights))
        });
        if allowed {
            Ok(())
        } else {
            Err(ExtentError::NotGranted { environment, device, start_block, blocks, rights })
        }
    }
}

/// An entry that did not change while it was read; `None`: free, or in the middle of a change.
fn read(words: &[AtomicU64; WORDS]) -> Option<ExtentEntry> {
    let blocks = words[1].load(Ordering::Acquire);
    if blocks == 0 {
        return None;
    }
    let start_block = words[0].load(Ordering::Acquire);
    let owner = words[2].load(Ordering::Acquire);
    let rights = words[3].load(Ordering::Acquire) as u32;
    fence(Ordering::Acquire);
    let unchanged = words[1].load(Ordering::Relaxed) == blocks;
    let entry = ExtentEntry {
        start_block,
        blocks,
        environment: owner as u32,
        device: (owner >> 32) as u32,
        rights,
        reserved: 0,
    };
    unchanged.then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::extent::{READ, WRITE};
    use proptest::prelude::*;
    use vm_memory::{Bytes, GuestAddress};
    use zerocopy::IntoBytes;

    fn extents(entries: &[ExtentEntry]) -> Extents {
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("memory"));
        memory.write_slice(entries.as_bytes(), GuestAddress(0x1000)).expect("inside");
        Extents::open(&memory, 0x1000).expect("inside")
    }

    #[test]
    fn check_foreign_extent_returns_not_granted() {
        let entry = |environment, start_block, rights| ExtentEntry {
            start_block,
            blocks: 10,
            environment,
            device: 1,
            rights,
            reserved: 0,
        };
        let table = extents(&[entry(1, 0, READ), entry(2, 10, READ | WRITE), entry(1, 20, READ | WRITE)]);
        assert_eq!(table.check(1, 1, 5, 5, READ), Ok(()));
        assert_eq!(table.check(1, 1, 20, 10, READ | WRITE), Ok(()));
        assert!(table.check(1, 1, 5, 5, WRITE).is_err());
        assert!(table.check(1, 1, 10, 1, READ).is_err());
        assert!(table.check(1, 0, 5, 5, READ).is_err());
        assert!(table.check(1, 1, 9, 2, READ).is_err());
    }

    proptest! {
        #[test]
        fn check_agrees_with_a_naive_model(
            raw in prop::collection::vec((0u64..64, 0u64..16, 0u32..3, 0u32..2, 0u32..4), 0..40),
            request in (0u32..3, 0u32..2, 0u64..80, 0u64..20, 1u32..4),
        ) {
            let entries: Vec<ExtentEntry> = raw
                .iter()
                .map(|&(start_block, blocks, environment, device, rights)| ExtentEntry {
                    start_block, blocks, environment, device, rights, reserved: 0,
                })
                .collect();
            let (environment, device, start, blocks, rights) = request;
            let expected = blocks > 0 && entries.iter().any(|entry| {
                entry.environment == environment && entry.device == device && entry.rights & rights == rights
                    && (start..start + blocks).all(|block| {
                        (entry.start_block..entry.start_block + entry.blocks).contains(&block)
                    })
            });
            prop_assert_eq!(extents(&entries).check(environment, device, start, blocks, rights).is_ok(), expected);
        }
    }
}
