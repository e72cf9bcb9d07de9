//! A queue pair: receive queue `2p` and transmit queue `2p + 1` of a device (VIRTIO 1.3 5.1.2). Opening it, and going to
//! sleep without losing a wake-up.

use crate::fault::OpenError;
use crate::receive::ReceiveQueue;
use crate::transmit::TransmitQueue;
use abi::boot::{DEVICE_NET, Device};
use exos_virtqueue::{Arming, Hal, Place, ring};

/// Sizes of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries of the receive queue, a power of two; as many buffers.
    pub receive_size: u16,
    /// Bytes of a receive buffer, virtio header included.
    pub receive_buffer_bytes: usize,
    /// Entries of the transmit queue, a power of two. A frame takes one, and one more for each lent piece.
    pub transmit_size: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self::small()
    }
}

impl Config {
    /// For servers that receive small frames: 256 buffers of 16,448 bytes, 4 MiB. Four of them take the largest frame, so
    /// 252 small ones fit in a batch and nothing up to a jumbo frame is ever merged. A `readv` of a small datagram over
    /// four buffers costs the host what it costs over one (973 to 1,004 ns on a socket pair); over seventeen of 4 KiB it
    /// costs 50 to 170 ns more. The size is an odd number of cache lines: the headers of neighbours fall into different
    /// cache sets.
    pub const fn small() -> Self {
        Self { receive_size: 256, receive_buffer_bytes: 257 * 64, transmit_size: 256 }
    }

    /// For those who receive in bulk: 128 buffers that each take the largest frame, 8 MiB. Nothing is ever merged, so
    /// nothing is copied.
    pub const fn bulk() -> Self {
        Self { receive_size: 128, receive_buffer_bytes: 1025 * 64, transmit_size: 256 }
    }
}

/// What may end the sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// A frame that arrives.
    Receive,
    /// Also room: three quarters of what is on its way out has been sent.
    ReceiveAndTransmit,
}

/// A bound pair of queues. `K` is what keeps the bytes of a frame in place until the device has sent it. The halves are
/// fields, so a received frame can be answered while it is looked at.
#[derive(Debug)]
pub struct QueuePair<H: Hal, K> {
    /// Frames in.
    pub receive: ReceiveQueue<H>,
    /// Frames out.
    pub transmit: TransmitQueue<H, K>,
}

impl<H: Hal, K> QueuePair<H, K> {
    /// Binds pair `pair` of those that are ours, of device number `index`, which the device table describes as `device`. Dropping it unbinds it.
    pub fn open(hal: H, index: u32, device: &Device, pair: u32, config: &Config) -> Result<Self, OpenError> {
        if device.kind != DEVICE_NET {
            return Err(OpenError::NotANetworkDevice);
        }
        let pairs = device.queues / 2;
        if pair >= pairs {
            return Err(OpenError::NoSuchPair { pairs });
        }
        let receive = ring::layout(device, config.receive_size)?;
        let transmit = ring::layout(device, config.transmit_size)?;
        let place = |queue| Place { device: index, queue: device.first_queue + queue };
        Ok(Self {
            receive: ReceiveQueue::open(
                hal.clone(),
                place(2 * pair),
                device,
                receive,
                config.receive_buffer_bytes,
            )?,
            transmit: TransmitQueue::open(hal, place(2 * pair + 1), device, transmit)?,
        })
    }

    /// Ends a round, in which frames were taken and kept buffers let go: shows the device both. Who keeps what it receives calls this
    /// and not the transmit queue's alone: when all buffers were kept, the device has none to write to, and a turn would last for ever.
    #[inline]
    pub fn publish(&mut self) {
        self.receive.restock();
        self.transmit.publish();
    }

    /// Asks for interrupts before a sleep. Publishes first whatever is still unpublished, so nothing is left lying. A queue
    /// with a fault asks for nothing.
    pub fn request_interrupts(&mut self, interest: Interest) -> Arming {
        self.receive.publish();
        self.transmit.publish();
        let receive = self.receive.request_interrupt();
        let transmit = match interest {
            Interest::Receive => Arming::Sleep,
            Interest::ReceiveAndTransmit => self.transmit.request_interrupt(),
        };
        receive.and(transmit)
    }

    /// Asks for no interrupts: the queues are polled.
    pub fn suppress_interrupts(&mut self) {
        self.receive.suppress_interrupts();
        self.transmit.suppress_interrupts();
    }
}
