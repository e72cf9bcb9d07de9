//! The NIC as a PCI function: the device work with its interrupts, and what the device table says of it.

use std::os::fd::RawFd;

use super::super::pci::{BAR_BYTES, COMMON, DOORBELL_STRIDE, MSIX_TABLE};
use super::super::{QueueState, VirtioDevice, VirtioPci};
use super::{Budget, Net, NetMetrics, Worked};
use crate::account::ledger::Ledger;
use crate::backend::{Backend, PinnedMemory};

impl<M: PinnedMemory, B: Backend> VirtioPci<Net<M, B>> {
    /// The device work (see [`Net::work`]). A queue that stopped shows in the device status besides.
    pub fn work(&mut self, ledger: &Ledger, budget: Budget) -> Worked {
        let worked = self.device.work(ledger, budget, &mut self.transport);
        if worked.stopped {
            self.transport.set_needs_reset(true);
        }
        worked
    }

    /// Asks for doorbells (see [`Net::arm`]).
    pub fn arm(&mut self) -> bool {
        self.device.arm()
    }

    /// Asks for no doorbells (see [`Net::disarm`]).
    pub fn disarm(&mut self) {
        self.device.disarm();
    }

    /// Readable when frames wait in the backend.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.device.event_fd()
    }

    /// The counters now.
    pub fn metrics(&self) -> NetMetrics {
        self.device.metrics()
    }

    /// What the backend counts of its own.
    pub fn backend_counters(&self) -> Vec<(&'static str, u64)> {
        self.device.backend().counters()
    }

    /// The state of each queue.
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.device.queue_states()
    }

    /// The line of the device table.
    pub fn device_entry(&self) -> abi::boot::Device {
        let bar_gpa = u64::from(self.place().bar_gpa);
        let config = self.device.config();
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&config.mac);
        const { assert!(MSIX_TABLE < BAR_BYTES as u64) };
        abi::boot::Device {
            kind: abi::boot::DEVICE_NET,
            requester_id: u32::from(self.place().device_number) << 3,
            common_gpa: bar_gpa + COMMON,
            doorbell_gpa: self.doorbell_gpa(0),
            msix_table_gpa: bar_gpa + MSIX_TABLE,
            doorbell_stride_bytes: DOORBELL_STRIDE,
            queues: self.device.queues().into(),
            queue_size_max: config.queue_size_max.into(),
            mtu_bytes: config.mtu_bytes.into(),
            features: self.accepted_features(),
            mac,
            ..abi::boot::Device::default()
        }
    }
}
