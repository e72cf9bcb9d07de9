//! The NIC as a virtio device: features, configuration, queues coming and going.

use super::super::features as bits;
use super::super::queue::{QueueConfig, RingFeatures, Virtqueue};
use super::super::slot::{Doorbells, Slot};
use super::super::{BindError, VirtioDevice};
use super::Net;
use super::receive::ReceiveQueue;
use crate::backend::{Backend, Offloads, PinnedMemory};

impl<M: PinnedMemory, B: Backend> VirtioDevice for Net<M, B> {
    const DEVICE_ID: u16 = 1;
    const CLASS: u32 = 0x02_0000;
    const REQUIREMENTS: &'static [bits::Requirement] = bits::NET_REQUIREMENTS;

    fn features(&self) -> u64 {
        let pairs = if self.config.queue_pairs > 1 { bits::NET_MQ } else { 0 };
        pairs
            | bits::NET_CSUM
            | bits::NET_GUEST_CSUM
            | bits::NET_MTU
            | bits::NET_MAC
            | bits::NET_GUEST_TSO4
            | bits::NET_GUEST_TSO6
            | bits::NET_HOST_TSO4
            | bits::NET_HOST_TSO6
            | bits::NET_MRG_RXBUF
            | bits::NET_CTRL_VQ
            | bits::INDIRECT_DESC
            | bits::EVENT_IDX
            | bits::VERSION_1
            | bits::ACCESS_PLATFORM
            | bits::RING_RESET
    }

    fn queues(&self) -> u16 {
        2 * self.config.queue_pairs + 1
    }

    fn queue_size_max(&self) -> u16 {
        self.config.queue_size_max
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // struct virtio_net_config: mac, status, max_virtqueue_pairs, mtu (5.1.4).
        let mut bytes = [0u8; 12];
        bytes[..6].copy_from_slice(&self.config.mac);
        bytes[8..10].copy_from_slice(&self.config.queue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.config.mtu_bytes.to_le_bytes());
        for (at, byte) in (offset..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    fn accept_features(&mut self, features: u64) -> bool {
        if !bits::consistent(features, Self::REQUIREMENTS) {
            tracing::error!(
                "network features {features:#x} lack VIRTIO_F_VERSION_1 or something that one of them requires"
            );
            return false;
        }
        let has = |bit| features & bit != 0;
        let offloads = Offloads {
            checksum: has(bits::NET_GUEST_CSUM),
            tso4: has(bits::NET_GUEST_TSO4),
            tso6: has(bits::NET_GUEST_TSO6),
        };
        if let Err(error) = self.backend.set_offloads(offloads) {
            tracing::error!("network features refused: {error}");
            return false;
        }
        self.features = features;
        true
    }

    fn enable_queue(&mut self, queue: u16, config: QueueConfig) -> Result<(), BindError> {
        if queue >= self.queues() {
            return Err(BindError::NoSuchQueue { queue });
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
        let pair = usize::from(queue / 2);
        if queue == self.queues() - 1 {
            self.control = Slot::Running(ring);
        } else if queue.is_multiple_of(2) {
            self.receive[pair] = Slot::Running(ReceiveQueue::new(ring));
        } else {
            self.transmit[pair] = Slot::Running(ring);
        }
        tracing::debug!(queue, environment, "network queue enabled");
        Ok(())
    }

    fn reset_queue(&mut self, queue: u16) {
        let pair = usize::from(queue / 2);
        if queue == self.queues() - 1 {
            self.control = Slot::Off;
        } else if queue.is_multiple_of(2) {
            // The list of pieces goes with the queue.
            self.forget_lent(pair);
            self.receive[pair] = Slot::Off;
        } else {
            self.transmit[pair] = Slot::Off;
        }
        self.sender.forget();
    }

    fn reset(&mut self) {
        for queue in 0..self.queues() {
            self.reset_queue(queue);
        }
        self.receiver.reset();
        // What came before the reset is not for who comes after it.
        if let Some(filler) = self.backend.filler() {
            filler.forget();
        }
        self.features = 0;
    }

    fn needs_reset(&self) -> bool {
        self.receive.iter().any(Slot::is_stopped)
            || self.transmit.iter().any(Slot::is_stopped)
            || self.control.is_stopped()
    }
}
