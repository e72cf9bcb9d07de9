//! An HTTP/1.1 server of files as anybody would write it: a task for each connection, which reads requests from a stream and writes
//! responses to it. It knows the traits of `edge-nal` and nothing below, so the same source runs on sockets in a guest
//! (`images/plain`) and on those of Linux (`exovm bench http`): what the specialised server is compared with.
//!
//! | module | what |
//! | --- | --- |
//! | [`serve`](serve()) | accepts connections, and runs a task for each |
//! | `connection` | requests in, responses out |
//! | `request` | what a request asks for |
//! | [`Files`] | where files come from |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod connection;
mod counters;
mod files;
mod request;
mod serve;

pub use counters::Counters;
pub use files::{File, Files, Unreadable};
pub use serve::serve;
