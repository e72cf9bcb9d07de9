//! Cheetah, the static HTTP server: the files of the machine's first disk, over HTTP/1.1 on port 80.
//!
//! Files are sent from the pages of the cache into which the disk wrote them: what goes to the stack, and from there to
//! the NIC, are references. HTTP is [`exos_http`], which knows no TCP; the cache is [`exos_cache`], which knows no disk;
//! this image joins them with the event loop.
#![no_std]

extern crate alloc;

mod connection;
mod counters;
mod files;
mod mount;
mod page;
mod service;

use exos_cache::{Config, FRAME_BYTES, Store};
use exos_event_loop::disk::Disk;
use exos_http::Site;
use exos_net::MacAddress;
use files::DiskFiles;
use service::Cheetah;

/// Where the first environment's HTTP is; the second's is at the next port, and so on.
const FIRST_PORT: u16 = 80;
/// Open connections at a time; more are refused by not answering, so that clients try again.
const CONNECTIONS: u32 = 8192;
/// Paths that are remembered, about: some 400 bytes each.
const NAMES: usize = 16_384;
/// The heap that is not for file pages: at worst 8 MiB for connections, 16 for what they have sent and nobody has read,
/// 8 for names, 4 for headers, and 4 for the queues.
const RESERVED_BYTES: u64 = 40 << 20;
/// With fewer pages than this a server of files is of no use.
const CACHE_MIN_BYTES: u64 = 8 << 20;

fn port() -> u16 {
    FIRST_PORT + exos_runtime::pages::environment().environment as u16
}

/// The server, from its start to its end; answers the exit status.
pub fn main() -> u32 {
    status(serve(port(), &mut || None))
}

/// The same at a port of one's own, where somebody else hears ARP and `gateway` says where the gateway is, if that is news.
pub fn main_behind(port: u16, gateway: &mut dyn FnMut() -> Option<MacAddress>) -> u32 {
    status(serve(port, gateway))
}

fn status(result: Result<(), Failure>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

/// Mounts the disk and serves it until the user wants the machine to end.
fn serve(port: u16, gateway: &mut dyn FnMut() -> Option<MacAddress>) -> Result<(), Failure> {
    let mut disk = Disk::first().map_err(Failure::Disk)?;
    let volume = mount::mount(&mut disk).map_err(Failure::Mount)?;
    log::info!("cheetah: files {}, directories {}", volume.file_count(), volume.directory_count());
    let cache_bytes = cache_bytes()?;
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
    let files = DiskFiles::new(Store::new(volume, &config));
    let mut service = Cheetah::new(Site::new(files), CONNECTIONS);
    exos_event_loop::serve_behind(&mut service, disk, port, CONNECTIONS, gateway).map_err(Failure::Start)
}

/// What the file pages may take of the heap.
fn cache_bytes() -> Result<u64, Failure> {
    let heap_bytes = exos_runtime::pages::heap_bytes();
    // What peers have sent and nobody has read may take a share of a large heap.
    let reserved_bytes = RESERVED_BYTES.max(RESERVED_BYTES - (16 << 20) + heap_bytes / 16);
    match heap_bytes.checked_sub(reserved_bytes) {
        Some(cache_bytes) if cache_bytes >= CACHE_MIN_BYTES => Ok(cache_bytes),
        _ => Err(Failure::Memory { missing_bytes: RESERVED_BYTES + CACHE_MIN_BYTES - heap_bytes }),
    }
}

/// Why nothing is served.
enum Failure {
    Memory { missing_bytes: u64 },
    Disk(exos_event_loop::disk::DiskError),
    Mount(mount::MountError),
    Start(exos_event_loop::StartError),
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Memory { missing_bytes } => write!(
                f,
                "the memory is too small; give the machine {} MiB more with --memory",
                missing_bytes.div_ceil(1 << 20)
            ),
            Self::Disk(error) => write!(f, "{error}"),
            Self::Mount(error) => write!(f, "{error}"),
            Self::Start(error) => write!(f, "{error}"),
        }
    }
}
