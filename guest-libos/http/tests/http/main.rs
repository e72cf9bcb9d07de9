//! Everything that this crate promises, seen from outside: bytes in, bytes out.

mod common;
mod differential;
mod framing;
mod requests;
mod responses;
mod segments;
