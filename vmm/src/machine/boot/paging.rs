//! Page tables, built natively before the first instruction: the kernel's half once, for all places, and the lower half of
//! each place.

use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::tables::Memory;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, PAGE_TABLES_VA};
use abi::paging::{ACCESSED, ADDRESS, DIRTY, LARGE, NO_EXECUTE, NO_SLOT, PRESENT, USER, WRITE, tag};
use vm_memory::{Bytes, GuestAddress};

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

/// How pages are mapped.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Who reaches them.
    pub owner: Owner,
    /// What for.
    pub access: Access,
    /// Slot of the capability that they are mapped by.
    pub slot: u32,
}

impl Mapping {
    /// Of the kernel's.
    pub fn kernel(access: Access) -> Self {
        Self { owner: Owner::Kernel, access, slot: NO_SLOT }
    }

    /// Ring 3's, by no capability: for as long as the environment lives.
    pub fn fixed(access: Access) -> Self {
        Self { owner: Owner::User, access, slot: NO_SLOT }
    }

    /// Everything of an entry but its address and whether it is present.
    fn bits(self) -> u64 {
        let owner = if self.owner == Owner::User { USER } else { 0 };
        let access = match self.access {
            Access::Read => NO_EXECUTE,
            Access::Write => NO_EXECUTE | WRITE,
            Access::Execute => 0,
        };
        owner | access | ACCESSED | DIRTY | tag(self.slot)
    }
}

/// Entries of a table.
const ENTRIES: u64 = 512;

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

    /// Maps `len_bytes` from `gpa` at `va`, with large pages where both addresses and the length allow. Returns how many
    /// entries that took.
    pub fn map(
        &self,
        placer: &mut Placer,
        va: u64,
        gpa: u64,
        len_bytes: u64,
        mapping: Mapping,
    ) -> Result<u32, MachineError> {
        let leaf = mapping.bits() | PRESENT;
        let (mut done, mut entries) = (0, 0);
        while done < len_bytes {
            let (va, gpa) = (va + done, gpa + done);
            let large = va % LARGE_PAGE_BYTES == 0
                && gpa % LARGE_PAGE_BYTES == 0
                && len_bytes - done >= LARGE_PAGE_BYTES;
            if large {
                let entry_gpa = self.entry_gpa(placer, va, 2, mapping.owner)?;
                self.set(entry_gpa, gpa | leaf | LARGE)?;
                done += LARGE_PAGE_BYTES;
            } else {
                let entry_gpa = self.entry_gpa(placer, va, 1, mapping.owner)?;
                self.set(entry_gpa, gpa | leaf)?;
                done += PAGE_BYTES;
            }
            entries += 1;
        }
        Ok(entries)
    }

    /// Makes the entry for a page, all but present: the kernel lets the environment have it by one bit. Returns where the
    /// entry lies.
    pub fn prepare(
        &self,
        placer: &mut Placer,
        va: u64,
        gpa: u64,
        mapping: Mapping,
    ) -> Result<u64, MachineError> {
        let entry_gpa = self.entry_gpa(placer, va, 1, mapping.owner)?;
        self.set(entry_gpa, gpa | mapping.bits())?;
        Ok(entry_gpa)
    }

    /// The upper half of another tree is this one's, too: the same tables, so that both stay the same.
    pub fn share_upper_half(&self, other: &PageTables<'_>) -> Result<(), MachineError> {
        let mut half = [0; 8 * (ENTRIES / 2) as usize];
        let offset = 8 * ENTRIES / 2;
        self.memory.read_slice(&mut half, GuestAddress(other.root_gpa + offset))?;
        Ok(self.memory.write_slice(&half, GuestAddress(self.root_gpa + offset))?)
    }

    /// Makes the tables themselves readable at [`PAGE_TABLES_VA`]: there the root is its own child. What has no user bit in
    /// the root, the kernel's half, has none there either.
    pub fn show_to_owner(&self) -> Result<(), MachineError> {
        let entry_gpa = self.root_gpa + 8 * (PAGE_TABLES_VA >> 39 & (ENTRIES - 1));
        self.set(entry_gpa, self.root_gpa | PRESENT | USER | ACCESSED | NO_EXECUTE | tag(NO_SLOT))
    }

    /// Where the entry of the given level (1: for a page, 2: for a large page) for an address lies; tables are made on the
    /// way if missing. Only leaves restrict, tables allow everything; but no table of the kernel's is the user's.
    fn entry_gpa(&self, placer: &mut Placer, va: u64, level: u32, owner: Owner) -> Result<u64, MachineError> {
        let user = if owner == Owner::User { USER } else { 0 };
        let mut table = self.root_gpa;
        let entry_at = |table: u64, level: u32| table + 8 * (va >> (12 + 9 * (level - 1)) & (ENTRIES - 1));
        for upper in (level + 1..=4).rev() {
            let at = entry_at(table, upper);
            let entry: u64 = self.memory.read_obj(GuestAddress(at))?;
            table = if entry & PRESENT == 0 {
                let new = placer.pages(PAGE_BYTES)?;
                self.set(at, new | PRESENT | WRITE | user | ACCESSED)?;
                new
            } else {
                entry & ADDRESS
            };
        }
        Ok(entry_at(table, level))
    }

    fn set(&self, entry_gpa: u64, entry: u64) -> Result<(), MachineError> {
        Ok(self.memory.write_obj(entry, GuestAddress(entry_gpa))?)
    }
}

/// Translates an address through the guest's page tables; the tools' view, not the processor's. `None` if not mapped.
pub fn translate(memory: &Memory, root_gpa: u64, va: u64) -> Option<u64> {
    look_up(memory, root_gpa, va).map(|mapped| mapped.gpa)
}

/// The same, and the entry that maps it.
pub fn leaf(memory: &Memory, root_gpa: u64, va: u64) -> Option<(u64, u64)> {
    look_up(memory, root_gpa, va).map(|mapped| (mapped.gpa, mapped.entry))
}

/// What the guest's page tables say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Where it is.
    pub gpa: u64,
    /// Who reaches it.
    pub owner: Owner,
    /// Whether it may be executed.
    pub executable: bool,
    /// The entry that maps it.
    pub entry: u64,
}

/// What the guest's page tables say of an address. `None` if not mapped.
pub fn look_up(memory: &Memory, root_gpa: u64, va: u64) -> Option<Mapped> {
    let mut table = root_gpa & ADDRESS;
    let (mut user, mut no_execute) = (USER, 0);
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let entry: u64 = memory.read_obj(GuestAddress(table + 8 * ((va >> shift) & 511))).ok()?;
        if entry & PRESENT == 0 {
            return None;
        }
        user &= entry;
        no_execute |= entry & NO_EXECUTE;
        let leaf = level == 1 || (level <= 3 && entry & LARGE != 0);
        if leaf {
            let offset = (1u64 << shift) - 1;
            return Some(Mapped {
                gpa: (entry & ADDRESS & !offset) | (va & offset),
                owner: if user == 0 { Owner::Kernel } else { Owner::User },
                executable: no_execute == 0,
                entry,
            });
        }
        table = entry & ADDRESS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;

    #[test]
    fn look_up_says_who_reaches_a_page_and_whether_it_is_code() {
        let memory = memory::map(16 << 20).expect("16 MiB");
        let mut placer = Placer::new(16 << 20);
        let tables = PageTables::new(&memory, &mut placer).expect("fits");
        for (va, owner, access) in [
            (0x40_0000, Owner::User, Access::Execute),
            (0x40_1000, Owner::User, Access::Write),
            (0x40_2000, Owner::Kernel, Access::Read),
            (u64::MAX << 31, Owner::Kernel, Access::Execute),
        ] {
            let mapping = Mapping { owner, access, slot: NO_SLOT };
            tables.map(&mut placer, va, 0x5000, 0x1000, mapping).expect("fits");
            let mapped = look_up(&memory, tables.root_gpa(), va + 8).expect("mapped");
            let executable = access == Access::Execute;
            let found = (mapped.gpa, mapped.owner, mapped.executable);
            assert_eq!(found, (0x5008, owner, executable), "{va:#x}");
        }
    }

    #[test]
    fn map_then_translate_gives_the_address_back() {
        let memory = memory::map(16 << 20).expect("16 MiB");
        let mut placer = Placer::new(16 << 20);
        let tables = PageTables::new(&memory, &mut placer).expect("fits");
        let map = [
            (0x40_0000, 0x5000, 0x3000),
            (0x1000_0020_0000, 0x20_0000, 0x40_1000),
            (u64::MAX << 31, 0x9000, 1),
        ];
        for (va, gpa, len) in map {
            tables.map(&mut placer, va, gpa, len, Mapping::fixed(Access::Write)).expect("fits");
            assert_eq!(translate(&memory, tables.root_gpa(), va), Some(gpa));
            assert_eq!(translate(&memory, tables.root_gpa(), va + len - 1), Some(gpa + len - 1));
        }
        assert_eq!(translate(&memory, tables.root_gpa(), 0x40_3000), None);
        assert_eq!(translate(&memory, tables.root_gpa(), 0x1234_5678_9000), None);
    }
}
