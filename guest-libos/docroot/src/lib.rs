//! A document root packed into one piece of memory.
//!
//! The VMM packs a directory of the host into guest memory before the guest starts (`pack`, feature `std`); the
//! server in the guest reads it there ([`Archive`], `no_std`, no allocation, no `unsafe`). [`format`] describes the
//! bytes that the two agree on.
//!
//! The reader checks every byte of the index once, in [`Archive::parse`]. What it hands out after that cannot reach
//! outside the archive, whatever the bytes were.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod format;
#[cfg(feature = "std")]
pub mod pack;
mod read;

pub use read::{Archive, ArchiveError, DirectoryRef, FileRef, Lookup};
