//! A DNS stub resolver (RFC 1034 5.3.1, RFC 1035) without input and output: names, answers, a clock and randomness come in
//! as arguments, queries and addresses come out. It asks recursive servers over UDP, and over TCP (RFC 7766) if
//! the caller can, and believes only what answers the question that it asked them: the same name, type, identifier and port, from the
//! server that was asked (RFC 5452). [`Streams`] asks over TCP for whoever has a stack.
//!
//! [`Resolver::lookup`] knows the addresses or begins a query; [`Resolver::poll`] says what to send and what came of it;
//! [`Resolver::receive`] takes what arrived. Queries, answers and what is remembered of them are bounded by [`Config`];
//! whatever a server says, nothing panics.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod both;
mod cache;
mod connections;
mod message;
mod resolver;
mod stream;

pub use both::{first_host, merge};
pub use connections::{Outcome, Streams};
pub use message::{Family, MAX_ADDRESSES, MAX_ANSWER_BYTES, MAX_QUERY_BYTES, MAX_RECORDS};
pub use resolver::{Config, Event, Failure, Lookup, MAX_SERVERS, Outgoing, QueryId, Resolver};
pub use stream::{StreamAnswer, StreamQuery};
