//! Requests put together from a running machine's records: a delay that is put into one layer shows in that layer and nowhere else,
//! end to end is what the client measured, and under load each request has its own packets and frames.

use exovm::backend::disk::{Access, Store, Zeroing};
use exovm::backend::iovec::{IoVec, IoVecMut, gather};
use exovm::backend::{Backend, BackendError, Offloads, Written};
use exovm::placement::IoMode;
use exovm::trace::Records;
use exovm::trace::requests::report::Figures;
use exovm::trace::requests::request::Request;
use exovm::trace::requests::{Keep, Report, Requests};
use exovm_ci::http::Content;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod capture;

/// What is put into a layer.
const DELAY: Duration = Duration::from_millis(5);
/// What all other layers may take together, at the median: a turn, system calls, and a machine that has other things to do.
const REST_US: f64 = 2500.0;

/// A switch for a delay.
type On = Arc<AtomicBool>;

fn delay(on: &On) {
    if on.load(Ordering::Relaxed) {
        std::thread::sleep(DELAY);
    }
}

/// Follows the requests that are made while `body` runs, and for a moment longer.
fn follow(
    guest: &Guest,
    records: Records,
    each: impl FnMut(&Request) + Send + 'static,
    body: impl FnOnce(),
) -> Report {
    let (header, listener) = guest.machine().record(records);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let following = scope.spawn(move || {
            let mut requests = Requests::new(&header, Keep { slowest: 3, typical: true });
            requests.tell(each);
            while !done.load(Ordering::Acquire) {
                listener.next(Duration::from_millis(2)).iter().for_each(|piece| requests.feed(piece));
            }
            listener.last().iter().for_each(|piece| requests.feed(piece));
            requests.finish()
        });
        body();
        // A client acknowledges its last answer 40 ms late (RFC 1122 4.2.3.2, as Linux has it).
        std::thread::sleep(Duration::from_millis(100));
        guest.come_to_rest();
        done.store(true, Ordering::Release);
        following.join().expect("no panic")
    })
}

/// The same of so many requests, of each of which everything is known.
fn figures_of(guest: &Guest, requests: u64, context: &str, client: impl FnOnce()) -> Figures {
    let figures = follow(guest, Records::All, |_| {}, client).figures();
    assert_eq!((figures.complete, figures.incomplete.sum()), (requests, 0), "{context}: {figures:#?}");
    figures
}

/// The delay is in this layer of nearly all requests, and nowhere else.
fn assert_only_in(figures: &Figures, name: &str, context: &str) {
    let delay_us = DELAY.as_secs_f64() * 1e6;
    let layer = figures.layers.iter().find(|layer| layer.name == name);
    let layer = layer.unwrap_or_else(|| panic!("{context}: no {name} in {figures:#?}"));
    assert!(layer.spread.us.p50 >= delay_us, "{context}: {layer:#?}");
    assert!(layer.spread.us.p50 < 3.0 * delay_us, "{context}: {layer:#?}");
    assert!(figures.end_to_end.us.p50 - layer.spread.us.p50 < REST_US, "{context}: {figures:#?}");
    for other in figures.layers.iter().filter(|layer| layer.name != name) {
        assert!(other.spread.us.p50 < REST_US, "{context}: {other:#?}");
    }
}

/// A disk that is slow while it is switched on.
struct SlowDisk {
    store: Arc<dyn Store>,
    on: On,
}

impl Store for SlowDisk {
    fn len_bytes(&self) -> u64 {
        self.store.len_bytes()
    }

    fn access(&self) -> Access {
        self.store.access()
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> std::io::Result<Option<usize>> {
        if self.on.load(Ordering::Relaxed) { Ok(None) } else { self.store.read_at_once(offset, pieces) }
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> std::io::Result<usize> {
        delay(&self.on);
        self.store.read(offset, pieces)
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> std::io::Result<usize> {
        self.store.write(offset, pieces)
    }

    fn flush(&self) -> std::io::Result<()> {
        self.store.flush()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> std::io::Result<()> {
        self.store.discard(offset, len_bytes)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, zeroing: Zeroing) -> std::io::Result<()> {
        self.store.write_zeroes(offset, len_bytes, zeroing)
    }
}

/// Which system call of a backend is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    Read,
    Write,
}

/// A backend whose system calls that move payload are slow while it is switched on.
struct SlowBackend {
    backend: Box<dyn Backend>,
    which: Slow,
    on: On,
}

/// Headers of a frame without payload, and no more than that: virtio, Ethernet, IPv4, TCP with the options of a SYN.
const BARE_BYTES: usize = 12 + 14 + 20 + 40;

impl Backend for SlowBackend {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let bytes = gather(frame, 0, &mut [0; BARE_BYTES + 1]);
        if self.which == Slow::Write && bytes > BARE_BYTES {
            delay(&self.on);
        }
        self.backend.write_frame(frame)
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let read = self.backend.read_frame(buffers)?;
        if self.which == Slow::Read && read.is_some_and(|bytes| bytes > BARE_BYTES) {
            delay(&self.on);
        }
        Ok(read)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.backend.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.backend.event_fd()
    }
}

#[test]
fn delay_of_the_disk_is_in_the_disks_layer_only() {
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread] {
            let mut site = Site::new();
            for n in 0..30 {
                site = site.pattern_file(&format!("{n}"), n, 40_000);
            }
            let on = On::default();
            let own = Arc::clone(&on);
            let guest = Guest::image("cheetah")
                .site(&site)
                .io(io)
                .wrap_disk(move |store| Arc::new(SlowDisk { store, on: own }))
                .start();
            // Directories are at hand, the files are not.
            guest.get("/0");
            on.store(true, Ordering::Relaxed);
            let figures = figures_of(&guest, 29, &format!("{io:?}"), || {
                let mut client = guest.connect();
                (1..30).for_each(|n| assert_eq!(client.get(&format!("/{n}")).unwrap().status(), 200));
            });
            assert_only_in(&figures, "disk", &format!("{io:?}"));
            on.store(false, Ordering::Relaxed);
            guest.stop();
        }
    });
}

#[test]
fn delay_of_the_backend_is_in_its_layer_only_and_end_to_end_is_what_the_client_measures() {
    in_namespace!(|| {
        for (which, name) in [(Slow::Read, "backend read"), (Slow::Write, "backend write")] {
            let on = On::default();
            let own = Arc::clone(&on);
            let guest = Guest::image("cheetah")
                .site(&Site::new().pattern_file("a", 1, 1000))
                .wrap_backend(move |backend| Box::new(SlowBackend { backend, which, on: own }))
                .start();
            guest.get("/a");
            on.store(true, Ordering::Relaxed);
            let mut measured_us = Vec::new();
            let figures = figures_of(&guest, 40, &format!("{which:?}"), || {
                let mut client = guest.connect();
                for _ in 0..40 {
                    let begin = Instant::now();
                    assert_eq!(client.get("/a").unwrap().status(), 200);
                    measured_us.push(begin.elapsed().as_secs_f64() * 1e6);
                }
            });
            assert_only_in(&figures, name, &format!("{which:?}"));
            // The client's own side: its system calls, its TCP, and that the VMM's thread has to wake up.
            measured_us.sort_by(f64::total_cmp);
            let client_us = measured_us[measured_us.len() / 2];
            let here_us = figures.end_to_end.us.p50;
            assert!((here_us..here_us + 1000.0).contains(&client_us), "{which:?}: {client_us} {here_us}");
            on.store(false, Ordering::Relaxed);
            guest.stop();
        }
    });
}

#[test]
fn pause_within_a_request_is_the_clients_and_nobody_elses() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().pattern_file("a", 1, 1000));
        guest.get("/a");
        let figures = figures_of(&guest, 30, "two packets", || {
            let mut client = guest.connect();
            client.socket().set_nodelay(true).unwrap();
            for _ in 0..30 {
                client.send(b"GET /a HTTP/1.1\r\nHo").unwrap();
                std::thread::sleep(DELAY);
                client.send(b"st: a\r\n\r\n").unwrap();
                assert_eq!(client.response(Content::Follows).unwrap().status(), 200);
            }
        });
        assert_eq!(figures.in_several_packets, 30);
        assert_only_in(&figures, "wait for the request's rest", "two packets");
        assert!(figures.without_client.us.p50 < REST_US, "{figures:#?}");
        guest.stop();
    });
}

#[test]
fn pipelined_requests_in_one_packet_are_said_to_be() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().pattern_file("a", 1, 100));
        guest.get("/a");
        let figures = figures_of(&guest, 10, "pipelined", || {
            let mut client = guest.connect();
            for _ in 0..10 {
                client.send(&b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n".repeat(4)).unwrap();
                (0..4).for_each(|_| assert_eq!(client.response(Content::Follows).unwrap().status(), 200));
            }
        });
        assert_eq!((figures.counted, figures.several_in_packet), (40, 10), "{figures:#?}");
        guest.stop();
    });
}

#[test]
fn sample_has_whole_requests_that_go_on_with_acknowledgments() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().pattern_file("big", 1, 600_000));
        guest.get("/big");
        let report = follow(
            &guest,
            Records::OneIn(4),
            |_| {},
            || {
                let mut client = guest.connect();
                (0..200).for_each(|_| assert_eq!(client.get("/big").unwrap().body.len(), 600_000));
            },
        );
        let figures = report.figures();
        assert_eq!(figures.incomplete.sum(), 0, "{figures:#?}");
        assert!((20..100).contains(&figures.complete), "{figures:#?}");
        assert_eq!(figures.in_several_frames, figures.complete, "{figures:#?}");
        guest.stop();
    });
}

/// Requests as the recording has them: numbers of their packets and frames.
type Seen = Arc<Mutex<Vec<(Vec<u64>, Vec<u64>)>>>;

#[test]
fn under_load_each_request_has_its_own_packets_and_frames() {
    const CONNECTIONS: u64 = 64;
    const REQUESTS: u64 = 20;
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("all.pcapng");
        let mut site = Site::new();
        for n in 0..CONNECTIONS {
            site = site.pattern_file(&format!("{n}"), n, 500 + n * 1000);
        }
        let guest = Guest::image("cheetah").site(&site).pcap(&file).start();
        let seen = Seen::default();
        let told = Arc::clone(&seen);
        let each = move |request: &Request| {
            told.lock().unwrap().push((request.packets.clone(), request.frames.clone()));
        };
        let report = follow(&guest, Records::All, each, || {
            std::thread::scope(|scope| {
                for n in 0..CONNECTIONS {
                    let guest = &guest;
                    scope.spawn(move || {
                        let mut client = guest.connect();
                        for _ in 0..REQUESTS {
                            let response = client.get(&format!("/{n}")).unwrap();
                            assert_eq!(response.body.len() as u64, 500 + n * 1000);
                        }
                    });
                }
            });
        });
        guest.stop();
        let figures = report.figures();
        assert_eq!((figures.lost_records, figures.strange_records), (0, 0));
        assert_eq!((figures.complete, figures.incomplete.sum()), (CONNECTIONS * REQUESTS, 0), "{figures:#?}");
        let capture = capture::read(&file);
        let mut bytes = 0;
        for (packets, frames) in seen.lock().unwrap().iter() {
            let packet = capture.received(packets[0]);
            assert!(packet.payload_bytes > 0, "{packets:?}");
            for frame in frames {
                let frame = capture.sent(*frame);
                assert_eq!((frame.source_port, frame.destination_port), (80, packet.source_port));
                bytes += frame.payload_bytes;
            }
        }
        // And nothing of the answers is missing.
        let bodies: u64 = (0..CONNECTIONS).map(|n| (500 + n * 1000) * REQUESTS).sum();
        assert!(
            bytes as u64 > bodies && (bytes as u64) < bodies + 1000 * CONNECTIONS * REQUESTS,
            "{bytes} {bodies}"
        );
    });
}
