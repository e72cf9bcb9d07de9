//! What can go wrong: opening the channel, and what a device that does not keep to the rules can do.

use core::fmt;
use exos_virtqueue::RingFault;

/// What a device did that no device may do. The port it happened on, or all of the channel if it was a control queue, does no
/// more; dropping the channel and opening it again is the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It broke a rule of the rings.
    Ring(RingFault),
    /// A control message is shorter than its structure.
    ShortMessage {
        /// What it has.
        len_bytes: usize,
    },
    /// A control message names a port that the device cannot have.
    NoSuchPort {
        /// The number in the message.
        port: u32,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Ring(fault) => write!(f, "{fault}")?,
            Self::ShortMessage { len_bytes } => {
                write!(f, "the device sent a control message of {len_bytes} bytes")?;
            }
            Self::NoSuchPort { port } => write!(f, "the device speaks of port {port}, which it cannot have")?,
        }
        f.write_str("; the queue is stopped, open the channel again")
    }
}

impl From<RingFault> for Fault {
    fn from(fault: RingFault) -> Self {
        Self::Ring(fault)
    }
}

/// Why the channel, or a port of it, could not be opened. Nothing of it is bound then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The device is not a console.
    NotAConsole,
    /// The device was started without VIRTIO_CONSOLE_F_MULTIPORT: its port has no name.
    OnePort,
    /// One of its queues.
    Queue(exos_virtqueue::OpenError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAConsole => f.write_str("not a console; take one from the device table"),
            Self::OnePort => f.write_str(
                "the device has one port without a name; start it with VIRTIO_CONSOLE_F_MULTIPORT",
            ),
            Self::Queue(error) => write!(f, "{error}"),
        }
    }
}

impl From<exos_virtqueue::OpenError> for OpenError {
    fn from(error: exos_virtqueue::OpenError) -> Self {
        Self::Queue(error)
    }
}
