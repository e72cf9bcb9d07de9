//! `exovm run plain --docroot DIR`: the HTTP server that anybody would write on sockets (`exos-plain`), on the sockets of this library
//! OS and the files of the machine's first disk. What Cheetah is compared with: bytes of files are copied into sockets, and who
//! writes knows nothing of segments.
#![no_std]
#![no_main]

extern crate alloc;

mod docroot;
mod program;

use alloc::rc::Rc;
use core::fmt;
use core::net::{Ipv6Addr, SocketAddr};
use docroot::Docroot;
use exos_event_loop::StartError;
use exos_event_loop::sockets::{Limits, run};
use exos_files::{OpenError, Shared};
use exos_net::{Coalesce, Duration};
use exos_plain::Counters;
use exos_sockets::{Error, SocketOption};
use program::Plain;

exos_runtime::entry!(main);

const PORT: u16 = 80;
/// Open connections at a time; more are refused by not answering, so that clients try again.
const CONNECTIONS: u32 = 512;
/// What a connection may have on its way to a client that takes nothing.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// The heap that is not for file pages: at worst 128 MiB for what is on its way to clients (a piece that is acknowledged in part is
/// kept whole, beside the next, and each may have grown to twice its length), 64 for what they have sent and nobody has read, 8 for
/// names, and 16 for tasks and queues.
const RESERVED_BYTES: u64 = 216 << 20;
/// As Cheetah's.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

fn main() -> u32 {
    match serve() {
        Ok(()) => 0,
        Err(error) => {
            log::error!("{error}");
            1
        }
    }
}

fn serve() -> Result<(), Failure> {
    let (disk, store) = exos_files::open(RESERVED_BYTES).map_err(Failure::Open)?;
    let volume = store.volume();
    log::info!("plain: files {}, directories {}", volume.file_count(), volume.directory_count());
    let store = Shared::new(store);
    let counters = Rc::new(Counters::default());
    let mut program = Plain::new(store.clone(), counters.clone(), PORT);
    let limits = Limits { max_connections: CONNECTIONS, idle_timeout: Some(IDLE_TIMEOUT) };
    let served = run(&mut program, Some(disk), &limits, |sockets, _| async move {
        sockets.set_defaults(&[
            SocketOption::Coalesce(Coalesce::NoDelay),
            SocketOption::SendBuffer(SEND_BUFFER_BYTES),
        ]);
        // All addresses, of both families.
        let local = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        exos_plain::serve(&sockets, local, &Docroot(store), &counters, CONNECTIONS as usize).await
    });
    match served.map_err(Failure::Start)? {
        None => Ok(()),
        Some(Ok(never)) => match never {},
        Some(Err(error)) => Err(Failure::Accept(error)),
    }
}

/// Why nothing is served.
enum Failure {
    Open(OpenError),
    Start(StartError),
    Accept(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "{error}"),
            Self::Start(error) => write!(f, "{error}"),
            Self::Accept(error) => write!(f, "cannot accept connections to port {PORT}: {error}"),
        }
    }
}
