//! The one thing of HTTP that the control socket knows: `GET /metrics`, for Prometheus, its agents and curl. One request a connection,
//! whose fields and content do not matter.

use crate::stat::prometheus::CONTENT_TYPE;

/// Fields of a request; more are too many.
const FIELDS_MAX: usize = 100;

/// A request whose fields are being passed over.
#[derive(Debug)]
pub(super) struct HttpRequest {
    method: String,
    target: String,
    fields: usize,
}

/// Whether there is more of a request to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum More {
    /// Another field, or the empty line.
    Comes,
    /// That was all.
    No,
    /// It does not end.
    TooMuch,
}

impl HttpRequest {
    /// A request line, if it is one (RFC 9112 3). Lines of the protocol begin with a brace.
    pub(super) fn begin(line: &[u8]) -> Option<Self> {
        let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
        let mut words = line.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_request = is_method && version.starts_with("HTTP/1.") && words.next().is_none();
        is_request.then(|| Self { method: method.to_owned(), target: target.to_owned(), fields: 0 })
    }

    /// Passes over one more line.
    pub(super) fn pass(&mut self, line: &[u8]) -> More {
        self.fields += 1;
        match line {
            b"" | b"\r" => More::No,
            _ if self.fields > FIELDS_MAX => More::TooMuch,
            _ => More::Comes,
        }
    }

    /// The answer; `metrics` gives what there is to be had.
    pub(super) fn answer(&self, metrics: impl FnOnce() -> String) -> Vec<u8> {
        let path = self.target.split('?').next().unwrap_or_default();
        match (self.method.as_str(), path) {
            ("GET", "/metrics") => response("200 OK", CONTENT_TYPE, "", &metrics()),
            (_, "/metrics") => plain("405 Method Not Allowed", "Allow: GET\r\n", "only GET is served\n"),
            _ => plain("404 Not Found", "", "there is nothing but /metrics\n"),
        }
    }
}

/// The answer to a request that does not end.
pub(super) fn too_large() -> Vec<u8> {
    plain("431 Request Header Fields Too Large", "", "too many fields\n")
}

fn plain(status: &str, fields: &str, text: &str) -> Vec<u8> {
    response(status, "text/plain; charset=utf-8", fields, text)
}

fn response(status: &str, content_type: &str, fields: &str, body: &str) -> Vec<u8> {
    let len_bytes = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len_bytes}\r\n\
         {fields}Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> String {
        let request = HttpRequest::begin(line.as_bytes()).expect("a request");
        String::from_utf8(request.answer(|| "the text\n".to_owned())).expect("text")
    }

    #[test]
    fn get_of_metrics_is_answered_with_the_text() {
        for line in ["GET /metrics HTTP/1.1\r", "GET /metrics HTTP/1.0", "GET /metrics?x=1 HTTP/1.1\r"] {
            let answer = answer(line);
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
                "{answer}"
            );
            assert!(answer.ends_with("Content-Length: 9\r\nConnection: close\r\n\r\nthe text\n"), "{answer}");
        }
    }

    #[test]
    fn other_methods_and_targets_are_refused() {
        assert!(answer("POST /metrics HTTP/1.1\r").starts_with("HTTP/1.1 405 "));
        assert!(answer("HEAD /metrics HTTP/1.1\r").contains("\r\nAllow: GET\r\n"));
        for target in ["/", "/metrics/", "/metricsx", "http://localhost/metrics", "*"] {
            assert!(answer(&format!("GET {target} HTTP/1.1\r")).starts_with("HTTP/1.1 404 "), "{target}");
        }
    }

    #[test]
    fn what_is_no_request_line_is_left_to_the_protocol() {
        for line in [
            "{\"v\":1,\"request\":\"info\"}",
            "",
            "GET /metrics",
            "get /metrics HTTP/1.1",
            "GET  / HTTP/1.1 x",
            "\u{1F600}",
        ] {
            assert!(HttpRequest::begin(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn fields_are_passed_over_up_to_a_limit() {
        let mut request = HttpRequest::begin(b"GET /metrics HTTP/1.1\r").expect("a request");
        (0..FIELDS_MAX).for_each(|_| assert_eq!(request.pass(b"Accept: */*\r"), More::Comes));
        assert_eq!(request.pass(b"Accept: */*\r"), More::TooMuch);
        assert_eq!(request.pass(b"\r"), More::No);
    }
}
