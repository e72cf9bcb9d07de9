//! Records of guest and VMM, listened to while a machine runs: one request is followed from the backend through device, driver,
//! TCP and HTTP and back, by numbers that both sides count alike.

use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, subject};
use exovm::placement::IoMode;
use exovm::trace::record::{Happening, Record};
use exovm::trace::stream::{Header, Piece, Source};
use exovm::trace::{Listener, Records};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use std::collections::BTreeMap;
use std::time::Duration;

/// What was recorded, by source, and how many records are missing.
struct Recorded {
    header: Header,
    records: BTreeMap<u16, Vec<Record>>,
    lost: u64,
}

impl Recorded {
    fn of(guest: &Guest, records: Records, body: impl FnOnce()) -> Self {
        let (header, listener) = guest.machine().record(records);
        let done = std::sync::atomic::AtomicBool::new(false);
        let pieces = std::thread::scope(|scope| {
            let listening = scope.spawn(|| listen(listener, &done));
            body();
            // The client may have the last answer before who sent it has written that down.
            std::thread::sleep(Duration::from_millis(20));
            done.store(true, std::sync::atomic::Ordering::Release);
            listening.join().expect("no panic")
        });
        let mut recorded = Self { header, records: BTreeMap::new(), lost: 0 };
        for piece in pieces {
            if let Piece::Records { source, lost, records } = piece {
                recorded.records.entry(source).or_default().extend(records);
                recorded.lost += lost;
            }
        }
        recorded
    }

    fn of_environment(&self, number: u32) -> &[Record] {
        let is_it = |source: &Source| *source == Source::Environment { number };
        let source = self.header.sources.iter().position(is_it).expect("a source") as u16;
        self.records.get(&source).map_or(&[], Vec::as_slice)
    }

    fn of_threads(&self) -> impl Iterator<Item = &Record> {
        let is_thread =
            |source: u16| matches!(self.header.sources[usize::from(source)], Source::Thread { .. });
        self.records.iter().filter(move |(source, _)| is_thread(**source)).flat_map(|(_, records)| records)
    }

    /// Of records of a kind and with the name of a site in the first environment.
    fn guests(&self, kind: u16, name: &str) -> Vec<Record> {
        let is_named =
            |site: u32| self.header.sites.get(site as usize - 1).is_some_and(|site| site.name == name);
        let is_it =
            |record: &&Record| matches!(record.parts(), (site @ 1.., of, 0) if of == kind && is_named(site));
        self.of_environment(0).iter().filter(is_it).copied().collect()
    }

    /// What happened to frames or requests.
    fn happened(&self, what: Happening) -> BTreeMap<u64, Record> {
        let records = self.of_threads().filter(|record| record.parts() == (what as u32, RECORD_EVENT, 0));
        records.map(|record| (record.subject, *record)).collect()
    }

    /// The requests: for each its packet, the moments of its way through VMM and guest, and the last.
    fn requests(&self) -> Vec<(u64, Vec<u64>)> {
        let received = self.happened(Happening::Received);
        let sent = self.happened(Happening::Sent);
        let inputs = self.guests(RECORD_ENTER, "tcp input");
        let queued = self.guests(RECORD_EVENT, "frame queued");
        let mut requests = Vec::new();
        for request in self.guests(RECORD_COUNTER, "requests") {
            let packet = request.subject;
            let input = inputs.iter().find(|record| record.subject == packet).expect("its span");
            let answer = queued.iter().find(|record| record.argument == packet).expect("an answer");
            let (received, sent) = (received[&packet], sent[&answer.subject]);
            let moments = [
                received.argument,
                received.tsc,
                input.tsc,
                request.tsc,
                answer.tsc,
                sent.argument,
                sent.tsc,
            ];
            requests.push((packet, moments.to_vec()));
        }
        requests
    }
}

fn listen(listener: Listener, done: &std::sync::atomic::AtomicBool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while !done.load(std::sync::atomic::Ordering::Acquire) {
        pieces.extend(listener.next(Duration::from_millis(2)));
    }
    pieces.extend(listener.last());
    pieces
}

fn serve(guest: &Guest, path: &str, requests: u64) {
    let mut client = guest.connect();
    for _ in 0..requests {
        assert_eq!(client.get(path).unwrap().status(), 200);
    }
}

#[test]
fn request_is_followed_from_the_backend_through_the_guest_and_back_wherever_devices_are_worked() {
    in_namespace!(|| {
        for io in [IoMode::Turn, IoMode::Thread, IoMode::Poll, IoMode::Auto] {
            let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "a")).io(io).start();
            serve(&guest, "/a.txt", 5);
            let recorded = Recorded::of(&guest, Records::All, || serve(&guest, "/a.txt", 200));
            assert_eq!(recorded.lost, 0, "{io:?}");
            let requests = recorded.requests();
            assert_eq!(requests.len(), 200, "{io:?}");
            for (packet, moments) in requests {
                assert!(moments.is_sorted(), "{io:?}: {:?}: {moments:?}", subject::parts(packet));
            }
            // Nobody listens any more: nothing is written.
            let written = || guest.machine().pages().trace.written.load(std::sync::atomic::Ordering::Relaxed);
            let before = written();
            serve(&guest, "/a.txt", 20);
            assert_eq!(written(), before);
            guest.stop();
        }
    });
}

#[test]
fn sample_holds_whole_requests_of_one_frame_in_so_many() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "a")).io(IoMode::Turn).start();
        let recorded = Recorded::of(&guest, Records::OneIn(8), || serve(&guest, "/a.txt", 2000));
        assert_eq!((recorded.header.one_in, recorded.lost), (8, 0));
        let requests = recorded.requests();
        // A client that waits for each answer sends no other frames.
        assert!((150..400).contains(&requests.len()), "{}", requests.len());
        for (packet, moments) in &requests {
            assert!(subject::is_sampled(*packet, 8));
            assert!(moments.is_sorted(), "{moments:?}");
        }
        let all = recorded.of_environment(0);
        assert!(all.iter().all(|record| record.subject != 0), "what is not followed is not recorded");
        guest.stop();
    });
}

#[test]
fn request_that_waited_for_the_disk_is_one_request() {
    in_namespace!(|| {
        let body = "x".repeat(300_000);
        let guest =
            Guest::image("cheetah").site(&Site::new().file("big.bin", &body)).io(IoMode::Turn).start();
        let recorded = Recorded::of(&guest, Records::All, || serve(&guest, "/big.bin", 1));
        assert_eq!(recorded.lost, 0);
        let request = recorded.guests(RECORD_COUNTER, "requests");
        let [request] = request[..] else { panic!("{request:?}") };
        // The first bytes come from the disk: the service is entered a second time for the same packet, and sends then.
        let services = recorded.guests(RECORD_ENTER, "service");
        let own = services.iter().filter(|record| record.subject == request.subject).count();
        assert!(own >= 2, "{own} of {services:?}");
        let queued = recorded.guests(RECORD_EVENT, "frame queued");
        assert!(queued.iter().any(|record| record.argument == request.subject), "no answer of its");
        let asked = recorded.guests(RECORD_EVENT, "disk request queued");
        let done = recorded.happened(Happening::DiskDone);
        assert!(!asked.is_empty());
        for asked in asked {
            let done = done[&asked.subject];
            assert!(asked.tsc <= done.argument && done.argument <= done.tsc, "{asked:?} {done:?}");
        }
        guest.stop();
    });
}

#[test]
fn two_listeners_hear_the_same() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "a")).io(IoMode::Turn).start();
        let (_, other) = guest.machine().record(Records::OneIn(64));
        let recorded = Recorded::of(&guest, Records::All, || serve(&guest, "/a.txt", 50));
        assert_eq!(recorded.requests().len(), 50);
        let heard: usize = other
            .last()
            .iter()
            .map(|piece| if let Piece::Records { records, .. } = piece { records.len() } else { 0 })
            .sum();
        let own: usize = recorded.records.values().map(Vec::len).sum();
        assert!(heard >= own && own > 0, "{heard}, {own}");
        guest.stop();
    });
}

#[test]
fn garbage_in_the_rings_is_heard_and_harms_nobody() {
    in_namespace!(|| {
        let guest = Guest::image("probe").no_network().arguments(&["scribble", "3000000000"]).launch();
        let (_, listener) = guest.machine().record(Records::All);
        // Garbage in its rings, and numbers that jump: whatever is heard, nobody falls over it.
        for _ in 0..50 {
            let _ = listener.next(Duration::from_millis(2));
        }
        let _ = listener.last();
        guest.stop();
    });
}
