//! The virtio-net driver of the library OS: queue pairs whose rings lie in the environment's own memory, polled, with no
//! kernel between the driver and the device (VIRTIO 1.3 2.7 split virtqueues, 5.1 network device).
//!
//! The kernel is asked twice for each queue, to bind and to unbind it. In between a frame costs a few loads and stores;
//! one index publication and at most one doorbell make a whole batch visible.
//!
//! **What is not trusted.** The device may write anything to the used rings at any time. Its indices, buffer ids and
//! lengths are checked against shadow state that it cannot reach; on nonsense the queue says so ([`Fault`]) and does no
//! more. The bytes of a frame come from the wire and are the parser's to judge.
//!
//! | module | what |
//! | --- | --- |
//! | [`pair`] | a queue pair: opening, sleeping without losing a wake-up |
//! | [`receive`] | receive queue: frames in |
//! | [`transmit`] | transmit queue: frames out, zero copy |
//! | [`header`] | `struct virtio_net_hdr_v1`: offloads out, checksum status in |
//! | [`fault`] | what a device can do wrong |
//! | `chain` | how a frame becomes a chain of descriptors |
//! | `fake` | the device's side, for host tests (feature `fake`) |
//!
//! The virtqueues themselves, and the memory that the device sees, are in [`exos_virtqueue`].
#![no_std]

extern crate alloc;
#[cfg(feature = "fake")]
extern crate std;

mod chain;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fault;
pub mod header;
pub mod pair;
pub mod receive;
pub mod transmit;

pub use chain::Piece;
pub use exos_virtqueue::{Arming, Hal};
pub use fault::{Fault, OpenError};
pub use header::{Checksum, ChecksumAt, Offload, SegmentKind};
pub use pair::{Config, Interest, QueuePair};
pub use receive::{Frame, Kept, ReceiveQueue, ReceiveStatistics};
pub use transmit::{Reason, Refused, SLOT_BYTES, TransmitQueue, TransmitStatistics};
