//! Bits of page-table entries (SDM 4.5), and what ours carry in those that the processor ignores: the slot of the
//! capability by which a page was mapped, so that revoking finds its mappings.

/// The entry is in use.
pub const PRESENT: u64 = 1;
/// Written to, at this entry and all below it.
pub const WRITE: u64 = 1 << 1;
/// Reached from ring 3.
pub const USER: u64 = 1 << 2;
/// Was used. Set from the start, so that the processor has nothing to write.
pub const ACCESSED: u64 = 1 << 5;
/// Was written to; as [`ACCESSED`].
pub const DIRTY: u64 = 1 << 6;
/// A large page, in an entry of a table of large pages.
pub const LARGE: u64 = 1 << 7;
/// Not executed.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The guest-physical address of a page or table.
pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// The slot that entries carry which belong to no capability: program, stack and fixed pages. No capability has it.
pub const NO_SLOT: u32 = 255;

/// Bits 9 to 11 hold a slot's lowest three bits, bits 52 to 56 the others.
const SLOT_LOW: u32 = 9;
const SLOT_HIGH: u32 = 52;

/// The bits of an entry that say by which slot's capability it was made.
pub const fn tag(slot: u32) -> u64 {
    (slot as u64 & 7) << SLOT_LOW | (slot as u64 >> 3 & 31) << SLOT_HIGH
}

/// The slot that an entry carries.
pub const fn slot_of(entry: u64) -> u32 {
    ((entry >> SLOT_LOW & 7) | (entry >> SLOT_HIGH & 31) << 3) as u32
}

const _: () = assert!(NO_SLOT as usize == crate::capability::CAPABILITIES - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_round_trips_and_touches_nothing_that_the_processor_reads() {
        let bits = PRESENT | WRITE | USER | 0x18 | ACCESSED | DIRTY | LARGE | 1 << 8 | ADDRESS | NO_EXECUTE;
        for slot in 0..=NO_SLOT {
            assert_eq!(slot_of(tag(slot)), slot);
            assert_eq!(slot_of(tag(slot) | bits), slot);
            assert_eq!(tag(slot) & bits, 0);
        }
    }
}
