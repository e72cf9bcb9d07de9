//! The disk as a virtio device: features, configuration, queues coming and going.

use abi::extent::BLOCK_BYTES;

use super::super::features as bits;
use super::super::queue::{QueueConfig, RingFeatures, Virtqueue};
use super::super::slot::{Doorbells, Slot};
use super::super::{BindError, VirtioDevice};
use super::Block;
use super::request::{SECTORS_PER_BLOCK, SEGMENT_SECTORS_MAX};
use crate::backend::PinnedMemory;
use crate::backend::disk::Access;

/// Bytes of `struct virtio_blk_config` (5.2.4) up to the end of the fields that are used.
const CONFIG_BYTES: usize = 60;

impl<M: PinnedMemory + Clone> VirtioDevice for Block<M> {
    const DEVICE_ID: u16 = 2;
    /// Mass storage, other.
    const CLASS: u32 = 0x01_8000;
    const REQUIREMENTS: &'static [bits::Requirement] = &[];

    fn features(&self) -> u64 {
        let access = match self.store.0.access() {
            Access::ReadOnly => bits::BLK_RO,
            Access::ReadWrite => bits::BLK_DISCARD | bits::BLK_WRITE_ZEROES,
        };
        let queues = if self.config.queues > 1 { bits::BLK_MQ } else { 0 };
        access
            | queues
            | bits::BLK_SEG_MAX
            | bits::BLK_BLK_SIZE
            | bits::BLK_FLUSH
            | bits::INDIRECT_DESC
            | bits::EVENT_IDX
            | bits::VERSION_1
            | bits::ACCESS_PLATFORM
            | bits::RING_RESET
    }

    fn queues(&self) -> u16 {
        self.config.queues
    }

    fn queue_size_max(&self) -> u16 {
        self.config.queue_size_max
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut bytes = [0u8; CONFIG_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        // Its units are sectors of 512 bytes, whatever the block size.
        put(0, &(self.store.0.len_bytes() / 512).to_le_bytes());
        put(12, &u32::from(self.segments_max()).to_le_bytes());
        put(20, &(BLOCK_BYTES as u32).to_le_bytes());
        put(34, &self.config.queues.to_le_bytes());
        if self.store.0.access() == Access::ReadWrite {
            put(36, &SEGMENT_SECTORS_MAX.to_le_bytes()); // max_discard_sectors
            put(40, &1u32.to_le_bytes()); // max_discard_seg
            put(44, &(SECTORS_PER_BLOCK as u32).to_le_bytes()); // discard_sector_alignment
            put(48, &SEGMENT_SECTORS_MAX.to_le_bytes()); // max_write_zeroes_sectors
            put(52, &1u32.to_le_bytes()); // max_write_zeroes_seg
            put(56, &[1]); // write_zeroes_may_unmap
        }
        for (at, byte) in (offset..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    fn accept_features(&mut self, features: u64) -> bool {
        if !bits::consistent(features, Self::REQUIREMENTS) {
            tracing::error!("disk features {features:#x} lack VIRTIO_F_VERSION_1");
            return false;
        }
        self.features = features;
        true
    }

    fn enable_queue(&mut self, queue: u16, config: QueueConfig) -> Result<(), BindError> {
        let Some(slot) = self.queues.get_mut(usize::from(queue)) else {
            return Err(BindError::NoSuchQueue { queue });
        };
        if self.workers.is_at(queue) {
            return Err(BindError::Resetting { queue });
        }
        config.validate(self.config.queue_size_max)?;
        let (environment, memory) = self.binder.bind(self.config.device_index, queue)?;
        let ring_features = RingFeatures {
            event_index: self.features & bits::EVENT_IDX != 0,
            indirect: self.features & bits::INDIRECT_DESC != 0,
        };
        let mut ring = Virtqueue::new(memory, environment, config, ring_features)?;
        if self.doorbells == Doorbells::Suppressed {
            ring.disarm();
        }
        *slot = Slot::Running(ring);
        tracing::debug!(device = self.config.device_index, queue, environment, "disk queue enabled");
        Ok(())
    }

    /// Over when no thread is at a request of the queue.
    fn reset_queue(&mut self, queue: u16) {
        if let Some(slot) = self.queues.get_mut(usize::from(queue)) {
            self.workers.forget(queue);
            *slot = Slot::Off;
        }
    }

    fn is_resetting(&self, queue: u16) -> bool {
        matches!(self.queues.get(usize::from(queue)), Some(Slot::Off)) && self.workers.is_at(queue)
    }

    fn reset(&mut self) {
        for queue in 0..self.queues() {
            self.reset_queue(queue);
        }
        self.features = 0;
    }

    fn needs_reset(&self) -> bool {
        self.queues.iter().any(Slot::is_stopped)
    }
}

impl<M: PinnedMemory + Clone> Block<M> {
    /// Most pieces of a request's data: a chain that fits a queue, less header and status.
    pub(super) fn segments_max(&self) -> u16 {
        self.config.queue_size_max - 2
    }
}
