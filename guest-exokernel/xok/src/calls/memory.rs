//! Mapping memory, and allowing devices to use it.

use crate::arch::{flush_all, flush_page};
use crate::kernel::Kernel;
use crate::machine::{Machine, read, write};
use crate::tables::Domain;
use abi::boot::control;
use abi::call::{Error, map};
use abi::capability::{Handle, Kind, number, rights};
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use abi::paging::{ACCESSED, DIRTY, LARGE, NO_EXECUTE, NO_SLOT, PRESENT, USER, WRITE, slot_of, tag};
use xok_core::paging::{find, make, range_is_mappable};

/// Entries of page tables that one call writes.
const ENTRIES: u64 = 64;
/// Words of a domain's bitmap, of 32 pages each, that one call writes.
const WORDS: u64 = 64;
/// Pages in a large page.
const LARGE_PAGES: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;

impl Kernel {
    /// [`abi::call::Call::MemoryMap`].
    pub(super) fn memory_map(
        &mut self,
        environment: u64,
        memory: u64,
        va: u64,
        first: u64,
        pages: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let capability = self.tree().find(environment, Handle(memory), Kind::Memory)?;
        let (va, access) = (va & !(PAGE_BYTES - 1), va & (PAGE_BYTES - 1));
        let (start, count, allowed) = {
            let entry = *self.tree().entry(capability);
            (entry.start, entry.count, entry.rights)
        };
        let large = access & map::LARGE != 0;
        let needed = rights::READ
            | if access & map::WRITE != 0 { rights::WRITE } else { 0 }
            | if access & map::EXECUTE != 0 { rights::EXECUTE } else { 0 };
        if allowed & needed != needed {
            return Err(Error::NotPermitted);
        }
        let unit = if large { LARGE_PAGES } else { 1 };
        if first > count || pages > count - first || access > 7 || !(start + first).is_multiple_of(unit) {
            return Err(Error::BadArgument);
        }
        if !range_is_mappable(va, pages, large) {
            return Err(Error::BadArgument);
        }
        let flags = PRESENT
            | USER
            | ACCESSED
            | DIRTY
            | tag(u32::from(capability) % abi::capability::CAPABILITIES as u32)
            | if access & map::WRITE != 0 { WRITE } else { 0 }
            | if access & map::EXECUTE != 0 { 0 } else { NO_EXECUTE }
            | if large { LARGE } else { 0 };
        let root = self.place(environment).root_gpa;
        let pages = pages.min(ENTRIES * unit);
        let mut done = 0;
        let mut replaced = false;
        while done < pages {
            let made = make(&mut self.tables(environment), root, va + done * PAGE_BYTES, large);
            let at = match made {
                Ok(at) => at,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            replaced |= self.replace(environment, at, ((start + first + done) * PAGE_BYTES) | flags);
            self.tree().entry_mut(capability).bound += 1;
            done += unit;
        }
        if replaced && environment == self.current {
            flush_all();
        }
        Ok(done)
    }

    /// Replaces an entry; whether there was one, whose capability has one less to count.
    fn replace(&mut self, environment: u32, at: u64, entry: u64) -> bool {
        let old = read(at);
        write(at, entry);
        if old & PRESENT == 0 {
            return false;
        }
        let slot = slot_of(old);
        if slot != NO_SLOT {
            let mut tree = self.tree();
            let with = tree.entry_mut(number(environment, slot));
            with.bound = with.bound.saturating_sub(1);
        }
        true
    }

    /// [`abi::call::Call::MemoryUnmap`].
    pub(super) fn memory_unmap(&mut self, environment: u64, va: u64, pages: u64) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        if !range_is_mappable(va, pages, false) {
            return Err(Error::BadArgument);
        }
        let root = self.place(environment).root_gpa;
        let mut done = 0;
        for _ in 0..ENTRIES {
            if done >= pages {
                break;
            }
            let at_va = va + done * PAGE_BYTES;
            match find(&self.tables(environment), root, at_va) {
                Ok((at, bytes)) => {
                    // Not half of a large page.
                    if !at_va.is_multiple_of(bytes) || (pages - done) * PAGE_BYTES < bytes {
                        return if done == 0 { Err(Error::BadArgument) } else { Ok(done) };
                    }
                    self.replace(environment, at, 0);
                    if environment == self.current {
                        flush_page(at_va);
                    }
                    done += bytes / PAGE_BYTES;
                }
                Err(bytes) => done += (bytes / PAGE_BYTES).min(pages - done),
            }
        }
        Ok(done)
    }

    /// [`abi::call::Call::DmaGrant`].
    pub(super) fn dma_grant(
        &mut self,
        environment: u64,
        memory: u64,
        first: u64,
        pages: u64,
        wanted: u64,
    ) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        let mut tree = self.tree();
        let capability = tree.find(environment, Handle(memory), Kind::Memory)?;
        let entry = tree.entry_mut(capability);
        if wanted > u64::from(rights::READ | rights::WRITE)
            || first > entry.count
            || pages > entry.count - first
        {
            return Err(Error::BadArgument);
        }
        let needed = if wanted == 0 { 0 } else { rights::DMA | wanted as u16 };
        if entry.rights & needed != needed {
            return Err(Error::NotPermitted);
        }
        entry.object = 1;
        let domain = Domain::of(environment).ok_or(Error::NotFound)?;
        let (done, taken) = domain.set(entry.start + first, pages, wanted as u8, WORDS);
        if taken {
            Machine::get().control(control::DRAIN, environment);
        }
        Ok(done)
    }

    /// Takes from devices what they were allowed with a memory capability, from its start on; whether all of it.
    pub(super) fn forbid_step(&mut self, environment: u32, capability: u16) -> bool {
        let mut tree = self.tree();
        let entry = tree.entry_mut(capability);
        if entry.object == 0 {
            return true;
        }
        if let Some(domain) = Domain::of(environment) {
            let (done, _) = domain.set(entry.start, entry.count, 0, WORDS);
            entry.start += done;
            entry.count -= done;
        }
        if entry.count > 0 {
            return false;
        }
        Machine::get().control(control::DRAIN, environment);
        true
    }
}
