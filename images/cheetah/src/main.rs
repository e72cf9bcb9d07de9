//! Cheetah, the static HTTP server: the packed document root that came with the image, over HTTP/1.1 on port 80.
//!
//! Files are sent from the pages in which they lie: what goes to the stack, and from there to the NIC, are references.
//! HTTP itself is [`exos_http`], which knows no TCP; this image joins the two.
#![no_std]
#![no_main]

extern crate alloc;

mod files;
mod page;
mod service;

use exos_docroot::Archive;
use exos_http::Site;
use service::Cheetah;

exos_runtime::entry!(main);

/// Where HTTP is.
const PORT: u16 = 80;
/// Open connections at a time; more are refused by not answering, so that clients try again.
const CONNECTIONS: u32 = 8192;

fn main() -> u32 {
    let archive = match Archive::parse(exos_runtime::pages::archive()) {
        Ok(archive) => archive,
        Err(error) => {
            log::error!("no document root: {error}");
            return 1;
        }
    };
    log::info!("cheetah: {} files", archive.file_count());
    let mut service = Cheetah::new(Site::new(files::Docroot(archive)), CONNECTIONS);
    match exos_event_loop::serve(&mut service, PORT, CONNECTIONS) {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}
