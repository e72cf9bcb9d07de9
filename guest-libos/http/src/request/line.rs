//! The request line (RFC 9112 3): `method SP request-target SP HTTP-version CRLF`, with single spaces.

use super::{MAX_TARGET_BYTES, Malformed, Method, Span, Version, wrong_byte};
use crate::characters::{TARGET, TOKEN, span_of};

/// No registered method is longer (`UPDATEREDIRECTREF` has 17).
pub(super) const MAX_METHOD_BYTES: usize = 32;
/// `HTTP/1.1` and the line's end.
pub(super) const VERSION_BYTES: usize = 10;

/// What is known of a request line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestLine {
    /// `None` until the space behind it was seen.
    method: Option<Method>,
    pub(super) version: Version,
    pub(super) target: Span,
    /// With its line ending.
    pub(super) bytes: u16,
}

impl RequestLine {
    /// The method, as soon as it was seen.
    pub(super) fn method(&self) -> Option<Method> {
        self.method
    }

    /// Reads the line at the beginning of `bytes` and returns its length; `None` if it goes on beyond them.
    #[inline]
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        self.method = None;
        let window = &bytes[..bytes.len().min(MAX_METHOD_BYTES + 1)];
        let method_end = span_of(window, &TOKEN);
        match window.get(method_end) {
            Some(b' ') if method_end > 0 => {}
            Some(&byte) => return Err(wrong_byte(byte, Malformed::RequestLine)),
            None if method_end > MAX_METHOD_BYTES => return Err(Malformed::MethodTooLong),
            None => return Ok(None),
        }
        self.method = Some(method(&bytes[..method_end]));

        let target_start = method_end + 1;
        let window = &bytes[target_start..bytes.len().min(target_start + MAX_TARGET_BYTES + 1)];
        let target_bytes = span_of(window, &TARGET);
        match window.get(target_bytes) {
            Some(b' ') if target_bytes > 0 => {}
            Some(b' ' | b'\r') => return Err(Malformed::RequestLine),
            Some(&byte) => return Err(wrong_byte(byte, Malformed::Target)),
            None if target_bytes > MAX_TARGET_BYTES => return Err(Malformed::TargetTooLong),
            None => return Ok(None),
        }
        let target_end = target_start + target_bytes;
        self.target = Span::new(target_start, target_end);

        let version_start = target_end + 1;
        let line_end = version_start + VERSION_BYTES;
        match version(&bytes[version_start..bytes.len().min(line_end)])? {
            Some(version) => self.version = version,
            None => return Ok(None),
        }
        self.bytes = line_end as u16;
        Ok(Some(line_end))
    }
}

fn method(token: &[u8]) -> Method {
    match token {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"CONNECT" => Method::Connect,
        b"OPTIONS" => Method::Options,
        b"TRACE" => Method::Trace,
        b"PATCH" => Method::Patch,
        _ => Method::Other,
    }
}

/// The version at the end of the line (RFC 9112 2.3); `None` where the bytes end within it.
#[inline]
fn version(bytes: &[u8]) -> Result<Option<Version>, Malformed> {
    if bytes == b"HTTP/1.1\r\n" {
        return Ok(Some(Version::Http11));
    }
    for (&byte, expected) in bytes.iter().zip(b"HTTP/0.0\r\n") {
        let fits = match expected {
            b'0' => byte.is_ascii_digit(),
            b'\n' if byte != b'\n' => return Err(Malformed::LineEnding),
            _ => byte == *expected,
        };
        if !fits {
            return Err(wrong_byte(byte, Malformed::Version));
        }
    }
    match bytes {
        [_, _, _, _, _, b'1', _, b'0', _, _] => Ok(Some(Version::Http10)),
        [_, _, _, _, _, b'1', _, _, _, _] => Ok(Some(Version::Http11)),
        [_, _, _, _, _, _, _, _, _, _] => Err(Malformed::VersionNotSupported),
        _ => Ok(None),
    }
}
