//! The virtio-blk driver of the library OS: queues whose rings lie in the environment's own memory, polled, with no kernel
//! between the driver and the device (VIRTIO 1.3 2.7 split virtqueues, 5.2 block device).
//!
//! A request takes its buffer by value and gives it back with the completion, together with a token of the caller's: while
//! the device may touch memory, nobody else has it. Requests are offered with [`DiskQueue::read`] and its like, shown to the
//! device all at once with [`DiskQueue::publish`], and come back, in any order, from [`DiskQueue::poll`].
//!
//! Blocks have [`BLOCK_BYTES`] bytes; which of them an environment may read and write says its extent, which the device
//! checks at each request.
//!
//! **What is not trusted.** The device may write anything to the used ring and the status bytes at any time. Indices, ids,
//! lengths and statuses are checked against shadow state that it cannot reach; on nonsense the queue says so ([`Fault`]) and
//! does no more. The bytes that were read are whatever was on the disk, and the parser's to judge.
//!
//! | module | what |
//! | --- | --- |
//! | [`queue`] | a queue of a disk: requests out, completions in, sleeping without losing a wake-up |
//! | [`buffer`] | memory that the device may read or write; the unsafe edge, for whoever has buffers of a kind of their own |
//! | [`request`] | what comes back: completions, and requests that were not taken |
//! | [`fault`] | what can go wrong when opening, and what a device can do wrong |
//! | `wire` | the bytes of a request |
//! | `fake` | a disk in memory, for host tests (feature `fake`) |
#![no_std]

extern crate alloc;
#[cfg(feature = "fake")]
extern crate std;

pub mod buffer;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fault;
pub mod queue;
pub mod request;
mod wire;

pub use abi::extent::{BLOCK_BYTES, DISCARD_BLOCKS_MAX};
pub use buffer::{Buffer, BufferMut, Piece};
pub use exos_virtqueue::{Arming, Hal};
pub use fault::{Fault, OpenError};
pub use queue::{DiskQueue, DiskStatistics};
pub use request::{Completion, Failure, Reason, Refused};
