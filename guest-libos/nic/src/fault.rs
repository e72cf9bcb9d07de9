//! What can go wrong: opening a queue pair, and what a device that does not keep to the rules can do.

use abi::call::Error;
use core::fmt;

/// What a device did that no device may do. The queue it happened on does no more; dropping it and opening the pair again
/// is the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The used index went further than there are buffers with the device.
    UsedIndexJumped {
        /// Entries that the index announced.
        announced: u16,
        /// Buffers or chains that the device had.
        outstanding: u16,
    },
    /// A used entry names a buffer or chain that the device did not have.
    NotOutstanding {
        /// The id of the entry.
        id: u32,
    },
    /// A used entry's length is shorter than the header or longer than the buffer.
    BadLength {
        /// The length of the entry.
        len_bytes: u32,
    },
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
            Self::UsedIndexJumped { announced, outstanding } => {
                write!(f, "the device used {announced} buffers and had only {outstanding}")?;
            }
            Self::NotOutstanding { id } => write!(f, "the device used buffer {id}, which it did not have")?,
            Self::BadLength { len_bytes } => {
                write!(f, "the device says {len_bytes} bytes, which the buffer cannot be")?
            }
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
    /// The device was started without VIRTIO_F_VERSION_1.
    LegacyDevice,
    /// A queue size is not a power of two, or above the device's largest.
    BadQueueSize {
        /// The size asked for.
        size: u16,
        /// The device's largest.
        max: u32,
    },
    /// The receive buffers are too small: together for one frame, or each without VIRTIO_NET_F_MRG_RXBUF.
    BuffersTooSmall {
        /// Bytes that are needed.
        needed: usize,
    },
    /// The heap is exhausted.
    OutOfMemory,
    /// The heap lies where the device cannot reach it.
    Unreachable,
    /// The kernel refused to bind a queue.
    Bind {
        /// The queue.
        queue: u32,
        /// The kernel's reason.
        error: Error,
    },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotANetworkDevice => f.write_str("not a network device; take one from the device table"),
            Self::NoSuchPair { pairs } => {
                write!(f, "the device has {pairs} queue pairs; ask for one of them")
            }
            Self::LegacyDevice => {
                f.write_str("the device does not speak VIRTIO 1; start it with VIRTIO_F_VERSION_1")
            }
            Self::BadQueueSize { size, max } => {
                write!(f, "queue size {size}: choose a power of two from 2 to {max}")
            }
            Self::BuffersTooSmall { needed } => {
                write!(f, "receive buffers are too small for a frame; {needed} bytes are needed")
            }
            Self::OutOfMemory => f.write_str("no memory for rings and buffers; give the environment more"),
            Self::Unreachable => f.write_str("the device cannot reach the heap; grant it to the DMA domain"),
            Self::Bind { queue, error } => write!(f, "queue {queue} was not bound: {}", error.message()),
        }
    }
}
