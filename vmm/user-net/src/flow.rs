//! What TCP and UDP have in common: how a flow is named, and what is at hand when something is done with a packet.

use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use crate::counters::Counters;
use crate::link::Link;
use crate::reactor::Reactor;
use crate::replies::Replies;

/// A connection or a session, as the guest names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The guest's port.
    pub(crate) guest_port: u16,
    /// What the guest takes for the other end.
    pub(crate) peer: SocketAddrV4,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest:{} - {}", self.guest_port, self.peer)
    }
}

/// What is at hand.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) link: Link,
    pub(crate) reactor: Reactor,
    pub(crate) replies: Replies,
    pub(crate) counters: Counters,
    /// The time of the call that is being served.
    pub(crate) now: Duration,
}
