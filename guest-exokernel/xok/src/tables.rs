//! The tables that the VMM reads: DMA domains and queue owners. (Flows and extents are with their calls.)

use crate::machine::{Machine, direct_map, read, write};
use abi::domain::{DOMAINS, DomainEntry};
use abi::queue::{QueueOwner, owner_index};
use core::sync::atomic::{AtomicU32, Ordering};

/// An environment's DMA domain.
#[derive(Clone, Copy)]
pub(crate) struct Domain {
    bitmap_gpa: u64,
    pages: u64,
}

/// Pages whose bits lie in one word.
const WORD_PAGES: u64 = 32;

impl Domain {
    /// Of no page.
    pub(crate) const NONE: Self = Self { bitmap_gpa: 0, pages: 0 };

    /// The domain of a place.
    pub(crate) fn of(environment: u32) -> Self {
        if environment as usize >= DOMAINS {
            return Self::NONE;
        }
        let gpa =
            Machine::get().boot().domains_gpa + u64::from(environment) * size_of::<DomainEntry>() as u64;
        // SAFETY: inside the table (checked above), which the VMM filled before the first instruction.
        let DomainEntry { bitmap_gpa, pages } = unsafe { *direct_map::<DomainEntry>(gpa) };
        Self { bitmap_gpa, pages }
    }

    /// Whether the device may both read and write `page`.
    pub(crate) fn device_may_use(self, page: u64) -> bool {
        let (word, shift) = (page / WORD_PAGES, 2 * (page % WORD_PAGES));
        page < self.pages && read(self.bitmap_gpa + 8 * word) >> shift & 3 == 3
    }

    /// Sets the rights of pages, in at most `words` words of the bitmap. Answers how many pages it is done with, and whether
    /// a right was taken.
    #[inline(always)]
    pub(crate) fn set(self, first: u64, pages: u64, rights: u8, words: u64) -> (u64, bool) {
        let mut page = first;
        // A capability's range is RAM, and the bitmap covers all of it.
        let end = (first + pages).min(self.pages);
        let mut taken = false;
        for _ in 0..words {
            if page >= end {
                break;
            }
            let gpa = self.bitmap_gpa + 8 * (page / WORD_PAGES);
            let in_word = (WORD_PAGES - page % WORD_PAGES).min(end - page);
            let mask = (u64::MAX >> (64 - 2 * in_word)) << (2 * (page % WORD_PAGES));
            let old = read(gpa);
            let new = old & !mask | (0x5555_5555_5555_5555 * u64::from(rights)) & mask;
            write(gpa, new);
            taken |= old & !new != 0;
            page += in_word;
        }
        (if page >= end { pages } else { page - first }, taken)
    }
}

/// The owner word of a queue.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    environment_plus_one: &'static AtomicU32,
    generation: &'static AtomicU32,
}

impl Owner {
    /// The entry of a device's queue.
    pub(crate) fn of(machine: Machine, device: u32, queue: u32) -> Option<Self> {
        let index = owner_index(device, queue)? as u64;
        let gpa = machine.boot().queue_owners_gpa + index * size_of::<QueueOwner>() as u64;
        // SAFETY: `owner_index` stays inside the table, which lies in the kernel's own memory; its two words are only
        // ever used as atomics.
        let [environment_plus_one, generation] = unsafe { &*direct_map::<[AtomicU32; 2]>(gpa) };
        Some(Self { environment_plus_one, generation })
    }

    /// Who has the queue.
    pub(crate) fn environment(self) -> Option<u32> {
        self.environment_plus_one.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Gives the queue to an environment; the VMM looks when the queue is enabled.
    pub(crate) fn set(self, environment: u32) {
        self.generation.store(self.generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.environment_plus_one.store(environment + 1, Ordering::Release);
    }

    /// Takes it back.
    pub(crate) fn clear(self) {
        self.environment_plus_one.store(0, Ordering::Release);
    }
}
