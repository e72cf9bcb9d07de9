//! `exovm bench tcp`: one TCP connection between the kernel's sockets and another stack, for each of several stacks in turn.
//!
//! The client is always the kernel's, in the measuring process ([`client`]); the other end is a process of its own that plays the
//! same sans-I/O [`session`] on Linux sockets, on our sockets over a TAP, or on smoltcp over a TAP ([`ends`]).

mod client;
mod ends;
mod measure;
mod options;
mod our_end;
mod pattern;
mod report;
mod session;
mod smoltcp_end;
mod table;

pub use options::{Stack, TcpOptions, Test};
pub use report::{Bar, Figure, Report, Round, SCHEMA, Series, TestReport};

pub(crate) use ends::{End, play};
pub(crate) use measure::measure;
