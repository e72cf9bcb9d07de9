//! Disk extents: one entry of the table for each capability that is bound.

use super::revocation::Trim;
use crate::kernel::Kernel;
use crate::machine::{Machine, direct_map};
use abi::call::Error;
use abi::capability::{Capability, Handle, Kind};
use abi::extent::{EXTENTS, ExtentEntry, share};
use xok_core::refuse;

impl Kernel {
    /// [`abi::call::Call::ExtentBind`].
    #[inline(always)]
    pub(super) fn extent_bind(&mut self, environment: u64, extent: u64) -> Result<(), Error> {
        let environment = self.subject(environment)?;
        let mut tree = self.tree();
        let capability = tree.find(environment, Handle(extent), Kind::Extent)?;
        let entry = tree.entry_mut(capability);
        let rights = u32::from(entry.rights) & (abi::extent::READ | abi::extent::WRITE);
        // An entry without rights is a free one, and would be somebody else's while it is waited for.
        if rights == 0 {
            return refuse(Error::BadArgument);
        }
        if entry.bound != 0 {
            return refuse(Error::Busy);
        }
        let mut own = share(environment, Machine::get().boot().places);
        let free = own.find(|&index| is_free(slot(index))).ok_or(Error::NoSpace)?;
        set(
            free,
            ExtentEntry {
                start_block: entry.start,
                blocks: entry.count,
                environment,
                device: entry.object,
                rights,
                reserved: 0,
            },
        );
        entry.bound = free as u32 + 1;
        Ok(())
    }

    /// [`abi::call::Call::ExtentUnbind`].
    #[inline(always)]
    pub(super) fn extent_unbind(&mut self, environment: u64, extent: u64) -> Result<(), Error> {
        let environment = self.subject(environment)?;
        let capability = self.tree().find(environment, Handle(extent), Kind::Extent)?;
        let Some(index) = self.tree().entry(capability).bound.checked_sub(1) else {
            return refuse(Error::NotFound);
        };
        let index = index as usize;
        if slot(index).blocks != 0 {
            set(index, ExtentEntry { blocks: 0, ..slot(index) });
            self.begin_drain(environment);
        }
        if !self.is_drained(environment, self.drains(environment)) {
            return refuse(Error::Unfinished);
        }
        set(index, ExtentEntry::default());
        self.tree().entry_mut(capability).bound = 0;
        Ok(())
    }

    /// Lets the entry that was made with an extent capability end behind its first `keep` blocks.
    pub(super) fn unextent_tail(&mut self, environment: u32, capability: u16, trim: &mut Trim) -> bool {
        if let Some(index) = self.tree().entry(capability).bound.checked_sub(1) {
            // Also if an earlier one that was not brought to its end has left no more: that may still be waited for.
            if trim.drain.is_none() {
                let entry = slot(index as usize);
                set(index as usize, ExtentEntry { blocks: entry.blocks.min(trim.keep), ..entry });
                trim.drain = Some(self.begin_drain(environment));
            }
        }
        trim.drain.is_none_or(|drain| self.is_drained(environment, drain))
    }

    /// Empties the entry that was made with an extent capability, which goes; whether no device is at its blocks any more.
    pub(super) fn unextent_step(&mut self, environment: u32, capability: u16) -> bool {
        let mut tree = self.tree();
        let entry = tree.entry_mut(capability);
        if let Some(index) = entry.bound.checked_sub(1) {
            entry.bound = 0;
            set(index as usize, ExtentEntry::default());
            // The capability goes: what stood there remembers what it waits for.
            entry.count = 0;
            let drain = self.begin_drain(environment);
            self.tree().entry_mut(capability).start = drain.into();
        }
        let &Capability { start, count, .. } = self.tree().entry(capability);
        count != 0 || self.is_drained(environment, start as u32)
    }
}

/// One without blocks that still has rights is waited for.
fn is_free(entry: ExtentEntry) -> bool {
    entry.blocks == 0 && entry.rights == 0
}

fn at(index: usize) -> *mut ExtentEntry {
    let gpa = Machine::get().boot().extents_gpa + (index % EXTENTS * size_of::<ExtentEntry>()) as u64;
    direct_map::<ExtentEntry>(gpa).cast_mut()
}

fn slot(index: usize) -> ExtentEntry {
    // SAFETY: inside the table, which only the kernel writes.
    unsafe { at(index).read_volatile() }
}

/// Writes an entry so that whoever reads it meanwhile finds it free: the number of blocks first goes and last comes.
fn set(index: usize, entry: ExtentEntry) {
    // SAFETY: inside the table, which only the kernel writes.
    unsafe {
        (&raw mut (*at(index)).blocks).write_volatile(0);
        at(index).write_volatile(ExtentEntry { blocks: 0, ..entry });
        (&raw mut (*at(index)).blocks).write_volatile(entry.blocks);
    }
}
