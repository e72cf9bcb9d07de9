//! The network between real sockets of this host and a guest that is another stack.

mod guest;
mod hostile;
mod limits;
mod outbound;
mod tcp;
mod udp;
