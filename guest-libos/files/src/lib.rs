//! The files of the machine's first disk: joins the volume (`exos-fs`), the cache (`exos-cache`), which knows no disk, and the event
//! loop's disk, which knows no files.
//!
//! - [`open`] mounts the disk and makes a store with what the heap has to spare.
//! - [`exchange`] carries the cache's reads to the disk, and what was read back: once each round of the loop.
//! - [`publish`] shows what the cache has counted.
//! - [`Shared`] is a store for async tasks, which wait for blocks as they wait for anything.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod exchange;
mod mount;
mod shared;
mod statistics;

pub use exchange::exchange;
use exos_cache::{Config, FRAME_BYTES, Store};
use exos_event_loop::disk::{Disk, DiskError};
pub use mount::MountError;
pub use shared::{Reader, Shared};
pub use statistics::publish;

/// Paths that are remembered, about: some 400 bytes each.
const NAMES: usize = 16_384;
/// With fewer pages than this a server of files is of no use.
const CACHE_MIN_BYTES: u64 = 8 << 20;

/// Why there are no files.
#[derive(Debug)]
pub enum OpenError {
    /// So much is missing for a cache.
    Memory {
        /// Bytes.
        missing_bytes: u64,
    },
    /// There is no disk.
    Disk(DiskError),
    /// It cannot be read.
    Mount(MountError),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Memory { missing_bytes } => write!(
                f,
                "the memory is too small; give the machine {} MiB more with --memory",
                missing_bytes.div_ceil(1 << 20)
            ),
            Self::Disk(error) => write!(f, "{error}"),
            Self::Mount(error) => write!(f, "{error}"),
        }
    }
}

/// Mounts the first disk. Its cache takes the heap but for `reserved_bytes`, and a share for what peers have sent and nobody has read.
pub fn open<W>(reserved_bytes: u64) -> Result<(Disk, Store<W>), OpenError> {
    let mut disk = Disk::first().map_err(OpenError::Disk)?;
    let volume = mount::mount(&mut disk).map_err(OpenError::Mount)?;
    let cache_bytes = cache_bytes(reserved_bytes)?;
    let entropy = exos_runtime::pages::environment().entropy;
    let mut seed = [0; 8];
    seed.copy_from_slice(&entropy[16..24]);
    // Frames of their own, so that they can be given back when memory is asked for; should the heap have been used already where
    // they would lie, the cache takes its memory like everybody else.
    let frames = exos_runtime::heap::reserve_frames(cache_bytes);
    let config = Config {
        max_frames: if frames > 0 { frames } else { (cache_bytes / FRAME_BYTES as u64) as usize },
        names: NAMES,
        seed: u64::from_le_bytes(seed),
        device_blocks: disk.capacity_blocks(),
    };
    Ok((disk, Store::new(volume, &config)))
}

/// What the file pages may take of the heap.
fn cache_bytes(reserved_bytes: u64) -> Result<u64, OpenError> {
    let heap_bytes = exos_runtime::pages::heap_bytes();
    match heap_bytes.checked_sub(reserved_bytes) {
        Some(cache_bytes) if cache_bytes >= CACHE_MIN_BYTES => Ok(cache_bytes),
        _ => Err(OpenError::Memory { missing_bytes: reserved_bytes + CACHE_MIN_BYTES - heap_bytes }),
    }
}
