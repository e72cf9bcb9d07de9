//! Sockets between two endpoints in one process, over a wire in simulated time.

mod blocking;
mod datagrams;
mod nal;
mod options;
mod streams;
mod tasks;
mod wire;
