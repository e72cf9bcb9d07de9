//! However requests are cut into segments, and however little room there is for responses, the same goes out.

use crate::common::{Client, FILES, Memory, MemoryFile, ask, body, site};
use exos_http::{Next, Stage};
use proptest::prelude::*;

const SCRIPTS: &[&[u8]] = &[
    b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\nHEAD / HTTP/1.1\r\nHost: h\r\n\r\nGET /docs HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n\r\nGET /nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /%2e%2e/x HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /",
    b"GET / HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nBREW / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nBad : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    b"HEAD / HTTP/3.1\r\nHost: h\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX: \0\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET /\\ HTTP/1.1\r\nHost: h\r\n\r\n",
];

#[test]
fn split_at_every_byte_gives_the_same_as_whole() {
    let mut site = site();
    for script in SCRIPTS {
        let whole = ask(&mut site, script);
        assert!(!whole.statuses.is_empty());
        for at in 0..=script.len() {
            let mut client = Client::new(&mut site);
            client.receive(&script[..at]);
            client.receive(&script[at..]);
            assert_eq!(client.outcome(), whole, "{} at {at}", script.escape_ascii());
        }
    }
}

#[test]
fn one_byte_at_a_time_gives_the_same_as_whole() {
    let mut site = site();
    let too_long = [
        [b"GET /", &b"a".repeat(5000)[..], b" HTTP/1.1\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\n", &b"name: value\r\n".repeat(800)[..], b"\0\r\n"].concat(),
        [b"GET /", &b"a".repeat(5000)[..], b"\0 HTTP/1.1\r\n\r\n"].concat(),
        b"M".repeat(40),
    ];
    for script in SCRIPTS.iter().copied().chain(too_long.iter().map(Vec::as_slice)) {
        let whole = ask(&mut site, script);
        let mut client = Client::new(&mut site);
        for byte in script {
            client.receive(std::slice::from_ref(byte));
        }
        assert_eq!(client.outcome(), whole, "{}", script[..script.len().min(200)].escape_ascii());
    }
}

#[test]
fn pipelined_100_requests_are_answered_in_order() {
    let mut site = site();
    let mut input = Vec::new();
    let mut expected = Vec::new();
    for number in 0..100 {
        let (name, content) = FILES[1 + number % 2];
        input.extend_from_slice(format!("GET /{name}?{number} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
        expected.push(content);
    }
    let mut client = Client::new(&mut site);
    assert_eq!(client.receive(&input), Next::Input);
    let bodies: Vec<_> = client.kept.responses.iter().map(body).collect();
    assert_eq!(bodies, expected);
    assert_eq!(site.counters().all_responses(), 100);
}

#[test]
fn empty_lines_before_each_of_many_requests_are_passed_over() {
    let mut site = site();
    let input = b"\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n".repeat(20);
    assert_eq!(ask(&mut site, &input).statuses, [200; 20]);
}

#[test]
fn without_room_nothing_is_read_and_with_room_it_goes_on() {
    let mut site = site();
    let input = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n".repeat(10);
    let mut client = Client::new(&mut site);
    client.kept.room = 0;
    assert_eq!(client.receive(&input), Next::Room);
    assert_eq!(client.receive(b""), Next::Room);
    for room in 1..10 {
        client.kept.room = room;
        assert_eq!(client.receive(b""), Next::Room);
        assert_eq!(client.kept.responses.len(), room);
    }
    client.kept.room = 10;
    assert_eq!(client.receive(b""), Next::Input);
    assert_eq!(client.kept.responses.len(), 10);
}

#[test]
fn after_the_last_response_everything_is_consumed_and_nothing_answered() {
    let mut site = site();
    let mut client = Client::new(&mut site);
    assert_eq!(client.receive(b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n"), Next::Close);
    client.kept.room = 1;
    for _ in 0..100 {
        assert_eq!(client.receive(&[0xff; 10_000]), Next::Close);
    }
    assert_eq!(client.outcome().statuses, [200]);
}

#[test]
fn stage_tells_idle_from_stalled() {
    let mut site = site();
    let mut client = Client::new(&mut site);
    let mut stage_after = |segment: &[u8]| {
        client.receive(segment);
        client.connection.stage()
    };
    assert_eq!(stage_after(b""), Stage::Idle);
    assert_eq!(stage_after(b"G"), Stage::Head);
    assert_eq!(stage_after(b"ET / HTTP/1.1\r\nHost: h\r\n"), Stage::Head);
    assert_eq!(stage_after(b"Content-Length: 2\r\n\r\n"), Stage::Body);
    assert_eq!(stage_after(b"x"), Stage::Body);
    assert_eq!(stage_after(b"x"), Stage::Idle);
    assert_eq!(stage_after(b"\r\n"), Stage::Idle);
    assert_eq!(stage_after(b"\0"), Stage::Closing);
}

#[test]
fn connection_state_is_small() {
    // 100,000 idle connections must fit into a small guest.
    let bytes = size_of::<exos_http::HttpConnection<MemoryFile>>();
    assert!(bytes <= 160, "{bytes}");
}

#[test]
fn request_that_waits_for_files_holds_back_those_behind_it_and_stays_unread() {
    let mut site = site();
    site.files_mut().waits.extend([false, false, true]);
    let [first, second, third] = ["/hello.txt", "/index.html", "/empty.css"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes());
    let input = [first, second, third].concat();
    let whole = ask(&mut self::site(), &input);
    let mut client = Client::new(&mut site);
    let Next::Files(first_ticket) = client.receive(&input) else { panic!("did not wait") };
    assert_eq!((client.outcome().statuses, client.connection.stage()), (vec![200], Stage::Head));
    // Nothing has changed: it still waits, and not for the same.
    client.site.files_mut().waits.push_back(true);
    let Next::Files(second_ticket) = client.receive(b"") else { panic!("did not wait") };
    assert_ne!(first_ticket, second_ticket);
    // It waits for the content, too.
    client.site.files_mut().waits.extend([false, true]);
    assert!(matches!(client.receive(b""), Next::Files(_)));
    assert_eq!(client.receive(b""), Next::Input);
    assert_eq!(client.outcome(), whole);
}

/// Pieces of requests, right and wrong, in any order.
fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        2 => Just(b"GET /docs HTTP/1.1\r\n".to_vec()),
        1 => Just(b"POST /hello.txt HTTP/1.1\r\nHost: h\r\n".to_vec()),
        1 => Just(b"HEAD /../ HTTP/1.0\r\n".to_vec()),
        2 => Just(b"Host: h\r\n".to_vec()),
        2 => Just(b"Content-Length: 7\r\n".to_vec()),
        2 => Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
        1 => Just(b"Connection: keep-alive\r\n".to_vec()),
        1 => Just(b"Connection: close\r\n".to_vec()),
        1 => Just(b"Expect: 100-continue\r\n".to_vec()),
        6 => Just(b"\r\n".to_vec()),
        2 => Just(b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        1 => Just(b"payload".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => "[ -~]{0,20}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        SITE.with_borrow_mut(|site| ask(site, &bytes));
    }

    #[test]
    fn nearly_requests_in_any_segments_and_any_room_give_the_same(
        input in nearly_requests(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        rooms in prop::collection::vec(0..3usize, 8),
    ) {
        SITE.with_borrow_mut(|site| {
            let whole = ask(site, &input);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let mut client = Client::new(site);
            for (window, room) in cuts.windows(2).zip(&rooms) {
                client.kept.room = client.kept.responses.len() + room;
                client.receive(&input[window[0]..window[1]]);
            }
            client.kept.room = usize::MAX;
            client.receive(b"");
            prop_assert_eq!(client.outcome(), whole, "{}", input.escape_ascii());
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 20_000 }))]

    #[test]
    fn nearly_requests_with_any_waits_for_files_give_the_same(
        input in nearly_requests(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        rooms in prop::collection::vec(0..3usize, 8),
        waits in prop::collection::vec(any::<bool>(), 0..40),
    ) {
        SITE.with_borrow_mut(|site| {
            let whole = ask(site, &input);
            site.files_mut().waits.extend(&waits);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let mut client = Client::new(site);
            for (window, room) in cuts.windows(2).zip(&rooms) {
                client.kept.room = client.kept.responses.len() + room;
                client.receive(&input[window[0]..window[1]]);
            }
            client.kept.room = usize::MAX;
            // Each time round, an answer to a question is used up.
            for _ in 0..=waits.len() {
                if !matches!(client.receive(b""), Next::Files(_)) {
                    break;
                }
            }
            let outcome = client.outcome();
            site.files_mut().waits.clear();
            prop_assert_eq!(outcome, whole, "{}", input.escape_ascii());
            Ok(())
        })?;
    }
}

thread_local! {
    static SITE: std::cell::RefCell<exos_http::Site<Memory>> = std::cell::RefCell::new(site());
}
