//! The network part of a fake device, beside the queues of [`exos_virtqueue::fake`]: what a NIC writes in front of a frame, and
//! how it spreads one over buffers.

use crate::header::HEADER_BYTES;
use abi::boot::{DEVICE_NET, Device};
pub use exos_virtqueue::fake::{EVENT_IDX, FakeHal, FakeQueue, Segment, Signal, TakenChain};

/// Everything a network device can be started with that the driver knows: checksum and segmentation both ways, mergeable
/// buffers, event index, VIRTIO 1.
pub const ALL_FEATURES: u64 =
    1 | 1 << 1 | 1 << 7 | 1 << 8 | 1 << 11 | 1 << 12 | 1 << MERGEABLE | 1 << EVENT_IDX | 1 << 32;
/// Bit number of VIRTIO_NET_F_MRG_RXBUF.
pub const MERGEABLE: u32 = 15;

/// A line of the device table for a device with four queue pairs.
pub fn device(features: u64) -> Device {
    Device {
        kind: DEVICE_NET,
        queues: 8,
        queue_size_max: 1024,
        mtu_bytes: 1500,
        features,
        ..Device::default()
    }
}

/// What a receive queue of a network device does besides.
pub trait NetQueue {
    /// Receives a frame into as many buffers as it needs, like a host that reads into a window of them, and gives
    /// them back unpublished. `header` is the virtio header; its buffer count is filled in. False: too few buffers, nothing
    /// was taken.
    ///
    /// # Panics
    /// If a buffer is not a single descriptor that the device may write.
    fn deliver(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) -> bool;
}

impl NetQueue for FakeQueue {
    fn deliver(&mut self, mut header: [u8; HEADER_BYTES], frame: &[u8]) -> bool {
        let total = HEADER_BYTES + frame.len();
        let (mut room, mut count) = (0, 0);
        while room < total {
            if count == self.waiting() {
                return false;
            }
            room += self.peek(count).1.len_bytes as usize;
            count += 1;
        }
        header[10..].copy_from_slice(&count.to_le_bytes());
        let mut done = 0;
        for k in 0..count {
            let (head, buffer) = self.peek(0);
            assert!(buffer.device_writes, "a buffer to write");
            let n = (total - done).min(buffer.len_bytes as usize);
            let skip = if k == 0 { HEADER_BYTES } else { 0 };
            self.write(buffer, 0, &header[..skip]);
            self.write(buffer, skip, &frame[done + skip - HEADER_BYTES..done + n - HEADER_BYTES]);
            done += n;
            self.pass(1);
            self.give_back(head, n as u32);
        }
        true
    }
}
