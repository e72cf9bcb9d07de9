//! What a server can have us do: answers that are read within bounds, and queries that end.

use super::*;
use exos_dns::{MAX_ANSWER_BYTES, MAX_RECORDS};

/// A TXT record of `a.test` that makes an answer larger by so many bytes.
fn filler(bytes: usize) -> Vec<u8> {
    let head = record("a.test", 16, 60, &[]).len();
    record("a.test", 16, 60, &vec![0; bytes - head])
}

#[test]
fn answer_over_tcp_that_is_too_large_is_none() {
    let found = || record("a.test", A, 60, &[192, 0, 2, 1]);
    for (over, is_found) in [(0, true), (1, false)] {
        let (mut test, stream) = streams::truncated();
        let small = Reply::new(&[found()]).to_message(stream.bytes()).len();
        let reply =
            Reply::new(&[found(), filler(MAX_ANSWER_BYTES - small + over)]).to_message(stream.bytes());
        assert_eq!(reply.len(), MAX_ANSWER_BYTES + over);
        test.resolver.receive_stream(test.now, stream.id, &reply);
        if is_found {
            assert_eq!(test.done(), Ok(vec![address(1)]));
        } else {
            assert_eq!(test.query().to.ip(), SECOND);
        }
    }
}

#[test]
fn records_are_looked_at_up_to_a_number() {
    let mut test = Test::new(config());
    for (number, before, expected) in
        [("a", MAX_RECORDS - 1, Ok(vec![address(1)])), ("b", MAX_RECORDS, Err(Failure::NoAddress))]
    {
        let name = format!("{number}.test");
        let mut records = vec![record("c.test", A, 60, &[192, 0, 2, 3]); before];
        records.push(record(&name, A, 60, &[192, 0, 2, 1]));
        assert_eq!(test.resolve(&name, &Reply::new(&records)), expected);
    }
    for (name, before, is_remembered) in [("d.test", MAX_RECORDS - 1, 1), ("e.test", MAX_RECORDS, 0)] {
        let cached = test.resolver.cached();
        let mut authority = vec![record("c.test", 2, 60, &wire("c.test")); before];
        authority.push(soa(60, 60));
        assert_eq!(test.resolve(name, &Reply::code(3, &authority)), Err(Failure::NoSuchName));
        assert_eq!(test.resolver.cached(), cached + is_remembered, "{name}");
    }
}

/// What stops TCP on its way to both servers costs its time once for each, whatever is asked next.
#[test]
fn server_that_brought_nothing_over_tcp_is_not_asked_over_it_again() {
    let mut test = Test::new(Config { streams: true, ..config() });
    test.ask("n0.test", Family::V4);
    let begun = test.now;
    let (mut number, mut asked, mut over_tcp) = (0, 0, Vec::new());
    let result = loop {
        match test.poll() {
            Some(Event::Send(query)) if asked == 2 && number < 3 => {
                let (owner, target) = (format!("n{number}.test"), format!("n{}.test", number + 1));
                test.answer(&query, &Reply::new(&[record(&owner, CNAME, 50, &wire(&target))]));
                number += 1;
            }
            Some(Event::Send(query)) => {
                asked += 1;
                test.answer(&query, &streams::cut());
            }
            Some(Event::Stream(query)) => over_tcp.push(query.to.ip()),
            Some(Event::Done { result, .. }) => break result,
            Some(other) => panic!("{other:?}"),
            None => test.now = test.resolver.next_deadline().unwrap(),
        }
    };
    assert_eq!(result, Err(Failure::Truncated));
    assert_eq!((over_tcp, number, asked), (vec![FIRST, SECOND], 3, 6));
    assert_eq!(test.now, begun + Duration::from_secs(12));
}

/// A server that is asked again answers for its next alias: nobody is asked for it who has been silent already.
#[test]
fn alias_is_asked_of_who_says_it() {
    let mut test = Test::new(config());
    test.ask("a.test", Family::V4);
    let query = test.query();
    test.resolver.unreachable(query.from_port, query.to);
    let query = test.query();
    test.answer(&query, &Reply::new(&[record("a.test", CNAME, 50, &wire("b.test"))]));
    assert_eq!(test.query().to.ip(), SECOND);
}

proptest! {
    /// Servers that take all the time there is, for whatever they say: a query has its rounds once, two servers' silence over TCP, and
    /// what the answers with aliases take.
    #[test]
    fn query_ends_in_time(
        says in proptest::collection::vec(0u8..4, 1..40),
    ) {
        let mut test = Test::new(Config { streams: true, ..config() });
        test.ask("n0.test", Family::V4);
        let begun = test.now;
        let mut number = 0;
        let mut says = says.into_iter().cycle();
        for _ in 0..200 {
            let event = test.poll();
            let (id, bytes) = match &event {
                Some(Event::Send(query)) => (None, query.bytes().to_vec()),
                Some(Event::Stream(query)) => (Some(query.id), query.bytes().to_vec()),
                Some(Event::Done { .. }) => {
                    prop_assert!(test.now <= begun + Duration::from_secs(2 * (2 + 4 + 8) + 2 * 6 + 8 * (8 + 6)));
                    return Ok(());
                }
                _ => {
                    test.now = test.resolver.next_deadline().unwrap();
                    continue;
                }
            };
            let (owner, target) = (format!("n{number}.test"), format!("n{}.test", number + 1));
            let reply = match says.next() {
                Some(0) => continue,
                Some(1) => streams::cut(),
                Some(2) => Reply::code(2, &[]),
                _ => {
                    number += 1;
                    Reply::new(&[record(&owner, CNAME, 50, &wire(&target))])
                }
            };
            let until = test.resolver.next_deadline().unwrap();
            test.now = Instant::from_nanos(until.as_nanos() - 1);
            match (event, id) {
                (Some(Event::Send(query)), _) => test.answer(&query, &reply),
                (_, Some(id)) => test.resolver.receive_stream(test.now, id, &reply.to_message(&bytes)),
                _ => {}
            }
        }
        prop_assert!(false, "the query does not end");
    }
}
