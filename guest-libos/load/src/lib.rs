//! A load generator for HTTP/1.1 without input and output: connections, bytes and the time come in as arguments, what is to be
//! connected, asked and closed goes out through [`Network`]. The same code runs in the guest and in a host test.
//!
//! The loop is closed: each of N connections has one request under way, and asks again when it is answered. A request counts from
//! the moment it is asked, which is the moment its connection is asked for if it needs a new one, to the last byte of its
//! response. Each request that was asked ends in exactly one place: answered with a 2xx status, or one [`ErrorKind`].
//!
//! | module | what |
//! | --- | --- |
//! | [`plan`] | what is asked of whom, out of the words of a command line |
//! | [`generator`] | the closed loop |
//! | [`response`] | bytes of a connection to responses; data is counted and not copied |
//! | [`histogram`] | latencies, with a bounded relative error |
//! | [`report`] | what came out, as text and as JSON |
//!
//! Nobody trusts the server: what its bytes can take up is nothing but the head of one response, which stays where it was received
//! until it is complete and is at most [`response::MAX_HEAD_BYTES`] long.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod generator;
pub mod histogram;
pub mod plan;
pub mod report;
pub mod response;

pub use generator::{Ended, Generator, Network, NotConnected};
pub use histogram::Histogram;
pub use plan::{Plan, PlanError};
pub use report::{ErrorKind, Errors, Packets, Report};
pub use response::{Answer, BadResponse, ResponseCounter};
