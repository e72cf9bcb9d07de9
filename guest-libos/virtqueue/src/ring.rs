//! A split virtqueue from the driver's side (VIRTIO 1.3 2.7): descriptor table, available ring, used ring, and when to
//! notify whom. Knows nothing of what the chains are for.
//!
//! The descriptor table and the available ring are only ever written here. From the used ring come an index, checked
//! against the number of chains that the device has, and entries, which the caller checks against its own shadow state.

use crate::fault::{OpenError, RingFault};
use crate::hal::Hal;
use crate::memory::{Block, Contents};
use abi::boot::Device;
use abi::call::Error;
use abi::queue::RingLayout;
use core::sync::atomic::{
    AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// Descriptor flag: the chain goes on (VIRTIO 1.3 2.7.5).
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
pub const WRITE: u16 = 2;

/// VIRTIO_F_EVENT_IDX (VIRTIO 1.3 6).
const EVENT_IDX: u32 = 29;
/// Available ring flag: no interrupts, please (VIRTIO 1.3 2.7.7).
pub const NO_INTERRUPT: u16 = 1;
/// Used ring flag: no doorbells, please (VIRTIO 1.3 2.7.10).
pub const NO_NOTIFY: u16 = 1;
/// A suppressed used event is renewed after so many entries, long before the index comes round to it.
const RENEWAL: u16 = 0x4000;

/// VIRTIO_F_VERSION_1 (VIRTIO 1.3 6.1).
const VERSION_1: u32 = 32;

/// Which queue of which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number in the device table.
    pub device: u32,
    /// Number of the queue.
    pub queue: u32,
}

/// What came of asking for interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever sleeps although work arrived may not be woken"]
pub enum Arming {
    /// Nothing is there; whatever comes from now on interrupts.
    Sleep,
    /// Something came meanwhile: go on working.
    WorkArrived,
}

impl Arming {
    /// What holds for two queues together: nobody sleeps while one of them has work.
    pub fn and(self, other: Self) -> Self {
        if self == Self::WorkArrived { self } else { other }
    }
}

/// Whether the device asked to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It did: ring its doorbell.
    Doorbell,
    /// It looks by itself.
    Quiet,
}

/// An entry of the used ring, as the device wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// First descriptor of the chain that the device says it is done with.
    pub id: u32,
    /// Bytes that it says it has written.
    pub len_bytes: u32,
}

/// The rings and the driver's shadow of the indices. All indices run freely and wrap at 65,536.
#[derive(Debug)]
pub struct Ring {
    block: Block,
    layout: RingLayout,
    bound: bool,
    event_index: bool,
    /// Where the next chain goes in the available ring.
    available: u16,
    /// The index that the device knows.
    published: u16,
    /// The next used entry to take.
    used: u16,
    /// The device's used index when last looked at, checked.
    used_seen: u16,
    /// The used index at which interrupts were last suppressed; `None`: they are wanted.
    suppressed_at: Option<u16>,
}

/// The layout for a queue of `size` entries of a device that was started with VIRTIO 1, if the device has such queues.
pub fn layout(device: &Device, size: u16) -> Result<RingLayout, OpenError> {
    if device.features >> VERSION_1 & 1 == 0 {
        return Err(OpenError::LegacyDevice);
    }
    RingLayout::new(size)
        .filter(|_| u32::from(size) <= device.queue_size_max)
        .ok_or(OpenError::BadQueueSize { size, max: device.queue_size_max })
}

impl Ring {
    /// Rings in memory of their own, not bound yet. `features` are those that the device was started with.
    pub fn new(hal: &impl Hal, layout: RingLayout, features: u64) -> Result<Self, OpenError> {
        let block = Block::new(hal, layout.len_bytes() as usize, Contents::Zero)?;
        let mut ring = Self {
            block,
            layout,
            bound: false,
            event_index: features >> EVENT_IDX & 1 == 1,
            available: 0,
            published: 0,
            used: 0,
            used_seen: 0,
            suppressed_at: None,
        };
        ring.suppress_interrupts();
        Ok(ring)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.layout.size
    }

    /// Gives the queue to the device.
    pub fn bind(&mut self, hal: &mut impl Hal, place: Place) -> Result<(), OpenError> {
        hal.bind(place.device, place.queue, self.block.device_address(), self.layout.size)
            .map_err(|error| OpenError::Bind { queue: place.queue, error })?;
        self.bound = true;
        Ok(())
    }

    /// Takes the queue back, if the device has it. After an error the device still has it: the ring's memory is never
    /// freed then, and that of its buffers must not be.
    pub fn unbind(&mut self, hal: &mut impl Hal, place: Place) -> Result<(), Error> {
        if self.bound {
            hal.unbind(place.device, place.queue).inspect_err(|_| self.block.leak())?;
            self.bound = false;
        }
        Ok(())
    }

    /// `flags`, `idx`, the ring, `used_event`.
    #[inline(always)]
    fn available_words(&self) -> &[AtomicU16] {
        self.block.words(self.layout.available_offset() as usize, usize::from(self.layout.size) + 3)
    }

    /// `flags`, `idx`.
    #[inline(always)]
    fn used_words(&self) -> &[AtomicU16] {
        self.block.words(self.layout.used_offset() as usize, 2)
    }

    /// `id` and `len` by turns.
    #[inline(always)]
    fn used_entries(&self) -> &[AtomicU32] {
        self.block.words(self.layout.used_offset() as usize + 4, 2 * usize::from(self.layout.size))
    }

    /// `avail_event`, behind the entries.
    #[inline(always)]
    fn available_event(&self) -> &[AtomicU16] {
        self.block.words(self.layout.used_offset() as usize + 4 + 8 * usize::from(self.layout.size), 1)
    }

    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.layout.size - 1))
    }

    /// Writes a descriptor. Its number is below the size.
    #[inline(always)]
    pub fn set_descriptor(&self, number: u16, address: u64, len_bytes: u32, flags: u16, next: u16) {
        let table: &[AtomicU64] =
            self.block.words(self.layout.descriptors_offset() as usize, 2 * usize::from(self.layout.size));
        let slot = self.slot(number);
        table[2 * slot].store(address, Relaxed);
        table[2 * slot + 1]
            .store(u64::from(len_bytes) | u64::from(flags) << 32 | u64::from(next) << 48, Relaxed);
    }

    /// Puts a chain into the available ring. The device does not see it yet. Gives its position, for
    /// [`Self::was_published`].
    #[inline(always)]
    pub fn offer(&mut self, head: u16) -> u16 {
        let position = self.available;
        self.available_words()[2 + self.slot(position)].store(head, Relaxed);
        self.available = position.wrapping_add(1);
        position
    }

    /// How many chains were offered and not yet published.
    #[inline(always)]
    pub fn unpublished(&self) -> u16 {
        self.available.wrapping_sub(self.published)
    }

    /// How many chains the device has.
    #[inline(always)]
    pub fn outstanding(&self) -> u16 {
        self.published.wrapping_sub(self.used)
    }

    /// True if the device has been shown the chain at this position. Positions of chains that are not back yet lie within
    /// 32,768 of each other, on either side of the published index.
    #[inline(always)]
    pub fn was_published(&self, position: u16) -> bool {
        self.published.wrapping_sub(position).wrapping_sub(1) < 0x8000
    }

    /// Makes all offered chains visible with one index store, and says whether the device asked to be told
    /// (VIRTIO 1.3 2.7.13.3, 2.7.13.4).
    #[inline]
    pub fn publish(&mut self) -> Notice {
        let (old, new) = (self.published, self.available);
        if old == new {
            return Notice::Quiet;
        }
        self.available_words()[1].store(new, Release);
        self.published = new;
        // The index must be out before the device's wish is read: the device does it the other way round, so one of the
        // two sees the other (VIRTIO 1.3 2.7.13.4.1).
        fence(SeqCst);
        let wanted = if self.event_index {
            crossed(self.available_event()[0].load(Relaxed), new, old)
        } else {
            self.used_words()[0].load(Relaxed) & NO_NOTIFY == 0
        };
        if wanted { Notice::Doorbell } else { Notice::Quiet }
    }

    /// Entries that have been seen and not taken.
    #[inline(always)]
    pub fn ready(&self) -> u16 {
        self.used_seen.wrapping_sub(self.used)
    }

    /// Looks at the device's index; gives how many entries can be taken.
    #[inline(always)]
    pub fn look(&mut self) -> Result<u16, RingFault> {
        let index = self.used_words()[1].load(Acquire);
        let (announced, outstanding) = (index.wrapping_sub(self.used), self.outstanding());
        if announced > outstanding || announced < self.ready() {
            return Err(RingFault::UsedIndexJumped { announced, outstanding });
        }
        self.used_seen = index;
        if let Some(at) = self.suppressed_at
            && self.used.wrapping_sub(at) > RENEWAL
        {
            self.suppress_interrupts();
        }
        Ok(announced)
    }

    /// Takes the next used entry. Only after [`Self::ready`] or [`Self::look`] said that there is one.
    #[inline(always)]
    pub fn take(&mut self) -> Used {
        let used = self.peek(0);
        self.used = self.used.wrapping_add(1);
        used
    }

    /// The entry `ahead` of the next one.
    #[inline(always)]
    pub fn peek(&self, ahead: u16) -> Used {
        let slot = self.slot(self.used.wrapping_add(ahead));
        let entries = self.used_entries();
        Used { id: entries[2 * slot].load(Relaxed), len_bytes: entries[2 * slot + 1].load(Relaxed) }
    }

    /// Asks for an interrupt when the entry `ahead` of the next one is used, and looks once more: what was used before the
    /// device could see the wish is [`Arming::WorkArrived`] (VIRTIO 1.3 2.7.7, 2.7.14).
    pub fn request_interrupt(&mut self, ahead: u16) -> Arming {
        let words = self.available_words();
        if self.event_index {
            words[usize::from(self.layout.size) + 2].store(self.used.wrapping_add(ahead), Relaxed);
        } else {
            words[0].store(0, Relaxed);
        }
        self.suppressed_at = None;
        fence(SeqCst);
        let announced = self.used_words()[1].load(Acquire).wrapping_sub(self.used);
        if announced > ahead { Arming::WorkArrived } else { Arming::Sleep }
    }

    /// Asks for no interrupts.
    pub fn suppress_interrupts(&mut self) {
        let words = self.available_words();
        if self.event_index {
            // An entry that is behind us: the index crosses it again only after a whole round.
            words[usize::from(self.layout.size) + 2].store(self.used.wrapping_sub(1), Relaxed);
        } else {
            words[0].store(NO_INTERRUPT, Relaxed);
        }
        self.suppressed_at = Some(self.used);
    }
}

/// True if an index that went from `old` to `new` has passed `event` (VIRTIO 1.3 2.7.10, appendix A `vring_need_event`).
#[inline(always)]
pub const fn crossed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn crossed_is_true_exactly_if_the_event_is_among_the_new_entries(event: u16, old: u16, n in 0u16..=32768) {
            let new = old.wrapping_add(n);
            let among = (0..n).any(|k| old.wrapping_add(k) == event);
            proptest::prop_assert_eq!(crossed(event, new, old), among);
        }
    }
}
