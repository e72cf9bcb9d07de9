//! Sockets between two endpoints in one process, over a wire in simulated time.

mod blocking;
mod calls;
mod datagrams;
mod groups;
mod here;
mod ipv6;
mod nal;
mod names;
mod options;
mod streams;
mod tasks;
mod wire;
