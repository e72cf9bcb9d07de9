//! Capabilities: what an environment may do, in tables of the kernel's that no environment can write.
//!
//! Each environment has a table of [`CAPABILITIES`]. An entry names a kind of thing, a range of it and rights. Entries form a
//! tree: one that was derived or given lies inside its parent's range, has no right that its parent lacks, and ends no
//! later than its parent does. An environment names an entry of its own by a handle: slot and generation, so that a
//! handle to what is gone stays refused when the slot is used again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of one environment's table. The last is never used: [`crate::paging::NO_SLOT`].
pub const CAPABILITIES: usize = 256;
/// Longest path from a root of the tree.
pub const DEPTH_MAX: u8 = 16;

/// Bit of [`Capability::depth`]: nothing is derived from it or what was derived from it any more.
pub const REVOKING: u8 = 0x80;

/// Bit of [`Capability::depth`]: the tail of its range is being given back or taken. Nothing is bound with it or derived from it
/// until that is done.
pub const TRIMMING: u8 = 0x20;

/// Bit of [`Capability::depth`]: what was bound with it is being undone, and nothing is bound with it any more.
pub const LEAVING: u8 = 0x40;

/// What a capability is for, and what its range counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The entry is free.
    None = 0,
    /// Pages of guest-physical memory.
    Memory = 1,
    /// Queues, as numbered by [`crate::queue::owner_index`].
    Queues = 2,
    /// One node of the flow tree and all below it.
    Flow = 3,
    /// Blocks of the disk that `object` numbers in the device table.
    Extent = 4,
    /// Environments.
    Environment = 5,
    /// Slices of vCPUs, as [`crate::slice`] numbers them.
    Slices = 6,
}

impl Kind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Memory),
            2 => Some(Self::Queues),
            3 => Some(Self::Flow),
            4 => Some(Self::Extent),
            5 => Some(Self::Environment),
            6 => Some(Self::Slices),
            _ => None,
        }
    }
}

/// Rights. What a bit means depends on the kind, but for [`rights::GIVE`].
pub mod rights {
    /// Any kind: may be given to another environment.
    pub const GIVE: u16 = 1 << 15;
    /// Memory: map readable, let devices read. Extent: read.
    pub const READ: u16 = 1;
    /// Memory: map writable, let devices write. Extent: write and discard.
    pub const WRITE: u16 = 1 << 1;
    /// Memory: map executable.
    pub const EXECUTE: u16 = 1 << 2;
    /// Memory: devices may have it, as READ and WRITE say.
    pub const DMA: u16 = 1 << 3;
    /// Queues and slices: bind.
    pub const BIND: u16 = 1;
    /// Flow: carve a child out of it.
    pub const CARVE: u16 = 1;
    /// Flow: say which queues get the frames.
    pub const DIRECT: u16 = 1 << 1;
    /// Flow: direct it so that frames of any address may be sent ([`crate::flow::SEND_ANY`]).
    pub const SEND_ANY: u16 = 1 << 2;
    /// Environment: act for it in any call that takes an environment, and start it.
    pub const CONTROL: u16 = 1;
    /// Environment: end it.
    pub const DESTROY: u16 = 1 << 1;
    /// Environment: make it look around when it sleeps.
    pub const WAKE: u16 = 1 << 2;
    /// Environment: put capabilities into its table.
    pub const RECEIVE: u16 = 1 << 3;
    /// Environment: create one in a free place of the range.
    pub const CREATE: u16 = 1 << 4;
    /// Environment: yield the CPU to it.
    pub const YIELD: u16 = 1 << 5;
    /// Environment: send it messages, and have it answer.
    pub const CALL: u16 = 1 << 6;
    /// All of them.
    pub const ALL: u16 = u16::MAX;
}

/// One entry. Links are entries' numbers, as of [`number`], plus one; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capability {
    /// [`Kind`].
    pub kind: u8,
    /// Steps to the root of its tree; with [`REVOKING`], it is being revoked.
    pub depth: u8,
    /// [`rights`].
    pub rights: u16,
    /// Counts what becomes of this slot: odd while it is used, even while it is free.
    pub generation: u32,
    /// First page, queue, node, block, environment or slice.
    pub start: u64,
    /// How many.
    pub count: u64,
    /// Memory: 1 if devices were allowed to use it. Flow: 1 if it was carved with this entry, and goes with it. Extent: index in
    /// the device table. Environment: its generation; 0: free places.
    pub object: u32,
    /// How many things were bound with it. Memory: entries of page tables. Queues: queues. Slices: slices. Extent: its entry in
    /// the extent table plus one.
    pub bound: u32,
    /// What it was derived from.
    pub parent: u16,
    /// The first of those derived from it.
    pub first_child: u16,
    /// The next with the same parent.
    pub next: u16,
    /// The one before with the same parent.
    pub previous: u16,
}

/// Number of an entry among those of all environments.
pub const fn number(environment: u32, slot: u32) -> u16 {
    (environment as usize * CAPABILITIES + slot as usize) as u16
}

/// How an environment names an entry of its table. Never 0 for one that exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Handle(pub u64);

impl Handle {
    /// No capability; where a call takes an environment: the caller.
    pub const NONE: Self = Self(0);

    /// The handle of a slot in its present use.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self(slot as u64 | (generation as u64) << 32)
    }

    /// The slot.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The use of the slot.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

const _: () = assert!(
    size_of::<Capability>() == 40 && DEPTH_MAX < TRIMMING && TRIMMING < LEAVING && LEAVING < REVOKING
);
// Links are entries' numbers plus one in 16 bits, and a page-table entry has eight spare bits for a slot.
const _: () = assert!(crate::domain::DOMAINS * CAPABILITIES < u16::MAX as usize && CAPABILITIES <= 256);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handle_of_a_first_use_is_not_none() {
        let handle = Handle::new(0, 1);
        assert_ne!(handle, Handle::NONE);
        assert_eq!((handle.slot(), handle.generation()), (0, 1));
        assert_eq!(Handle::new(255, u32::MAX).slot(), 255);
    }

    #[test]
    fn numbers_of_different_entries_differ() {
        assert_eq!(number(0, 0), 0);
        assert_eq!(number(1, 0), 256);
        assert_eq!(number(63, 255), 16383);
    }
}
