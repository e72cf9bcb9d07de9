//! The resolver against servers made by hand: what is asked, what is believed, what is remembered, when it gives up.

mod bounds;
mod streams;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use exos_dns::{
    Config, Event, Failure, Family, Lookup, MAX_ADDRESSES, Outgoing, QueryId, Resolver, StreamQuery,
};
use exos_net::{Duration, Instant};
use proptest::prelude::*;

const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 53));
const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 53));
const A: u16 = 1;
const CNAME: u16 = 5;
const SOA: u16 = 6;
const AAAA: u16 = 28;

/// A name on the wire.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

fn record(owner: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut record = wire(owner);
    record.extend(kind.to_be_bytes());
    record.extend([0, 1]);
    record.extend(ttl.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let numbers = [1, 2, 3, 4, minimum].map(u32::to_be_bytes).concat();
    record("test", SOA, ttl, &[wire("a.test"), wire("b.test"), numbers].concat())
}

/// An answer to `query`, with its identifier and question.
struct Reply {
    flags: u16,
    answers: Vec<Vec<u8>>,
    authority: Vec<Vec<u8>>,
}

impl Reply {
    fn new(answers: &[Vec<u8>]) -> Self {
        Self { flags: 0x8180, answers: answers.to_vec(), authority: Vec::new() }
    }

    fn code(code: u16, authority: &[Vec<u8>]) -> Self {
        Self { flags: 0x8180 | code, answers: Vec::new(), authority: authority.to_vec() }
    }

    fn to(&self, query: &Outgoing) -> Vec<u8> {
        self.to_message(query.bytes())
    }

    fn to_message(&self, query: &[u8]) -> Vec<u8> {
        let mut bytes = query[..2].to_vec();
        bytes.extend(self.flags.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend((self.answers.len() as u16).to_be_bytes());
        bytes.extend((self.authority.len() as u16).to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&query[12..]);
        bytes.extend(self.answers.concat());
        bytes.extend(self.authority.concat());
        bytes
    }
}

struct Test {
    resolver: Resolver,
    now: Instant,
    random: u64,
    unbound: Vec<u16>,
    hung_up: Vec<QueryId>,
}

impl Test {
    fn new(config: Config) -> Self {
        let (resolver, now) = (Resolver::new(config), Instant::from_millis(1));
        Self { resolver, now, random: 7, unbound: Vec::new(), hung_up: Vec::new() }
    }

    fn poll(&mut self) -> Option<Event> {
        loop {
            self.random =
                self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match self.resolver.poll(self.now, self.random >> 16) {
                Some(Event::Unbind(port)) => self.unbound.push(port),
                Some(Event::Hangup(id)) => self.hung_up.push(id),
                other => return other,
            }
        }
    }

    fn query(&mut self) -> Outgoing {
        match self.poll() {
            Some(Event::Send(query)) => *query,
            other => panic!("expected a query, got {other:?}"),
        }
    }

    fn stream(&mut self) -> StreamQuery {
        match self.poll() {
            Some(Event::Stream(query)) => *query,
            other => panic!("expected a query over TCP, got {other:?}"),
        }
    }

    fn done(&mut self) -> Result<Vec<IpAddr>, Failure> {
        match self.poll() {
            Some(Event::Done { result, .. }) => result,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    fn ask(&mut self, name: &str, family: Family) -> QueryId {
        match self.resolver.lookup(self.now, name, family) {
            Ok(Lookup::Asked(id)) => id,
            other => panic!("expected a query, got {other:?}"),
        }
    }

    fn answer(&mut self, query: &Outgoing, reply: &Reply) {
        self.resolver.receive(self.now, query.to, query.from_port, &reply.to(query));
    }

    /// Asks for IPv4 addresses and answers at once.
    fn resolve(&mut self, name: &str, reply: &Reply) -> Result<Vec<IpAddr>, Failure> {
        self.ask(name, Family::V4);
        let query = self.query();
        self.answer(&query, reply);
        self.done()
    }
}

fn config() -> Config {
    Config::new([FIRST, SECOND])
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

#[test]
fn query_is_what_rfc_1035_says() {
    let mut test = Test::new(config());
    test.ask("WWW.Example.test.", Family::V6);
    let query = test.query();
    assert_eq!(query.to, SocketAddr::new(FIRST, 53));
    assert!(query.from_port >= 49_152);
    let expected = [&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire("www.example.test"), &[0, 28, 0, 1]].concat();
    assert_eq!(query.bytes()[2..], expected);
    assert!(test.poll().is_none());
}

#[test]
fn addresses_are_returned_and_remembered_for_their_time() {
    let mut test = Test::new(config());
    let reply =
        Reply::new(&[record("a.test", A, 60, &[192, 0, 2, 1]), record("A.TEST", A, 30, &[192, 0, 2, 2])]);
    let id = test.ask("a.test", Family::V4);
    let query = test.query();
    test.answer(&query, &reply);
    let Some(Event::Done { id: done, result }) = test.poll() else { panic!("not done") };
    assert_eq!((done, result), (id, Ok(vec![address(1), address(2)])));
    assert_eq!(test.unbound, [query.from_port]);
    assert_eq!((test.resolver.queries(), test.resolver.next_deadline()), (0, None));
    test.now += Duration::from_millis(29_999);
    let known = Ok(Lookup::Known(vec![address(1), address(2)]));
    assert_eq!(test.resolver.lookup(test.now, "A.test", Family::V4), known);
    // The other family was not asked for.
    test.ask("a.test", Family::V6);
    test.now += Duration::from_millis(1);
    test.ask("a.test", Family::V4);
}

#[test]
fn ipv6_addresses_are_read() {
    let mut test = Test::new(config());
    test.ask("a.test", Family::V6);
    let query = test.query();
    let mut bytes = [0; 16];
    (bytes[0], bytes[15]) = (0xfd, 1);
    test.answer(
        &query,
        &Reply::new(&[record("a.test", AAAA, 60, &bytes), record("a.test", A, 60, &[1, 2, 3, 4])]),
    );
    assert_eq!(test.done(), Ok(vec![bytes.into()]));
}

#[test]
fn text_that_is_an_address_is_not_asked_for() {
    let mut test = Test::new(Config::new([]));
    let known = Ok(Lookup::Known(vec![address(1)]));
    assert_eq!(test.resolver.lookup(test.now, "192.0.2.1", Family::V4), known);
    assert_eq!(test.resolver.lookup(test.now, "192.0.2.1", Family::V6), Err(Failure::NoAddress));
    assert_eq!(test.resolver.lookup(test.now, "a.test", Family::V4), Err(Failure::NoServer));
}

#[test]
fn text_that_is_no_name_is_refused() {
    let mut test = Test::new(config());
    let (label, name) = ("x".repeat(64), "x.".repeat(128));
    for text in ["", ".", "a..b", &label, &name] {
        assert_eq!(test.resolver.lookup(test.now, text, Family::V4), Err(Failure::BadName), "{text}");
    }
}

#[test]
fn answer_that_differs_in_anything_is_ignored() {
    let mut test = Test::new(config());
    test.ask("a.test", Family::V4);
    let query = test.query();
    let reply = Reply::new(&[record("a.test", A, 60, &[192, 0, 2, 1])]);
    let good = reply.to(&query);
    let mut changed = Vec::new();
    // The identifier, the response bit, the operation, the number of questions, a letter, the type, the class.
    for (at, bits) in [(0, 1), (1, 1), (2, 0x80), (2, 0x08), (5, 2), (13, 1), (21, 1), (23, 1)] {
        let mut bytes = good.clone();
        bytes[at] ^= bits;
        changed.push((query.to, query.from_port, bytes));
    }
    changed.push((SocketAddr::new(SECOND, 53), query.from_port, good.clone()));
    changed.push((SocketAddr::new(FIRST, 54), query.from_port, good.clone()));
    changed.push((query.to, query.from_port - 1, good.clone()));
    changed.push((query.to, query.from_port, good[..11].to_vec()));
    for (number, (from, port, bytes)) in changed.iter().enumerate() {
        test.resolver.receive(test.now, *from, *port, bytes);
        assert!(test.poll().is_none(), "{number}");
    }
    assert_eq!(test.resolver.ignored(), changed.len() as u64);
    test.resolver.receive(test.now, query.to, query.from_port, &good);
    assert_eq!(test.done(), Ok(vec![address(1)]));
}

#[test]
fn records_of_other_names_are_not_believed() {
    let mut test = Test::new(config());
    let reply =
        Reply::new(&[record("b.test", A, 60, &[6, 6, 6, 6]), record("a.test", A, 60, &[192, 0, 2, 1])]);
    assert_eq!(test.resolve("a.test", &reply), Ok(vec![address(1)]));
    assert!(matches!(test.resolver.lookup(test.now, "b.test", Family::V4), Ok(Lookup::Asked(_))));
}

#[test]
fn aliases_are_followed_and_the_shortest_time_counts() {
    let mut test = Test::new(config());
    let reply = Reply::new(&[
        record("c.test", A, 100, &[192, 0, 2, 3]),
        record("a.test", CNAME, 50, &wire("B.test")),
        record("b.test", CNAME, 20, &wire("c.test")),
    ]);
    assert_eq!(test.resolve("a.test", &reply), Ok(vec![address(3)]));
    test.now += Duration::from_secs(20);
    test.ask("a.test", Family::V4);
}

#[test]
fn alias_without_its_addresses_is_asked_for() {
    let mut test = Test::new(config());
    test.ask("a.test", Family::V4);
    let query = test.query();
    test.answer(&query, &Reply::new(&[record("a.test", CNAME, 50, &wire("b.test"))]));
    let query = test.query();
    assert_eq!(query.bytes()[12..20], wire("b.test"));
    test.answer(&query, &Reply::new(&[record("b.test", A, 50, &[192, 0, 2, 2])]));
    assert_eq!(test.done(), Ok(vec![address(2)]));
}

#[test]
fn aliases_that_go_in_circles_or_never_end_are_broken() {
    let mut test = Test::new(config());
    let circle = Reply::new(&[
        record("a.test", CNAME, 50, &wire("b.test")),
        record("b.test", CNAME, 50, &wire("a.test")),
    ]);
    assert_eq!(test.resolve("a.test", &circle), Err(Failure::Broken));
    test.ask("n0.test", Family::V4);
    for number in 0.. {
        assert!(number < 20, "endless");
        match test.poll() {
            Some(Event::Send(query)) => {
                let (owner, target) = (format!("n{number}.test"), format!("n{}.test", number + 1));
                test.answer(&query, &Reply::new(&[record(&owner, CNAME, 50, &wire(&target))]));
            }
            Some(Event::Done { result, .. }) => {
                assert_eq!(result, Err(Failure::Broken));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn negative_answers_say_why_and_are_remembered_as_long_as_the_zone_says() {
    let mut test = Test::new(config());
    assert_eq!(test.resolve("a.test", &Reply::code(3, &[soa(300, 60)])), Err(Failure::NoSuchName));
    assert_eq!(test.resolve("b.test", &Reply::code(0, &[soa(30, 60)])), Err(Failure::NoAddress));
    assert_eq!(test.resolve("c.test", &Reply::code(3, &[])), Err(Failure::NoSuchName));
    test.now += Duration::from_millis(29_999);
    assert_eq!(test.resolver.lookup(test.now, "b.test", Family::V4), Err(Failure::NoAddress));
    test.ask("c.test", Family::V4);
    test.now += Duration::from_millis(30_000);
    assert_eq!(test.resolver.lookup(test.now, "a.test", Family::V4), Err(Failure::NoSuchName));
    test.ask("b.test", Family::V4);
    test.now += Duration::from_millis(1);
    test.ask("a.test", Family::V4);
}

#[test]
fn truncated_answer_is_reported() {
    let mut test = Test::new(config());
    let reply = Reply { flags: 0x8380, ..Reply::new(&[record("a.test", A, 60, &[192, 0, 2, 1])]) };
    assert_eq!(test.resolve("a.test", &reply), Err(Failure::Truncated));
    assert_eq!(test.resolver.cached(), 0);
}

#[test]
fn query_that_nobody_waits_for_leaves_nothing_behind() {
    let mut test = Test::new(config());
    let (first, second) = (test.ask("a.test", Family::V4), test.ask("b.test", Family::V4));
    let queries = [test.query(), test.query()];
    test.resolver.cancel(first);
    assert!(test.poll().is_none());
    assert_eq!((test.unbound.as_slice(), test.resolver.queries()), (&[queries[0].from_port][..], 1));
    test.resolver.cancel(second);
    assert!(test.poll().is_none());
    assert_eq!((test.unbound.len(), test.resolver.queries(), test.resolver.next_deadline()), (2, 0, None));
}

#[test]
fn server_that_will_not_say_hands_over_to_the_other() {
    let mut test = Test::new(Config { attempts: 1, ..config() });
    test.ask("a.test", Family::V4);
    let query = test.query();
    test.answer(&query, &Reply::code(2, &[]));
    let query = test.query();
    assert_eq!(query.to.ip(), SECOND);
    test.answer(&query, &Reply::code(5, &[]));
    assert_eq!(test.done(), Err(Failure::Refused(5)));
    assert_eq!(test.resolver.cached(), 0);
}

#[test]
fn silence_is_asked_again_with_fresh_numbers_and_then_given_up() {
    let mut test = Test::new(Config { attempts: 2, ..config() });
    test.ask("a.test", Family::V4);
    let start = test.now;
    let mut asked = Vec::new();
    loop {
        match test.poll() {
            Some(Event::Send(query)) => asked.push((test.now.since(start).as_micros() / 1_000_000, query)),
            Some(Event::Done { result, .. }) => break assert_eq!(result, Err(Failure::TimedOut)),
            Some(Event::Unbind(_) | Event::Stream(_) | Event::Hangup(_)) => {}
            None => test.now = test.resolver.next_deadline().unwrap(),
        }
    }
    let times: Vec<_> = asked.iter().map(|(secs, query)| (*secs, query.to.ip())).collect();
    assert_eq!(times, [(0, FIRST), (2, SECOND), (4, FIRST), (8, SECOND)]);
    assert_eq!(test.now.since(start), Duration::from_secs(12));
    let mut numbers: Vec<_> = asked.iter().map(|(_, query)| query.bytes()[..2].to_vec()).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    // Every port was given back, and an answer to an old question comes too late.
    assert_eq!(test.unbound, asked.iter().map(|(_, query)| query.from_port).collect::<Vec<_>>());
    test.answer(&asked[0].1, &Reply::new(&[record("a.test", A, 60, &[192, 0, 2, 1])]));
    assert_eq!((test.resolver.ignored(), test.resolver.cached()), (1, 0));
}

#[test]
fn servers_are_asked_in_turn_and_no_more_than_six() {
    let server = |last| IpAddr::from([10, 0, 2, last]);
    let mut test = Test::new(Config { attempts: 1, ..Config::new([]) });
    test.resolver.set_servers((1..10).map(server));
    test.ask("a.test", Family::V4);
    for last in 1..=6 {
        let query = test.query();
        assert_eq!(query.to.ip(), server(last));
        test.resolver.unreachable(query.from_port, query.to);
    }
    assert_eq!(test.done(), Err(Failure::TimedOut));
}

#[test]
fn unreachable_server_hands_over_at_once() {
    let mut test = Test::new(config());
    test.ask("a.test", Family::V4);
    let query = test.query();
    // What is about another server, or from another port, is not about this question.
    test.resolver.unreachable(query.from_port, SocketAddr::new(SECOND, 53));
    test.resolver.unreachable(query.from_port, SocketAddr::new(FIRST, 54));
    test.resolver.unreachable(query.from_port ^ 1, query.to);
    assert!(test.poll().is_none());
    test.resolver.unreachable(query.from_port, query.to);
    assert_eq!(test.query().to.ip(), SECOND);
}

#[test]
fn queries_addresses_and_cache_are_bounded() {
    let mut test = Test::new(Config { max_queries: 3, max_cached: 5, ..config() });
    for name in ["a.test", "b.test", "c.test"] {
        test.ask(name, Family::V4);
    }
    assert_eq!(test.resolver.lookup(test.now, "d.test", Family::V4), Err(Failure::TooMany));
    let mut test = Test::new(Config { max_cached: 5, ..config() });
    for number in 0..50u8 {
        let name = format!("n{number}.test");
        let many: Vec<_> =
            (0..50).map(|last| record(&name, A, 100 + u32::from(number), &[10, 0, 0, last])).collect();
        assert_eq!(test.resolve(&name, &Reply::new(&many)).unwrap().len(), MAX_ADDRESSES);
        assert!(test.resolver.cached() <= 5);
    }
    // Those that hold longest are still known.
    assert!(matches!(test.resolver.lookup(test.now, "n49.test", Family::V4), Ok(Lookup::Known(_))));
    // A time beyond all reason is cut.
    let mut test = Test::new(config());
    test.resolve("a.test", &Reply::new(&[record("a.test", A, u32::MAX, &[1, 2, 3, 4])])).unwrap();
    test.now += Duration::from_secs(86_400);
    test.ask("a.test", Family::V4);
}

proptest! {
    /// Whatever a server sends, changed anywhere: no panic, and the query ends.
    #[test]
    fn hostile_answers_do_not_panic(
        flips in proptest::collection::vec((12usize..200, any::<u8>()), 0..8), cut in 0usize..200, garbage in any::<bool>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut test = Test::new(config());
        test.ask("a.test", Family::V4);
        let query = test.query();
        let mut reply = Reply::new(&[
            record("a.test", CNAME, 50, &[0xc0, 12]),
            record("a.test", CNAME, 50, &wire("b.test")),
            record("b.test", A, 100, &[192, 0, 2, 3]),
        ]).to(&query);
        if garbage {
            reply.truncate(24);
            reply.extend(bytes);
        }
        for (at, value) in flips {
            if let Some(byte) = reply.get_mut(at) {
                *byte = value;
            }
        }
        reply.truncate(reply.len().saturating_sub(cut));
        test.resolver.receive(test.now, query.to, query.from_port, &reply);
        for _ in 0..100 {
            match test.poll() {
                Some(Event::Done { .. }) => return Ok(()),
                Some(_) => {}
                None => test.now = test.resolver.next_deadline().unwrap(),
            }
        }
        prop_assert!(false, "the query does not end");
    }
}
