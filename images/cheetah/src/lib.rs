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
mod page;
mod service;

use exos_files::OpenError;
use exos_http::Site;
use exos_net::MacAddress;
use files::DiskFiles;
use service::Cheetah;

/// Where the first environment's HTTP is; the second's is at the next port, and so on.
const FIRST_PORT: u16 = 80;
/// Open connections at a time; more are refused by not answering, so that clients try again.
const CONNECTIONS: u32 = 8192;
/// The heap that is not for file pages: at worst 8 MiB for connections, 16 for what they have sent and nobody has read,
/// 8 for names, 4 for headers, and 4 for the queues.
const RESERVED_BYTES: u64 = 40 << 20;

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
    let (disk, store) = exos_files::open(reserved_bytes()).map_err(Failure::Open)?;
    let volume = store.volume();
    log::info!("cheetah: files {}, directories {}", volume.file_count(), volume.directory_count());
    let mut service = Cheetah::new(Site::new(DiskFiles::new(store)), CONNECTIONS);
    exos_event_loop::serve_behind(&mut service, disk, port, CONNECTIONS, gateway).map_err(Failure::Start)
}

/// What peers have sent and nobody has read may take a share of a large heap.
fn reserved_bytes() -> u64 {
    RESERVED_BYTES.max(RESERVED_BYTES - (16 << 20) + exos_runtime::pages::heap_bytes() / 16)
}

/// Why nothing is served.
enum Failure {
    Open(OpenError),
    Start(exos_event_loop::StartError),
}

impl core::fmt::Display for Failure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Open(error) => write!(f, "{error}"),
            Self::Start(error) => write!(f, "{error}"),
        }
    }
}
