//! The file system of exos, version 1: checksummed, with real directories and embedded inodes.
//!
//! [`format`] describes every byte of a volume. [`Volume`] reads one: `no_std`, no allocation, no `unsafe`, and **sans
//! I/O**. It is a set of pure functions over the blocks that are in memory ([`Blocks`]); where one is missing, the
//! answer is [`Step::Need`], which says what to fetch and how to check it when it arrives. The caller fetches, checks,
//! keeps, and asks again:
//!
//! ```
//! use exos_fs::{Block, Blocks, FsError, Node, Step, Volume};
//!
//! fn find(
//!     volume: &Volume,
//!     cache: &mut std::collections::HashMap<u64, Box<Block>>,
//!     read_block: impl Fn(u64) -> Box<Block>,
//!     path: &[u8],
//! ) -> Result<Option<Node>, FsError> {
//!     loop {
//!         match volume.lookup(cache, path)? {
//!             Step::Done(node) => return Ok(node),
//!             Step::Need(need) => {
//!                 for number in need.metadata_blocks() {
//!                     let block = read_block(number);
//!                     volume.check(need.kind, number, &block)?;
//!                     cache.insert(number, block);
//!                 }
//!             }
//!         }
//!     }
//! }
//! ```
//!
//! Blocks given through [`Blocks`] were checked when they arrived, so reading does not sum them again; but a volume may
//! have been made by anybody, so nothing read leads outside the volume, runs in a circle, or panics, whatever the
//! bytes are.
//!
//! With the feature `std` come the host's tools.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod error;
pub mod format;
#[cfg(feature = "std")]
pub mod fsck;
#[cfg(feature = "std")]
pub mod image;
#[cfg(feature = "std")]
pub mod make;
pub mod mime;
mod node;
mod step;
#[cfg(feature = "std")]
pub mod tree;
mod volume;

pub use error::FsError;
pub use format::{BLOCK_BYTES, Block, Kind};
pub use node::{Extent, FileId, FileKind, Node};
pub use step::{Blocks, Need, Step};
pub use volume::{DataRun, DirectoryEntries, DirectoryEntry, Volume, check_data};
