//! Answers that do not fit a datagram, asked for again over TCP (RFC 7766): by servers that keep to it, and by others.

use super::*;
use exos_dns::StreamAnswer;

/// A datagram that says that there is more (RFC 1035 4.1.1, TC).
pub(crate) fn cut() -> Reply {
    Reply { flags: 0x8380, ..Reply::new(&[]) }
}

/// A resolver that can ask over TCP, and has to.
pub(crate) fn truncated() -> (Test, StreamQuery) {
    let mut test = Test::new(Config { streams: true, attempts: 1, ..config() });
    test.ask("a.test", Family::V4);
    let query = test.query();
    test.answer(&query, &cut());
    let stream = test.stream();
    assert_eq!((stream.to, test.unbound.len()), ((FIRST, 53).into(), 1));
    assert_eq!(stream.bytes()[2..], query.bytes()[2..], "the same question");
    assert_ne!(stream.bytes()[..2], query.bytes()[..2], "with an identifier of its own");
    (test, stream)
}

fn right() -> Reply {
    Reply::new(&[record("a.test", A, 60, &[192, 0, 2, 1])])
}

/// As it goes over the connection.
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

#[test]
fn truncated_answer_is_asked_for_over_tcp() {
    let (mut test, stream) = truncated();
    assert_eq!(stream.framed(), framed(stream.bytes()));
    let many: Vec<_> = (0..60).map(|last| record("a.test", A, 60, &[192, 0, 2, last])).collect();
    test.resolver.receive_stream(test.now, stream.id, &Reply::new(&many).to_message(stream.bytes()));
    assert_eq!(test.done().map(|found| found.len()), Ok(MAX_ADDRESSES));
    assert_eq!((test.resolver.queries(), test.resolver.cached()), (0, 1));
    assert_eq!(test.hung_up, [stream.id]);
}

/// Nothing that a server does over TCP ends a query before the other server has been asked.
#[test]
fn next_server_is_asked_where_tcp_brings_nothing() {
    type Way = fn(&mut Test, &StreamQuery);
    let ways: [(&str, Way); 6] = [
        ("no connection, or none any more", |test, stream| test.resolver.stream_failed(stream.id)),
        ("silence", |test, _| test.now = test.resolver.next_deadline().expect("it is waited for")),
        ("cut again", |test, stream| {
            test.resolver.receive_stream(test.now, stream.id, &cut().to_message(stream.bytes()));
        }),
        ("an answer to another question", |test, stream| {
            let mut other = right().to_message(stream.bytes());
            other[0] ^= 1;
            test.resolver.receive_stream(test.now, stream.id, &other);
        }),
        ("a message of no length", |test, stream| test.resolver.receive_stream(test.now, stream.id, &[])),
        ("a server that will not say", |test, stream| {
            let refused = Reply::code(5, &[]).to_message(stream.bytes());
            test.resolver.receive_stream(test.now, stream.id, &refused);
        }),
    ];
    for (way, does) in ways {
        let (mut test, stream) = truncated();
        does(&mut test, &stream);
        let query = test.query();
        assert_eq!((query.to.ip(), test.hung_up.as_slice()), (SECOND, &[stream.id][..]), "{way}");
        // What comes over the connection now is too late.
        test.resolver.receive_stream(test.now, stream.id, &right().to_message(stream.bytes()));
        test.resolver.stream_failed(stream.id);
        assert!(test.poll().is_none(), "{way}");
        test.resolver.unreachable(query.from_port, query.to);
        let failure =
            if way == "a server that will not say" { Failure::Refused(5) } else { Failure::Truncated };
        assert_eq!(test.done(), Err(failure), "{way}");
        assert_eq!(test.hung_up.len(), 1, "{way}");
    }
}

#[test]
fn connection_is_given_more_time_than_a_datagram_and_not_more_than_that() {
    let (mut test, stream) = truncated();
    test.now += Duration::from_millis(5_999);
    assert!(test.poll().is_none() && test.hung_up.is_empty());
    test.now += Duration::from_millis(1);
    assert_eq!(test.query().to.ip(), SECOND);
    assert_eq!(test.hung_up, [stream.id]);
}

#[test]
fn connection_that_nobody_waits_for_is_given_up() {
    let (mut test, stream) = truncated();
    test.resolver.cancel(stream.id);
    assert!(test.poll().is_none());
    assert_eq!((test.hung_up.as_slice(), test.resolver.queries()), (&[stream.id][..], 0));
}

#[test]
fn next_server_that_has_more_to_say_is_asked_over_a_connection_of_its_own() {
    let (mut test, first) = truncated();
    test.resolver.stream_failed(first.id);
    let query = test.query();
    test.answer(&query, &cut());
    let second = test.stream();
    assert_eq!((second.to.ip(), test.hung_up.len()), (SECOND, 1));
    test.resolver.receive_stream(test.now, second.id, &right().to_message(second.bytes()));
    assert_eq!(test.done(), Ok(vec![address(1)]));
}

#[test]
fn message_is_whole_when_its_length_says_so_and_no_earlier() {
    let message: Vec<u8> = (0..=255).cycle().take(700).collect();
    let mut answer = StreamAnswer::default();
    for (number, byte) in framed(&message).iter().enumerate() {
        assert_eq!(answer.message(), None, "after {number} bytes");
        answer.push(&[*byte]);
    }
    assert_eq!(answer.message(), Some(&message[..]));
    // A second message, or whatever else.
    answer.push(&framed(b"more"));
    assert_eq!(answer.message(), Some(&message[..]));
    let mut empty = StreamAnswer::default();
    empty.push(&[0, 0, 0, 1, 7]);
    assert_eq!(empty.message(), Some(&[][..]));
}

proptest! {
    /// However the connection cuts it, and whatever follows, the first message is what was sent.
    #[test]
    fn first_message_is_read_in_any_pieces(
        message in proptest::collection::vec(any::<u8>(), 0..2_000), more in proptest::collection::vec(any::<u8>(), 0..50),
        pieces in proptest::collection::vec(0usize..600, 0..20),
    ) {
        let bytes = [framed(&message), more].concat();
        let (mut answer, mut rest) = (StreamAnswer::default(), &bytes[..]);
        for piece in pieces.into_iter().chain([bytes.len()]) {
            let (now, then) = rest.split_at(piece.min(rest.len()));
            answer.push(now);
            rest = then;
        }
        prop_assert_eq!(answer.message(), Some(&message[..]));
    }

    /// Whatever a server sends over its connections, and wherever it ends: no panic, and the query ends.
    #[test]
    fn hostile_connections_do_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300), flips in proptest::collection::vec((0usize..80, any::<u8>()), 0..6),
        cut_to in 0usize..200, is_garbage in any::<bool>(),
    ) {
        let mut test = Test::new(Config { streams: true, ..config() });
        test.ask("a.test", Family::V4);
        for _ in 0..100 {
            match test.poll() {
                Some(Event::Done { .. }) => return Ok(()),
                Some(Event::Send(query)) => test.answer(&query, &cut()),
                Some(Event::Stream(query)) => {
                    let good = framed(&right().to_message(query.bytes()));
                    let mut sent = if is_garbage { bytes.clone() } else { good };
                    for &(at, value) in &flips {
                        sent.get_mut(at).into_iter().for_each(|byte| *byte = value);
                    }
                    sent.truncate(cut_to);
                    let mut answer = StreamAnswer::default();
                    answer.push(&sent);
                    match answer.message() {
                        Some(message) => test.resolver.receive_stream(test.now, query.id, message),
                        None => test.resolver.stream_failed(query.id),
                    }
                }
                Some(_) => {}
                None => test.now = test.resolver.next_deadline().unwrap(),
            }
        }
        prop_assert!(false, "the query does not end");
    }
}
