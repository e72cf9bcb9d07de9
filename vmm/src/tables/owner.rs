//! The queue owner table: whose queue is it, and in which binding.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::queue::{QUEUE_OWNERS, owner_index};

use super::Memory;
use super::shared::{Shared, TableError};

/// Who a queue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The environment: also the number of the DMA domain in which the queue works.
    pub environment: u32,
    /// Counts bindings.
    pub generation: u32,
}

/// The table. An entry is one aligned word, so that it is read in one piece.
#[derive(Clone, Debug)]
pub struct Owners {
    entries: Shared<[AtomicU64]>,
}

impl Owners {
    /// The table at `gpa`.
    pub fn open(memory: &Arc<Memory>, gpa: u64) -> Result<Self, TableError> {
        Ok(Self { entries: Shared::slice(memory, "the queue owner table", gpa, QUEUE_OWNERS)? })
    }

    /// The owner now; `None`: nobody, or no such queue.
    pub fn read(&self, device: u32, queue: u32) -> Option<Owner> {
        let entry = self.entries.get(owner_index(device, queue)?)?.load(Ordering::Acquire);
        let environment = (entry as u32).checked_sub(1)?;
        Some(Owner { environment, generation: (entry >> 32) as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::queue::{QUEUES_PER_DEVICE, QueueOwner};
    use vm_memory::{Bytes, GuestAddress};
    use zerocopy::IntoBytes;

    #[test]
    fn read_returns_what_the_kernel_stored() {
        let memory = Arc::new(Memory::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("memory"));
        let owners = Owners::open(&memory, 0x1000).expect("inside");
        assert_eq!(owners.read(1, 2), None);
        let entry = QueueOwner { environment_plus_one: 6, generation: 9 };
        let gpa = 0x1000 + (QUEUES_PER_DEVICE as u64 + 2) * size_of::<QueueOwner>() as u64;
        memory.write_slice(entry.as_bytes(), GuestAddress(gpa)).expect("inside");
        assert_eq!(owners.read(1, 2), Some(Owner { environment: 5, generation: 9 }));
        assert_eq!(owners.read(0, 2), None);
        assert_eq!(owners.read(u32::MAX, 2), None);
    }
}
