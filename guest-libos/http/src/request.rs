//! Requests out of bytes (RFC 9112 2 to 6): request line, fields, and what they say about the message. Nobody trusts
//! the wire: what the grammar does not allow is refused, because two readers that repair it differently are how
//! requests are smuggled (RFC 9112 11.2).
//!
//! The parser reads strictly from left to right and what it finds at a byte depends on the bytes up to it only.
//! Therefore it makes no difference how a request was cut into segments, and nonsense is refused when its first
//! wrong byte arrives. Nothing is copied: a [`Request`] refers to the bytes it was read from.

mod error;
mod fields;
mod line;

pub use error::Malformed;
pub use fields::BodyLength;

use crate::characters::{TOKEN, is_field_byte, span_of, span_of_field_bytes};
use fields::Fields;
use line::RequestLine;

/// A longer request target is answered with 414.
pub const MAX_TARGET_BYTES: usize = 4096;
/// More bytes of fields, with the empty line behind them, are answered with 431.
pub const MAX_FIELDS_BYTES: usize = 8192;
/// No request line and fields that are accepted are longer: whoever keeps the bytes of incomplete requests needs
/// space for this many.
pub const MAX_HEAD_BYTES: usize =
    line::MAX_METHOD_BYTES + 1 + MAX_TARGET_BYTES + 1 + line::VERSION_BYTES + MAX_FIELDS_BYTES;

/// A method (RFC 9110 9, RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// CONNECT
    Connect,
    /// OPTIONS
    Options,
    /// TRACE
    Trace,
    /// PATCH
    Patch,
    /// Any other token.
    Other,
}

/// The version of a request, as far as it matters here: a later minor version is treated as 1.1 (RFC 9110 2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

/// Whether the connection stays open after the response (RFC 9112 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It does.
    KeepAlive,
    /// The response is the last.
    Close,
}

/// A request line with its fields, complete and well-formed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
    line: RequestLine,
    fields: Fields,
}

impl<'a> Request<'a> {
    /// The method.
    pub fn method(&self) -> Method {
        // A complete request line has one.
        self.line.method().unwrap_or(Method::Other)
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.line.version
    }

    /// The target, as it was sent. Not empty.
    pub fn target(&self) -> &'a [u8] {
        self.line.target.of(self.bytes)
    }

    /// The value of `Host`; only a request of HTTP/1.0 may lack it.
    pub fn host(&self) -> Option<&'a [u8]> {
        Some(self.fields.host?.of(self.bytes))
    }

    /// The value of `If-Modified-Since`; empty if there were several.
    pub fn if_modified_since(&self) -> Option<&'a [u8]> {
        Some(self.fields.if_modified_since?.of(self.bytes))
    }

    /// The value of `If-None-Match`; empty if there were several.
    pub fn if_none_match(&self) -> Option<&'a [u8]> {
        Some(self.fields.if_none_match?.of(self.bytes))
    }

    /// Whether the client wants to see `100 (Continue)` before it sends the body (RFC 9110 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.fields.expects_continue && self.line.version == Version::Http11
    }

    /// The body behind the fields.
    pub fn body_length(&self) -> BodyLength {
        self.fields.body_length
    }

    /// Whether the client lets the connection stay open (RFC 9112 9.3).
    pub fn persistence(&self) -> Persistence {
        let keep_alive = match self.line.version {
            _ if self.fields.connection_close => false,
            Version::Http11 => true,
            Version::Http10 => self.fields.connection_keep_alive,
        };
        if keep_alive { Persistence::KeepAlive } else { Persistence::Close }
    }
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// The request goes on beyond the bytes.
    NeedMore,
    /// A request whose line and fields are `bytes` long. A body may follow.
    Complete {
        /// The request.
        request: Request<'a>,
        /// The length of its line and fields, with the empty line.
        bytes: usize,
    },
    /// Not a request. Nothing that follows on the connection can be trusted to be one.
    Malformed(Malformed),
}

/// Reads one request at a time. When it needs more, it is given the same bytes again with more behind them and goes
/// on at the line it had reached.
#[derive(Clone, Debug, Default)]
pub struct RequestParser {
    /// Where the first line lies that is not complete; 0 is the request line.
    line_start: u16,
    line: RequestLine,
    fields: Fields,
}

impl RequestParser {
    /// Reads the request at the beginning of `bytes`. After anything but [`Progress::NeedMore`] the next call begins
    /// a new request.
    #[inline]
    pub fn parse<'a>(&mut self, bytes: &'a [u8]) -> Progress<'a> {
        match self.read(bytes) {
            Ok(None) => Progress::NeedMore,
            Ok(Some(length)) => {
                let request = Request { bytes, line: self.line, fields: self.fields };
                *self = RequestParser::default();
                Progress::Complete { request, bytes: length }
            }
            Err(malformed) => {
                self.line_start = 0;
                self.fields = Fields::default();
                Progress::Malformed(malformed)
            }
        }
    }

    /// The method of the request that was read last, complete or not, as soon as it was seen: the answer to a
    /// malformed HEAD has no content either.
    pub fn method(&self) -> Option<Method> {
        self.line.method()
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut at = usize::from(self.line_start);
        if at == 0 {
            match self.line.read(bytes)? {
                Some(length) => at = length,
                None => return Ok(None),
            }
            self.line_start = at as u16;
        }
        let fields_end = usize::from(self.line.bytes) + MAX_FIELDS_BYTES;
        let view = &bytes[..bytes.len().min(fields_end)];
        loop {
            match self.field_line(view, at)? {
                Line::Incomplete if view.len() == fields_end => return Err(Malformed::FieldsTooLarge),
                Line::Incomplete => return Ok(None),
                Line::Field { end } => {
                    at = end;
                    self.line_start = at as u16;
                }
                Line::Empty { end } => {
                    self.fields.finish(self.line.version)?;
                    return Ok(Some(end));
                }
            }
        }
    }

    /// Reads the line at `start`: `field-name ":" OWS field-value OWS CRLF`, or the empty line (RFC 9112 5).
    #[inline]
    fn field_line(&mut self, view: &[u8], start: usize) -> Result<Line, Malformed> {
        let name_bytes = span_of(&view[start..], &TOKEN);
        let name_end = start + name_bytes;
        let Some(&after_name) = view.get(name_end) else { return Ok(Line::Incomplete) };
        if after_name != b':' || name_bytes == 0 {
            return match (after_name, name_bytes) {
                (b'\r', 0) => {
                    Ok(line_feed(view, name_end)?.map_or(Line::Incomplete, |end| Line::Empty { end }))
                }
                (b' ' | b'\t', 0) => Err(Malformed::ObsoleteFolding),
                (b'\n', 0) => Err(Malformed::LineEnding),
                _ => Err(Malformed::FieldName),
            };
        }
        let value_start = name_end + 1;
        let value_end = value_start + span_of_field_bytes(&view[value_start..]);
        match view.get(value_end) {
            None => return Ok(Line::Incomplete),
            Some(b'\r') => {}
            Some(b'\n') => return Err(Malformed::LineEnding),
            Some(_) => return Err(Malformed::FieldValue),
        }
        let Some(end) = line_feed(view, value_end)? else { return Ok(Line::Incomplete) };
        self.fields.take(view, start..name_end, value_start..value_end, self.line.version)?;
        Ok(Line::Field { end })
    }
}

enum Line {
    Incomplete,
    Field { end: usize },
    Empty { end: usize },
}

/// The end of the line whose carriage return is at `at`; `None` where the bytes end first. A lone carriage return is
/// refused (RFC 9112 2.2).
#[inline]
fn line_feed(view: &[u8], at: usize) -> Result<Option<usize>, Malformed> {
    match view.get(at + 1) {
        Some(b'\n') => Ok(Some(at + 2)),
        Some(_) => Err(Malformed::LineEnding),
        None => Ok(None),
    }
}

/// What a byte is that ends something too early: a control character and a line ending are errors of their own.
fn wrong_byte(byte: u8, otherwise: Malformed) -> Malformed {
    match byte {
        b'\n' => Malformed::LineEnding,
        byte if !is_field_byte(byte) && byte != b'\r' => Malformed::ControlCharacter,
        _ => otherwise,
    }
}

/// A stretch of the bytes of a request, counted from its first. A request is shorter than 64 KiB.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    from: u16,
    to: u16,
}

impl Span {
    fn new(from: usize, to: usize) -> Span {
        const { assert!(MAX_HEAD_BYTES <= u16::MAX as usize) };
        Span { from: from as u16, to: to as u16 }
    }

    fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(usize::from(self.from)..usize::from(self.to)).unwrap_or_default()
    }
}
