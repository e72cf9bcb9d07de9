//! A TCP forwarder that never terminates a connection: segments go on with other addresses and ports, and nothing else of them
//! changes. What the ends say to each other (acknowledgments, windows, FIN, RST, options, path-MTU messages) is the other end's
//! own word.
//!
//! Full NAT for one server: a client's segment to `address:listen` goes to the server from `address:PORT`, and what the server
//! answers goes back. Sans I/O: frames, a clock and a secret come in as arguments.
//!
//! ```text
//! frame ── forward ──> first bytes of it, rewritten ++ the rest of it where it lies     or a reason why not
//! ```
//!
//! It is a router on the way: it decrements the time to live (two forwarders that lead to each other must not keep a segment for
//! ever), says "time exceeded" and "host unreachable", and reassembles nothing. Checksums change by what changed under them (RFC
//! 1624), so a segment that was damaged stays so, and the ends find it. A frame whose checksum a device is to complete, or that
//! stands for several segments, stays one.
//!
//! | module | what |
//! | --- | --- |
//! | `config`, `counters` | what it is told, what it counts |
//! | `forwarder` | a frame's way: Ethernet, IP, and who looks at it next |
//! | `segment` | TCP |
//! | `icmp` | errors that quote a segment (RFC 5508), errors of its own, echo |
//! | `flows` | the connections that are remembered |
//! | `state` | how far they are |
//! | `neighbour` | where the server is on the link |
//! | `checksum`, `wire` | sums and offsets |
//!
//! Memory is taken at the start and bounded by [`Config::max_connections`]: 2 MiB for the most. Nothing that a frame has in it
//! makes it panic.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod checksum;
mod config;
mod counters;
mod flows;
mod forwarder;
mod icmp;
mod neighbour;
mod segment;
mod state;
mod wire;

pub use config::{Config, ConfigError, Mac};
pub use counters::{Counters, Reason, Way};
pub use flows::FLOWS_MAX;
pub use forwarder::{Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, REQUEST_BYTES, Verdict};
