//! Machines on links: that they talk, over every fault, and that what one of them does is no harm to the others.

mod ends;
mod faults;
mod ipv6;
mod loaded;
mod talking;
