//! A DHCP client (RFC 2131) without input and output: messages, a clock and randomness come in as arguments, messages and
//! leases go out. It takes the first offer that makes sense, renews it in time, and says when it is lost. An address from an
//! earlier life is asked for first.
//!
//! [`Client::poll`] says what there is to do, [`Client::receive`] takes what arrived at [`CLIENT_PORT`], and
//! [`Client::decline`] is for who found that somebody else has the address (RFC 5227). Whatever a server says, nothing panics
//! and what is kept of it is bounded.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
mod lease;
mod message;

pub use client::{Client, Config, Event};
pub use lease::{Lease, MAX_ROUTES, Route};
pub use message::{CLIENT_PORT, Outgoing, SERVER_PORT};
