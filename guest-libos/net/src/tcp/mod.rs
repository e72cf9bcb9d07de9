//! TCP (RFC 9293). A [`connection::Connection`] is a send side and a receive side with a state between
//! them; `open` and `receive` read like RFC 9293 3.10.7, `transmit` decides what leaves. Nothing here knows other connections:
//! that is `table`, `timers` and the stack above.

pub(crate) mod acknowledge;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod isn;
pub(crate) mod keep_alive;
pub(crate) mod negotiation;
pub(crate) mod open;
pub(crate) mod ports;
pub(crate) mod prr;
pub(crate) mod rack;
pub(crate) mod reassembly;
pub(crate) mod receive;
pub(crate) mod receive_side;
pub(crate) mod recovery;
pub(crate) mod rto;
pub(crate) mod sack_report;
pub(crate) mod scoreboard;
pub(crate) mod send_queue;
pub(crate) mod send_side;
mod send_timer;
mod sequence;
pub(crate) mod table;
pub(crate) mod tail_probe;
pub(crate) mod template;
pub(crate) mod timers;
pub(crate) mod timestamps;
pub(crate) mod timewait;
pub(crate) mod transmit;

pub use sequence::Seq;

use crate::config::Config;
use crate::counters::{Counters, Samples};
use crate::time::Instant;

/// What a connection may look at and count in while it works on one event.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) counters: &'a mut Counters,
    pub(crate) samples: &'a mut Samples,
    /// Bytes that receive buffers of all connections hold, against `Config::max_buffered_bytes`.
    pub(crate) buffered_bytes: &'a mut usize,
    pub(crate) now: Instant,
}
