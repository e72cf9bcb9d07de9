//! Children that run functions of this program: a child gets a copy of the program's pages as they are, a stack, and a page that
//! it shares with its parent. It has no heap, so whatever it calls must not allocate.

use crate::binding::pages_for;
use crate::child::Child;
use abi::call::{ANY, Call, Error, map};
use abi::capability::{Handle, rights};
use abi::layout::*;
use abi::paging::{NO_EXECUTE, PRESENT, WRITE};
use core::sync::atomic::AtomicU64;
use exos_runtime::{kernel, pages};

/// Where a child sees the page that it shares with its parent.
const SHARED_VA: u64 = 1 << 40;
/// Pages of a child's stack.
const STACK_PAGES: u64 = 16;
/// Pages that the program lies in at most: one page table.
const PROGRAM_PAGES: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;

/// What a child begins with. Its argument is the one it was started with.
pub(crate) type Entry = extern "sysv64" fn(u64) -> !;
/// A page of words.
pub(crate) type Words = [AtomicU64; 512];

/// A child that is not a few instructions but a function.
pub(crate) struct Offspring {
    pub(crate) child: Child,
    entry: Entry,
    /// What it shares with its parent.
    pub(crate) shared: &'static Words,
}

/// Memory of the parent's heap that a child was given.
pub(crate) struct Part {
    /// The parent's capability for it, from which the child's was derived.
    pub(crate) own: Handle,
    /// The child's.
    pub(crate) given: Handle,
    /// Its first page.
    pub(crate) page: u64,
}

/// The page that a child shares with its parent, as the child sees it.
pub(crate) fn shared() -> &'static Words {
    // SAFETY: mapped for a child's whole life; words that both write as atomics.
    unsafe { &*(SHARED_VA as *const Words) }
}

/// The entry of one of our own pages, 0 if it is not mapped. For pages in the page table of the program.
fn entry_of(va: u64) -> u64 {
    // SAFETY: one's own page tables can be read, and this one is there: the program lies in it.
    unsafe { ((PAGE_TABLES_VA + (va >> 12) * 8) as *const u64).read_volatile() }
}

impl Offspring {
    /// Makes one, and does not start it.
    pub(crate) fn new(entry: Entry) -> Result<Self, Error> {
        let own = &pages::environment().capabilities;
        let environment = kernel::raw(Call::EnvironmentCreate, [own.environments.0, ANY, 0, 0, 0])?;
        let program = (0..PROGRAM_PAGES)
            .filter(|page| entry_of(IMAGE_VA + page * PAGE_BYTES) & PRESENT != 0)
            .map(|page| page + 1)
            .max()
            .unwrap_or(0);
        let all = program + STACK_PAGES + 1;
        let gpa = pages_for(all * PAGE_BYTES).ok_or(Error::NoSpace)?;
        let every = rights::READ | rights::WRITE | rights::EXECUTE | rights::GIVE;
        let part =
            kernel::raw(Call::CapabilityDerive, [0, own.heap[0].0, gpa / PAGE_BYTES, all, u64::from(every)])?;
        let given = kernel::raw(Call::CapabilityGive, [0, part, environment, u64::from(every), 0])?;
        let map =
            |va: u64, first: u64| kernel::raw(Call::MemoryMap, [environment, given, va, first, 1]).map(drop);
        for page in 0..program {
            let va = IMAGE_VA + page * PAGE_BYTES;
            let entry = entry_of(va);
            if entry & PRESENT == 0 {
                continue;
            }
            // SAFETY: a page of the program to a fresh page of the heap. What the copy holds of statics is consistent:
            // nothing else runs here.
            unsafe {
                let to = (WINDOW_VA + gpa + page * PAGE_BYTES) as *mut u8;
                core::ptr::copy_nonoverlapping(va as *const u8, to, PAGE_BYTES as usize);
            }
            let write = if entry & WRITE != 0 { map::WRITE } else { 0 };
            let execute = if entry & NO_EXECUTE == 0 { map::EXECUTE } else { 0 };
            map(va | write | execute, page)?;
        }
        for page in 0..STACK_PAGES {
            map((STACK_TOP_VA - (page + 1) * PAGE_BYTES) | map::WRITE, program + page)?;
        }
        map(SHARED_VA | map::WRITE, program + STACK_PAGES)?;
        let shared = WINDOW_VA + gpa + (program + STACK_PAGES) * PAGE_BYTES;
        let child = Child {
            environment: Handle(environment),
            part: Handle(part),
            given: Handle(given),
            data: shared as *mut u64,
            pages: all,
        };
        // SAFETY: a page of the heap that nothing else uses; both sides use atomics.
        Ok(Self { child, entry, shared: unsafe { &*(shared as *const Words) } })
    }

    pub(crate) fn handle(&self) -> Handle {
        self.child.environment
    }

    pub(crate) fn start(&self, argument: u64) -> Result<(), Error> {
        // As behind a call: that is how a function expects its stack.
        let stack_va = STACK_TOP_VA - 8;
        kernel::raw(
            Call::EnvironmentStart,
            [self.handle().0, self.entry as usize as u64, stack_va, argument, 0],
        )
        .map(drop)
    }

    /// Gives it pages of the heap, which hold a pattern. They are not mapped for it yet.
    pub(crate) fn give(&self, count: u64, given: u16) -> Result<Part, Error> {
        let gpa = pages_for(count * PAGE_BYTES).ok_or(Error::NoSpace)?;
        let heap = pages::environment().capabilities.heap[0];
        let own = derive(heap, gpa / PAGE_BYTES, count, given | rights::GIVE)?;
        let given = self.give_on(own, given)?;
        Ok(Part { own, given, page: gpa / PAGE_BYTES })
    }

    /// Gives it what one has a capability for.
    pub(crate) fn give_on(&self, own: Handle, given: u16) -> Result<Handle, Error> {
        kernel::raw(Call::CapabilityGive, [0, own.0, self.handle().0, u64::from(given), 0]).map(Handle)
    }

    /// Maps all pages of a part for it.
    pub(crate) fn map(&self, part: &Part, va: u64, count: u64) -> Result<(), Error> {
        let mut done = 0;
        while done < count {
            let at = (va + done * PAGE_BYTES) | map::WRITE;
            done += kernel::raw(Call::MemoryMap, [self.handle().0, part.given.0, at, done, count - done])?;
        }
        Ok(())
    }
}

pub(crate) fn derive(from: Handle, start: u64, count: u64, rights: u16) -> Result<Handle, Error> {
    kernel::raw(Call::CapabilityDerive, [0, from.0, start, count, u64::from(rights)]).map(Handle)
}
