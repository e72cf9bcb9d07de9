//! The console as a virtio device: features, configuration, queues coming and going.

use super::super::features as bits;
use super::super::queue::{QueueConfig, RingFeatures, Virtqueue};
use super::super::slot::Slot;
use super::super::{BindError, VirtioDevice};
use super::port::Announce;
use super::{Console, QUEUE_SIZE_MAX, Role};
use crate::backend::PinnedMemory;

impl<M: PinnedMemory> VirtioDevice for Console<M> {
    const DEVICE_ID: u16 = 3;
    /// Simple communication controller, other.
    const CLASS: u32 = 0x07_8000;
    const REQUIREMENTS: &'static [bits::Requirement] = &[];

    fn features(&self) -> u64 {
        bits::CONSOLE_MULTIPORT
            | bits::INDIRECT_DESC
            | bits::EVENT_IDX
            | bits::VERSION_1
            | bits::ACCESS_PLATFORM
            | bits::RING_RESET
    }

    fn queues(&self) -> u16 {
        2 * self.ports.len() as u16 + 2
    }

    fn queue_size_max(&self) -> u16 {
        QUEUE_SIZE_MAX
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        // struct virtio_console_config: cols, rows, max_nr_ports, emerg_wr (5.3.4).
        let mut bytes = [0u8; 12];
        bytes[4..8].copy_from_slice(&(self.ports.len() as u32).to_le_bytes());
        for (at, byte) in (offset..).zip(data) {
            *byte = bytes.get(at).copied().unwrap_or(0);
        }
    }

    fn accept_features(&mut self, features: u64) -> bool {
        // Without it there would be one port without a name, and nobody could ask for it by one.
        let needed = bits::VERSION_1 | bits::CONSOLE_MULTIPORT;
        if features & needed != needed {
            tracing::error!(
                "console features {features:#x} lack VIRTIO_F_VERSION_1 or VIRTIO_CONSOLE_F_MULTIPORT"
            );
            return false;
        }
        self.features = features;
        true
    }

    fn enable_queue(&mut self, queue: u16, config: QueueConfig) -> Result<(), BindError> {
        let role = Role::of(queue, self.ports.len()).ok_or(BindError::NoSuchQueue { queue })?;
        config.validate(QUEUE_SIZE_MAX)?;
        let (environment, memory) = self.binder.bind(self.device_index, queue)?;
        let features = RingFeatures {
            event_index: self.features & bits::EVENT_IDX != 0,
            indirect: self.features & bits::INDIRECT_DESC != 0,
        };
        let mut ring = Virtqueue::new(memory, environment, config, features)?;
        if matches!(role, Role::Receive { .. } | Role::ControlReceive) {
            // New buffers are news only when something waits for them.
            ring.disarm();
        }
        *self.slot(role) = Slot::Running(ring);
        // What waited for this queue finds it.
        self.listen();
        tracing::debug!(queue, environment, "console queue enabled");
        Ok(())
    }

    fn reset_queue(&mut self, queue: u16) {
        let Some(role) = Role::of(queue, self.ports.len()) else { return };
        match role {
            // Whoever takes these back knows nothing of any port any more.
            Role::ControlReceive | Role::ControlTransmit => {
                self.ports.iter_mut().for_each(|port| port.restart(Announce::No));
            }
            Role::Receive { port } => self.ports[port].starved = false,
            Role::Transmit { port } => self.ports[port].end_output(&mut self.readable),
        }
        *self.slot(role) = Slot::Off;
        self.readable.refill();
        self.writable.clear();
    }

    fn reset(&mut self) {
        for queue in 0..self.queues() {
            self.reset_queue(queue);
        }
        self.features = 0;
    }

    fn needs_reset(&self) -> bool {
        self.control_receive.is_stopped()
            || self.control_transmit.is_stopped()
            || self.ports.iter().any(|port| port.receive.is_stopped() || port.transmit.is_stopped())
    }
}
