//! Bits of page-table entries (SDM 4.5), and the capability by which a page is mapped: an entry carries its slot in bits
//! that the processor ignores, so that whatever was mapped with a capability is found when that goes.

/// The entry is used.
pub const PRESENT: u64 = 1;
/// May be written.
pub const WRITE: u64 = 1 << 1;
/// Ring 3 may, too.
pub const USER: u64 = 1 << 2;
/// Accessed and dirty: set from the start, so that nobody has to write them later.
pub const ACCESSED_DIRTY: u64 = 0x60;
/// A large page, in the second level.
pub const LARGE: u64 = 1 << 7;
/// May not be executed.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The physical address.
pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Slot of entries that were not mapped with a capability; no capability is ever put there.
pub const NO_SLOT: u32 = 255;

/// The bits of an entry that carry a slot.
pub const fn tag(slot: u32) -> u64 {
    ((slot & 7) as u64) << 9 | ((slot >> 3 & 31) as u64) << 52
}

/// The slot that an entry carries.
pub const fn slot_of(entry: u64) -> u32 {
    (entry >> 9 & 7) as u32 | ((entry >> 52 & 31) as u32) << 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_comes_back_and_touches_nothing_else() {
        let others = PRESENT | WRITE | USER | ACCESSED_DIRTY | LARGE | NO_EXECUTE | ADDRESS;
        for slot in 0..256 {
            assert_eq!(slot_of(tag(slot) | others), slot);
            assert_eq!(tag(slot) & others, 0);
        }
    }
}
