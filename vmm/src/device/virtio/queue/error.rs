//! What can be wrong with a queue. Each of these stops the queue until it is reset.

use std::fmt;

/// A part of a split virtqueue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingPart {
    /// Descriptor table.
    Descriptors,
    /// Available (driver) ring.
    Available,
    /// Used (device) ring.
    Used,
}

impl fmt::Display for RingPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Descriptors => "descriptor table",
            Self::Available => "available ring",
            Self::Used => "used ring",
        })
    }
}

/// Why a queue cannot be used any more, or not be enabled. The driver's fault in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Not a power of two, or more than the device has.
    #[error("queue size {size} is not a power of two from 2 to {max}")]
    Size {
        /// What was asked for.
        size: u16,
        /// What is possible.
        max: u16,
    },
    /// VIRTIO 1.3 2.7.
    #[error("the {part} at {gpa:#x} is not aligned to {align} bytes")]
    Misaligned {
        /// Which part.
        part: RingPart,
        /// Where.
        gpa: u64,
        /// As it must be.
        align: u64,
    },
    /// The rings must lie in the environment's DMA domain, each in one piece of memory.
    #[error("the {part} at {gpa:#x} is not, or no longer, in the environment's DMA domain")]
    RingForeign {
        /// Which part.
        part: RingPart,
        /// Where.
        gpa: u64,
    },
    /// VIRTIO 1.3 2.7.6: more entries than the ring has.
    #[error(
        "the available index {index} runs ahead of {next} by more than the {size} entries of the ring, of which the \
         device has {kept}"
    )]
    AvailableAhead {
        /// What the driver wrote.
        index: u16,
        /// The next entry the device expects.
        next: u16,
        /// Chains that the device has taken and not given back.
        kept: u16,
        /// Entries.
        size: u16,
    },
    /// A head or a `next` beyond the table.
    #[error("descriptor {index} does not exist in a table of {entries}")]
    NoSuchDescriptor {
        /// What was named.
        index: u16,
        /// Entries of the table.
        entries: u16,
    },
    /// VIRTIO 1.3 2.7.5: a chain has at most as many descriptors as the queue; this one may be a loop.
    #[error("a chain has more than {size} descriptors, or is a loop")]
    ChainTooLong {
        /// Entries of the queue.
        size: u16,
    },
    /// A descriptor of no bytes.
    #[error("a descriptor has length 0")]
    Empty,
    /// VIRTIO 1.3 2.7.4.2: first what the device reads, then what it writes, and only what this queue is for.
    #[error("a descriptor is for the device to {}, which this queue or this place in the chain is not for", if *.writable { "write" } else { "read" })]
    WrongDirection {
        /// Whether the descriptor is device-writable.
        writable: bool,
    },
    /// Outside of the DMA domain, without the right, or no memory at all.
    #[error("{gpa:#x}..+{len:#x} is not in the environment's DMA domain for {}", if *.writable { "writing" } else { "reading" })]
    Foreign {
        /// Where.
        gpa: u64,
        /// Bytes.
        len: u32,
        /// Whether the device was to write.
        writable: bool,
    },
    /// VIRTIO 1.3 2.7.5.3.
    #[error("an indirect descriptor, but the feature was not negotiated")]
    IndirectNotNegotiated,
    /// VIRTIO 1.3 2.7.5.3.1.
    #[error("an indirect descriptor inside an indirect table, or with a next one")]
    IndirectNested,
    /// VIRTIO 1.3 2.7.5.3: a table of whole descriptors, no longer than the queue.
    #[error("an indirect table of {len} bytes: not a multiple of 16, empty, or longer than the queue")]
    IndirectTable {
        /// Its length.
        len: u32,
    },
    /// More bytes than the longest request of this kind of queue.
    #[error("a chain has more than {max} bytes")]
    TooManyBytes {
        /// What is possible.
        max: u32,
    },
    /// More pieces than one system call takes.
    #[error("a chain has more than {max} pieces of memory")]
    TooManySegments {
        /// What is possible.
        max: usize,
    },
    /// Shorter than the header that must lead it.
    #[error("a chain has {bytes} bytes, less than the {min} that it must have")]
    TooShort {
        /// What it has.
        bytes: u32,
        /// What it must have.
        min: u32,
    },
    /// VIRTIO 1.3 5.2.6: a request ends with a byte for the device to write its status to.
    #[error("a request has no byte for its status")]
    NoStatus,
}

impl QueueError {
    /// Whether it is that memory outside of the environment's DMA domain was named.
    pub fn is_dma_refusal(&self) -> bool {
        matches!(self, Self::RingForeign { .. } | Self::Foreign { .. })
    }
}
