//! What can go wrong: opening a queue pair, and what a device that does not keep to the rules can do.

use core::fmt;
use exos_virtqueue::RingFault;

/// What a device did that no device may do. The queue it happened on does no more; dropping it and opening the pair again
/// is the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke a rule of the rings.
    Ring(RingFault),
    /// A frame's `num_buffers` is zero or more than the device has made used (VIRTIO 1.3 5.1.6.4).
    BadBufferCount {
        /// The number in the header.
        count: u16,
    },
    /// A frame is longer than an IP packet can be.
    FrameTooLong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ring(fault) => write!(f, "{fault}")?,
            Self::BadBufferCount { count } => {
                write!(f, "the device says a frame is spread over {count} buffers")?
            }
            Self::FrameTooLong => {
                f.write_str("the device merged a frame that is longer than an IP packet")?
            }
        }
        f.write_str("; the queue is stopped, open the queue pair again")
    }
}

/// Why a queue pair could not be opened. Nothing is bound then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The device is not a network device.
    NotANetworkDevice,
    /// The device has fewer queue pairs.
    NoSuchPair {
        /// How many it has.
        pairs: u32,
    },
    /// The receive buffers are too small: together for one frame, or each without VIRTIO_NET_F_MRG_RXBUF.
    BuffersTooSmall {
        /// Bytes that are needed.
        needed: usize,
    },
    /// One of its queues.
    Queue(exos_virtqueue::OpenError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotANetworkDevice => f.write_str("not a network device; take one from the device table"),
            Self::NoSuchPair { pairs } => {
                write!(f, "the device has {pairs} queue pairs; ask for one of them")
            }
            Self::BuffersTooSmall { needed } => {
                write!(f, "receive buffers are too small for a frame; {needed} bytes are needed")
            }
            Self::Queue(error) => write!(f, "{error}"),
        }
    }
}

impl From<RingFault> for Fault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

impl From<exos_virtqueue::OpenError> for OpenError {
    fn from(error: exos_virtqueue::OpenError) -> Self {
        Self::Queue(error)
    }
}
