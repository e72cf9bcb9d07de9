//! Where a request ends: bodies, limits, and the ways in which a second request is smuggled behind a first.

use crate::common::{assert_closed, assert_open, assert_table};
use exos_http::Stage;

const HOST: &str = "Host: h\r\n\r\n";

#[test]
fn ambiguous_body_lengths_return_400() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 0\r\nContent-Length: 0",
        "Content-Length: 5, 5",
        "Content-Length: 5,6",
        "Content-Length:",
        "Content-Length: ",
        "Content-Length: +5",
        "Content-Length: -1",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5a",
        "Content-Length: 5.0",
        "Content-Length: \u{665}",
        "Content-Length: \"5\"",
        "Content-Length : 5",
        "Transfer-Encoding:",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked\r\n , gzip",
        "Transfer-Encoding:\u{b}chunked",
    ] {
        for method in ["GET", "POST"] {
            assert_closed(400, &[format!("{method} / HTTP/1.1\r\nHost: h\r\n{fields}\r\n\r\n")]);
        }
    }
    assert_closed(400, &["POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]);
}

#[test]
fn unknown_transfer_codings_return_501() {
    assert_closed(501, &["POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"]);
}

#[test]
fn bodies_are_discarded_and_the_next_request_is_served() {
    let next = "GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n";
    let counted = format!(
        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 32\r\n\r\nGET /nothing HTTP/1.1\r\nHost: h\r\n{next}"
    );
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n\
         5;ext\r\nhello\r\n19\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n0\r\nTrailer: t\r\n\r\n{next}"
    );
    let none = format!("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n{next}");
    let largest = [
        b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0065536\r\n\r\n",
        &vec![b'x'; 65_536][..],
        next.as_bytes(),
    ]
    .concat();
    assert_table(&[
        (counted.as_bytes(), &[200, 200], Stage::Idle),
        (chunked.as_bytes(), &[405, 200], Stage::Idle),
        (none.as_bytes(), &[200, 200], Stage::Idle),
        (&largest, &[405, 200], Stage::Idle),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhell", &[], Stage::Body),
    ]);
}

#[test]
fn bodies_too_large_return_413() {
    assert_closed(
        413,
        &[
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 65537\r\n\r\n".to_string(),
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4294967296\r\n\r\n".to_string(),
            format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", "9".repeat(100)),
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n".to_string(),
            format!(
                "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n",
                "f".repeat(100)
            ),
        ],
    );
}

#[test]
fn malformed_chunks_return_400() {
    assert_closed(
        400,
        &[
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n",
        ],
    );
}

#[test]
fn body_that_waits_for_100_continue_gets_the_final_answer_and_is_not_awaited() {
    assert_closed(405, &["POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\n"]);
    assert_closed(
        200,
        &["GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"],
    );
    // HTTP/1.0 knows no 100 (RFC 9110 10.1.1).
    let http10 =
        "POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n";
    assert_table(&[
        (http10.as_bytes(), &[], Stage::Body),
        (format!("{http10}x").as_bytes(), &[405], Stage::Idle),
    ]);
}

#[test]
fn target_length_limit_returns_414_beyond_it() {
    let request = |bytes: usize| format!("GET /{} HTTP/1.1\r\n{HOST}", "a".repeat(bytes - 1));
    assert_open(404, &[&request(4096)]);
    assert_closed(414, &[request(4097), request(100_000)]);
    // Before its end has come, but not before it is too long.
    assert_closed(414, &[format!("GET /{}", "a".repeat(4096))]);
    assert_table(&[(format!("GET /{}", "a".repeat(4095)).as_bytes(), &[], Stage::Head)]);
}

#[test]
fn fields_length_limit_returns_431_beyond_it() {
    // The fields, with the empty line, are `bytes` long.
    let request = |bytes: usize| {
        let others = "Host: h\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(bytes - others))
    };
    assert_open(200, &[&request(8192)]);
    assert_closed(431, &[request(8193), request(8194), request(8195), request(8196), request(100_000)]);
    assert_closed(431, &[format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(2000))]);
    assert_closed(431, &[format!("GET / HTTP/1.1\r\n{}", "a".repeat(8192))]);
    assert_table(&[(format!("GET / HTTP/1.1\r\n{}", "a".repeat(8191)).as_bytes(), &[], Stage::Head)]);
    // The longest of both at once.
    let path = format!("/{}", "a".repeat(4095));
    let longest = request(8192).replacen("GET / ", &format!("{} {path} ", "M".repeat(32)), 1);
    assert_eq!(longest.len(), exos_http::MAX_HEAD_BYTES);
    assert_open(501, &[&longest]);
}
