//! Page tables: what is mapped is found, and nothing else.

use crate::input::Input;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use abi::paging::{ADDRESS, LARGE, PRESENT, slot_of, tag};
use std::collections::BTreeMap;
use xok_core::paging::{END_VA, FIRST_VA, Sweep, Tables, find, make, range_is_mappable, sweep};

/// Where the first table lies.
pub(super) const ROOT: u64 = 0x1000;
/// Where the others are.
const FIRST_TABLE: u64 = 0x10_0000;
/// Entries of a table.
const WORDS: usize = (PAGE_BYTES / 8) as usize;

/// Physical memory that holds page tables, as long as there are some.
pub(super) struct Memory {
    /// The first table, then the others.
    words: Vec<u64>,
    free: Vec<u64>,
    taken: u32,
}

impl Memory {
    /// With so many pages for tables.
    pub(super) fn new(supply: u64) -> Self {
        let free = (0..supply).map(|table| FIRST_TABLE + table * PAGE_BYTES).collect();
        Self { words: vec![0; (1 + supply as usize) * WORDS], free, taken: 0 }
    }

    /// Which word lies there.
    fn index(gpa: u64) -> usize {
        assert!(gpa.is_multiple_of(8));
        let page = gpa / PAGE_BYTES;
        let table = if page == ROOT / PAGE_BYTES { 0 } else { page - FIRST_TABLE / PAGE_BYTES + 1 };
        table as usize * WORDS + (gpa % PAGE_BYTES / 8) as usize
    }

    /// Frees the tables. Nothing is left in them, and all are given back.
    pub(super) fn end(&mut self) {
        go_through(self, 128, Sweep::Free, |_| true);
        assert_eq!(self.taken, 0, "tables are left");
        assert!(self.words.iter().all(|&word| word == 0), "something is left");
    }
}

impl Tables for Memory {
    fn read(&self, gpa: u64) -> u64 {
        self.words[Self::index(gpa)]
    }

    fn write(&mut self, gpa: u64, entry: u64) {
        self.words[Self::index(gpa)] = entry;
    }

    fn take(&mut self) -> Option<u64> {
        let gpa = self.free.pop()?;
        let first = Self::index(gpa);
        assert!(
            self.words[first..first + WORDS].iter().all(|&word| word == 0),
            "a table with something in it"
        );
        self.taken += 1;
        Some(gpa)
    }

    fn give(&mut self, gpa: u64) {
        self.taken -= 1;
        self.free.push(gpa);
    }
}

/// An address: few regions, and anything.
fn address(input: &mut Input<'_>) -> u64 {
    let page = u64::from(input.u16());
    match input.below(8) {
        0 => input.u64(),
        1 => END_VA.wrapping_sub(page % 8 * PAGE_BYTES),
        2 => FIRST_VA.wrapping_add(page % 8 * PAGE_BYTES),
        3 => (1 << 40) + page * LARGE_PAGE_BYTES,
        _ => (1 << 40) + page % 1024 * PAGE_BYTES,
    }
}

pub(super) fn page_tables(mut input: Input<'_>) {
    let supply = 1 + u64::from(input.below(24));
    let mut memory = Memory::new(supply);
    // What is mapped: first address, bytes, entry.
    let mut mapped = BTreeMap::<u64, (u64, u64)>::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 500 {
        steps += 1;
        let va = address(&mut input);
        match input.below(6) {
            0..=2 => {
                let large = input.below(4) == 0;
                let bytes = if large { LARGE_PAGE_BYTES } else { PAGE_BYTES };
                if !range_is_mappable(va, bytes / PAGE_BYTES, large) {
                    continue;
                }
                assert!(va >= FIRST_VA && va + bytes <= END_VA && va.is_multiple_of(bytes));
                let Ok(at) = make(&mut memory, ROOT, va, large) else { continue };
                let slot = input.u8();
                let entry =
                    u64::from(input.u16()) << 12 | PRESENT | tag(slot.into()) | if large { LARGE } else { 0 };
                memory.write(at, entry);
                let overlaps = mapped
                    .iter()
                    .any(|(&start, &(len, _))| start < va + bytes && va < start + len && len != bytes);
                assert!(!overlaps, "a page inside a large one, or the other way round");
                mapped.insert(va, (bytes, entry));
            }
            3 => {
                if va >= END_VA {
                    continue;
                }
                let known = mapped.range(..=va).next_back().filter(|(start, (len, _))| va < **start + len);
                match (find(&memory, ROOT, va), known) {
                    (Ok((at, bytes)), Some((_, &(len, entry)))) => {
                        assert_eq!((memory.read(at), bytes), (entry, len))
                    }
                    (Err(bytes), None) => {
                        let end = va.saturating_add(bytes);
                        assert!(mapped.range(va..end).next().is_none(), "something is mapped there");
                    }
                    (found, known) => panic!("{found:x?}, and {known:x?}"),
                }
            }
            4 => {
                let va = va.min(END_VA - 1);
                if let Ok((at, _)) = find(&memory, ROOT, va) {
                    memory.write(at, 0);
                    let start = mapped.range(..=va).next_back().map_or(0, |(start, _)| *start);
                    mapped.remove(&start);
                }
            }
            _ => {
                // Everything of one slot, in steps.
                let slot = u32::from(input.u8());
                // As the kernel sweeps; less than a way from the root to a leaf would get nowhere.
                let budget = if input.below(2) == 0 { 128 } else { 256 };
                go_through(&mut memory, budget, Sweep::Keep, |entry| slot_of(entry) == slot);
                mapped.retain(|_, (_, entry)| slot_of(*entry) != slot);
            }
        }
    }
    for (&va, &(bytes, entry)) in &mapped {
        let (at, covers) = find(&memory, ROOT, va).expect("what is mapped is found");
        assert_eq!((memory.read(at) & ADDRESS, covers), (entry & ADDRESS, bytes));
    }
    memory.end();
}

/// All steps of a sweep.
pub(super) fn go_through(memory: &mut Memory, budget: u32, what: Sweep, mut remove: impl FnMut(u64) -> bool) {
    let (mut va, mut steps) = (0, 0);
    while va < END_VA {
        let to = sweep(memory, ROOT, va, budget, what, &mut remove);
        assert!(to >= va);
        va = to;
        steps += 1;
        assert!(steps < 1 << 20, "a sweep that does not end");
    }
}
