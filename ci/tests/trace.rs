//! Records of guest and VMM, listened to while a machine runs: one request is followed from the backend through device, driver,
//! TCP and HTTP and back, by numbers that both sides count alike.

use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, subject};
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm::trace::perfetto::{Exported, Exporter, Only};
use exovm::trace::record::{Happening, Record};
use exovm::trace::requests::{Keep, Requests};
use exovm::trace::stream::{Header, Piece, Source};
use exovm::trace::{Listener, Records};
use exovm_ci::pair::two_cheetahs;
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What was recorded, by source, and how many records are missing.
struct Recorded {
    header: Header,
    records: BTreeMap<u16, Vec<Record>>,
    lost: u64,
}

impl Recorded {
    fn of(guest: &Guest, records: Records, body: impl FnOnce()) -> Self {
        let (header, listener) = guest.machine().record(records);
        let done = AtomicBool::new(false);
        let pieces = std::thread::scope(|scope| {
            let listening = scope.spawn(|| listen(listener, &done));
            body();
            // The client may have the last answer before who sent it has written that down.
            guest.come_to_rest();
            done.store(true, Ordering::Release);
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

fn listen(listener: Listener, done: &AtomicBool) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while !done.load(Ordering::Acquire) {
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
            let written = || guest.machine().pages().trace.written.load(Ordering::Relaxed);
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
        // Of the frames that were sent, those of these requests.
        let queued: BTreeSet<u64> =
            recorded.guests(RECORD_EVENT, "frame queued").iter().map(|record| record.subject).collect();
        let sent: BTreeSet<u64> = recorded.happened(Happening::Sent).keys().copied().collect();
        assert_eq!(sent, queued);
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

/// What a trace of these would have: records, and those that made no sense.
fn exported(header: &Header, pieces: &[Piece]) -> Exported {
    let mut exporter = Exporter::new(std::io::sink(), header, Only::default()).expect("room");
    pieces.iter().for_each(|piece| exporter.push(piece).expect("room"));
    exporter.finish().0.expect("room")
}

#[test]
fn garbage_of_a_guest_is_counted_and_left_out() {
    in_namespace!(|| {
        let guest = Guest::image("probe").no_network().arguments(&["scribble", "30000000000"]).launch();
        let (header, listener) = guest.machine().record(Records::All);
        let begun = Instant::now();
        let mut sum = Exported::default();
        // Garbage in its rings, and numbers that jump, again and again.
        while sum.garbage < 1000 || sum.lost == 0 {
            let Exported { records, lost, garbage, .. } =
                exported(&header, &listener.next(Duration::from_millis(2)));
            sum.records += records;
            sum.lost = sum.lost.saturating_add(lost);
            sum.garbage += garbage;
            assert!(begun.elapsed() < Duration::from_secs(20), "{sum:?}");
        }
        let _ = listener.last();
        // It does not look whether it should end.
        assert_eq!(guest.end(), End::Stopped);
    });
}

#[test]
fn garbage_of_an_environment_changes_nothing_of_its_neighbours_records_nor_of_its_clients() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a directory");
        let (guest, [_, address]) = two_cheetahs(scratch.path(), |builder| builder.io(IoMode::Turn));
        let machine = guest.machine();
        let mut client = Client::connect(address).expect("it serves");
        let mut serve = |count: u64| {
            (0..count).for_each(|_| assert_eq!(client.get("/who").expect("an answer").status(), 200));
        };
        serve(1);
        let (header, listener) = machine.record(Records::All);
        let done = AtomicBool::new(false);
        let pieces = std::thread::scope(|scope| {
            let listening = scope.spawn(|| listen(listener, &done));
            // What the other environment might write, whatever it is: its pages are as good as its own from here.
            let ring = &machine.environment_pages(0).expect("it runs").trace;
            scope.spawn(|| {
                let mut random = 0x9E37_79B9_7F4A_7C15u64;
                while !done.load(Ordering::Acquire) {
                    for record in &ring.records {
                        for word in [&record.tsc, &record.what, &record.subject, &record.argument] {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            word.store(random, Ordering::Relaxed);
                        }
                    }
                    ring.written.store(random, Ordering::Release);
                    std::thread::sleep(Duration::from_micros(300));
                    ring.written.store(random.wrapping_add(50), Ordering::Release);
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            serve(300);
            std::thread::sleep(Duration::from_millis(300));
            // The client's last acknowledgment comes with what it asks next.
            serve(1);
            guest.come_to_rest();
            done.store(true, Ordering::Release);
            listening.join().expect("no panic")
        });
        let source = |number| {
            let is_it = |source: &Source| *source == Source::Environment { number };
            header.sources.iter().position(is_it).expect("a source") as u16
        };
        let (bad, good) = (source(0), source(1));
        let of = |wanted: u16| -> Vec<Piece> {
            let is_of = |piece: &&Piece| matches!(piece, Piece::Records { source, .. } if *source == wanted);
            pieces.iter().filter(is_of).cloned().collect()
        };
        let (bad, good_records) = (exported(&header, &of(bad)), exported(&header, &of(good)));
        assert!(bad.garbage > 0 && bad.lost > 0, "{bad:?}");
        assert_eq!((good_records.garbage, good_records.lost), (0, 0), "{good_records:?}");
        // And its requests are found, each with its packets and frames.
        let found = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&found);
        let mut requests = Requests::new(&header, Keep { slowest: 10, typical: true });
        requests.tell(move |request| {
            count.fetch_add(u64::from(request.source == good), Ordering::Relaxed);
        });
        pieces.iter().for_each(|piece| requests.feed(piece));
        let report = requests.finish();
        assert!(found.load(Ordering::Relaxed) >= 299, "{found:?} {:?}", report.summary.incomplete);
        assert!(
            report.summary.strange_records > 0 && report.table().contains("left out"),
            "{}",
            report.table()
        );
        guest.stop();
    });
}
