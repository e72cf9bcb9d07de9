//! What a request asks for. The parser is `httparse`; here is what the server makes of its fields.

use httparse::Status;

/// Fields that a request may have.
const FIELDS_MAX: usize = 64;

/// What a server of files does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Other,
}

/// A request, whose header is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// Without the query.
    pub(crate) path: &'a str,
    /// The client wants another response on this connection.
    pub(crate) keep_alive: bool,
    /// Something follows the header, which this server does not read.
    pub(crate) has_body: bool,
    /// Bytes of the header.
    pub(crate) len_bytes: usize,
}

/// It is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The first request among `bytes`; `None`: its header is not complete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let len_bytes = match parsed.parse(bytes) {
        Ok(Status::Complete(len_bytes)) => len_bytes,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed),
    };
    let method = match parsed.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => Method::Other,
    };
    let target = parsed.path.unwrap_or_default();
    if !target.starts_with('/') {
        return Err(Malformed);
    }
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    // RFC 9112 9.3: HTTP/1.1 keeps a connection unless told otherwise, HTTP/1.0 the other way round.
    let mut keep_alive = parsed.version == Some(1);
    let mut has_body = false;
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("connection") {
            for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                if option.eq_ignore_ascii_case(b"close") {
                    keep_alive = false;
                } else if option.eq_ignore_ascii_case(b"keep-alive") {
                    keep_alive = true;
                }
            }
        } else if field.name.eq_ignore_ascii_case("content-length") {
            has_body |= field.value != b"0";
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            has_body = true;
        }
    }
    Ok(Some(Request { method, path, keep_alive: keep_alive && !has_body, has_body, len_bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Request<'_> {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn parse_takes_the_first_of_several_requests() {
        let text = "GET /a?b HTTP/1.1\r\nHost: x\r\n\r\nGET /c HTTP/1.1\r\n\r\n";
        let request = parsed(text);
        assert_eq!((request.method, request.path, request.len_bytes), (Method::Get, "/a", 30));
        assert!(request.keep_alive && !request.has_body);
    }

    #[test]
    fn parse_incomplete_returns_none_at_every_length() {
        let text = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
        for len in 0..text.len() {
            assert_eq!(parse(&text[..len]), Ok(None), "{len}");
        }
    }

    #[test]
    fn parse_knows_who_keeps_the_connection() {
        for (text, keep_alive) in [
            ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nconnection: TE, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", true),
        ] {
            assert_eq!(parsed(text).keep_alive, keep_alive, "{text}");
        }
    }

    #[test]
    fn parse_malformed_returns_so() {
        for text in ["GET\r\n\r\n", "GET * HTTP/1.1\r\n\r\n", "\x01", "GET / HTTP/9.9\r\n\r\n"] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text}");
        }
    }
}
