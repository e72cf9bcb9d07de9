//! TCP (RFC 9293). A [`connection::Connection`] is a send side and a receive side with a state between
//! them; `open` and `receive` read like RFC 9293 3.10.7, `transmit` decides what leaves. Nothing here knows other connections:
//! that is `table`, `timers` and the stack above.
//!
//! Where RFC 9293 3.10, event processing, is to be found (a test checks that it is):
//!
//! | section | event | where |
//! | --- | --- | --- |
//! | 3.10.1 | OPEN, passive | `stack/ports.rs: listen`, `stack/ports.rs: listen_at` |
//! | 3.10.1 | OPEN, active | `stack/open.rs: connect`, `stack/open.rs: connect_from`, `tcp/open.rs: send_syn` |
//! | 3.10.2 | SEND | `stack/mod.rs: send`, `stack/mod.rs: output`, `tcp/transmit.rs: output_all`, `tcp/send_side.rs: plan` |
//! | 3.10.3 | RECEIVE | `stack/mod.rs: pending`, `stack/mod.rs: consume`, `stack/mod.rs: keep` |
//! | 3.10.4 | CLOSE | `stack/mod.rs: close`, `tcp/connection.rs: close` |
//! | 3.10.5 | ABORT | `stack/mod.rs: abort`, `tcp/connection.rs: abort_frame` |
//! | 3.10.6 | STATUS | `stack/mod.rs: peer`, `stack/mod.rs: unsent_bytes`, `stack/mod.rs: unacked_bytes` |
//! | 3.10.7.1 | SEGMENT ARRIVES, CLOSED | `stack/input.rs: segment_for_nobody` |
//! | 3.10.7.2 | LISTEN | `stack/input.rs: syn_arrives`, `tcp/connection.rs: accept`, `stack/syn_cookies.rs: cookie_returns` |
//! | 3.10.7.3 | SYN-SENT | `tcp/open.rs: segment_arrives_in_syn_sent` |
//! | 3.10.7.4 | other states, in order | `tcp/receive.rs: segment_arrives` |
//! | first | sequence number | `tcp/receive_side.rs: is_acceptable`, `tcp/receive.rs: unacceptable` |
//! | second | RST | `tcp/receive.rs: reset_arrives` |
//! | fourth | SYN | `tcp/receive.rs: syn_arrives` |
//! | fifth | ACK | `tcp/receive.rs: acknowledgment_arrives`, `tcp/acknowledge.rs: acknowledge`, `tcp/receive.rs: fin_acknowledged` |
//! | sixth | URG | `tcp/urgent.rs: urgent_arrives` |
//! | seventh | text | `tcp/receive.rs: text_arrives`, `tcp/receive_side.rs: accept` |
//! | eighth | FIN | `tcp/receive.rs: text_arrives`, `tcp/receive.rs: enter_time_wait` |
//! | | TIME-WAIT | `tcp/timewait.rs: segment_arrives` |
//! | 3.10.8 | USER TIMEOUT | `tcp/connection.rs: is_given_up` |
//! | 3.10.8 | RETRANSMISSION TIMEOUT | `tcp/transmit.rs: on_send_timer`, `tcp/send_timer.rs: on_timeout` |
//! | 3.10.8 | TIME-WAIT TIMEOUT | `tcp/timewait.rs: expire`, `stack/expire.rs: fire` |

pub(crate) mod acknowledge;
pub(crate) mod black_hole;
#[cfg(feature = "check")]
pub(crate) mod check;
pub(crate) mod congestion;
pub(crate) mod connection;
pub(crate) mod ecn;
pub(crate) mod isn;
pub(crate) mod keep_alive;
pub(crate) mod loss;
pub(crate) mod negotiation;
pub(crate) mod open;
pub(crate) mod pairs;
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
pub(crate) mod syn_cookie;
pub(crate) mod table;
pub(crate) mod tail_probe;
pub(crate) mod template;
pub(crate) mod timers;
pub(crate) mod timestamps;
pub(crate) mod timewait;
pub(crate) mod transmit;
mod urgent;
pub(crate) mod withhold;

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
