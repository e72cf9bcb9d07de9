//! Breakpoints in the guest's text: INT3 in the place of an instruction's first byte.
//!
//! A breakpoint is an address; what is written is the memory behind it, in every environment in which something executable is mapped
//! there. Text that several environments share is one piece of memory, so a breakpoint in it is all of theirs. Written only
//! while no vCPU is in the guest.

use super::memory::GuestMemory;
use abi::layout::{DIRECT_MAP_VA, PAGES_VA};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// INT3.
pub(super) const INT3: u8 = 0xCC;
/// The first byte of an INT of two bytes, whose second is the vector.
pub(super) const INT: u8 = 0xCD;

/// Why there can be no breakpoint at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextError {
    /// Nothing to execute.
    #[error("nothing executable is mapped there")]
    NoText,
    /// The gate, or the page by which environments get the CPU back.
    #[error("the fixed pages are the same for all environments and part of every kernel call")]
    FixedPage,
    /// What an exception comes by.
    #[error("the kernel's way to the debugger leads through there")]
    ExceptionPath,
}

/// The breakpoints of one debugger.
#[derive(Default)]
pub(super) struct Text {
    /// Addresses, and for how many reasons each.
    wanted: BTreeMap<u64, u32>,
    /// Addresses of which the instruction is there for the moment.
    lifted: BTreeSet<u64>,
    /// What was written, by guest-physical address: the byte before.
    written: BTreeMap<u64, u8>,
}

impl Text {
    /// One more reason to stop at an address.
    pub(super) fn add(&mut self, memory: &GuestMemory, va: u64) -> Result<(), TextError> {
        if (PAGES_VA..DIRECT_MAP_VA).contains(&va) {
            return Err(TextError::FixedPage);
        }
        if memory.is_exception_path(va) {
            return Err(TextError::ExceptionPath);
        }
        if memory.executable_at(va).is_empty() {
            return Err(TextError::NoText);
        }
        *self.wanted.entry(va).or_insert(0) += 1;
        self.write(memory);
        Ok(())
    }

    /// One less. Whether there was one.
    pub(super) fn remove(&mut self, memory: &GuestMemory, va: u64) -> bool {
        let Entry::Occupied(mut entry) = self.wanted.entry(va) else { return false };
        *entry.get_mut() -= 1;
        if *entry.get() == 0 {
            entry.remove();
            self.lifted.remove(&va);
        }
        self.write(memory);
        true
    }

    /// Whether to stop at an address.
    pub(super) fn has(&self, va: u64) -> bool {
        self.wanted.contains_key(&va)
    }

    /// The instruction at an address is there for the moment, for who executes it alone.
    pub(super) fn lift(&mut self, memory: &GuestMemory, va: u64) {
        if self.has(va) && self.lifted.insert(va) {
            self.write(memory);
        }
    }

    /// No instruction is there any more where a breakpoint is to be. What was mapped meanwhile is found, too.
    pub(super) fn lower(&mut self, memory: &GuestMemory) {
        self.lifted.clear();
        self.write(memory);
    }

    /// All breakpoints go.
    pub(super) fn clear(&mut self, memory: &GuestMemory) {
        self.wanted.clear();
        self.lifted.clear();
        self.write(memory);
    }

    /// Makes the guest's memory what it should be.
    fn write(&mut self, memory: &GuestMemory) {
        let stops = self.wanted.keys().filter(|va| !self.lifted.contains(va));
        let there: BTreeSet<u64> = stops.flat_map(|&va| memory.executable_at(va)).collect();
        self.written.retain(|&gpa, &mut before| {
            let stays = there.contains(&gpa);
            // Memory that was given away and cleared meanwhile is somebody else's.
            if !stays && memory.physical_byte(gpa) == Some(INT3) {
                memory.set_physical_byte(gpa, before);
            }
            stays
        });
        for gpa in there {
            match (self.written.entry(gpa), memory.physical_byte(gpa)) {
                (Entry::Vacant(entry), Some(before)) => {
                    entry.insert(before);
                    memory.set_physical_byte(gpa, INT3);
                }
                (Entry::Occupied(mut entry), Some(now)) if now != INT3 => {
                    entry.insert(now);
                    memory.set_physical_byte(gpa, INT3);
                }
                _ => {}
            }
        }
    }

    /// What was read from a guest-physical address on, without breakpoints.
    pub(super) fn hide(&self, gpa: u64, bytes: &mut [u8]) {
        for (&at, &before) in self.written.range(gpa..gpa + bytes.len() as u64) {
            bytes[(at - gpa) as usize] = before;
        }
    }

    /// What is to be written from a guest-physical address on, with breakpoints; they will be its instructions when they go.
    pub(super) fn keep(&mut self, gpa: u64, bytes: &mut [u8]) {
        for (&at, before) in self.written.range_mut(gpa..gpa + bytes.len() as u64) {
            *before = std::mem::replace(&mut bytes[(at - gpa) as usize], INT3);
        }
    }
}
