//! A virtqueue in an environment's memory, and the table that says whose it is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where the three parts of a split virtqueue lie, for a queue of `size` entries whose block starts at a page boundary
/// (VIRTIO 1.3 2.7). The device writes only to the used ring, which has pages of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLayout {
    /// Entries, a power of two.
    pub size: u16,
}

impl RingLayout {
    /// The layout for `size` entries: a power of two from 2 to 32768.
    pub const fn new(size: u16) -> Option<Self> {
        if size.is_power_of_two() && size >= 2 && size <= 32768 { Some(Self { size }) } else { None }
    }
    /// Offset of the descriptor table.
    pub const fn descriptors_offset(self) -> u64 {
        0
    }
    /// Offset of the available ring.
    pub const fn available_offset(self) -> u64 {
        16 * self.size as u64
    }
    /// Offset of the used ring: the next page boundary.
    pub const fn used_offset(self) -> u64 {
        (self.available_offset() + 6 + 2 * self.size as u64).next_multiple_of(4096)
    }
    /// Bytes of the whole block, a multiple of the page size.
    pub const fn len_bytes(self) -> u64 {
        self.used_offset() + (6 + 8 * self.size as u64).next_multiple_of(4096)
    }
}

/// Entries of the queue owner table: device `d`, queue `q` at `d * QUEUES_PER_DEVICE + q`.
pub const QUEUE_OWNERS: usize = 256;
/// Queues a device may have.
pub const QUEUES_PER_DEVICE: usize = 32;

/// Who a queue belongs to. Written by the kernel before it enables the queue, read by the VMM then: the environment's
/// number is the number of the DMA domain that the queue works in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueueOwner {
    /// Environment plus one; 0: nobody.
    pub environment_plus_one: u32,
    /// Counts bindings, so that a late event of an earlier one is recognised.
    pub generation: u32,
}

/// Index of a queue in the owner table.
pub const fn owner_index(device: u32, queue: u32) -> Option<usize> {
    let index = device as usize * QUEUES_PER_DEVICE + queue as usize;
    if (queue as usize) < QUEUES_PER_DEVICE && index < QUEUE_OWNERS { Some(index) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_parts_do_not_overlap_and_used_has_its_own_pages() {
        for size in [2u16, 4, 256, 1024, 32768] {
            let layout = RingLayout::new(size).expect("a power of two");
            assert!(layout.available_offset() >= 16 * u64::from(size));
            assert!(layout.used_offset() >= layout.available_offset() + 6 + 2 * u64::from(size));
            assert_eq!(layout.used_offset() % 4096, 0);
            assert_eq!(layout.len_bytes() % 4096, 0);
        }
        assert_eq!(RingLayout::new(3), None);
        assert_eq!(RingLayout::new(0), None);
    }

    #[test]
    fn owner_index_out_of_range_returns_none() {
        assert_eq!(owner_index(0, 31), Some(31));
        assert_eq!(owner_index(0, 32), None);
        assert_eq!(owner_index(8, 0), None);
        assert_eq!(owner_index(u32::MAX, 1), None);
    }
}
