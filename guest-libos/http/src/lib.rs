//! HTTP/1.1, server side, for static files: RFC 9110 (semantics) and RFC 9112 (the bytes of HTTP/1.1).
//!
//! Sans I/O: an [`HttpConnection`] takes the bytes that a connection has received and the time, asks [`Files`] for what
//! a path names, and hands back [`Response`]s that refer to the file and to prepared headers. Files that have to be
//! fetched first make it wait. It knows no TCP, no disk, no clock and no hardware, so the same code runs in the guest,
//! in a host test and under a fuzzer. `no_std` with `alloc`, no `unsafe`.
//!
//! Rooms, in the order in which a request passes them: [`connection`] (requests in, responses out, in order),
//! [`request`] (bytes to a request line and the fields that matter), `body` (request bodies, which are discarded),
//! [`target`] (a request target to a path that stays below the root), `files` (what a path names), `serve` (what to
//! answer), `prepared`
//! (headers that are written once a second), `response` (headers as bytes).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod body;
mod characters;
pub mod connection;
pub mod date;
mod files;
mod piece;
mod prepared;
pub mod request;
mod response;
mod serve;
mod site;
mod status;
pub mod target;

pub use body::MAX_BODY_BYTES;
pub use connection::{Consumed, HttpConnection, Next, Responses, Stage};
pub use files::{Begin, File, Files, Lookup, Ticket};
pub use piece::Piece;
pub use request::{MAX_FIELDS_BYTES, MAX_HEAD_BYTES, MAX_TARGET_BYTES, Malformed};
pub use response::{Content, Response, Then};
pub use site::{Counters, Site};
pub use status::Status;
