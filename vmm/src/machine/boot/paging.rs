//! Page tables of the first environment, built natively before the first instruction.

use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::tables::Memory;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use vm_memory::{Bytes, GuestAddress};

/// Page-table bits (SDM 4.5). Accessed and dirty are set from the start, so that nobody has to write them later.
mod bits {
    pub(super) const PRESENT: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const USER: u64 = 1 << 2;
    pub(super) const ACCESSED_DIRTY: u64 = 0x60;
    pub(super) const LARGE: u64 = 1 << 7;
    pub(super) const NO_EXECUTE: u64 = 1 << 63;
    pub(super) const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
}

/// Who may reach a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Ring 0 only.
    Kernel,
    /// Ring 3 and ring 0.
    User,
}

/// What may be done with it.
pub use exovm_image::program::Access;

/// A tree of page tables under construction.
pub struct PageTables<'a> {
    memory: &'a Memory,
    root_gpa: u64,
}

impl<'a> PageTables<'a> {
    /// An empty tree.
    pub fn new(memory: &'a Memory, placer: &mut Placer) -> Result<Self, MachineError> {
        Ok(Self { memory, root_gpa: placer.pages(PAGE_BYTES)? })
    }

    /// What goes into CR3.
    pub fn root_gpa(&self) -> u64 {
        self.root_gpa
    }

    /// Maps `len_bytes` from `gpa` at `va`, with large pages where both addresses and the length allow.
    pub fn map(
        &mut self,
        placer: &mut Placer,
        va: u64,
        gpa: u64,
        len_bytes: u64,
        owner: Owner,
        access: Access,
    ) -> Result<(), MachineError> {
        let mut leaf = bits::PRESENT | bits::ACCESSED_DIRTY;
        if owner == Owner::User {
            leaf |= bits::USER;
        }
        match access {
            Access::Read => leaf |= bits::NO_EXECUTE,
            Access::Write => leaf |= bits::NO_EXECUTE | bits::WRITE,
            Access::Execute => {}
        }
        let mut done = 0;
        while done < len_bytes {
            let (va, gpa) = (va + done, gpa + done);
            let large = va % LARGE_PAGE_BYTES == 0
                && gpa % LARGE_PAGE_BYTES == 0
                && len_bytes - done >= LARGE_PAGE_BYTES;
            if large {
                let table = self.table(placer, va, 2)?;
                self.set(table, (va >> 21) & 511, gpa | leaf | bits::LARGE)?;
                done += LARGE_PAGE_BYTES;
            } else {
                let table = self.table(placer, va, 1)?;
                self.set(table, (va >> 12) & 511, gpa | leaf)?;
                done += PAGE_BYTES;
            }
        }
        Ok(())
    }

    /// The table of the given level (1: of pages, 2: of large pages) for an address, made on the way if missing. Only
    /// leaves restrict, tables allow everything.
    fn table(&self, placer: &mut Placer, va: u64, level: u32) -> Result<u64, MachineError> {
        let mut table = self.root_gpa;
        for upper in (level + 1..=4).rev() {
            let index = (va >> (12 + 9 * (upper - 1))) & 511;
            let entry: u64 = self.memory.read_obj(GuestAddress(table + 8 * index))?;
            table = if entry & bits::PRESENT == 0 {
                let new = placer.pages(PAGE_BYTES)?;
                let all = bits::PRESENT | bits::WRITE | bits::USER | bits::ACCESSED_DIRTY;
                self.set(table, index, new | all)?;
                new
            } else {
                entry & bits::ADDRESS
            };
        }
        Ok(table)
    }

    fn set(&self, table: u64, index: u64, entry: u64) -> Result<(), MachineError> {
        Ok(self.memory.write_obj(entry, GuestAddress(table + 8 * index))?)
    }
}

/// Translates an address through the guest's page tables; the tools' view, not the processor's. `None` if not mapped.
pub fn translate(memory: &Memory, root_gpa: u64, va: u64) -> Option<u64> {
    let mut table = root_gpa & bits::ADDRESS;
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry: u64 = memory.read_obj(GuestAddress(table + 8 * ((va >> shift) & 511))).ok()?;
        if entry & bits::PRESENT == 0 {
            return None;
        }
        let leaf = level == 1 || (level <= 3 && entry & bits::LARGE != 0);
        if leaf {
            let offset = (1u64 << shift) - 1;
            return Some((entry & bits::ADDRESS & !offset) | (va & offset));
        }
        table = entry & bits::ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;

    #[test]
    fn map_then_translate_gives_the_address_back() {
        let memory = memory::map(16 << 20).expect("16 MiB");
        let mut placer = Placer::new(16 << 20);
        let mut tables = PageTables::new(&memory, &mut placer).expect("fits");
        let map = [
            (0x40_0000, 0x5000, 0x3000),
            (0x1000_0020_0000, 0x20_0000, 0x40_1000),
            (u64::MAX << 31, 0x9000, 1),
        ];
        for (va, gpa, len) in map {
            tables.map(&mut placer, va, gpa, len, Owner::User, Access::Write).expect("fits");
            assert_eq!(translate(&memory, tables.root_gpa(), va), Some(gpa));
            assert_eq!(translate(&memory, tables.root_gpa(), va + len - 1), Some(gpa + len - 1));
        }
        assert_eq!(translate(&memory, tables.root_gpa(), 0x40_3000), None);
        assert_eq!(translate(&memory, tables.root_gpa(), 0x1234_5678_9000), None);
    }
}
