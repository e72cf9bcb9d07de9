//! The closed loop on a network of the test's own: every request ends in exactly one place, whatever the server does.

use exos_load::report::Progress;
use exos_load::{Ended, ErrorKind, Generator, Network, NotConnected, Packets, Plan};
use proptest::prelude::*;
use std::collections::BTreeSet;

const MS: u64 = 1_000_000;
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSING: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

/// A connection: its place, and which one it is of those that had it.
type Id = (usize, u64);

#[derive(Default)]
struct Fake {
    /// By place; what is alive.
    alive: Vec<Option<Id>>,
    connects: u64,
    /// Connections whose request was queued and not yet answered, in order.
    requests: Vec<Id>,
    closed: BTreeSet<Id>,
    aborted: Vec<Id>,
    refuse: Option<NotConnected>,
}

impl Fake {
    fn with_places(places: usize) -> Self {
        Self { alive: vec![None; places], ..Self::default() }
    }

    fn remove(&mut self, id: Id) {
        self.alive[id.0] = None;
        self.requests.retain(|&other| other != id);
        self.closed.remove(&id);
    }

    fn open(&self) -> usize {
        self.alive.iter().flatten().count()
    }
}

impl Network for Fake {
    type Connection = Id;

    fn place(connection: Id) -> usize {
        connection.0
    }

    fn connect(&mut self) -> Result<Id, NotConnected> {
        if let Some(why) = self.refuse {
            return Err(why);
        }
        let place = self.alive.iter().position(Option::is_none).ok_or(NotConnected::NoRoom)?;
        self.connects += 1;
        self.alive[place] = Some((place, self.connects));
        Ok((place, self.connects))
    }

    fn request(&mut self, connection: Id) {
        assert_eq!(self.alive[connection.0], Some(connection));
        assert!(!self.closed.contains(&connection), "a request behind the end");
        self.requests.push(connection);
    }

    fn close(&mut self, connection: Id) {
        if self.alive[connection.0] == Some(connection) {
            self.closed.insert(connection);
        }
    }

    fn abort(&mut self, connection: Id) {
        if self.alive[connection.0] == Some(connection) {
            self.aborted.push(connection);
            self.remove(connection);
        }
    }
}

struct Run {
    generator: Generator<Id>,
    fake: Fake,
    now_ns: u64,
    progress: Vec<Progress>,
}

impl Run {
    fn new(words: &str) -> Self {
        let plan = Plan::from_words(format!("--target http://10.0.0.2 {words}").split_whitespace()).unwrap();
        let places = Generator::<Id>::places_for(&plan) as usize;
        Self {
            generator: Generator::new(plan, places),
            fake: Fake::with_places(places),
            now_ns: 7 * MS,
            progress: Vec::new(),
        }
    }

    /// Calls the generator as often as it wants at this moment.
    fn settle(&mut self) {
        for _ in 0..1000 {
            match self.generator.next_deadline_ns() {
                Some(deadline) if deadline <= self.now_ns => {
                    self.generator.expired(&mut self.fake, self.now_ns);
                    self.progress.extend(self.generator.progress(self.now_ns));
                }
                _ => return,
            }
        }
        panic!("it never has enough");
    }

    fn pass(&mut self, ms: u64) {
        self.now_ns += ms * MS;
        self.settle();
    }

    fn take_request(&mut self) -> Id {
        let id = self.fake.requests.remove(0);
        self.generator.opened::<Fake>(id);
        id
    }

    fn bytes(&mut self, id: Id, bytes: &[u8]) {
        self.generator.input(&mut self.fake, id, bytes, self.now_ns);
    }

    fn fin(&mut self, id: Id) {
        self.generator.peer_closed(&mut self.fake, id, self.now_ns);
    }

    fn end(&mut self, id: Id, how: Ended) {
        self.fake.remove(id);
        self.generator.ended::<Fake>(id, how, self.now_ns);
    }

    /// What was answered, and the errors of a kind.
    fn counts(&self, kind: ErrorKind) -> (u64, u64) {
        let report = self.generator.report(Packets::default());
        (report.answered, report.errors.of(kind))
    }

    /// Ends all connections that wait for it, until the run is over.
    fn finish(&mut self) {
        for _ in 0..400 {
            let closed: Vec<Id> = self.fake.closed.iter().copied().collect();
            closed.into_iter().for_each(|id| self.end(id, Ended::Closed));
            self.pass(50);
            if self.generator.is_over() {
                assert_eq!(self.fake.open(), 0, "a connection is left");
                let report = self.generator.report(Packets::default());
                assert_eq!(report.answered + report.errors.total(), report.asked);
                return;
            }
        }
        panic!("it does not end");
    }
}

#[test]
fn as_many_are_under_way_as_the_plan_says_and_who_is_answered_asks_again() {
    let mut run = Run::new("-c 100 -n 1000");
    run.settle();
    assert_eq!(run.fake.requests.len(), 100);
    for _ in 0..1000 {
        let id = run.take_request();
        run.now_ns += 1000;
        run.bytes(id, GOOD);
    }
    assert_eq!((run.fake.requests.len(), run.fake.connects), (0, 100), "connections are kept");
    run.finish();
    let report = run.generator.report(Packets::default());
    assert_eq!((report.asked, report.answered, report.bytes), (1000, 1000, 1000 * GOOD.len() as u64));
    assert!(report.is_good() && report.latency_ns.count() == 1000 && report.connections >= 100);
}

#[test]
fn connection_per_request_waits_for_the_servers_end_and_begins_the_next_at_once() {
    let mut run = Run::new("-c 1 -n 3 --close");
    run.settle();
    let first = run.take_request();
    run.bytes(first, CLOSING);
    assert_eq!(run.fake.requests.len(), 1, "the next is under way");
    assert!(!run.fake.closed.contains(&first), "the server closes first");
    run.fin(first);
    assert!(run.fake.closed.contains(&first));
    // A server that does not close is closed; one that says so and does not is given up.
    let second = run.take_request();
    run.bytes(second, GOOD);
    assert!(run.fake.closed.contains(&second));
    let third = run.take_request();
    run.bytes(third, CLOSING);
    run.end(first, Ended::Closed);
    run.end(second, Ended::Closed);
    run.pass(900);
    assert!(run.fake.aborted.is_empty());
    run.pass(150);
    assert_eq!(run.fake.aborted, [third]);
    run.finish();
    assert_eq!(run.counts(ErrorKind::TimedOut), (3, 0));
}

#[test]
fn each_failure_is_counted_as_what_it_is() {
    type Fault = fn(&mut Run, Id);
    let faults: [(ErrorKind, Fault); 9] = [
        (ErrorKind::Refused, |run, id| run.end(id, Ended::Refused)),
        (ErrorKind::Unreachable, |run, id| run.end(id, Ended::Unreachable)),
        (ErrorKind::Reset, |run, id| run.end(id, Ended::Reset)),
        (ErrorKind::TimedOut, |run, id| run.end(id, Ended::TimedOut)),
        (ErrorKind::TimedOut, |run, _| run.pass(5_100)),
        (ErrorKind::CutShort, |run, id| {
            run.bytes(id, &GOOD[..GOOD.len() - 1]);
            run.fin(id);
        }),
        (ErrorKind::BadResponse, |run, id| run.bytes(id, b"+OK ready\r\n")),
        (ErrorKind::BadResponse, |run, id| run.bytes(id, &[GOOD, b"more"].concat())),
        (ErrorKind::Status, |run, id| run.bytes(id, b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")),
    ];
    for (kind, fault) in faults {
        let mut run = Run::new("-c 1 -n 2");
        run.settle();
        let id = run.take_request();
        fault(&mut run, id);
        assert_eq!(run.counts(kind), (0, 1), "{kind:?}");
        // And it goes on.
        run.pass(200);
        let id = run.take_request();
        run.bytes(id, GOOD);
        assert_eq!(run.counts(kind), (1, 1), "{kind:?}");
        run.finish();
        assert!(!run.generator.report(Packets::default()).is_good());
    }
}

#[test]
fn bytes_behind_the_last_response_take_it_back() {
    let mut run = Run::new("-c 1 -n 1 --close");
    run.settle();
    let id = run.take_request();
    run.bytes(id, CLOSING);
    assert_eq!(run.counts(ErrorKind::BadResponse), (1, 0));
    run.bytes(id, b"more than was said");
    assert_eq!(run.counts(ErrorKind::BadResponse), (0, 1));
    run.finish();
}

#[test]
fn server_that_takes_no_connections_is_not_asked_without_end() {
    for why in [None, Some(NotConnected::Unreachable), Some(NotConnected::NoRoom)] {
        let mut run = Run::new("-c 10 -d 1s");
        run.fake.refuse = why;
        run.settle();
        for _ in 0..100 {
            while !run.fake.requests.is_empty() {
                let id = run.fake.requests.remove(0);
                run.end(id, Ended::Refused);
            }
            run.pass(10);
        }
        let asked = run.generator.report(Packets::default()).asked;
        let expected = if why == Some(NotConnected::NoRoom) { 0..1 } else { 90..121 };
        assert!(expected.contains(&asked), "{why:?}: {asked}");
        run.fake.refuse = None;
        run.finish();
    }
}

#[test]
fn time_ends_the_run_and_what_is_under_way_is_waited_for() {
    let mut run = Run::new("-c 4 -d 2s --timeout 1s");
    run.settle();
    let [first, second] = [run.take_request(), run.take_request()];
    run.pass(900);
    run.bytes(first, GOOD);
    run.pass(50);
    assert_eq!(run.progress, [], "not yet a second");
    run.pass(60);
    let [progress] = run.progress[..] else { panic!("{:?}", run.progress) };
    assert_eq!((progress.answered, progress.errors), (1, 3), "three were late");
    assert_eq!((progress.elapsed_ns, progress.interval_ns), (1010 * MS, 1010 * MS));
    run.pass(900);
    run.pass(200);
    let asked = run.generator.report(Packets::default()).asked;
    run.bytes(second, GOOD);
    while !run.fake.requests.is_empty() {
        let id = run.take_request();
        run.bytes(id, GOOD);
    }
    assert_eq!(run.generator.report(Packets::default()).asked, asked, "nothing is asked any more");
    run.finish();
}

#[test]
fn answer_that_comes_with_the_end_begins_nothing() {
    for words in ["-c 1 -d 1s", "-c 1 -d 1s --close"] {
        let mut run = Run::new(words);
        run.settle();
        let id = run.take_request();
        run.now_ns += 1000 * MS;
        run.bytes(id, GOOD);
        assert_eq!((run.fake.connects, run.fake.requests.len()), (1, 0), "{words}");
        run.finish();
    }
}

proptest! {
    #[test]
    fn every_request_ends_in_exactly_one_place(
        connections in 1u32..20, close in any::<bool>(), deeds in prop::collection::vec((0u8..10, any::<prop::sample::Index>()), 0..200)
    ) {
        let mut run = Run::new(&format!("-c {connections} -d 3s --timeout 500ms {}", if close { "--close" } else { "" }));
        run.settle();
        for (deed, which) in deeds {
            let alive: Vec<Id> = run.fake.alive.iter().flatten().copied().collect();
            if alive.is_empty() {
                run.pass(100);
                continue;
            }
            let id = alive[which.index(alive.len())];
            let asked = run.fake.requests.contains(&id);
            run.fake.requests.retain(|&other| other != id);
            match deed {
                0..=2 if asked => run.bytes(id, GOOD),
                3 if asked => run.bytes(id, CLOSING),
                4 => run.bytes(id, b"HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nxy"),
                5 => run.fin(id),
                6 => run.end(id, Ended::Reset),
                7 => run.end(id, Ended::Refused),
                8 => run.generator.opened::<Fake>(id),
                _ => run.pass(40),
            }
            run.settle();
            let report = run.generator.report(Packets::default());
            prop_assert!(report.answered + report.errors.total() <= report.asked);
            prop_assert!(report.asked - report.answered - report.errors.total() <= connections.into());
        }
        run.finish();
    }
}
