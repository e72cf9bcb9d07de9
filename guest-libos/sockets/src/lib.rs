//! Sockets for programs that want a stream of bytes and no events: TCP on `exos-net`, async and blocking, with the traits of
//! `embedded-io`, `embedded-io-async` and `edge-nal`.
//!
//! What a socket costs beside the specialist's interface is what it costs everywhere: bytes are copied into a buffer of the
//! socket's when they arrive and out of it when they are read, and copied once when they are written. Everything else is the
//! stack's, whose connections these are.
//!
//! - [`Sockets`] makes streams and listeners; it is cheap to clone and belongs to one thread.
//! - [`Tasks`] runs the program's futures.
//! - [`Endpoint`] is both on a stack of its own: frames in, frames out. The guest's event loop and a host's tap drive it
//!   alike.
//! - [`blocking`] turns each of it into calls that wait.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod address;
pub mod blocking;
mod datagrams;
mod endpoint;
mod error;
mod groups;
mod here;
mod link;
mod nal;
mod names;
mod options;
mod random;
mod receive_queue;
mod state;
mod tasks;
mod tcp;
mod timer;
mod udp;

pub use address::INTERFACE;
pub use datagrams::UdpCounters;
pub use endpoint::Endpoint;
pub use error::Error;
pub use exos_dns::{Failure, Family};
pub use nal::UdpGroups;
pub use options::SocketOption;
pub use state::{Bytes, Sockets};
pub use tasks::{Spawner, Tasks};
pub use tcp::{ReadHalf, TcpListener, TcpStream, WriteHalf};
pub use udp::{MAX_DATAGRAM_BYTES, Received, UdpOption, UdpReceiveHalf, UdpSendHalf, UdpSocket};
