//! How the reader and who fetches for it speak with each other: blocks that are there, and what is missing.

use core::ops::Range;

use crate::format::{Block, Kind};

/// The blocks that are in memory. Each was checked when it arrived: metadata with [`Volume::check`](crate::Volume::check).
///
/// A question walks from the root each time it is asked. So that it comes to an end, a block that was fetched for it
/// must stay until it is answered.
pub trait Blocks {
    /// The block, if it is in memory.
    fn block(&self, number: u64) -> Option<&Block>;
}

impl<B: Blocks + ?Sized> Blocks for &B {
    fn block(&self, number: u64) -> Option<&Block> {
        (**self).block(number)
    }
}

#[cfg(any(test, feature = "std"))]
impl<S: core::hash::BuildHasher> Blocks for std::collections::HashMap<u64, std::boxed::Box<Block>, S> {
    fn block(&self, number: u64) -> Option<&Block> {
        self.get(&number).map(|block| &**block)
    }
}

/// The answer to a question: either it, or what must be in memory before it is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step<T> {
    /// The answer.
    Done(T),
    /// Fetch this, check it, and ask again.
    Need(Need),
}

impl<T> Step<T> {
    /// The same step with another answer.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Done(answer) => Step::Done(change(answer)),
            Step::Need(need) => Step::Need(need),
        }
    }
}

/// Blocks that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// The first of them. The range lies inside the volume.
    pub first_block: u64,
    /// How many are needed: at least one, all metadata of one kind.
    pub blocks: u32,
    /// What they are; check each with [`Volume::check`](crate::Volume::check).
    pub kind: Kind,
    /// So many blocks directly behind them are data of the same file, and worth fetching with the same disk request, as
    /// many of them as the caller likes. Their checksums are in the needed blocks:
    /// [`Volume::data_run`](crate::Volume::data_run) gives them when those are in memory.
    pub data_blocks_behind: u32,
}

impl Need {
    /// The numbers of the blocks that are needed.
    pub fn metadata_blocks(&self) -> Range<u64> {
        self.first_block..self.first_block + u64::from(self.blocks)
    }
}
