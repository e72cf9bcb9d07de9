//! A cache of files on an exos-fs volume, for a server that sends pages from where they lie.
//!
//! Sans I/O: "these blocks are wanted" goes out ([`Cache::next_read`]), "this read has completed" comes in
//! ([`Cache::complete`]); in between, whoever asked waits with a [`Ticket`]. No hardware, no clock, no kernel, no
//! `unsafe`; `no_std` with `alloc`. The same code runs in the guest and in host tests.
//!
//! Rooms, from below: `policy` (what to throw out: S3-FIFO), [`frame`] (memory that is lent out by reference count),
//! [`cache`] (frames by their place on disk, who waits for them; [`cache::reads`] on their way; growing and shrinking), [`store`] (paths and files: the
//! volume's reader over the cache, and checks), `names` (path to file, so that a warm request is one look-up), [`stream`]
//! (a file from its first byte to its last, with read-ahead), [`counters`].
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cache;
pub mod counters;
pub mod frame;
mod names;
mod policy;
pub mod store;
pub mod stream;

pub use cache::reads::{MAX_READ_FRAMES, Read, ReadError, ReadId};
pub use cache::{Cache, Ticket};
pub use counters::Counters;
pub use frame::{FRAME_BLOCKS, FRAME_BYTES, Slice};
pub use policy::{Fate, Policy};
pub use store::{Asked, Broken, CachedFile, Config, Entry, Store};
pub use stream::{Next, Stream};
