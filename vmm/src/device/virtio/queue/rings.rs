//! The three parts of a split virtqueue as atomics. An edge: addresses of guest memory become references here.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use vm_memory::{GuestAddress, Permissions};

use super::error::{QueueError, RingPart};
use crate::backend::PinnedMemory;

/// `VIRTQ_USED_F_NO_NOTIFY`.
pub(super) const USED_NO_NOTIFY: u16 = 1;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
pub(super) const AVAILABLE_NO_INTERRUPT: u16 = 1;
/// `VIRTQ_DESC_F_NEXT`.
pub(super) const NEXT: u16 = 1;
/// `VIRTQ_DESC_F_WRITE`.
pub(super) const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_INDIRECT`.
pub(super) const INDIRECT: u16 = 4;

/// Where a queue's parts lie and how many entries it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries.
    pub size: u16,
    /// Descriptor table.
    pub descriptors_gpa: u64,
    /// Available ring.
    pub available_gpa: u64,
    /// Used ring.
    pub used_gpa: u64,
}

impl QueueConfig {
    /// The layout that our own kernel and drivers use, from `start_gpa` on.
    pub fn from_layout(layout: abi::queue::RingLayout, start_gpa: u64) -> Self {
        Self {
            size: layout.size,
            descriptors_gpa: start_gpa + layout.descriptors_offset(),
            available_gpa: start_gpa + layout.available_offset(),
            used_gpa: start_gpa + layout.used_offset(),
        }
    }

    /// Refuses what VIRTIO 1.3 2.7 forbids.
    pub fn validate(&self, size_max: u16) -> Result<(), QueueError> {
        if !self.size.is_power_of_two() || self.size < 2 || self.size > size_max {
            return Err(QueueError::Size { size: self.size, max: size_max });
        }
        for (part, gpa, align) in [
            (RingPart::Descriptors, self.descriptors_gpa, 16),
            (RingPart::Available, self.available_gpa, 2),
            (RingPart::Used, self.used_gpa, 4),
        ] {
            if !gpa.is_multiple_of(align) {
                return Err(QueueError::Misaligned { part, gpa, align });
            }
        }
        Ok(())
    }

    /// Part, address, bytes and access of each ring, event indices included.
    #[inline]
    fn parts(&self) -> [(RingPart, u64, usize, Permissions); 3] {
        let size = usize::from(self.size);
        [
            (RingPart::Descriptors, self.descriptors_gpa, 16 * size, Permissions::Read),
            (RingPart::Available, self.available_gpa, 6 + 2 * size, Permissions::Read),
            (RingPart::Used, self.used_gpa, 6 + 8 * size, Permissions::Write),
        ]
    }
}

/// A descriptor, read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) gpa: u64,
    pub(super) len: u32,
    pub(super) flags: u16,
    pub(super) next: u16,
}

impl Descriptor {
    /// From its two little-endian words.
    #[inline]
    pub(super) fn from_words(words: [u64; 2]) -> Self {
        Self {
            gpa: words[0],
            len: words[1] as u32,
            flags: (words[1] >> 32) as u16,
            next: (words[1] >> 48) as u16,
        }
    }
}

/// The rings, mapped. Valid while the [`PinnedMemory`] they were mapped from exists: its owner, the queue, keeps both.
#[derive(Debug)]
pub(super) struct Rings {
    config: QueueConfig,
    /// `size` × 2 words.
    descriptors: NonNull<AtomicU64>,
    /// flags, index, `size` heads, `used_event`.
    available: NonNull<AtomicU16>,
    /// flags, index, `size` × (head, bytes) as 32-bit words, `avail_event`.
    used: NonNull<AtomicU16>,
}

// SAFETY: the rings lie in `PinnedMemory`, which is mapped for all threads, and are touched through atomics only.
unsafe impl Send for Rings {}

impl Rings {
    /// Finds the rings in memory. The configuration must be validated for alignment; it is checked again here.
    pub(super) fn map<M: PinnedMemory>(memory: &M, config: QueueConfig) -> Result<Self, QueueError> {
        config.validate(32768)?;
        let [descriptors, available, used] = config.parts();
        let locate = |(part, gpa, bytes, access): (RingPart, u64, usize, Permissions), align: usize| {
            let foreign = QueueError::RingForeign { part, gpa };
            let mut slices = memory.get_slices(GuestAddress(gpa), bytes, access).map_err(|_| foreign)?;
            let slice = slices.next().and_then(Result::ok).filter(|slice| slice.len() == bytes);
            let host = slice.and_then(|slice| NonNull::new(slice.ptr_guard_mut().as_ptr()));
            host.filter(|host| host.as_ptr().addr().is_multiple_of(align)).ok_or(foreign)
        };
        Ok(Self {
            config,
            descriptors: locate(descriptors, 16)?.cast(),
            available: locate(available, 2)?.cast(),
            used: locate(used, 4)?.cast(),
        })
    }

    pub(super) fn config(&self) -> QueueConfig {
        self.config
    }

    /// Whether the domain still allows the rings.
    #[inline]
    pub(super) fn check<M: PinnedMemory>(&self, memory: &M) -> Result<(), QueueError> {
        for (part, gpa, bytes, access) in self.config.parts() {
            if !memory.still_allows(gpa, bytes, access) {
                return Err(QueueError::RingForeign { part, gpa });
            }
        }
        Ok(())
    }

    #[inline]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.config.size - 1))
    }

    #[inline]
    fn available_word(&self, index: usize) -> &AtomicU16 {
        debug_assert!(index < usize::from(self.config.size) + 3);
        // SAFETY: `map` found `size + 3` aligned words there, which the queue's memory keeps mapped; callers stay below.
        unsafe { self.available.add(index).as_ref() }
    }

    #[inline]
    fn used_word(&self, index: usize) -> &AtomicU16 {
        debug_assert!(index < 4 * usize::from(self.config.size) + 3);
        // SAFETY: `map` found `4 * size + 3` aligned words there, which the queue's memory keeps mapped.
        unsafe { self.used.add(index).as_ref() }
    }

    /// A descriptor of the table.
    #[inline]
    pub(super) fn descriptor(&self, index: u16) -> Descriptor {
        let at = 2 * self.slot(index);
        // SAFETY: `map` found `2 * size` aligned words there, which the queue's memory keeps mapped; `slot` is below `size`.
        let words = unsafe { [self.descriptors.add(at).as_ref(), self.descriptors.add(at + 1).as_ref()] };
        Descriptor::from_words(words.map(|word| word.load(Ordering::Relaxed)))
    }

    /// The driver's index. What it made available before is visible after this.
    #[inline]
    pub(super) fn available_index(&self) -> u16 {
        self.available_word(1).load(Ordering::Acquire)
    }

    /// The head that the driver put at this place of the available ring.
    #[inline]
    pub(super) fn available_head(&self, index: u16) -> u16 {
        self.available_word(2 + self.slot(index)).load(Ordering::Relaxed)
    }

    /// `flags` of the available ring.
    #[inline]
    pub(super) fn available_flags(&self) -> u16 {
        self.available_word(0).load(Ordering::SeqCst)
    }

    /// `used_event`.
    #[inline]
    pub(super) fn used_event(&self) -> u16 {
        self.available_word(2 + usize::from(self.config.size)).load(Ordering::SeqCst)
    }

    /// An element of the used ring; not yet published.
    #[inline]
    pub(super) fn set_used(&self, index: u16, head: u16, written: u32) {
        let at = 2 + 4 * self.slot(index);
        // SAFETY: an element is 8 bytes at 4 + 8 * slot of the ring, which is aligned to 4; `slot` is below `size`.
        let words: [&AtomicU32; 2] =
            unsafe { [self.used.add(at).cast().as_ref(), self.used.add(at + 2).cast().as_ref()] };
        words[0].store(u32::from(head), Ordering::Relaxed);
        words[1].store(written, Ordering::Relaxed);
    }

    /// Publishes all elements below `index`, and is itself visible before anything that is read afterwards.
    #[inline]
    pub(super) fn set_used_index(&self, index: u16) {
        // One locked exchange on x86: cheaper than a store and a fence.
        self.used_word(1).swap(index, Ordering::SeqCst);
    }

    /// `flags` of the used ring.
    #[inline]
    pub(super) fn set_used_flags(&self, flags: u16) {
        self.used_word(0).store(flags, Ordering::Relaxed);
    }

    /// `avail_event`.
    #[inline]
    pub(super) fn set_available_event(&self, index: u16) {
        self.used_word(2 + 4 * usize::from(self.config.size)).store(index, Ordering::Relaxed);
    }
}
