//! The NIC as a PCI function: the device work with its interrupts, and what the device table says of it.

use std::os::fd::RawFd;
use std::time::Instant;

use super::super::{QueueState, VirtioPci};
use super::{Budget, FlowMetrics, Net, NetMetrics, PairMetrics, Worked};
use crate::account::ledger::Ledger;
use crate::backend::{Backend, PinnedMemory};
use crate::stat::metrics::Metric;

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

    /// Says to the backend that the caller is about to sleep (see [`Net::arm_backend`]).
    pub fn arm_backend(&mut self) -> bool {
        self.device.arm_backend()
    }

    /// The caller is awake again.
    pub fn disarm_backend(&mut self) {
        self.device.disarm_backend();
    }

    /// When the backend has something to do though no event comes.
    pub fn backend_due(&self) -> Option<Instant> {
        self.device.backend().due()
    }

    /// Whether the backend's descriptor is writable when there is room for frames; else an event says so.
    pub fn shows_room_as_writable(&self) -> bool {
        self.device.backend().shows_room_as_writable()
    }

    /// Returns when nothing is being written for a right that was there before: into buffers that the backend was lent.
    pub fn settle(&self) {
        self.device.backend().settle();
    }

    /// Readable when frames wait in the backend.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.device.event_fd()
    }

    /// The counters now.
    pub fn metrics(&self) -> NetMetrics {
        self.device.metrics()
    }

    /// The counters of each queue pair now.
    pub fn pair_metrics(&self) -> Vec<PairMetrics> {
        self.device.pair_metrics().to_vec()
    }

    /// What was looked up in the flow table so far.
    pub fn flow_metrics(&self) -> FlowMetrics {
        *self.device.flow_metrics()
    }

    /// What the backend counts of its own.
    pub fn backend_counters(&self) -> Vec<Metric> {
        self.device.backend().counters()
    }

    /// The state of each queue.
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.device.queue_states()
    }

    /// The line of the device table.
    pub fn device_entry(&self) -> abi::boot::Device {
        let config = self.device.config();
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&config.mac);
        abi::boot::Device {
            kind: abi::boot::DEVICE_NET,
            mtu_bytes: config.mtu_bytes.into(),
            mac,
            ..self.place_entry()
        }
    }
}
