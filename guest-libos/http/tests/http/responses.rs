//! What responses say: fields, bodies, conditions, dates, and that prepared headers are shared and never changed
//! under someone who holds them.

use crate::common::{FILES, MODIFIED, NOW, ask, ask_one, body, fields, site, site_of};
use exos_http::{Content, Piece, Status, Then};

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

#[test]
fn file_has_exactly_these_bytes() {
    let sent = ask(&mut site(), &get("/hello.txt")).sent;
    let expected = "HTTP/1.1 200 OK\r\n\
        Server: exovm\r\n\
        Date: Sun, 15 Jun 2025 15:06:40 GMT\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Content-Length: 6\r\n\
        Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        Accept-Ranges: none\r\n\
        Connection: keep-alive\r\n\
        \r\n\
        hello\n";
    assert_eq!(String::from_utf8(sent).unwrap(), expected);
}

#[test]
fn every_file_comes_with_its_content_and_length() {
    let mut site = site();
    for (name, content) in FILES {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02x}").replace("%2f", "/")).collect();
        let (response, fields) = ask_one(&mut site, &get(&format!("/{encoded}")), NOW);
        assert_eq!(body(&response), *content, "{name}");
        assert!(matches!(response.body, Content::File(_)) != content.is_empty(), "{name}");
        assert_eq!(fields["Content-Length"], content.len().to_string());
    }
    assert_eq!(site.counters().responses(Status::Ok), FILES.len() as u64);
    let all_bytes: usize = FILES.iter().map(|(_, content)| content.len()).sum();
    assert_eq!(site.counters().body_bytes(), all_bytes as u64);
}

#[test]
fn directory_is_answered_with_its_index() {
    let mut site = site();
    assert_eq!(body(&ask_one(&mut site, &get("/"), NOW).0), b"<p>root</p>");
    let (response, fields) = ask_one(&mut site, &get("/docs/"), NOW);
    assert_eq!(body(&response), b"<p>docs</p>");
    assert_eq!(fields["Content-Type"], "text/html; charset=utf-8");
}

#[test]
fn head_has_the_header_of_get_and_no_body() {
    let mut site = site();
    for path in ["/", "/hello.txt", "/empty.css", "/nothing", "/docs", "/bare/"] {
        let (get, _) = ask_one(&mut site, &get(path), NOW);
        let (head, _) =
            ask_one(&mut site, format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(), NOW);
        assert_eq!(get.header.bytes(), head.header.bytes(), "{path}");
        assert!(body(&head).is_empty());
    }
}

#[test]
fn connection_field_says_what_happens() {
    let mut site = site();
    for (lines, expected, then) in [
        ("HTTP/1.1\r\nHost: h\r\n", "keep-alive", Then::KeepAlive),
        ("HTTP/1.1\r\nHost: h\r\nConnection: close\r\n", "close", Then::Close),
        ("HTTP/1.0\r\n", "close", Then::Close),
        ("HTTP/1.0\r\nConnection: Keep-Alive\r\n", "keep-alive", Then::KeepAlive),
    ] {
        for target in ["/hello.txt", "/nothing", "/docs"] {
            let request = format!("GET {target} {lines}\r\n");
            let (response, fields) = ask_one(&mut site, request.as_bytes(), NOW);
            assert_eq!((fields["Connection"].as_str(), response.then), (expected, then), "{request:?}");
        }
    }
}

#[test]
fn pages_of_errors_have_their_length_and_405_allows_get_and_head() {
    let mut site = site();
    for (request, status) in [
        (&b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n"[..], "404 Not Found"),
        (b"POST / HTTP/1.1\r\nHost: h\r\n\r\n", "405 Method Not Allowed"),
        (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", "501 Not Implemented"),
        (b"GET / HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"GET / HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n", "413 Content Too Large"),
    ] {
        let (response, fields) = ask_one(&mut site, request, NOW);
        let page = std::str::from_utf8(body(&response)).unwrap();
        assert!(page.contains(&format!("<h1>{status}</h1>")), "{page}");
        assert_eq!(fields["Content-Length"], page.len().to_string());
        assert_eq!(fields["Content-Type"], "text/html; charset=utf-8");
        assert_eq!(fields.get("Allow").map(String::as_str), status.starts_with("405").then_some("GET, HEAD"));
        assert_eq!(fields["Server"], "exovm");
        assert_eq!(fields["Date"], "Sun, 15 Jun 2025 15:06:40 GMT");
    }
}

#[test]
fn redirection_keeps_the_query_encodes_the_path_and_stays_on_this_server() {
    let mut site = site();
    for (target, expected) in [
        ("/docs", "/docs/"),
        ("/docs?a=b&c", "/docs/?a=b&c"),
        ("/docs?", "/docs/?"),
        ("/docs?a=\u{fc}%20", "/docs/?a=%C3%BC%20"),
        ("/docs/deep", "/docs/deep/"),
        ("/d%20%c3%a4", "/d%20%C3%A4/"),
        ("//docs", "/docs/"),
        ("//evil.example/../docs", "/docs/"),
        ("http://evil.example/docs", "/docs/"),
    ] {
        let (response, fields) = ask_one(&mut site, &get(target), NOW);
        assert_eq!(response.status, Status::MovedPermanently, "{target}");
        assert_eq!(fields["Location"], expected, "{target}");
        assert_eq!(fields["Content-Length"], body(&response).len().to_string());
    }
}

#[test]
fn conditions_decide_between_200_and_304() {
    let mut site = site();
    for (lines, expected) in [
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT", 304),
        ("If-Modified-Since: Sun Nov  6 08:49:37 1994", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT", 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("If-Modified-Since: yesterday", 200),
        ("If-Modified-Since:", 200),
        (
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
            200,
        ),
        ("If-None-Match: *", 304),
        ("If-None-Match: \"abc\"", 200),
        ("If-None-Match: \"abc\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 200),
    ] {
        for method in ["GET", "HEAD"] {
            let request = format!("{method} /hello.txt HTTP/1.1\r\nHost: h\r\n{lines}\r\n\r\n");
            let (response, fields) = ask_one(&mut site, request.as_bytes(), NOW);
            assert_eq!(response.status.code(), expected, "{lines}");
            assert_eq!(fields["Last-Modified"], "Sun, 06 Nov 1994 08:49:37 GMT");
            if expected == 304 {
                assert!(body(&response).is_empty());
                let names: Vec<_> = fields.keys().map(String::as_str).collect();
                assert_eq!(names, ["Connection", "Date", "Last-Modified", "Server"]);
            }
        }
    }
    // A condition does not turn an error into success.
    let request = b"GET /nothing HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n";
    assert_eq!(ask_one(&mut site, request, NOW).0.status, Status::NotFound);
}

#[test]
fn header_is_shared_within_a_second_and_gets_a_new_date_in_the_next() {
    let mut site = site();
    let request = get("/hello.txt");
    let address = |piece: &Piece| piece.bytes().as_ptr();
    let (first, _) = ask_one(&mut site, &request, NOW);
    let (second, _) = ask_one(&mut site, &request, NOW);
    assert_eq!(address(&first.header), address(&second.header));
    // Both are still held: the next second must not change what they say.
    let before = first.header.bytes().to_vec();
    let (third, third_fields) = ask_one(&mut site, &request, NOW + 1);
    assert_ne!(address(&first.header), address(&third.header));
    assert_eq!(first.header.bytes(), before);
    assert_eq!(third_fields["Date"], "Sun, 15 Jun 2025 15:06:41 GMT");
    assert_eq!(fields(&first)["Date"], "Sun, 15 Jun 2025 15:06:40 GMT");
    // Nobody holds this one: it is brought up to date in its place.
    let kept_address = address(&third.header);
    drop(third);
    let (fourth, fourth_fields) = ask_one(&mut site, &request, NOW + 2);
    assert_eq!(address(&fourth.header), kept_address);
    assert_eq!(fourth_fields["Date"], "Sun, 15 Jun 2025 15:06:42 GMT");
    // The clock may be set back.
    let (_, fifth_fields) = ask_one(&mut site, &request, NOW - 100);
    assert_eq!(fifth_fields["Date"], "Sun, 15 Jun 2025 15:05:00 GMT");
}

#[test]
fn dates_of_errors_and_redirections_follow_the_clock() {
    let mut site = site();
    for second in 0..3 {
        for target in ["/nothing", "/docs", "/hello.txt"] {
            let (_, fields) = ask_one(&mut site, &get(target), NOW + second);
            assert_eq!(fields["Date"], format!("Sun, 15 Jun 2025 15:06:4{second} GMT"));
        }
    }
}

#[test]
fn last_modified_is_never_after_date() {
    let mut site = site_of([("f", NOW + 2, &b"x"[..])]);
    // Forward over the file's time, on, and back before it.
    for (now, expected) in [(0, "40"), (1, "41"), (2, "42"), (3, "42"), (9, "42"), (1, "41"), (5, "42")] {
        let (_, fields) = ask_one(&mut site, &get("/f"), NOW + now);
        assert_eq!(fields["Last-Modified"], format!("Sun, 15 Jun 2025 15:06:{expected} GMT"), "{now}");
    }
    // What a client was told then does not make it miss the file's time.
    let request = b"GET /f HTTP/1.1\r\nHost: h\r\nIf-Modified-Since: Sun, 15 Jun 2025 15:06:41 GMT\r\n\r\n";
    assert_eq!(ask_one(&mut site, request, NOW + 1).0.status, Status::NotModified);
    assert_eq!(ask_one(&mut site, request, NOW + 3).0.status, Status::Ok);
}

#[test]
fn more_files_than_prepared_headers_each_get_their_own() {
    let names: Vec<String> = (0..3000).map(|number| format!("{number}.txt")).collect();
    let content = [b'x'; 50];
    let mut site = site_of(
        names.iter().enumerate().map(|(number, name)| (&name[..], MODIFIED, &content[..number % 50])),
    );
    for _ in 0..2 {
        for number in 0..3000 {
            let (response, fields) = ask_one(&mut site, &get(&format!("/{number}.txt")), NOW);
            assert_eq!(body(&response).len(), number % 50);
            assert_eq!(fields["Content-Length"], (number % 50).to_string());
        }
    }
}

#[test]
fn counters_count_by_status() {
    let mut site = site();
    ask(
        &mut site,
        &[get("/hello.txt"), get("/nothing"), get("/docs"), get("/hello.txt"), b"\0".to_vec()].concat(),
    );
    let counts =
        [Status::Ok, Status::NotFound, Status::MovedPermanently, Status::BadRequest, Status::NotModified]
            .map(|status| site.counters().responses(status));
    assert_eq!(counts, [2, 1, 1, 1, 0]);
    assert_eq!(site.counters().all_responses(), 5);
    assert_ne!(MODIFIED, NOW);
}

#[test]
fn generated_content_is_not_to_be_stored() {
    let mut site = site();
    let (response, fields) = ask_one(&mut site, &get("/generated"), NOW);
    assert_eq!((response.status, body(&response)), (Status::Ok, &b"{}"[..]));
    assert_eq!((fields["Cache-Control"].as_str(), fields["Content-Length"].as_str()), ("no-store", "2"));
    assert_eq!(fields["Content-Type"], "application/json");
    assert!(!fields.contains_key("Last-Modified"));
    let (head, head_fields) = ask_one(&mut site, b"HEAD /generated HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
    assert_eq!((body(&head), head_fields), (&b""[..], fields));
}

#[test]
fn broken_file_or_directory_returns_500_and_the_connection_goes_on() {
    let mut site = site();
    site.files_mut().broken_contents.insert(b"hello.txt".to_vec());
    site.files_mut().broken_paths.insert(b"/docs/".to_vec());
    let requests = ["/hello.txt", "/docs/", "/index.html"].map(get).concat();
    let outcome = ask(&mut site, &requests);
    assert_eq!((outcome.statuses, outcome.stage), (vec![500, 500, 200], exos_http::Stage::Idle));
    let (response, fields) = ask_one(&mut site, &get("/hello.txt"), NOW);
    assert!(body(&response).starts_with(b"<!doctype html>"));
    assert_eq!(fields["Content-Length"], body(&response).len().to_string());
    assert_eq!(site.counters().responses(Status::InternalServerError), 3);
}

#[test]
fn content_is_asked_for_only_if_it_goes_out() {
    let mut site = site();
    ask_one(&mut site, b"HEAD /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n", NOW);
    ask_one(&mut site, b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n", NOW);
    ask_one(&mut site, &get("/empty.css"), NOW);
    ask_one(&mut site, &get("/docs"), NOW);
    assert_eq!(site.files().begun, 0);
    ask_one(&mut site, &get("/hello.txt"), NOW);
    assert_eq!(site.files().begun, 1);
}
