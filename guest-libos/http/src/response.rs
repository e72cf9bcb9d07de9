//! Responses, and their headers as bytes (RFC 9112 4 and 5). Every header has the same first lines, so the place of
//! its date is known and a prepared header can be brought up to date by writing 29 bytes.

use alloc::vec::Vec;

use crate::characters::{PATH, TARGET};
use crate::date::{self, IMF_FIXDATE_BYTES};
use crate::request::Persistence;
use crate::{File, Piece, Status};

/// What goes out for a request: the header, then the body.
#[derive(Clone, Debug)]
pub struct Response<F> {
    /// The status that the header carries.
    pub status: Status,
    /// Status line and fields, with the empty line behind them.
    pub header: Piece,
    /// The content.
    pub body: Content<F>,
    /// What becomes of the connection.
    pub then: Then,
}

/// The content of a response.
#[derive(Clone, Debug)]
pub enum Content<F> {
    /// These bytes; none for HEAD and for 304.
    Piece(Piece),
    /// All of a file, from its first byte on. [`Files::begin`](crate::Files::begin) has said that it can begin.
    File(F),
}

impl<F: File> Content<F> {
    /// No content.
    pub const EMPTY: Content<F> = Content::Piece(Piece::EMPTY);

    /// Its length in bytes.
    pub fn len_bytes(&self) -> u64 {
        match self {
            Content::Piece(piece) => piece.len() as u64,
            Content::File(file) => file.size_bytes(),
        }
    }
}

/// What becomes of the connection when a response has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It waits for the next request.
    KeepAlive,
    /// It is closed in order behind the last byte of the body: the FIN may ride on it.
    Close,
}

impl From<Persistence> for Then {
    fn from(persistence: Persistence) -> Then {
        match persistence {
            Persistence::KeepAlive => Then::KeepAlive,
            Persistence::Close => Then::Close,
        }
    }
}

/// An IMF-fixdate.
pub(crate) type DateText = [u8; IMF_FIXDATE_BYTES];

const BEFORE_DATE: &[u8] = b"Server: exovm\r\nDate: ";

/// Writes another date into a finished header.
pub(crate) fn replace_date(header: &mut [u8], status: Status, date: &DateText) {
    let from = status.line().len() + BEFORE_DATE.len();
    if let Some(place) = header.get_mut(from..from + date.len()) {
        place.copy_from_slice(date);
    }
}

/// The header of a file (RFC 9110 15.3.1).
pub(crate) fn write_ok(
    header: &mut Vec<u8>,
    date: &DateText,
    file: &impl File,
    last_modified_unix_seconds: u64,
    then: Then,
) {
    begin(header, Status::Ok, date);
    field(header, b"Content-Type", file.media_type());
    content_length(header, file.size_bytes());
    field(header, b"Last-Modified", &date::format(last_modified_unix_seconds));
    // Ranges are not served yet (RFC 9110 14.3).
    field(header, b"Accept-Ranges", b"none");
    end(header, then);
}

/// The header of content that is made for each request.
pub(crate) fn write_generated(
    header: &mut Vec<u8>,
    date: &DateText,
    media_type: &[u8],
    content_bytes: usize,
    then: Then,
) {
    begin(header, Status::Ok, date);
    field(header, b"Content-Type", media_type);
    content_length(header, content_bytes as u64);
    // RFC 9111 5.2.2.5
    field(header, b"Cache-Control", b"no-store");
    end(header, then);
}

/// The header of 304: of the fields that 200 would have had, those that RFC 9110 15.4.5 asks for, and
/// `Last-Modified`, because there is no entity tag.
pub(crate) fn write_not_modified(
    header: &mut Vec<u8>,
    date: &DateText,
    last_modified_unix_seconds: u64,
    then: Then,
) {
    begin(header, Status::NotModified, date);
    field(header, b"Last-Modified", &date::format(last_modified_unix_seconds));
    end(header, then);
}

/// The header of a status with a page of its own.
pub(crate) fn write_page(header: &mut Vec<u8>, date: &DateText, status: Status, then: Then) {
    begin(header, status, date);
    if status == Status::MethodNotAllowed {
        // RFC 9110 15.5.6 asks for it.
        field(header, b"Allow", b"GET, HEAD");
    }
    page_fields(header, status);
    end(header, then);
}

/// The header of the redirection from a directory's name to the same with a slash (RFC 9110 15.4.2). `path` is
/// normalised and without the slash, so the location can only be a path on this server (RFC 9110 10.2.2).
pub(crate) fn write_redirection(
    header: &mut Vec<u8>,
    date: &DateText,
    path: &[u8],
    query: Option<&[u8]>,
    then: Then,
) {
    begin(header, Status::MovedPermanently, date);
    header.extend_from_slice(b"Location: ");
    percent_encode(header, path, &PATH);
    header.push(b'/');
    if let Some(query) = query {
        header.push(b'?');
        // As it came, but for the bytes above ASCII that this server lets pass in targets.
        percent_encode(header, query, &TARGET_ASCII);
    }
    header.extend_from_slice(b"\r\n");
    page_fields(header, Status::MovedPermanently);
    end(header, then);
}

/// What a target may hold, without bytes above ASCII, but with the percent signs of what is encoded already.
const TARGET_ASCII: [bool; 256] = {
    let mut table = TARGET;
    let mut byte = 0x80;
    while byte < 256 {
        table[byte] = false;
        byte += 1;
    }
    table
};

fn begin(header: &mut Vec<u8>, status: Status, date: &DateText) {
    header.clear();
    header.extend_from_slice(status.line());
    header.extend_from_slice(BEFORE_DATE);
    header.extend_from_slice(date);
    header.extend_from_slice(b"\r\n");
}

fn field(header: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    header.extend_from_slice(name);
    header.extend_from_slice(b": ");
    header.extend_from_slice(value);
    header.extend_from_slice(b"\r\n");
}

fn page_fields(header: &mut Vec<u8>, status: Status) {
    field(header, b"Content-Type", b"text/html; charset=utf-8");
    content_length(header, status.page().len() as u64);
}

fn content_length(header: &mut Vec<u8>, mut length: u64) {
    // u64::MAX has 20 digits.
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    field(header, b"Content-Length", &digits[from..]);
}

/// `Connection` is written in either case: a client of HTTP/1.0 needs to be told that the connection stays open, one
/// of HTTP/1.1 that it does not (RFC 9112 9.3), and so one prepared header serves both.
fn end(header: &mut Vec<u8>, then: Then) {
    header.extend_from_slice(match then {
        Then::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Then::Close => b"Connection: close\r\n\r\n",
    });
}

fn percent_encode(header: &mut Vec<u8>, bytes: &[u8], unencoded: &[bool; 256]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match unencoded[usize::from(byte)] {
            true => header.push(byte),
            false => header.extend_from_slice(&[
                b'%',
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]),
        }
    }
}
