//! The guardian of a NIC: one environment that holds the NIC's whole flow, and what others need to live with it.
//!
//! Clients ask it for a port by message. It carves the flow for that out of its own and gives the client the capability; the
//! client directs the flow to its own queues, and from then on neither guardian nor kernel is between it and its frames. The
//! guardian gets what nobody else does: it answers ARP and Neighbor Discovery, learns neighbours and asks for those that a client
//! wants, and refuses connections to ports that are nobody's. What it knows it shows in a page that clients map read-only.
//!
//! | module | what |
//! | --- | --- |
//! | [`request`] | what is asked and answered, as the words of a message |
//! | [`ports`] | whose port is whose; decides, with the kernel behind a trait |
//! | [`neighbours`] | who is on the link, from ARP and Neighbor Discovery; sans I/O |
//! | [`tables`] | the page that everybody reads: layout, version, sequence lock |
//! | `server` | the guardian's loop (feature `guest`) |
//! | `client` | the other side (feature `guest`) |
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "guest")]
pub mod client;
pub mod neighbours;
pub mod ports;
pub mod request;
#[cfg(feature = "guest")]
pub mod server;
pub mod tables;
