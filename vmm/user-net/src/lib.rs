//! A network for a guest, without root: frames on one side, ordinary sockets of the host on the other.
//!
//! The guest sees an Ethernet with one neighbour, the gateway. TCP ends in the gateway and is spoken anew towards the host,
//! UDP datagrams are handed over one by one. Ports of the host can be published, so that its clients reach the guest; the guest
//! reaches nothing of the host or the outside unless it is allowed to.
//!
//! This crate knows frames (each led by `struct virtio_net_hdr_v1`), sockets, and the time that it is told. It has no thread,
//! never blocks, and trusts nothing that the guest sends. Who wants to wait polls [`UserNet::event_fd`].
#![forbid(unsafe_code)]

mod answer;
mod config;
mod counters;
mod endpoints;
mod flow;
mod header;
mod host_sockets;
mod link;
mod network;
mod policy;
mod publish;
mod reactor;
mod replies;
mod slab;
mod tcp;
mod timers;
mod udp;
mod wire;

pub use config::{Config, GuestOffloads, Published, UserNetError};
pub use counters::Counters;
pub use header::HEADER_BYTES;
pub use host_sockets::allow_descriptors;
pub use network::UserNet;
pub use policy::{Outbound, Resolver};
pub use publish::{Protocol, Publish, PublishError};

use std::net::Ipv4Addr;

/// The gateway, which is also the guest's resolver. The addresses are those that QEMU's user network made known.
pub const GATEWAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The guest.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// Bits of the network's prefix.
pub const PREFIX_LEN: u8 = 24;
/// The gateway's hardware address: locally administered.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x78, 10, 0, 2, 2];
/// The guest's hardware address, if nobody wants another.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x78, 10, 0, 2, 15];
/// Largest IP packet, but for TCP segments that are segmented by nobody.
pub const MTU_BYTES: usize = 1500;
/// Data of a segment that fills a packet.
const MSS_BYTES: usize = MTU_BYTES - 40;

/// Whether an address is of the guest's network, and one that a machine can have.
fn is_in_network(address: Ipv4Addr) -> bool {
    let mask = u32::MAX << (32 - PREFIX_LEN);
    let (address, network) = (u32::from(address), u32::from(GATEWAY_ADDRESS));
    address & mask == network & mask && address & !mask != 0 && address & !mask != !mask
}
