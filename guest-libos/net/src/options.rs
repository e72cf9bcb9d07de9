//! What an application chooses for one connection: how IP carries it, when small segments leave, whether a silent peer is
//! asked for a sign of life. `Stack::set_...` takes these. And for one datagram: `Stack::send_udp_with`.

use core::net::IpAddr;
use core::num::NonZeroU8;

use crate::time::Duration;

/// A differentiated services codepoint (RFC 2474): the upper six bits of IPv4's second octet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dscp(u8);

impl Dscp {
    /// Best effort, which every connection begins with unless `Config::dscp` says otherwise.
    pub const DEFAULT: Self = Self(0);
    /// Expedited forwarding (RFC 3246).
    pub const EXPEDITED_FORWARDING: Self = Self(46);

    /// The codepoint with this number, 0 to 63.
    pub const fn new(codepoint: u8) -> Option<Self> {
        if codepoint < 64 { Some(Self(codepoint)) } else { None }
    }

    /// Its number.
    pub const fn codepoint(self) -> u8 {
        self.0
    }
}

/// How one UDP datagram is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The address of ours that it comes from; `None`: the one that RFC 6724 5 chooses.
    pub source: Option<IpAddr>,
    /// How many links it may cross; `None`: as many as `Config::time_to_live` says, and to groups one.
    pub time_to_live: Option<NonZeroU8>,
    /// Its codepoint.
    pub dscp: Dscp,
    /// Whether it goes in fragments if it is larger than its path takes; `None`: as `Config::fragment_udp` says.
    pub fragment: Option<bool>,
}

/// What becomes of a segment that is not full. `Stack::output` decides by it; whatever an application queues before one
/// output leaves in as few segments as possible in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalesce {
    /// It leaves. The default: the application says with `output` when it has no more to add.
    #[default]
    NoDelay,
    /// It waits while another that left by this rule and was not full is unacknowledged: Nagle's algorithm (RFC 9293 3.7.4) as
    /// Minshall changed it. Behind full ones it leaves, or else it would wait for an acknowledgment that the peer delays because it waits for more.
    Nagle,
    /// It waits for more data, for the FIN or for another choice, but no longer than a retransmission timeout after
    /// everything else was acknowledged.
    Cork,
}

/// Probes of a peer that says nothing (RFC 9293 3.8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How long nothing came before the first probe leaves. RFC 9293: two hours at least, unless the application knows
    /// better. Counted in whole milliseconds, at least one, at most 49 days; so is `interval`.
    pub idle: Duration,
    /// Time between probes that are not answered.
    pub interval: Duration,
    /// Probes without an answer after which the connection ends; one at least.
    pub probes: u8,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(2 * 60 * 60), interval: Duration::from_secs(75), probes: 9 }
    }
}
