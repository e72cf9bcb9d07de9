//! The forwarder from outside: frames in, frames out, by a clock that the test turns. What frames should look like is built anew by
//! another library, with its checksums from scratch.
#![allow(missing_docs, unreachable_pub)]

mod common;
mod discovery;
mod garbage;
mod icmp;
mod link;
mod refused;
mod rewriting;
mod timeouts;
