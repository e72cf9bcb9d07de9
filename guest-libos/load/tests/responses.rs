//! Responses, split anywhere, give the same counts; what is none is refused, wherever it is split.

use exos_load::response::MAX_HEAD_BYTES;
use exos_load::{Answer, BadResponse, ResponseCounter};
use proptest::prelude::*;

/// What came of a connection's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    answers: Vec<Answer>,
    bad: Option<BadResponse>,
    /// Bytes that were left: the beginning of a head.
    left: usize,
}

/// Feeds pieces as the stack does: what is not taken comes again, with what follows.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Seen {
    let (mut counter, mut kept, mut seen) = (ResponseCounter::default(), Vec::new(), Seen::default());
    for piece in pieces {
        kept.extend_from_slice(piece);
        while !kept.is_empty() {
            match counter.input(&kept) {
                Ok(counted) => {
                    assert!(counted.bytes <= kept.len());
                    kept.drain(..counted.bytes);
                    match counted.answer {
                        Some(answer) => seen.answers.push(answer),
                        None => break,
                    }
                }
                Err(bad) => return Seen { bad: Some(bad), ..seen },
            }
        }
        assert!(kept.len() < MAX_HEAD_BYTES, "a head is bounded");
    }
    seen.answers.extend(counter.end());
    seen.left = kept.len();
    seen
}

fn whole(text: &[u8]) -> Seen {
    feed([text])
}

fn answer(status: u16, keeps_alive: bool, body_bytes: u64) -> Answer {
    Answer { status, keeps_alive, body_bytes }
}

/// A response, and what should be counted.
fn response() -> impl Strategy<Value = (Vec<u8>, Answer)> {
    let body = prop::collection::vec(any::<u8>(), 0..200);
    let status = prop::sample::select(vec![200u16, 204, 206, 301, 304, 404, 500]);
    let fields = prop::collection::vec(("X-[a-z]{1,9}", "[ -~]{0,30}"), 0..5);
    (body, status, fields, 0usize..3, any::<bool>(), any::<bool>()).prop_map(
        |(body, status, fields, framing, close, interim)| {
            let mut text = Vec::new();
            if interim {
                text.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
            }
            text.extend_from_slice(format!("HTTP/1.1 {status} Some Reason\r\n").as_bytes());
            fields
                .iter()
                .for_each(|(name, value)| text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes()));
            if close {
                text.extend_from_slice(b"connection: Close\r\n");
            }
            let bodiless = matches!(status, 204 | 304);
            if framing == 0 {
                text.extend_from_slice(format!("CONTENT-LENGTH:{}\r\n\r\n", body.len()).as_bytes());
                if !bodiless {
                    text.extend_from_slice(&body);
                }
            } else {
                text.extend_from_slice(b"Transfer-Encoding: gzip, chunked\r\n\r\n");
                if !bodiless {
                    for chunk in body.chunks(if framing == 1 { 7 } else { 90 }) {
                        text.extend_from_slice(format!("{:x};name=\"value\"\r\n", chunk.len()).as_bytes());
                        text.extend_from_slice(chunk);
                        text.extend_from_slice(b"\r\n");
                    }
                    text.extend_from_slice(b"000\r\nTrailer: yes\r\n\r\n");
                }
            }
            let body_bytes = if bodiless { 0 } else { body.len() as u64 };
            (text, answer(status, !close, body_bytes))
        },
    )
}

proptest! {
    #[test]
    fn responses_split_anywhere_give_the_same_counts(
        responses in prop::collection::vec(response(), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let text: Vec<u8> = responses.iter().flat_map(|(text, _)| text.clone()).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let seen = feed(cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]));
        let answers = responses.into_iter().map(|(_, answer)| answer).collect();
        prop_assert_eq!(seen, Seen { answers, bad: None, left: 0 });
    }

    #[test]
    fn garbage_split_anywhere_gives_the_same(
        begin in response(),
        garbage in prop::collection::vec(any::<u8>(), 0..60),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = begin.0;
        let at = at.index(text.len());
        text.splice(at.., garbage);
        if text.is_empty() {
            return Ok(());
        }
        let (first, second) = text.split_at(cut.index(text.len()));
        prop_assert_eq!(feed([first, second]), whole(&text));
        prop_assert_eq!(feed(text.chunks(1)), whole(&text));
    }
}

#[test]
fn body_without_length_ends_with_the_connection() {
    let seen = whole(b"HTTP/1.1 200 OK\r\n\r\nabc");
    assert_eq!(seen.answers, [answer(200, false, 3)]);
    // A coding that is not chunked has no length of its own either (RFC 9112 6.3).
    let seen = whole(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc");
    assert_eq!(seen.answers, [answer(200, false, 3)]);
}

#[test]
fn connection_persists_as_its_version_says() {
    for (head, keeps_alive) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: upgrade, CLOSE\r\n", false),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n", false),
    ] {
        let seen = whole(format!("{head}Content-Length: 0\r\n\r\n").as_bytes());
        assert_eq!(seen.answers, [answer(200, keeps_alive, 0)], "{head}");
    }
}

#[test]
fn end_in_the_middle_is_no_answer() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        "HTTP/1.1 200 O",
        "",
    ] {
        let seen = whole(text.as_bytes());
        assert_eq!((seen.answers.len(), seen.bad), (0, None), "{text:?}");
    }
}

#[test]
fn what_is_no_response_is_refused() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD_BYTES));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(65));
    let number = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {text}\r\n\r\n");
    let chunk = |text: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}");
    for (text, bad) in [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), BadResponse::Malformed),
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), BadResponse::Malformed),
        ("HTTP/1.1 033 No\r\n\r\n".to_owned(), BadResponse::Malformed),
        (many, BadResponse::Malformed),
        (large, BadResponse::HeadTooLong),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(), BadResponse::Upgrade),
        (number("-1"), BadResponse::Length),
        (number("+1"), BadResponse::Length),
        (number(""), BadResponse::Length),
        (number("1, 1"), BadResponse::Length),
        (number("99999999999999999999"), BadResponse::Length),
        (number("1\r\nContent-Length: 2"), BadResponse::Length),
        (number("1\r\nTransfer-Encoding: chunked"), BadResponse::Length),
        (chunk("\r\n"), BadResponse::Chunk),
        (chunk("g\r\n"), BadResponse::Chunk),
        (chunk("1\nx"), BadResponse::Chunk),
        (chunk("1\r\nxy\r\n"), BadResponse::Chunk),
        (chunk("11111111111111111\r\n"), BadResponse::Chunk),
        (chunk(&format!("1;{}\r\n", "x".repeat(20_000))), BadResponse::Chunk),
        (chunk(&format!("0\r\n{}\r\n", "X: x\r\n".repeat(4_000))), BadResponse::Chunk),
    ] {
        let seen = whole(text.as_bytes());
        assert_eq!((seen.answers.len(), seen.bad), (0, Some(bad)), "{:?}", &text[..text.len().min(90)]);
    }
    // Sizes that are the same twice mean that.
    assert_eq!(whole(number("0\r\nContent-Length: 0").as_bytes()).answers.len(), 1);
}
