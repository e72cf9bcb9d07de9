//! Requests, good and bad, and the status that each gets: the grammar of RFC 9112, and what must
//! never leave the root.

use crate::common::{ask, assert_closed, assert_open, site};
use exos_http::request::{Method, Progress, RequestParser};

const HOST: &str = "Host: h\r\n\r\n";

#[test]
fn well_formed_requests_for_files_return_200() {
    assert_open(
        200,
        &[
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "HEAD /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHOST: 10.0.0.1:8080\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nhost:[::1]:80\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost:\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost: \t h \t \r\n\r\n",
            "GET /hello.txt?query=/../..%00 HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /hello.txt? HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://other/hello.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET HTTP://other:80 HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /hello.txt HTTP/1.2\r\nHost: h\r\n\r\n",
            "GET /hello.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            "\r\nGET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\n\r\nGET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost: h\r\nX: tab\there, \u{fc}\r\nEmpty:\r\n!#$%&'*+-.^_`|~09: x\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\n\r\n",
            "GET /hello.txt HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
            "GET /a%20b.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /%c3%bc.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /\u{fc}.txt HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /back%5cslash HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /.hidden HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET //docs///deep/./../deep/page.html HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /docs/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /docs/deep/.. HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    );
}

#[test]
fn connection_closes_when_the_request_asks_for_it() {
    assert_closed(
        200,
        &[
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: foo, Close ,bar\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, close\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\nConnection: closed\r\n\r\n",
        ],
    );
}

#[test]
fn paths_without_a_file_return_404() {
    let paths = [
        "/nothing",
        "/bare/",
        "/docs/deep/",
        "/hello.txt/",
        "/docs%2findex.html",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e%2fetc/passwd",
        "/..%5c..%5cetc%5cpasswd",
        "/....//....//etc/passwd",
        "/%252e%252e/etc/passwd",
        "/%c0%ae%c0%ae/etc/passwd",
        "/HELLO.TXT",
        "/etc/passwd",
        "http://h/etc/passwd",
        "/hello.txt%20",
        "/hello.txt;x",
        "/~root",
    ];
    for path in paths {
        assert_open(
            404,
            &[&format!("GET {path} HTTP/1.1\r\n{HOST}"), &format!("HEAD {path} HTTP/1.1\r\n{HOST}")],
        );
    }
}

#[test]
fn paths_out_of_the_root_and_invalid_paths_return_400() {
    let targets = [
        "/..",
        "/../etc/passwd",
        "/../../../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/%2E%2E/etc/passwd",
        "/.%2e/etc/passwd",
        "/docs/../../etc/passwd",
        "/docs/%2e%2e/%2e%2e/etc/passwd",
        "//../etc/passwd",
        "/./../etc/passwd",
        "http://h/../etc/passwd",
        "http://h/%2e%2e/etc/passwd",
        "/hello.txt%00",
        "/%00",
        "/hello.txt%00.html",
        "/hello%",
        "/hello%2",
        "/hello%zz",
        "/..\\..\\etc\\passwd",
        "/hello.txt#fragment",
        "/hello\u{7f}.txt",
        "hello.txt",
        "h:80",
        "*",
        "?x",
        "file:///etc/passwd",
        "ftp://h/",
        "http://",
        "http:///hello.txt",
        "http://user@h/hello.txt",
        "http://user:secret@h/",
        "http:hello.txt",
        "javascript:alert(1)",
    ];
    for target in targets {
        assert_closed(400, &[format!("GET {target} HTTP/1.1\r\n{HOST}")]);
    }
}

#[test]
fn directories_without_slash_return_301() {
    assert_open(
        301,
        &[
            "GET /docs HTTP/1.1\r\nHost: h\r\n\r\n",
            "HEAD /docs HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /bare HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET /docs/deep HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    );
}

#[test]
fn known_methods_return_405_and_unknown_ones_501() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        assert_open(405, &[&format!("{method} /hello.txt HTTP/1.1\r\n{HOST}")]);
        assert_open(405, &[&format!("{method} /nothing HTTP/1.1\r\n{HOST}")]);
        assert_closed(400, &[format!("{method} nothing HTTP/1.1\r\n{HOST}")]);
    }
    assert_open(405, &["OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"]);
    assert_closed(400, &["POST * HTTP/1.1\r\nHost: h\r\n\r\n"]);
    assert_closed(405, &["CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n"]);
    for method in ["get", "Get", "BREW", "PROPFIND", "X", "GETX", "!#$%&'*+-.^_`|~09"] {
        assert_open(501, &[&format!("{method} /hello.txt HTTP/1.1\r\n{HOST}")]);
    }
    assert_open(501, &[&format!("{} / HTTP/1.1\r\n{HOST}", "M".repeat(32))]);
    assert_closed(501, &["M".repeat(33), format!("{} / HTTP/1.1\r\n{HOST}", "M".repeat(1000))]);
}

#[test]
fn invalid_request_lines_return_400() {
    assert_closed(
        400,
        &[
            &b" GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..],
            b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /  HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / a HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\r\nHost: h\r\n\r\n",
            b"GET /\n\n",
            b"GET\r\n\r\n",
            b"GE:T / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"G\0T / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.1\nHost: h\n\n",
            b"GET / HTTP/1.1\rHost: h\r\r",
            b"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
            b"GET / http/1.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/11\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.10\r\nHost: h\r\n\r\n",
            b"GET / HTTP/01.1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1.\r\nHost: h\r\n\r\n",
            b"GET / HTTP/1,1\r\nHost: h\r\n\r\n",
            b"GET / HTTP/x.y\r\nHost: h\r\n\r\n",
            b"GET / HTTPS/1.1\r\nHost: h\r\n\r\n",
            b"GET / ICE/1.0\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\0\0\0\0",
            b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n",
            b"\xef\xbb\xbfGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ],
    );
}

#[test]
fn other_versions_return_505() {
    assert_closed(
        505,
        &[
            "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
            "GET / HTTP/0.9\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET / HTTP/9.9\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ],
    );
}

#[test]
fn invalid_fields_return_400() {
    for field in [
        &b"Name : value"[..],
        b"Name\t: value",
        b" Name: value",
        b"\tName: value",
        b"Name",
        b": value",
        b"",
        b"Na me: value",
        b"Na\0me: value",
        b"N\xc3\xa4me: value",
        b"(Name): value",
        b"Name: a\0b",
        b"Name: a\x01b",
        b"Name: a\x7fb",
        b"Name: a\x1b[0m",
        b"Name: a\rb",
        b"Name: a\r\r",
        b"Name: a\nSmuggled: b",
        b"Name: a\r\n folded",
        b"Name: a\r\n\tfolded",
        b"Name: a\r\n ",
        b"\rName: value",
        b"\x0bTransfer-Encoding: chunked",
    ] {
        if field.is_empty() {
            continue;
        }
        let at_the_end = [b"GET / HTTP/1.1\r\nHost: h\r\n", field, b"\r\n\r\n"].concat();
        let at_the_beginning = [b"GET / HTTP/1.1\r\n", field, b"\r\nHost: h\r\n\r\n"].concat();
        assert_closed(400, &[at_the_end, at_the_beginning]);
    }
}

#[test]
fn host_missing_repeated_or_invalid_returns_400() {
    assert_closed(
        400,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET http://h/ HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{fc}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: <script>\r\n\r\n",
        ],
    );
}

#[test]
fn errors_to_head_requests_have_no_body() {
    let mut site = site();
    for request in [
        &b"HEAD /nothing HTTP/1.1\r\nHost: h\r\n\r\n"[..],
        b"HEAD /docs HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD /.. HTTP/1.1\r\nHost: h\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"HEAD /\0",
        b"HEAD / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ] {
        let sent = ask(&mut site, request).sent;
        assert!(sent.ends_with(b"\r\n\r\n"), "{}", sent.escape_ascii());
        assert!(!sent.is_empty());
    }
    // What was refused before a HEAD on another connection has nothing to do with it.
    assert!(ask(&mut site, b"HEAX / HTTP/9.9\r\n\r\n").sent.ends_with(b"</html>\n"));
}

#[test]
fn parser_used_again_after_a_malformed_request_begins_anew() {
    let mut parser = RequestParser::default();
    assert!(matches!(parser.parse(b"HEAD / HTTP/1.1\r\nBad\r\n"), Progress::Malformed(_)));
    assert_eq!(parser.method(), Some(Method::Head));
    assert!(matches!(parser.parse(b"\0"), Progress::Malformed(_)));
    assert_eq!(parser.method(), None);
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    assert!(matches!(parser.parse(request), Progress::Complete { bytes, .. } if bytes == request.len()));
}
