//! Links: frames between machines of one process, through memory, without a system call while both sides are at work.
//!
//! - [`pair`]: two ports, joined by a cable.
//! - [`switch`]: many ports; frames go to the port behind which their destination was seen, else to all others.
//!
//! A port is plugged into a machine (or into a program's own hands) as an [`End`], which is a [`Backend`](super::Backend). A
//! sender copies its frame once, from its guest's memory straight into the receive buffers that the other guest has posted, on
//! its own thread. Readers that lend no buffers (a program, a NIC whose flows are divided, a fault injector or a capture around
//! the end) get frames from a queue of the link's own, bounded by [`QUEUE_BYTES`] and [`QUEUE_FRAMES`].
//!
//! A cable loses nothing while both ends are up and take what comes: a frame that finds no room waits in its sender's transmit
//! queue, at most for [`HOLD`]. A switch's port that takes nothing would hold up everybody who ever sends to it; there frames wait in
//! the port's queue, and what finds that full is dropped. All of it is counted.

mod end;
mod inbox;
mod lent;
mod queue;
mod table;
mod wake;

#[cfg(test)]
mod tests;

pub use end::{End, LinkMetrics};
pub use inbox::HOLD;
pub use queue::{QUEUE_BYTES, QUEUE_FRAMES};
pub use table::{ADDRESSES_MAX, AGEING_S};

use inbox::{Inbox, Overflow};
use std::sync::Arc;
use std::time::Instant;
use table::Table;

/// Most ports of a switch.
pub const PORTS_MAX: usize = 64;

/// Why a link cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Too few ports, or too many.
    #[error("a switch of {ports} ports is not possible; use 2 to {PORTS_MAX}")]
    Ports {
        /// What was asked for.
        ports: usize,
    },
    /// The port has an end already.
    #[error("port {port} of the link is in use; end its machine first, or use another port")]
    InUse {
        /// Which one.
        port: usize,
    },
    /// The host gives no event descriptor.
    #[error("no event descriptor for a link: {0}; raise the limit of open files (ulimit -n)")]
    Event(std::io::Error),
}

/// What all ports share.
#[derive(Debug)]
struct Link {
    inboxes: Box<[Inbox]>,
    /// Of a switch.
    table: Option<Table>,
    started: Instant,
}

impl Link {
    fn new(ports: usize, table: Option<Table>) -> Result<Arc<Self>, LinkError> {
        let inboxes = (0..ports).map(|_| Inbox::new()).collect::<Result<_, _>>().map_err(LinkError::Event)?;
        Ok(Arc::new(Self { inboxes, table, started: Instant::now() }))
    }

    fn overflow(&self) -> Overflow {
        if self.table.is_some() { Overflow::Drop } else { Overflow::Hold }
    }
}

/// Where an end can be plugged in, again and again, one at a time.
#[derive(Clone, Debug)]
pub struct Port {
    link: Arc<Link>,
    number: u8,
}

impl Port {
    /// Plugs an end in. It is pulled when it is dropped.
    pub fn plug(&self) -> Result<End, LinkError> {
        if !self.link.inboxes[usize::from(self.number)].plug(true) {
            return Err(LinkError::InUse { port: self.number.into() });
        }
        Ok(End::new(Arc::clone(&self.link), self.number))
    }

    /// Its number, from 0.
    pub fn number(&self) -> usize {
        self.number.into()
    }
}

/// A cable between two ports.
pub fn pair() -> Result<[Port; 2], LinkError> {
    let link = Link::new(2, None)?;
    Ok([0, 1].map(|number| Port { link: Arc::clone(&link), number }))
}

/// A switch that learns. It forgets an address after [`AGEING_S`] seconds, and knows at most [`ADDRESSES_MAX`].
pub fn switch(ports: usize) -> Result<Vec<Port>, LinkError> {
    if !(2..=PORTS_MAX).contains(&ports) {
        return Err(LinkError::Ports { ports });
    }
    let link = Link::new(ports, Some(Table::new()))?;
    Ok((0..ports as u8).map(|number| Port { link: Arc::clone(&link), number }).collect())
}
