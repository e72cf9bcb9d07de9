//! Mapping memory, and allowing devices to use it.

use super::revocation::Trim;
use crate::kernel::Kernel;
use crate::machine::{read, write};
use abi::call::{Error, map};
use abi::capability::{CAPABILITIES, Capability, Handle, Kind, number, rights};
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use abi::paging::{ACCESSED, DIRTY, LARGE, NO_EXECUTE, NO_SLOT, PRESENT, USER, WRITE, slot_of, tag};
use xok_core::paging::{END_VA, FIRST_VA, find, find_table, make, range_is_mappable};
use xok_core::refuse;

/// Entries of page tables that one call writes.
const ENTRIES: u64 = 64;
/// Words of a domain's bitmap, of 32 pages each, that one call writes.
const WORDS: u64 = 64;
/// Pages in a large page.
const LARGE_PAGES: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;

/// What the bits of [`map`] ask for.
struct Access {
    /// Rights.
    needed: u16,
    /// Bits of a page-table entry.
    flags: u64,
}

static ACCESSES: [Access; 8] = {
    const NONE: Access = Access { needed: 0, flags: 0 };
    let mut accesses = [NONE; 8];
    let mut access = 0;
    while access < 8 {
        let write = access & map::WRITE != 0;
        let execute = access & map::EXECUTE != 0;
        let large = access & map::LARGE != 0;
        accesses[access as usize] = Access {
            needed: rights::READ
                | if write { rights::WRITE } else { 0 }
                | if execute { rights::EXECUTE } else { 0 },
            flags: PRESENT
                | USER
                | ACCESSED
                | DIRTY
                | if write { WRITE } else { 0 }
                | if execute { 0 } else { NO_EXECUTE }
                | if large { LARGE } else { 0 },
        };
        access += 1;
    }
    accesses
};

impl Kernel {
    /// [`abi::call::Call::MemoryMap`].
    #[inline(always)]
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
        let Capability { start, count, rights: allowed, .. } = *self.tree().entry(capability);
        let &Access { needed, flags } = ACCESSES.get(access as usize).ok_or(Error::BadArgument)?;
        if allowed & needed != needed {
            return refuse(Error::NotPermitted);
        }
        if pages == 1 && first < count && access & map::LARGE == 0 && (FIRST_VA..END_VA).contains(&va) {
            let root = self.environment(environment).root_gpa;
            // Mostly the tables are there.
            if let Some(at) = find_table(&self.tables(environment), root, va) {
                self.tree().entry_mut(capability).bound += 1;
                let entry =
                    ((start + first) * PAGE_BYTES) | flags | tag(u32::from(capability) % CAPABILITIES as u32);
                if self.replace(environment, at, entry) {
                    self.flush_page(environment, va);
                }
                return Ok(1);
            }
        }
        self.map_range(environment, capability, va, first, pages, access)
    }

    /// The same for any number of pages, of either size.
    fn map_range(
        &mut self,
        environment: u32,
        capability: u16,
        va: u64,
        first: u64,
        pages: u64,
        access: u64,
    ) -> Result<u64, Error> {
        let Capability { start, count, .. } = *self.tree().entry(capability);
        let flags = ACCESSES[access as usize % ACCESSES.len()].flags;
        let large = access & map::LARGE != 0;
        let unit = if large { LARGE_PAGES } else { 1 };
        if first > count || pages > count - first || !range_is_mappable(va, pages, large) {
            return refuse(Error::BadArgument);
        }
        let page = start + first;
        if large && !page.is_multiple_of(LARGE_PAGES) {
            return refuse(Error::BadArgument);
        }
        let entry = (page * PAGE_BYTES) | flags | tag(u32::from(capability) % CAPABILITIES as u32);
        let root = self.environment(environment).root_gpa;
        let pages = pages.min(ENTRIES * unit);
        let mut done = 0;
        let mut entries = 0;
        let mut replaced = false;
        let result = loop {
            let made = make(&mut self.tables(environment), root, va + done * PAGE_BYTES, large);
            let at = match made {
                Ok(at) => at,
                Err(error) if done == 0 => break refuse(error),
                Err(_) => break Ok(done),
            };
            replaced |= self.replace(environment, at, entry + done * PAGE_BYTES);
            entries += 1;
            done += unit;
            if done >= pages {
                break Ok(done);
            }
        };
        self.tree().entry_mut(capability).bound += entries;
        if replaced {
            self.flush_all(environment);
        }
        result
    }

    /// Replaces an entry; whether there was one, whose capability has one less to count.
    #[inline(always)]
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
    #[inline(always)]
    pub(super) fn memory_unmap(&mut self, environment: u64, va: u64, pages: u64) -> Result<u64, Error> {
        let environment = self.subject(environment)?;
        if !range_is_mappable(va, pages, false) {
            return refuse(Error::BadArgument);
        }
        let root = self.environment(environment).root_gpa;
        if pages == 1
            && let Some(at) = find_table(&self.tables(environment), root, va)
        {
            if self.replace(environment, at, 0) {
                self.flush_page(environment, va);
            }
            return Ok(1);
        }
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
                    self.flush_page(environment, at_va);
                    done += bytes / PAGE_BYTES;
                }
                Err(bytes) => done += (bytes / PAGE_BYTES).min(pages - done),
            }
        }
        Ok(done)
    }

    /// [`abi::call::Call::DmaGrant`].
    #[inline(always)]
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
            return refuse(Error::BadArgument);
        }
        let needed = if wanted == 0 { 0 } else { rights::DMA | wanted as u16 };
        if entry.rights & needed != needed {
            return refuse(Error::NotPermitted);
        }
        entry.object = 1;
        let start = entry.start;
        let (done, taken) =
            self.environment(environment).domain.set(start + first, pages, wanted as u8, WORDS);
        if taken {
            self.begin_drain(environment);
        }
        // Who gives all has taken nothing, now or before.
        const ALL: u64 = (rights::READ | rights::WRITE) as u64;
        if wanted != ALL && !self.is_drained(environment, self.drains(environment)) {
            return refuse(Error::Unfinished);
        }
        Ok(done)
    }

    /// Takes from devices what they were allowed with the pages of a memory capability from `limit` on, from its end on; whether
    /// all of it, and no device is at any of it. Until then its range is as long as it was: who gave it counts on that.
    pub(super) fn forbid_tail(
        &mut self,
        environment: u32,
        capability: u16,
        limit: u64,
        trim: &mut Trim,
    ) -> bool {
        let domain = self.environment(environment).domain;
        let entry = *self.tree().entry(capability);
        if entry.object == 0 {
            return true;
        }
        let end = trim.forbidden.unwrap_or(entry.start + entry.count);
        if end > limit {
            // So many lie in one word less than `WORDS`, wherever they begin.
            let first = limit.max(end.saturating_sub((WORDS - 1) * 32));
            domain.set(first, end - first, 0, WORDS);
            trim.forbidden = Some(first);
            trim.drain = Some(self.begin_drain(environment));
            if first > limit {
                return false;
            }
        }
        trim.drain.is_none_or(|drain| self.is_drained(environment, drain))
    }

    /// Takes from devices what they were allowed with a memory capability, from its start on; whether all of it.
    pub(super) fn forbid_step(&mut self, environment: u32, capability: u16) -> bool {
        let domain = self.environment(environment).domain;
        let mut tree = self.tree();
        let entry = tree.entry_mut(capability);
        if entry.object == 0 {
            return true;
        }
        if entry.count > 0 {
            let (done, _) = domain.set(entry.start, entry.count, 0, WORDS);
            entry.start += done;
            entry.count -= done;
            if entry.count > 0 {
                return false;
            }
            let drain = self.begin_drain(environment);
            // Nothing of its range is left: where that began is what it waits for.
            self.tree().entry_mut(capability).start = drain.into();
        }
        let drain = self.tree().entry(capability).start as u32;
        self.is_drained(environment, drain)
    }
}
