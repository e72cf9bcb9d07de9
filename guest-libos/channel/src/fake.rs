//! The console's part of a fake device, beside the queues of [`exos_virtqueue::fake`]: its line of the device table, and a
//! device that speaks control messages and has ports.

use abi::boot::{DEVICE_CONSOLE, Device};
pub use exos_virtqueue::fake::{EVENT_IDX, FakeHal, FakeQueue, Segment, Signal, TakenChain};
use std::vec::Vec;

/// Everything a console can be started with that the driver knows: several ports, event index, VIRTIO 1.
pub const ALL_FEATURES: u64 = 1 << 1 | 1 << EVENT_IDX | 1 << 32;

/// A line of the device table for a device with three ports.
pub fn device(features: u64) -> Device {
    Device { kind: DEVICE_CONSOLE, queues: 8, queue_size_max: 256, features, ..Device::default() }
}

/// A control message.
pub fn message(port: u32, event: u16, value: u16, more: &[u8]) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes(), more].concat()
}

/// What a queue of a console does besides.
pub trait ConsoleQueue {
    /// Fills the next buffer and gives it back, published. False: there is none.
    ///
    /// # Panics
    /// If the bytes do not fit into one buffer.
    fn deliver(&mut self, bytes: &[u8]) -> bool;

    /// Takes all that the driver wrote, one chain each, and gives the buffers back, published.
    fn drain(&mut self) -> Vec<Vec<u8>>;
}

impl ConsoleQueue for FakeQueue {
    fn deliver(&mut self, bytes: &[u8]) -> bool {
        if self.waiting() == 0 {
            return false;
        }
        let (head, buffer) = self.peek(0);
        self.write(buffer, 0, bytes);
        self.pass(1);
        self.give_back(head, bytes.len() as u32);
        self.publish();
        true
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut chains = Vec::new();
        while let Some(chain) = self.take() {
            chains.push(chain.gather());
            self.give_back(chain.head, 0);
        }
        self.publish();
        chains
    }
}
