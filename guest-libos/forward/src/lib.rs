//! A TCP forwarder that never terminates a connection: segments go on with other addresses and ports, and nothing else of them
//! changes. What the ends say to each other (acknowledgments, windows, FIN, RST, options, path-MTU messages) is the other end's
//! own word.
//!
//! Full NAT for one server over IPv4 and one over IPv6: a client's segment to `address:listen` goes to the server of its own version
//! of IP from `address:PORT`, and what the server answers goes back. Sans I/O: frames, a clock and a secret come in as arguments.
//!
//! ```text
//! frame ── forward ──> first bytes of it, rewritten ++ the rest of it where it lies     or a reason why not
//! ```
//!
//! Who asks by ARP or Neighbor Discovery for the addresses that it forwards at is answered by the host that has them ([`Verdict::Heard`]),
//! which also finds out whether somebody else has ([`Forwarder::set_used`]).
//!
//! It is a router on the way: it decrements the time to live (two forwarders that lead to each other must not keep a segment for
//! ever), says "time exceeded", "host unreachable" and, where a version of IP has no server, "port unreachable", and reassembles
//! nothing. Checksums change by what changed under them (RFC 1624), so a segment that was damaged stays so, and the ends find it. A
//! frame whose checksum a device is to complete, or that stands for several segments, stays one.
//!
//! | module | what |
//! | --- | --- |
//! | `config`, `counters` | what it is told, what it counts |
//! | `forwarder` | whose a frame is, by its Ethernet header |
//! | `path` | one version of IP: its address, its server, its connections |
//! | `address`, `ipv4`, `ipv6` | what differs from one version to the other; all else is written once |
//! | `segment` | TCP |
//! | `icmp` | errors that quote a segment (RFC 5508), errors of its own, echo |
//! | `flows` | the connections that are remembered |
//! | `state` | how far they are |
//! | `neighbour`, `arp`, `ndisc` | where the server is on the link |
//! | `checksum`, `wire` | sums and offsets |
//!
//! Memory is taken at the start: for each version of IP that has a server, 28 or 40 bytes for each of 64,512 ports, and an index of
//! 4 to 8 bytes for each of [`Config::max_connections`]: 2 MiB for IPv4, 2.7 MiB for IPv6. Nothing that a frame has in it
//! makes it panic.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod address;
mod arp;
mod checksum;
mod config;
mod counters;
mod flows;
mod forwarder;
mod icmp;
mod ipv4;
mod ipv6;
mod ndisc;
mod neighbour;
mod path;
mod segment;
mod state;
mod wire;

pub use address::{REQUEST_BYTES, Version};
pub use config::{Config, ConfigError, Mac, Network, Servers, ServersError};
pub use counters::{Counters, Reason, Way};
pub use flows::FLOWS_MAX;
pub use forwarder::{Forwarder, HEAD_BYTES, Meta, Offload, Outgoing, Verdict};
