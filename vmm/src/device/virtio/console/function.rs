//! The console as a PCI function: the device work with its interrupts, and what the device table says of it.

use super::super::VirtioPci;
use super::super::slot::QueueState;
use super::{Console, ConsoleMetrics, Worked};
use crate::account::ledger::Ledger;
use crate::backend::PinnedMemory;

impl<M: PinnedMemory> VirtioPci<Console<M>> {
    /// The device work (see [`Console::work`]). A queue that stopped shows in the device status besides.
    #[inline]
    pub fn work(&mut self, ledger: &Ledger) -> Worked {
        let worked = self.device.work(ledger, &mut self.transport);
        if worked.stopped {
            self.transport.set_needs_reset(true);
        }
        worked
    }

    /// The counters now.
    pub fn metrics(&self) -> ConsoleMetrics {
        self.device.metrics()
    }

    /// The state of each queue.
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.device.queue_states()
    }

    /// The line of the device table.
    pub fn device_entry(&self) -> abi::boot::Device {
        abi::boot::Device { kind: abi::boot::DEVICE_CONSOLE, ..self.place_entry() }
    }
}
