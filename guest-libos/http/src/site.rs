//! What all connections share: the files, the prepared headers, the date of the second, and the counters.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::date;
use crate::prepared::PreparedHeaders;
use crate::response::{self, DateText, Response, Then};
use crate::{File, Files, Piece, Status};

/// Enough for four headers each of 2,048 files, some 300 bytes a header.
const PREPARED_HEADERS: usize = 8192;
/// Of a file: 200 and 304, each with the connection kept alive and closed.
const HEADERS_PER_FILE: u64 = 4;

/// Files as they are served.
#[derive(Debug)]
pub struct Site<S> {
    files: S,
    file_headers: PreparedHeaders,
    page_headers: PreparedHeaders,
    date: DateText,
    date_unix_seconds: u64,
    counters: Counters,
    /// Where paths that are not in their normal form are rewritten.
    pub(crate) path_scratch: Vec<u8>,
}

/// How many responses there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    by_status: [u64; Status::ALL.len()],
    body_bytes: u64,
}

impl Counters {
    /// Responses with this status.
    pub fn responses(&self, status: Status) -> u64 {
        self.by_status[status.index()]
    }

    /// All responses.
    pub fn all_responses(&self) -> u64 {
        self.by_status.iter().sum()
    }

    /// The bytes of all responses' bodies.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }
}

impl<S: Files> Site<S> {
    /// A site with these files. Takes up to some megabytes for headers as files are asked for.
    pub fn new(files: S) -> Site<S> {
        Site {
            files,
            file_headers: PreparedHeaders::new(PREPARED_HEADERS),
            page_headers: PreparedHeaders::new(2 * Status::ALL.len()),
            date: date::format(0),
            date_unix_seconds: 0,
            counters: Counters::default(),
            path_scratch: Vec::with_capacity(crate::MAX_TARGET_BYTES),
        }
    }

    /// The files.
    pub fn files(&self) -> &S {
        &self.files
    }

    /// The files, to be told what became of the tickets that they gave out.
    pub fn files_mut(&mut self) -> &mut S {
        &mut self.files
    }

    /// How many responses there were so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(crate) fn count(&mut self, response: &Response<S::File>) {
        self.counters.by_status[response.status.index()] += 1;
        self.counters.body_bytes += response.body.len_bytes();
    }

    /// Sets the time of the responses to come.
    #[inline]
    pub(crate) fn set_time(&mut self, unix_seconds: u64) {
        if unix_seconds != self.date_unix_seconds {
            self.date = date::format(unix_seconds);
            self.date_unix_seconds = unix_seconds;
        }
    }

    pub(crate) fn unix_seconds(&self) -> u64 {
        self.date_unix_seconds
    }

    /// When a file was modified, as a client is told: not after the response itself (RFC 9110 8.8.2.1).
    pub(crate) fn last_modified_unix_seconds(&self, file: &S::File) -> u64 {
        file.mtime_unix_seconds().min(self.date_unix_seconds)
    }

    /// The header of 200 or 304 for a file.
    #[inline]
    pub(crate) fn file_header(&mut self, status: Status, file: &S::File, then: Then) -> Piece {
        let last_modified = self.last_modified_unix_seconds(file);
        // As long as a file's time is in the future, its header says something else each second.
        let settled = file.mtime_unix_seconds();
        let date = &self.date;
        let variant = 2 * u64::from(status == Status::NotModified) + u64::from(then == Then::Close);
        let key = file.number() * HEADERS_PER_FILE + variant;
        let header =
            self.file_headers.get(
                key,
                status,
                self.date_unix_seconds,
                date,
                settled,
                |header| match status {
                    Status::NotModified => response::write_not_modified(header, date, last_modified, then),
                    _ => response::write_ok(header, date, file, last_modified, then),
                },
            );
        Piece::Shared(header)
    }

    /// The header of a status with a page of its own.
    pub(crate) fn page_header(&mut self, status: Status, then: Then) -> Piece {
        let key = 2 * status.index() as u64 + u64::from(then == Then::Close);
        let date = &self.date;
        Piece::Shared(self.page_headers.get(key, status, self.date_unix_seconds, date, 0, |header| {
            response::write_page(header, date, status, then);
        }))
    }

    /// The header of content that is made for each request.
    pub(crate) fn generated_header(&mut self, media_type: &[u8], content_bytes: usize, then: Then) -> Piece {
        let date = &self.date;
        Piece::Shared(self.page_headers.once(|header| {
            response::write_generated(header, date, media_type, content_bytes, then);
        }))
    }

    /// The header that sends a client to `path` with a slash.
    pub(crate) fn redirection_header(&mut self, path: &[u8], query: Option<&[u8]>, then: Then) -> Piece {
        let date = &self.date;
        let header: Rc<[u8]> =
            self.page_headers.once(|header| response::write_redirection(header, date, path, query, then));
        Piece::Shared(header)
    }
}
