//! HTTP as a client sees it: content, conditions, errors, connections.

use exovm_ci::http::{Content, Response, request};
use exovm_ci::site::Pattern;
use exovm_ci::{Client, Guest, Site};
use exovm_netns::in_namespace;
use std::io::Read;

const PAGE: &str = "<!doctype html><title>home</title>";

fn site() -> Site {
    Site::new()
        .file("index.html", PAGE)
        .file("style.css", "body { color: black }")
        .file("empty.txt", "")
        .file("docs/index.html", "docs")
        .file("docs/deep/er/file.txt", "deep")
}

#[test]
fn core_files_are_served_with_their_headers() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        let home = client.get("/").unwrap();
        assert_eq!((home.status(), home.text().as_str()), (200, PAGE));
        assert_eq!(home.head.field("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(home.head.field("server"), Some("exovm"));
        assert!(home.head.field("date").is_some_and(|date| date.ends_with(" GMT")), "{home:?}");
        assert!(home.head.field("last-modified").is_some(), "{home:?}");
        for (target, body, kind) in [
            ("/index.html?query", PAGE, "text/html; charset=utf-8"),
            ("/style.css", "body { color: black }", "text/css; charset=utf-8"),
            ("/empty.txt", "", "text/plain; charset=utf-8"),
            ("/docs/", "docs", "text/html; charset=utf-8"),
            ("/docs/deep/er/file.txt", "deep", "text/plain; charset=utf-8"),
        ] {
            let response = client.get(target).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, body), "{target}");
            assert_eq!(response.head.field("content-type"), Some(kind), "{target}");
        }
        guest.stop();
    });
}

#[test]
fn core_date_is_the_hosts() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        // The time page has whole seconds in common with the host, give or take the one that is just ending.
        let seconds = |response: &Response| {
            let date = response.head.field("date").unwrap();
            let clock = date.rsplit(' ').nth(1).unwrap();
            let numbers: Vec<u64> = clock.split(':').map(|number| number.parse().unwrap()).collect();
            numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
        };
        let now = || {
            let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            since_epoch.as_secs() % 86_400
        };
        let before = now();
        let said = seconds(&guest.get("/"));
        let after = now();
        let late = (said + 86_400 - before) % 86_400;
        assert!(late <= (after + 86_400 - before) % 86_400 + 1, "{before} <= {said} <= {after}");
        guest.stop();
    });
}

#[test]
fn core_missing_file_returns_404_with_a_page() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        for target in ["/nothing", "/docs/nothing", "/index.html/", "/style.css/x", "/docs/deep/"] {
            let response = client.get(target).unwrap();
            assert_eq!(response.status(), 404, "{target}");
            assert!(response.text().contains("404 Not Found"), "{target}: {response:?}");
        }
        assert_eq!(client.get("/").unwrap().text(), PAGE, "the connection lives on");
        guest.stop();
    });
}

#[test]
fn core_directory_without_slash_redirects() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let response = guest.get("/docs?x=1");
        assert_eq!((response.status(), response.head.field("location")), (301, Some("/docs/?x=1")));
        guest.stop();
    });
}

#[test]
fn core_head_has_the_header_of_get_and_no_body() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        for target in ["/", "/style.css", "/nothing"] {
            let get = client.get(target).unwrap();
            let head = client.head(target).unwrap();
            assert_eq!(head.status(), get.status(), "{target}");
            for field in ["content-length", "content-type", "last-modified"] {
                assert_eq!(head.head.field(field), get.head.field(field), "{target} {field}");
            }
        }
        // Nothing was left over: the next response is the next response.
        assert_eq!(client.get("/style.css").unwrap().status(), 200);
        guest.stop();
    });
}

#[test]
fn core_unmodified_file_returns_304_without_a_body() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        let modified = client.get("/").unwrap().head.field("last-modified").unwrap().to_owned();
        let again = client.get_with("/", &format!("If-Modified-Since: {modified}\r\n")).unwrap();
        assert_eq!((again.status(), again.body.len()), (304, 0));
        let long_ago = "If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT\r\n";
        assert_eq!(client.get_with("/", long_ago).unwrap().status(), 200);
        guest.stop();
    });
}

#[test]
fn core_bad_requests_are_answered_by_their_status() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let long_target = format!("/{}", "a".repeat(70_000));
        let long_field = format!("X: {}\r\n", "b".repeat(70_000));
        for (status, bytes) in [
            (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
            (400, "GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
            (400, "nonsense\r\n\r\n".to_owned()),
            (405, request("POST", "/", "Content-Length: 0\r\n")),
            (414, request("GET", &long_target, "")),
            (431, request("GET", "/", &long_field)),
            (501, request("BREW", "/", "")),
        ] {
            let mut client = guest.connect();
            // The server may answer and close before all of a long request is sent.
            let _ = client.send(bytes.as_bytes());
            let response = client.response(Content::Follows);
            let response = response.unwrap_or_else(|error| panic!("instead of {status}: {error}"));
            assert_eq!(response.status(), status, "{}", &bytes[..bytes.len().min(80)]);
            assert!(response.text().contains(&status.to_string()), "a page says it: {response:?}");
        }
        assert_eq!(guest.get("/").status(), 200);
        guest.stop();
    });
}

#[test]
fn core_keep_alive_serves_many_requests_on_a_connection() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let requests = guest.requests_during(|| {
            let mut client = guest.connect();
            for _ in 0..300 {
                assert_eq!(client.get("/style.css").unwrap().status(), 200);
            }
        });
        assert_eq!(requests, 300);
        guest.stop();
    });
}

#[test]
fn core_connection_close_closes_after_the_response() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        for _ in 0..50 {
            let mut client = guest.connect();
            let response = client.get_with("/", "Connection: close\r\n").unwrap();
            assert!(response.head.closes() && response.text() == PAGE, "{response:?}");
            assert!(client.is_at_end().unwrap());
        }
        guest.stop();
    });
}

#[test]
fn core_http_1_0_closes_unless_asked_not_to() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        client.send(b"GET /style.css HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        assert_eq!(client.response(Content::Follows).unwrap().status(), 200);
        client.send(b"GET /style.css HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!(client.response(Content::Follows).unwrap().status(), 200);
        assert!(client.is_at_end().unwrap());
        guest.stop();
    });
}

#[test]
fn core_pipelined_requests_are_answered_in_order() {
    in_namespace!(|| {
        let bodies: Vec<_> = (0..20u64).map(|n| Pattern::bytes(n, 100 + 700 * n as usize)).collect();
        let mut site = Site::new();
        for (n, body) in bodies.iter().enumerate() {
            site = site.file(&format!("file{n}"), body);
        }
        let guest = Guest::serving(&site);
        let mut client = guest.connect();
        let order: Vec<usize> = (0..400).map(|n| n * 7 % 20).collect();
        let requests: String = order.iter().map(|n| request("GET", &format!("/file{n}"), "")).collect();
        client.send(requests.as_bytes()).unwrap();
        for n in order {
            assert!(client.response(Content::Follows).unwrap().body == bodies[n], "file{n}");
        }
        guest.stop();
    });
}

#[test]
fn core_request_in_single_bytes_is_understood() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        for byte in request("GET", "/style.css", "Accept: */*\r\n").bytes() {
            client.send(&[byte]).unwrap();
        }
        assert_eq!(client.response(Content::Follows).unwrap().status(), 200);
        guest.stop();
    });
}

#[test]
fn core_request_then_half_close_is_still_answered() {
    in_namespace!(|| {
        let body = Pattern::bytes(5, 500_000);
        let guest = Guest::serving(&Site::new().file("body", &body));
        let mut client = guest.connect();
        client.request("GET", "/body", "").unwrap();
        client.socket().shutdown(std::net::Shutdown::Write).unwrap();
        assert!(client.response(Content::Follows).unwrap().body == body);
        assert!(client.is_at_end().unwrap(), "the server closes, too");
        guest.stop();
    });
}

#[test]
fn core_hundred_connections_at_once_are_served() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let requests = guest.requests_during(|| {
            let mut clients: Vec<Client> = (0..100).map(|_| guest.connect()).collect();
            for _ in 0..3 {
                clients.iter_mut().for_each(|client| client.request("GET", "/", "").unwrap());
                for client in &mut clients {
                    assert_eq!(client.response(Content::Follows).unwrap().text(), PAGE);
                }
            }
        });
        assert_eq!(requests, 300);
        guest.stop();
    });
}

#[test]
fn core_one_mib_body_is_identical() {
    in_namespace!(|| {
        let body = Pattern::bytes(9, 1 << 20);
        let guest = Guest::serving(&Site::new().file("body", &body));
        let mut client = guest.connect();
        for _ in 0..3 {
            assert!(client.get("/body").unwrap().body == body);
        }
        guest.stop();
    });
}

#[test]
fn core_slow_reader_gets_everything() {
    in_namespace!(|| {
        let body = Pattern::bytes(11, 2 << 20);
        let guest = Guest::serving(&Site::new().file("body", &body));
        let mut client = guest.connect();
        client.request("GET", "/body", "").unwrap();
        client.response_head().unwrap();
        let mut got = vec![0; body.len()];
        // A pause after each piece fills the client's receive window again and again.
        for piece in got.chunks_mut(100_000) {
            client.body().read_exact(piece).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(got == body);
        guest.stop();
    });
}
