//! The host channel from the guest's side: a virtio-console driver with many ports (VIRTIO 1.3 5.3). A port is a stream of
//! bytes each way, found by its name; at its other end is a tool on the host, or nobody.
//!
//! Nothing here waits. Ports are opened by messages that the device work answers later, reads give what is there, writes take
//! what there is room for; [`Channel::poll`] moves on, [`Channel::request_interrupts`] says whether one may sleep.
//!
//! **What is not trusted.** The device may write anything to the used rings and the buffers at any time. Indices, ids and
//! lengths are checked against shadow state that it cannot reach; on nonsense the port, or for the control queues the channel,
//! says so ([`Fault`]) and does no more. The bytes of a port come from whoever is attached and are their reader's to judge.
//!
//! | module | what |
//! | --- | --- |
//! | [`channel`] | the ports: found by name, opened, read, written |
//! | [`lines`] | lines typed by a person, from the bytes of a terminal |
//! | [`fault`] | what can go wrong when opening, and what a device can do wrong |
//! | `message` | control messages, bytes to meaning and back |
//! | `inbox`, `outbox` | a queue's buffers, to be filled by the device and for it to read |
//! | `fake` | the device's side, for host tests (feature `fake`) |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "fake")]
extern crate std;

pub mod channel;
#[cfg(feature = "fake")]
pub mod fake;
pub mod fault;
mod inbox;
pub mod lines;
mod message;
mod outbox;

pub use channel::{Channel, Config, Host, PortId, Terminal};
pub use exos_virtqueue::{Arming, Hal};
pub use fault::{Fault, OpenError};
pub use lines::{Edit, LineEditor};
