//! Private network namespaces, TAPs and interface settings, without root and without the `ip` tool.
//!
//! Tests and benchmarks that need a TAP or a network of their own make one that only they see and that the kernel
//! removes with its last process. Six rooms:
//!
//! - [`enter`]: into a user and network namespace, from a single-threaded process or between `fork` and `exec`;
//! - [`test_harness`]: a `#[test]` that runs its body in such a namespace ([`in_namespace!`]);
//! - [`Namespace`]: further network namespaces, for the other end of a wire;
//! - [`interface`] and [`tap`]: make, configure and delete interfaces by rtnetlink and `/dev/net/tun`;
//! - [`link_layer`]: frames put on the wire by hand;
//! - [`congestion_control`]: the TCP congestion control of a namespace or of one route.
//!
//! Linux only. Nothing here touches the host's own network, except [`congestion_control::allow`], which says so.

pub mod congestion_control;
pub mod enter;
mod error;
pub mod interface;
pub mod link_layer;
mod namespace;
mod netlink;
pub mod tap;
pub mod test_harness;

pub use enter::{end_with_parent, enter_private_network, spawn_in_private_network};
pub use error::NetnsError;
pub use interface::Interface;
pub use namespace::Namespace;
pub use tap::{TapQueues, attach_tap, create_tap, switch_offloads_off};
pub use test_harness::in_namespace;
