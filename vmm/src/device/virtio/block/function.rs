//! The disk as a PCI function: the device work with its interrupts, and what the device table says of it.

use std::sync::Arc;

use abi::extent::BLOCK_BYTES;

use super::super::pci::{COMMON, DOORBELL_STRIDE, MSIX_TABLE};
use super::super::{QueueState, VirtioDevice, VirtioPci};
use super::{Block, BlockMetrics, Budget, InFlight, Latencies, TRANSFER_BYTES_MAX, Worked};
use crate::account::ledger::Ledger;
use crate::backend::PinnedMemory;

impl<M: PinnedMemory + Clone> VirtioPci<Block<M>> {
    /// The device work (see [`Block::work`]). A queue that stopped shows in the device status besides.
    pub fn work(&mut self, ledger: &Ledger, budget: Budget) -> Worked {
        let worked = self.device.work(ledger, budget, &mut self.transport);
        if worked.stopped {
            self.transport.set_needs_reset(true);
        }
        worked
    }

    /// Asks for doorbells (see [`Block::arm`]).
    pub fn arm(&mut self) -> bool {
        self.device.arm()
    }

    /// Asks for no doorbells (see [`Block::disarm`]).
    pub fn disarm(&mut self) {
        self.device.disarm();
    }

    /// How long requests took so far.
    pub fn latencies(&self) -> &Latencies {
        self.device.latencies()
    }

    /// The counters now.
    pub fn metrics(&self) -> BlockMetrics {
        self.device.metrics()
    }

    /// What its threads do now for an environment (see [`Block::in_flight`]).
    pub fn in_flight(&self, environment: u32) -> InFlight<M> {
        self.device.in_flight(environment)
    }

    /// The ledgers of its threads.
    pub fn ledgers(&self) -> &[Arc<Ledger>] {
        self.device.ledgers()
    }

    /// The state of each queue.
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.device.queue_states()
    }

    /// The line of the device table.
    pub fn device_entry(&self) -> abi::boot::Device {
        let bar_gpa = u64::from(self.place().bar_gpa);
        abi::boot::Device {
            kind: abi::boot::DEVICE_BLOCK,
            requester_id: u32::from(self.place().device_number) << 3,
            common_gpa: bar_gpa + COMMON,
            doorbell_gpa: self.doorbell_gpa(0),
            msix_table_gpa: bar_gpa + MSIX_TABLE,
            doorbell_stride_bytes: DOORBELL_STRIDE,
            queues: self.device.queues().into(),
            queue_size_max: self.device.queue_size_max().into(),
            features: self.accepted_features(),
            capacity_blocks: self.device.capacity_blocks(),
            segments_max: self.device.segments_max().into(),
            transfer_blocks_max: (TRANSFER_BYTES_MAX / BLOCK_BYTES) as u32,
            ..abi::boot::Device::default()
        }
    }
}
