//! Page tables of four levels (SDM 4.5), through whatever reads and writes physical memory.
//!
//! An environment's own mappings lie between [`FIRST_VA`] and [`END_VA`]; the fixed pages, the tables themselves and the
//! kernel lie outside and are out of reach here.

use crate::refuse;
use abi::call::Error;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, PAGES_VA};
use abi::paging::{ACCESSED, ADDRESS, DIRTY, LARGE, PRESENT, USER, WRITE};

/// The lowest address at which something can be mapped: a null pointer with an offset stays a fault.
pub const FIRST_VA: u64 = 0x1_0000;
/// The address behind the highest.
pub const END_VA: u64 = PAGES_VA;

/// Physical memory that holds page tables, and a supply of empty ones.
pub trait Tables {
    /// The entry at a physical address.
    fn read(&self, gpa: u64) -> u64;
    /// Replaces it.
    fn write(&mut self, gpa: u64, entry: u64);
    /// A page full of zeroes; `None`: there is none, or the environment has had its share.
    fn take(&mut self) -> Option<u64>;
    /// Gives a page back that is full of zeroes again.
    fn give(&mut self, gpa: u64);
}

/// Bits of the address that a level translates, and what one of its entries covers.
const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

const fn slot(table: u64, va: u64, level: u32) -> u64 {
    table + ((va >> shift(level)) & 511) * 8
}

/// Whether `pages` pages from `va` on may be mapped at all: aligned and inside the environment's part.
#[inline(always)]
pub fn range_is_mappable(va: u64, pages: u64, large: bool) -> bool {
    let size = if large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
    let Some(bytes) = pages.checked_mul(PAGE_BYTES) else { return false };
    let Some(end) = va.checked_add(bytes) else { return false };
    bytes > 0 && (va | bytes).is_multiple_of(size) && va >= FIRST_VA && end <= END_VA
}

/// Where the entry for `va` lies, with tables made on the way.
#[inline(always)]
pub fn make(tables: &mut impl Tables, root: u64, va: u64, large: bool) -> Result<u64, Error> {
    let table = next(tables, slot(root, va, 4))?;
    let table = next(tables, slot(table, va, 3))?;
    let at = slot(table, va, 2);
    let entry = tables.read(at);
    if large {
        // A large page in the place of a table: what is mapped there has to go first, and the table stays.
        return if entry & (PRESENT | LARGE) == PRESENT { Err(Error::Busy) } else { Ok(at) };
    }
    if entry & LARGE != 0 {
        // A page inside a large one: that has to go first.
        return refuse(Error::Busy);
    }
    let table = next(tables, at)?;
    Ok(slot(table, va, 1))
}

/// Where the entry for the 4 KiB page at `va` lies, if there are tables down to it.
#[inline(always)]
pub fn find_table(tables: &impl Tables, root: u64, va: u64) -> Option<u64> {
    let entry = tables.read(slot(root, va, 4));
    if entry & PRESENT == 0 {
        return None;
    }
    let entry = tables.read(slot(entry & ADDRESS, va, 3));
    if entry & PRESENT == 0 {
        return None;
    }
    let entry = tables.read(slot(entry & ADDRESS, va, 2));
    if entry & (PRESENT | LARGE) != PRESENT {
        return None;
    }
    Some(slot(entry & ADDRESS, va, 1))
}

/// The table that an entry leads to.
#[inline(always)]
fn next(tables: &mut impl Tables, at: u64) -> Result<u64, Error> {
    let entry = tables.read(at);
    if entry & PRESENT != 0 { Ok(entry & ADDRESS) } else { grow(tables, at) }
}

/// A new table for an empty entry.
#[cold]
fn grow(tables: &mut impl Tables, at: u64) -> Result<u64, Error> {
    let new = tables.take().ok_or(Error::NoSpace)?;
    tables.write(at, new | PRESENT | WRITE | USER | ACCESSED | DIRTY);
    Ok(new)
}

/// Where the leaf for `va` lies, if there is one, and how many bytes it covers; otherwise how many bytes from `va` on are
/// certainly not mapped.
#[inline(always)]
pub fn find(tables: &impl Tables, root: u64, va: u64) -> Result<(u64, u64), u64> {
    let mut table = root;
    let mut level = 4;
    loop {
        let at = slot(table, va, level);
        let entry = tables.read(at);
        let covers = 1u64 << shift(level);
        if entry & PRESENT == 0 {
            return Err(covers - (va & (covers - 1)));
        }
        if level == 1 || (level == 2 && entry & LARGE != 0) {
            return Ok((at, covers));
        }
        table = entry & ADDRESS;
        level -= 1;
    }
}

/// What a [`sweep`] does with tables when it has been through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Leaves them: some of their entries stay.
    Keep,
    /// Gives them back: all entries went.
    Free,
}

/// Goes through the leaves from `va` on, `budget` entries at most, and removes those for which `remove` says so. Answers where
/// to go on; [`END_VA`]: it is through. With [`Sweep::Free`] every leaf must be removed.
pub fn sweep(
    tables: &mut impl Tables,
    root: u64,
    mut va: u64,
    mut budget: u32,
    what: Sweep,
    mut remove: impl FnMut(u64) -> bool,
) -> u64 {
    let mut path = [root; 5];
    // The level whose table is known for `va`.
    let mut level = 4;
    while va < END_VA && budget > 0 {
        budget -= 1;
        let mut at = slot(path[level as usize], va, level);
        let mut entry = tables.read(at);
        // Most entries of most tables are empty. Up to the last of this table, which is left to the code below.
        let mut empty = 0;
        while entry & PRESENT == 0 && at & 0xFFF != 0xFF8 && budget > 0 {
            at += 8;
            empty += 1;
            budget -= 1;
            entry = tables.read(at);
        }
        if empty > 0 {
            va = ((va >> shift(level)) + empty) << shift(level);
            if va >= END_VA {
                break;
            }
        }
        let leaf = level == 1 || (level == 2 && entry & LARGE != 0);
        if entry & PRESENT != 0 && !leaf {
            level -= 1;
            path[level as usize] = entry & ADDRESS;
            continue;
        }
        if entry & PRESENT != 0 && remove(entry) {
            tables.write(at, 0);
        }
        va = (va | ((1u64 << shift(level)) - 1)) + 1;
        // Up again, out of every table that ends here.
        while level < 4 && va & ((1u64 << shift(level + 1)) - 1) == 0 {
            if what == Sweep::Free {
                tables.write(slot(path[level as usize + 1], va - 1, level + 1), 0);
                tables.give(path[level as usize]);
            }
            level += 1;
        }
    }
    va
}
