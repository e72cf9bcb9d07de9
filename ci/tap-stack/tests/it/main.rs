//! Our sockets beside Linux's: the same stack that guests run, in this process on a TAP, and the kernel's sockets on the other
//! side.

mod datagrams;
mod ends;
mod groups;
mod ipv6;
mod names;
mod withhold;
