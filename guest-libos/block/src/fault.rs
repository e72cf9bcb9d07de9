//! What can go wrong: opening a queue, and what a device that does not keep to the rules can do.

use core::fmt;
use exos_virtqueue::RingFault;

/// What a device did that no device may do. The queue does no more; [`crate::DiskQueue::close`] gives back what was with the
/// device, and opening it again is the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke a rule of the rings.
    Ring(RingFault),
    /// The status of a request is none that there is (VIRTIO 1.3 5.2.6).
    BadStatus {
        /// What the device wrote, or left.
        status: u8,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ring(fault) => write!(f, "{fault}")?,
            Self::BadStatus { status } => {
                write!(f, "the device ended a request with status {status}, which does not exist")?
            }
        }
        f.write_str("; the queue is stopped, close it and open it again")
    }
}

impl From<RingFault> for Fault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// Why a queue could not be opened. It is not bound then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The device is not a block device.
    NotABlockDevice,
    /// The device has fewer queues.
    NoSuchQueue {
        /// How many it has.
        queues: u32,
    },
    /// A queue with fewer entries than one request of one piece takes.
    TooSmall {
        /// The size asked for.
        size: u16,
    },
    /// The queue.
    Queue(exos_virtqueue::OpenError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotABlockDevice => f.write_str("not a block device; take one from the device table"),
            Self::NoSuchQueue { queues } => write!(f, "the device has {queues} queues; ask for one of them"),
            Self::TooSmall { size } => {
                write!(f, "a queue of {size} entries takes no request; use at least 4")
            }
            Self::Queue(error) => write!(f, "{error}"),
        }
    }
}

impl From<exos_virtqueue::OpenError> for OpenError {
    fn from(error: exos_virtqueue::OpenError) -> Self {
        Self::Queue(error)
    }
}
