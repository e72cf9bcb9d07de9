//! The status codes that this server sends, and what it says with them.

/// A status code (RFC 9110 15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 200
    Ok,
    /// 301
    MovedPermanently,
    /// 304
    NotModified,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 413
    ContentTooLarge,
    /// 414
    UriTooLong,
    /// 431 (RFC 6585 5)
    RequestHeaderFieldsTooLarge,
    /// 500
    InternalServerError,
    /// 501
    NotImplemented,
    /// 505
    HttpVersionNotSupported,
}

macro_rules! page {
    ($title:literal, $text:literal) => {
        concat!(
            "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>",
            $title,
            "</title></head>\n<body><h1>",
            $title,
            "</h1><p>",
            $text,
            "</p></body>\n</html>\n"
        )
        .as_bytes()
    };
}

impl Status {
    /// All of them, in ascending order.
    pub const ALL: [Status; 12] = [
        Status::Ok,
        Status::MovedPermanently,
        Status::NotModified,
        Status::BadRequest,
        Status::NotFound,
        Status::MethodNotAllowed,
        Status::ContentTooLarge,
        Status::UriTooLong,
        Status::RequestHeaderFieldsTooLarge,
        Status::InternalServerError,
        Status::NotImplemented,
        Status::HttpVersionNotSupported,
    ];

    /// The number.
    pub fn code(self) -> u16 {
        match self {
            Status::Ok => 200,
            Status::MovedPermanently => 301,
            Status::NotModified => 304,
            Status::BadRequest => 400,
            Status::NotFound => 404,
            Status::MethodNotAllowed => 405,
            Status::ContentTooLarge => 413,
            Status::UriTooLong => 414,
            Status::RequestHeaderFieldsTooLarge => 431,
            Status::InternalServerError => 500,
            Status::NotImplemented => 501,
            Status::HttpVersionNotSupported => 505,
        }
    }

    /// The place in [`Status::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    /// The status line (RFC 9112 4). The version is the server's own, whatever the request's was (RFC 9110 6.2).
    pub(crate) fn line(self) -> &'static [u8] {
        match self {
            Status::Ok => b"HTTP/1.1 200 OK\r\n",
            Status::MovedPermanently => b"HTTP/1.1 301 Moved Permanently\r\n",
            Status::NotModified => b"HTTP/1.1 304 Not Modified\r\n",
            Status::BadRequest => b"HTTP/1.1 400 Bad Request\r\n",
            Status::NotFound => b"HTTP/1.1 404 Not Found\r\n",
            Status::MethodNotAllowed => b"HTTP/1.1 405 Method Not Allowed\r\n",
            Status::ContentTooLarge => b"HTTP/1.1 413 Content Too Large\r\n",
            Status::UriTooLong => b"HTTP/1.1 414 URI Too Long\r\n",
            Status::RequestHeaderFieldsTooLarge => b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
            Status::InternalServerError => b"HTTP/1.1 500 Internal Server Error\r\n",
            Status::NotImplemented => b"HTTP/1.1 501 Not Implemented\r\n",
            Status::HttpVersionNotSupported => b"HTTP/1.1 505 HTTP Version Not Supported\r\n",
        }
    }

    /// The page that goes with the status; empty where a status has a file or nothing for content.
    pub(crate) fn page(self) -> &'static [u8] {
        match self {
            Status::Ok | Status::NotModified => b"",
            Status::MovedPermanently => {
                page!("301 Moved Permanently", "The directory has a slash at its end.")
            }
            Status::BadRequest => page!("400 Bad Request", "The request is not valid HTTP."),
            Status::NotFound => page!("404 Not Found", "There is nothing at this address."),
            Status::MethodNotAllowed => page!("405 Method Not Allowed", "Only GET and HEAD are served here."),
            Status::ContentTooLarge => page!("413 Content Too Large", "The request's content is too large."),
            Status::UriTooLong => page!("414 URI Too Long", "The request's target is too long."),
            Status::RequestHeaderFieldsTooLarge => {
                page!("431 Request Header Fields Too Large", "The request's header is too large.")
            }
            Status::InternalServerError => {
                page!("500 Internal Server Error", "The file cannot be read from the disk.")
            }
            Status::NotImplemented => {
                page!("501 Not Implemented", "The server does not know this method or coding.")
            }
            Status::HttpVersionNotSupported => {
                page!("505 HTTP Version Not Supported", "The server speaks HTTP/1.1 and HTTP/1.0.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn all_statuses_are_in_order_and_agree_with_their_lines_and_pages() {
        for (index, status) in Status::ALL.into_iter().enumerate() {
            assert_eq!(status.index(), index);
            let line = core::str::from_utf8(status.line()).unwrap();
            assert!(line.starts_with(&format!("HTTP/1.1 {} ", status.code())) && line.ends_with("\r\n"));
            let title = line["HTTP/1.1 ".len()..].trim_end();
            let page = core::str::from_utf8(status.page()).unwrap();
            assert_eq!(page.is_empty(), status.code() == 200 || status.code() == 304);
            assert!(page.is_empty() || page.contains(&format!("<h1>{title}</h1>")), "{title}");
        }
    }
}
