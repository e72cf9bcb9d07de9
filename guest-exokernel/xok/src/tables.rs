//! The tables that the VMM reads: DMA domains and queue owners. (Flows and extents join them when more than one
//! environment asks for them; the VMM fills them for the first.)

use crate::machine::{Machine, direct_map};
use abi::domain::{DOMAINS, DomainEntry, Rights, position};
use abi::queue::{QueueOwner, owner_index};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Whether the device may both read and write `page` for the environment.
pub(crate) fn device_may_use(machine: Machine, environment: u32, page: u64) -> bool {
    if environment as usize >= DOMAINS {
        return false;
    }
    let entry = direct_map::<DomainEntry>(
        machine.boot().domains_gpa + u64::from(environment) * size_of::<DomainEntry>() as u64,
    );
    // SAFETY: inside the table (checked above), which only the kernel and, before it, the VMM write.
    let entry = unsafe { &*entry };
    if page >= entry.pages {
        return false;
    }
    let (byte, shift) = position(page);
    // SAFETY: the bitmap has two bits for each of `pages` pages, and `page` is one of them.
    let bits = unsafe { &*direct_map::<AtomicU8>(entry.bitmap_gpa + byte) }.load(Ordering::Relaxed) >> shift;
    bits & Rights::ReadWrite as u8 == Rights::ReadWrite as u8
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
