//! A split virtqueue, device side (VIRTIO 1.3 2.7).
//!
//! The driver is not trusted: every index and address it writes is read once, checked, and then used. What is wrong stops
//! this queue with a [`QueueError`] and nothing else. Memory is reached through a [`PinnedMemory`], in practice a DMA domain,
//! which is asked at each descriptor, and for the rings at each batch ([`Virtqueue::begin`]). Whoever revokes a page resets
//! the queue, or waits for the end of the batch that is running.

use crate::backend::{PieceList, PinnedMemory};

mod chain;
mod error;
mod rings;
mod used;

#[cfg(test)]
mod tests;

pub use chain::{Chain, Limits};
pub use error::{QueueError, RingPart};
pub use rings::QueueConfig;
pub use used::Publication;

use rings::Rings;
use used::UsedRing;

/// Which ring features were negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_EVENT_IDX.
    pub event_index: bool,
    /// VIRTIO_F_INDIRECT_DESC.
    pub indirect: bool,
}

/// Whether the driver's doorbell is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doorbell {
    Wanted,
    Suppressed,
}

/// One queue of one binding.
#[derive(Debug)]
pub struct Virtqueue<M> {
    /// Where the rings are; they lie in `memory`.
    rings: Rings,
    memory: M,
    environment: u32,
    features: RingFeatures,
    /// The next entry of the available ring to be looked at.
    next_available: u16,
    /// Chains taken so far.
    taken: u64,
    /// The driver's index as last read.
    available: u16,
    used: UsedRing,
    doorbell: Doorbell,
    /// `avail_event` as last written.
    available_event: u16,
}

impl<M: PinnedMemory> Virtqueue<M> {
    /// A queue that was just enabled: both sides start at zero.
    pub fn new(
        memory: M,
        environment: u32,
        config: QueueConfig,
        features: RingFeatures,
    ) -> Result<Self, QueueError> {
        let rings = Rings::map(&memory, config)?;
        let mut queue = Self {
            rings,
            memory,
            environment,
            features,
            next_available: 0,
            taken: 0,
            available: 0,
            used: UsedRing::default(),
            doorbell: Doorbell::Wanted,
            available_event: 0,
        };
        queue.arm();
        Ok(queue)
    }

    /// Whose queue it is.
    pub fn environment(&self) -> u32 {
        self.environment
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.rings.config().size
    }

    /// The memory the queue works in.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// Begins a batch: asks the domain about the rings again and looks whether the driver made something available.
    #[inline]
    pub fn begin(&mut self) -> Result<bool, QueueError> {
        self.rings.check(&self.memory)?;
        if self.doorbell == Doorbell::Suppressed {
            self.keep_suppressed();
        }
        self.refresh()
    }

    /// Whether the driver's index moved: one load, and nothing is checked yet.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.rings.available_index() != self.next_available
    }

    /// Whether an entry of the available ring waits; reads the driver's index only when none is known.
    #[inline]
    fn refresh(&mut self) -> Result<bool, QueueError> {
        if self.available != self.next_available {
            return Ok(true);
        }
        self.available = self.rings.available_index();
        let (index, next, size) = (self.available, self.next_available, self.size());
        // A chain has a descriptor at least, so those that the device keeps take as much of what can be made available.
        let kept = next.wrapping_sub(self.used.next());
        if index.wrapping_sub(next) > size.saturating_sub(kept) {
            self.available = next;
            return Err(QueueError::AvailableAhead { index, next, kept, size });
        }
        Ok(index != next)
    }

    /// The next chain, its pieces appended to `out`. The chain stays the next one until [`Self::advance`].
    #[inline]
    pub fn next_chain<L: PieceList>(
        &mut self,
        limits: Limits,
        out: &mut L,
    ) -> Result<Option<Chain>, QueueError> {
        if !self.refresh()? {
            return Ok(None);
        }
        let head = self.rings.available_head(self.next_available);
        let bytes = chain::translate(&self.rings, &self.memory, self.features, head, limits, out)?;
        Ok(Some(Chain { head, bytes }))
    }

    /// The next chain, if it has a part to read followed by a part to write.
    pub fn next_request<R: PieceList, W: PieceList>(
        &mut self,
        limits: Limits,
        readable: &mut R,
        writable: &mut W,
    ) -> Result<Option<Chain>, QueueError> {
        if !self.refresh()? {
            return Ok(None);
        }
        let head = self.rings.available_head(self.next_available);
        let bytes = chain::translate_request(
            &self.rings,
            &self.memory,
            self.features,
            head,
            limits,
            (readable, writable),
        )?;
        Ok(Some(Chain { head, bytes }))
    }

    /// The chain last looked at is the device's now.
    #[inline]
    pub fn advance(&mut self) {
        self.next_available = self.next_available.wrapping_add(1);
        self.taken += 1;
    }

    /// How many chains came before the next one: its number, as the driver counts.
    #[inline]
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Gives the chain with this head back, of which `written` bytes were filled. Seen by the driver from the next
    /// [`Self::publish`] on.
    #[inline]
    pub fn complete(&mut self, head: u16, written: u32) {
        self.used.push(&self.rings, head, written);
    }

    /// Shows the driver everything that was completed, by one store of the index.
    #[inline]
    pub fn publish(&mut self) -> Publication {
        self.used.publish(&self.rings, self.features)
    }

    /// Asks for the doorbell at the next entry. `true`: there is one already, and no doorbell may come for it.
    pub fn arm(&mut self) -> bool {
        self.doorbell = Doorbell::Wanted;
        if self.rings.check(&self.memory).is_err() {
            // The pages may be another's by now: nothing is written there. The next batch stops the queue.
            return false;
        }
        if self.features.event_index {
            self.available_event = self.next_available;
            self.rings.set_available_event(self.available_event);
        } else {
            self.rings.set_used_flags(0);
        }
        // The driver writes its index, then reads what we wrote; we write, then read its index (VIRTIO 1.3 2.7.10).
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.rings.available_index() != self.next_available
    }

    /// Asks for no doorbell.
    pub fn disarm(&mut self) {
        if self.doorbell == Doorbell::Suppressed {
            return;
        }
        self.doorbell = Doorbell::Suppressed;
        if self.rings.check(&self.memory).is_err() {
            // As in `arm`.
            return;
        }
        if self.features.event_index {
            self.available_event = self.next_available.wrapping_sub(1);
            self.rings.set_available_event(self.available_event);
        } else {
            self.rings.set_used_flags(rings::USED_NO_NOTIFY);
        }
    }

    /// With event indices there is no "never": `avail_event` stays behind the driver, and must not be overtaken when the
    /// index wraps.
    #[inline]
    fn keep_suppressed(&mut self) {
        let behind = self.next_available.wrapping_sub(1).wrapping_sub(self.available_event);
        if self.features.event_index && behind > 0x4000 {
            self.available_event = self.next_available.wrapping_sub(1);
            self.rings.set_available_event(self.available_event);
        }
    }
}
