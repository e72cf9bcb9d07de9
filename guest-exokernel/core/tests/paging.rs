//! Page tables in a map that plays physical memory.

use abi::call::Error;
use abi::layout::LARGE_PAGE_BYTES;
use abi::paging::{LARGE, PRESENT, slot_of, tag};
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use xok_core::paging::{END_VA, FIRST_VA, Sweep, Tables, find, make, range_is_mappable, sweep};

const ROOT: u64 = 0x1000;

#[derive(Default)]
struct Memory {
    words: HashMap<u64, u64>,
    taken: Vec<u64>,
    free: Vec<u64>,
    next: u64,
    left: usize,
}

impl Memory {
    fn with(tables: usize) -> Self {
        Self { next: 0x2000, left: tables, ..Self::default() }
    }

    fn map(&mut self, va: u64, entry: u64, large: bool) -> Result<(), Error> {
        let at = make(self, ROOT, va, large)?;
        self.write(at, entry | if large { LARGE } else { 0 });
        Ok(())
    }
}

impl Tables for Memory {
    fn read(&self, gpa: u64) -> u64 {
        assert!(gpa >= ROOT && gpa.is_multiple_of(8));
        self.words.get(&gpa).copied().unwrap_or(0)
    }

    fn write(&mut self, gpa: u64, entry: u64) {
        self.words.insert(gpa, entry);
    }

    fn take(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let gpa = self.free.pop().unwrap_or_else(|| {
            self.next += 0x1000;
            self.next - 0x1000
        });
        assert!((0..512).all(|i| self.read(gpa + 8 * i) == 0), "a table is handed out empty");
        self.taken.push(gpa);
        Some(gpa)
    }

    fn give(&mut self, gpa: u64) {
        assert!((0..512).all(|i| self.read(gpa + 8 * i) == 0), "a table comes back empty");
        let at = self.taken.iter().position(|&taken| taken == gpa).expect("was taken");
        self.taken.swap_remove(at);
        self.free.push(gpa);
        self.left += 1;
    }
}

#[test]
fn range_outside_of_the_environments_part_is_not_mappable() {
    assert!(range_is_mappable(FIRST_VA, 1, false));
    assert!(range_is_mappable(END_VA - 4096, 1, false));
    assert!(range_is_mappable(LARGE_PAGE_BYTES, 512, true));
    for (va, pages, large) in [
        (0, 1, false),
        (FIRST_VA - 4096, 2, false),
        (FIRST_VA + 1, 1, false),
        (FIRST_VA, 0, false),
        (END_VA, 1, false),
        (END_VA - 4096, 2, false),
        (END_VA - 4096, u64::MAX, false),
        (u64::MAX - 4095, 1, false),
        (abi::layout::KERNEL_VA, 1, false),
        (abi::layout::PAGE_TABLES_VA, 1, false),
        (LARGE_PAGE_BYTES, 511, true),
        (LARGE_PAGE_BYTES + 4096, 512, true),
    ] {
        assert!(!range_is_mappable(va, pages, large), "{va:#x} {pages} {large}");
    }
}

#[test]
fn make_without_tables_left_returns_no_space() {
    let mut memory = Memory::with(2);
    assert_eq!(memory.map(FIRST_VA, PRESENT, false), Err(Error::NoSpace));
    let mut memory = Memory::with(3);
    assert_eq!(memory.map(FIRST_VA, PRESENT, false), Ok(()));
    assert_eq!(memory.map(1 << 39, PRESENT, false), Err(Error::NoSpace));
}

#[test]
fn small_page_in_a_large_one_and_the_reverse_return_busy() {
    let mut memory = Memory::with(10);
    memory.map(LARGE_PAGE_BYTES, PRESENT, true).expect("maps");
    assert_eq!(memory.map(LARGE_PAGE_BYTES + 4096, PRESENT, false), Err(Error::Busy));
    memory.map(2 * LARGE_PAGE_BYTES, PRESENT, false).expect("maps");
    assert_eq!(memory.map(2 * LARGE_PAGE_BYTES, PRESENT, true), Err(Error::Busy));
}

proptest! {
    #[test]
    fn what_is_mapped_is_found_and_swept_by_its_slot(
        pages in prop::collection::btree_map(0..40_000u64, 0..4u32, 1..60),
        budget in 1..40u32,
    ) {
        let mut memory = Memory::with(1000);
        // A few addresses apart by every size of table.
        let va = |page: u64| {
            let (small, large) = (page % 7 * 4096, page / 7 % 5 * LARGE_PAGE_BYTES);
            FIRST_VA + small + large + ((page / 35 % 11) << 30) + ((page / 385 % 100) << 39)
        };
        let pages: BTreeMap<u64, u32> = pages.into_iter().map(|(page, slot)| (va(page), slot)).collect();
        for (&va, &slot) in &pages {
            memory.map(va, PRESENT | tag(slot) | 0x7000, false).expect("maps");
        }
        for (&va, &slot) in &pages {
            let (at, bytes) = find(&memory, ROOT, va).expect("is mapped");
            prop_assert_eq!((slot_of(memory.read(at)), bytes), (slot, 4096));
        }
        for gone in 0..4 {
            let mut from = 0;
            let mut removed = 0;
            while from < END_VA {
                from = sweep(&mut memory, ROOT, from, budget + 4, Sweep::Keep, |entry| {
                    let hit = slot_of(entry) == gone;
                    removed += usize::from(hit);
                    hit
                });
            }
            prop_assert_eq!(removed, pages.values().filter(|&&slot| slot == gone).count());
            for (&va, &slot) in &pages {
                prop_assert_eq!(find(&memory, ROOT, va).is_ok(), slot > gone);
            }
        }
    }

    #[test]
    fn freeing_gives_every_table_back(pages in prop::collection::vec((0..1u64 << 34, any::<bool>()), 1..40), budget in 5..50u32) {
        let mut memory = Memory::with(1000);
        for (page, large) in pages {
            let va = FIRST_VA + page * 4096;
            let va = if large { va & !(LARGE_PAGE_BYTES - 1) } else { va };
            if range_is_mappable(va, if large { 512 } else { 1 }, large) {
                let _ = memory.map(va, PRESENT, large);
            }
        }
        let mut from = 0;
        while from < END_VA {
            from = sweep(&mut memory, ROOT, from, budget, Sweep::Free, |_| true);
        }
        prop_assert!(memory.taken.is_empty());
        prop_assert_eq!(memory.left, 1000);
    }
}
