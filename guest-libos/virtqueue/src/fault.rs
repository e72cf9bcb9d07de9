//! What can go wrong with a queue: opening it, and what a device that does not keep to the rules can do.

use abi::call::Error;
use core::fmt;

/// What a device did to a queue that no device may do. The queue does no more; dropping it and opening it again is the way
/// out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// The used index went further than there are chains with the device.
    UsedIndexJumped {
        /// Entries that the index announced.
        announced: u16,
        /// Chains that the device had.
        outstanding: u16,
    },
    /// A used entry names a chain that the device did not have.
    NotOutstanding {
        /// The id of the entry.
        id: u32,
    },
    /// A used entry's length is less than the device must have written or more than it could.
    BadLength {
        /// The length of the entry.
        len_bytes: u32,
    },
}

impl fmt::Display for RingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UsedIndexJumped { announced, outstanding } => {
                write!(f, "the device used {announced} buffers and had only {outstanding}")
            }
            Self::NotOutstanding { id } => write!(f, "the device used buffer {id}, which it did not have"),
            Self::BadLength { len_bytes } => {
                write!(f, "the device says {len_bytes} bytes, which the buffer cannot be")
            }
        }
    }
}

/// Why a queue could not be opened. It is not bound then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The device was started without VIRTIO_F_VERSION_1.
    LegacyDevice,
    /// A queue size is not a power of two, or above the device's largest.
    BadQueueSize {
        /// The size asked for.
        size: u16,
        /// The device's largest.
        max: u32,
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
            Self::LegacyDevice => {
                f.write_str("the device does not speak VIRTIO 1; start it with VIRTIO_F_VERSION_1")
            }
            Self::BadQueueSize { size, max } => {
                write!(f, "queue size {size}: choose a power of two from 2 to {max}")
            }
            Self::OutOfMemory => f.write_str("no memory for rings and buffers; give the environment more"),
            Self::Unreachable => f.write_str("the device cannot reach the heap; grant it to the DMA domain"),
            Self::Bind { queue, error } => write!(f, "queue {queue} was not bound: {}", error.message()),
        }
    }
}
