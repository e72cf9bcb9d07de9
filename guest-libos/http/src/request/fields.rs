//! The fields that decide how a request is read and answered; all others are passed over. Each is read when its line
//! is complete, and a wrong one is refused there.

use core::ops::Range;

use super::{Malformed, Span, Version};
use crate::characters::{HOST, span_of, trim};

/// How the body of a request is delimited (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    #[default]
    None,
    /// So many bytes; a number that does not fit is the largest.
    Bytes(u32),
    /// Chunks, the last of which is empty.
    Chunked,
}

/// What the fields said so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fields {
    pub(super) host: Option<Span>,
    pub(super) if_modified_since: Option<Span>,
    pub(super) if_none_match: Option<Span>,
    pub(super) body_length: BodyLength,
    pub(super) content_length_seen: bool,
    pub(super) connection_close: bool,
    pub(super) connection_keep_alive: bool,
    pub(super) expects_continue: bool,
}

impl Fields {
    /// Takes a complete line apart whose name and value lie at these places. Names know no case (RFC 9110 5.1); most
    /// fields of most requests are told apart by the length of their names.
    #[inline]
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        name: Range<usize>,
        value: Range<usize>,
        version: Version,
    ) -> Result<(), Malformed> {
        let name = &bytes[name];
        let known = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if known(b"host") => self.take_host(bytes, value),
            6 if known(b"expect") => {
                self.expects_continue |= trim(&bytes[value]).eq_ignore_ascii_case(b"100-continue");
                Ok(())
            }
            10 if known(b"connection") => {
                self.take_connection(&bytes[value]);
                Ok(())
            }
            13 if known(b"if-none-match") => {
                take_once(&mut self.if_none_match, bytes, value);
                Ok(())
            }
            14 if known(b"content-length") => self.take_content_length(trim(&bytes[value])),
            17 if known(b"if-modified-since") => {
                take_once(&mut self.if_modified_since, bytes, value);
                Ok(())
            }
            17 if known(b"transfer-encoding") => self.take_transfer_encoding(&bytes[value], version),
            _ => Ok(()),
        }
    }

    /// What only the end of the fields can tell.
    #[inline]
    pub(super) fn finish(&self, version: Version) -> Result<(), Malformed> {
        if self.content_length_seen && self.body_length == BodyLength::Chunked {
            return Err(Malformed::ContentLengthWithTransferEncoding);
        }
        if self.host.is_none() && version == Version::Http11 {
            return Err(Malformed::HostMissing);
        }
        Ok(())
    }

    /// RFC 9112 3.2. An empty value is right for a target without authority.
    fn take_host(&mut self, bytes: &[u8], value: Range<usize>) -> Result<(), Malformed> {
        if self.host.is_some() {
            return Err(Malformed::HostRepeated);
        }
        let value = trimmed(bytes, value);
        let host = value.of(bytes);
        if span_of(host, &HOST) != host.len() {
            return Err(Malformed::HostInvalid);
        }
        self.host = Some(value);
        Ok(())
    }

    /// RFC 9110 7.6.1: a list of options, which other lines may continue.
    fn take_connection(&mut self, value: &[u8]) {
        for option in value.split(|&byte| byte == b',').map(trim) {
            self.connection_close |= option.eq_ignore_ascii_case(b"close");
            self.connection_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9110 8.6: digits and nothing else, no sign, no list.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        if self.content_length_seen {
            return Err(Malformed::ContentLengthRepeated);
        }
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Malformed::ContentLengthInvalid);
        }
        let length = value
            .iter()
            .fold(0u32, |length, digit| length.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
        self.content_length_seen = true;
        // With a Transfer-Encoding before it, `finish` refuses the request.
        if self.body_length == BodyLength::None && length > 0 {
            self.body_length = BodyLength::Bytes(length);
        }
        Ok(())
    }

    /// RFC 9112 6.1. Only `chunked` alone is a coding that is understood; whatever does not end in exactly one
    /// `chunked` leaves the length of the body unknown.
    fn take_transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Malformed> {
        if version == Version::Http10 {
            return Err(Malformed::TransferEncodingInHttp10);
        }
        if self.body_length == BodyLength::Chunked {
            return Err(Malformed::TransferEncodingInvalid);
        }
        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let mut codings = value.rsplit(|&byte| byte == b',').map(trim);
        if !codings.next().is_some_and(is_chunked) {
            return Err(Malformed::TransferEncodingInvalid);
        }
        let mut others = 0;
        for coding in codings {
            if coding.is_empty() || is_chunked(coding) {
                return Err(Malformed::TransferEncodingInvalid);
            }
            others += 1;
        }
        if others > 0 {
            return Err(Malformed::TransferEncodingUnknown);
        }
        self.body_length = BodyLength::Chunked;
        Ok(())
    }
}

/// The value at `range` without the white space around it.
fn trimmed(bytes: &[u8], range: Range<usize>) -> Span {
    let mut from = range.start;
    let mut to = range.end;
    while from < to && matches!(bytes[from], b' ' | b'\t') {
        from += 1;
    }
    while from < to && matches!(bytes[to - 1], b' ' | b'\t') {
        to -= 1;
    }
    Span::new(from, to)
}

/// Keeps a value that must come once. One that comes again makes the field empty, which no condition accepts, so it
/// is ignored (RFC 9110 13.1.3).
fn take_once(field: &mut Option<Span>, bytes: &[u8], value: Range<usize>) {
    *field = match field {
        None => Some(trimmed(bytes, value)),
        Some(_) => Some(Span::default()),
    };
}
