//! Machines of one test that speak to each other over links, with faults if wanted, and the host's end of a link.
//!
//! ```no_run
//! use exovm::backend::link;
//! use exovm_test::link::Host;
//! use exovm_test::{Guest, Site, in_namespace};
//!
//! #[test]
//! fn page_survives_losses() {
//!     in_namespace!(|| {
//!         let [to_guest, to_host] = link::pair().unwrap(); // or link::switch(3), with a guest at each port
//!         let host = Host::plug(&to_host, 0); // 10.80.0.1, by this test's own sockets
//!         let site = Site::new().file("a.txt", "content");
//!         let guest = Guest::image("cheetah")
//!             .site(&site)
//!             .link(&to_guest, host.guest_address()) // 10.80.0.2
//!             .impair("loss=2%,delay=1ms,seed=7")
//!             .start();
//!         guest.get("/a.txt").assert_text("content");
//!         assert_eq!(guest.backend_counter("link_dropped_full"), 0);
//!         guest.stop();
//!     });
//! }
//! # fn main() {}
//! ```

use crate::network::Network;
use exovm::backend::link::{End, Port};
use exovm::backend::{Awaited, Backend, FRAME_BYTES_MAX, IoVec, IoVecMut, Offloads, Written};
use exovm::machine::NetSetup;
use exovm::placement::wait::{Interest, wait};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the host's end sleeps before it looks whether it shall end.
const SLEEP: Duration = Duration::from_millis(20);
/// Frames that go one way before the other way gets its turn.
const BATCH: usize = 64;
/// What a TAP copes with.
const OFFLOADS: Offloads = Offloads { checksum: true, tso4: true, tso6: true };

/// The interface of a guest with this address at an end.
pub(crate) fn setup(end: End, address: Ipv4Addr) -> NetSetup {
    let [a, b, c, d] = address.octets();
    let ipv4 = abi::boot::Ipv4Config { address: [a, b, c, d], prefix_len: 24, ..Default::default() };
    NetSetup::link(end, ipv4, [0x02, 0x78, a, b, c, d])
}

/// The host at a port of a link: a TAP of the test's namespace, and a thread that moves frames between the two.
#[derive(Debug)]
pub struct Host {
    network: Network,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// Plugs TAP number `number` of the test's namespace into a port.
    pub fn plug(port: &Port, number: u8) -> Self {
        let mut end = port.plug().unwrap_or_else(|error| panic!("{error}"));
        let (network, NetSetup { backend: mut tap, .. }) = Network::create(number);
        tap.set_offloads(OFFLOADS).unwrap_or_else(|error| panic!("{error}"));
        end.set_offloads(OFFLOADS).unwrap_or_else(|error| panic!("{error}"));
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut out, mut back) = (Way::default(), Way::default());
            while !over.load(Ordering::Relaxed) {
                let moved = out.run(&mut tap, &mut end) | back.run(&mut end, &mut tap);
                if !moved {
                    sleep(&tap, &mut end, out.is_held(), back.is_held());
                }
            }
        });
        Self { network, stop, thread: Some(thread) }
    }

    /// The TAP, and the addresses that go with its number.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// An address for a guest at another port.
    pub fn guest_address(&self) -> Ipv4Addr {
        self.network.guest_address()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sleeps until one of the two has something.
fn sleep(tap: &impl Backend, end: &mut End, end_is_full: bool, tap_is_full: bool) {
    if !end.arm(Awaited { frames: !tap_is_full, room: end_is_full }) {
        let interest = if tap_is_full { Interest::ReadableOrWritable } else { Interest::Readable };
        let mut events: Vec<_> = end.event_fd().map(|fd| (fd, Interest::Readable)).into_iter().collect();
        if !end_is_full || tap_is_full {
            events.extend(tap.event_fd().map(|fd| (fd, interest)));
        }
        let due = end.due().map_or(SLEEP, |due| due.saturating_duration_since(Instant::now()));
        wait(&events, Some(due.min(SLEEP)));
    }
    end.disarm();
}

/// Frames one way.
#[derive(Debug, Default)]
struct Way {
    frame: Vec<u8>,
    /// A frame that found no room.
    held: Option<usize>,
}

impl Way {
    fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Moves what there is; whether that was anything.
    fn run(&mut self, from: &mut impl Backend, to: &mut impl Backend) -> bool {
        self.frame.resize(FRAME_BYTES_MAX, 0);
        let mut moved = false;
        for _ in 0..BATCH {
            let len = match self.held.take() {
                Some(len) => Some(len),
                None => from
                    .read_frame(&[IoVecMut::of(&mut self.frame)])
                    .unwrap_or_else(|error| panic!("the host's end of a link: {error}")),
            };
            let Some(len) = len else { break };
            // A TAP leaves num_buffers of the header as it was.
            self.frame[10..12].fill(0);
            match to.write_frame(&[IoVec::of(&self.frame[..len])]) {
                Written::Sent | Written::Dropped => moved = true,
                Written::Busy => {
                    self.held = Some(len);
                    return true;
                }
                Written::WouldBlock => {
                    self.held = Some(len);
                    break;
                }
            }
        }
        moved
    }
}
