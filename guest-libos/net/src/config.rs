//! What the caller decides once, before the first frame: addresses, bounds, timeouts, offloads. It is checked
//! when a stack is made of it; after that nothing questions it again.

mod check;

use core::net::Ipv4Addr;
use core::num::NonZeroU8;
use core::ops::RangeInclusive;
use core::str::FromStr;

use crate::ip::reassembly;
use crate::ipv6::Ipv6Config;
use crate::options::Dscp;
use crate::tcp::negotiation::MIN_MSS;
use crate::time::Duration;
use crate::wire::ethernet::MacAddress;
use crate::wire::ipv4;

pub use check::ConfigError;

/// IPv4 and TCP headers without options.
pub(crate) const IP_TCP_HEADER_BYTES: u16 = 40;
/// The largest payload that still fits the IPv4 total length field in one segmentation-offload frame, whatever options TCP has.
pub const MAX_TSO_BYTES: u32 = 65_535 - IP_TCP_HEADER_BYTES as u32 - MAX_OPTIONS_BYTES;
/// RFC 9293 3.1: the data offset counts at most 15 words, of which 5 are the header.
const MAX_OPTIONS_BYTES: u32 = 40;

/// Who fills in the TCP checksum of a segment that carries data. Segments without data are always finished here: their
/// checksum is arithmetic on fields that are in registers anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxChecksum {
    /// The stack sums the payload, or uses the sums that [`crate::Data::stored_sum`] has.
    Software,
    /// The device does (virtio-net's CSUM feature); the field holds the folded pseudo-header sum.
    Offload,
}

/// How the congestion window grows in congestion avoidance, and how far it falls after a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionControl {
    /// RFC 5681 and 6582: a segment a round trip, and half.
    NewReno,
    /// RFC 9438: by a cubic function of the time since the last loss, whatever the round trip, and seven tenths.
    #[default]
    Cubic,
    /// None: the peer's window bounds what is on its way, and after timeouts the timer's backoff. Losses are repaired and
    /// not answered to. Only for links that are the application's own, where nobody else's traffic can suffer: on a path
    /// that is shared this takes the others' share and can collapse it (RFC 2914 5; RFC 8085 3.1.9 allows it on
    /// paths of known and reserved capacity).
    Uncontrolled,
}

/// What ends the first slow start of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowStart {
    /// RFC 5681 3.1: a loss.
    Standard,
    /// HyStart++ (RFC 9406): a loss, or round trips that get longer because a queue fills.
    #[default]
    HyStart,
}

/// When a SYN is answered without a place for it (RFC 4987 3.6): what would be remembered goes to the peer and comes back with
/// its acknowledgment, the segment size rounded down; window scale and SACK only beside timestamps. What does not come back is
/// lost: such a SYN-ACK is not repeated, and a client that waits for us to speak first and whose acknowledgment was lost waits in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SynCookies {
    /// Never: the oldest half-open connection gives way.
    Never,
    /// While `Config::max_half_open` connections are half open.
    #[default]
    WhenFull,
    /// Always: nothing is half open.
    Always,
}

/// Whether connections use explicit congestion notification (RFC 3168): routers mark what they would have dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// It is neither asked for nor agreed to.
    Never,
    /// It is agreed to when the peer asks.
    #[default]
    Agree,
    /// It is asked for, too; a SYN that is not answered is repeated without.
    Ask,
}

impl FromStr for Ecn {
    type Err = ();

    /// As options spell it.
    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "never" => Self::Never,
            "agree" => Self::Agree,
            "ask" => Self::Ask,
            _ => return Err(()),
        })
    }
}

/// How often something is done at most: a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, so often a second; 0 is never.
    pub per_second: u32,
    /// After a pause, so often at once.
    pub burst: u32,
}

/// When the link is asked whether somebody else has our address already (RFC 5227 2.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probing {
    /// Never: somebody vouches for it, or hears ARP in our place.
    #[default]
    None,
    /// While it is used already. Requests for it are answered from the beginning, but only when nobody has answered the
    /// probes is it announced; whoever does keeps his place in everybody's memory.
    Meanwhile,
    /// Before it is used, which takes 4 to 7 seconds.
    Before,
}

/// What happens when somebody else claims the address that we use (RFC 5227 2.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// (c): we contradict, at most every ten seconds, and stay.
    #[default]
    Keep,
    /// (b): we contradict once, and give it up if that does not end it for ten seconds.
    GiveUp,
}

/// Everything the stack must be told. Start from [`Config::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our Ethernet address.
    pub mac: MacAddress,
    /// Our IPv4 address; unspecified until there is one (`Stack::set_address`).
    pub ip: Ipv4Addr,
    /// Length of the on-link prefix, 0 to 32.
    pub prefix_len: u8,
    /// The router for everything that is not on the link. Without one, off-link peers are not answered.
    pub gateway: Option<Ipv4Addr>,
    /// How it is found out that nobody else has an address of ours.
    pub probing: Probing,
    /// What happens when somebody else claims it later.
    pub on_conflict: OnConflict,
    /// The link's MTU (IPv4 header and everything after it).
    pub mtu: u16,
    /// Connections in any state but TIME-WAIT; SYNs beyond it are dropped and counted.
    pub max_connections: u32,
    /// Connections that have not finished the handshake. Beyond it SYNs are answered by cookies, or else the oldest gives way
    /// and is counted.
    pub max_half_open: u32,
    /// When SYNs are answered by cookies.
    pub syn_cookies: SynCookies,
    /// How many acknowledgments that may return a cookie are looked at; others are dropped and counted. One of 2^28 that
    /// somebody makes up is taken for a cookie.
    pub syn_cookie_checks: Rate,
    /// TIME-WAIT records; the oldest gives way when they are all in use.
    pub max_time_wait: u32,
    /// Receive window of a connection, and so the bound on what is buffered for it.
    pub receive_window_bytes: u32,
    /// Bound on receive buffers of all connections together; what would exceed it is dropped, for the peer to resend,
    /// and refused by `Stack::keep`.
    pub max_buffered_bytes: usize,
    /// Largest payload of one segmentation-offload frame, at most [`MAX_TSO_BYTES`]; 0 when the device has no TSO.
    pub tso_max_bytes: u32,
    /// Who computes TCP checksums of data on the way out. TSO needs [`TxChecksum::Offload`].
    pub tx_checksum: TxChecksum,
    /// How long TIME-WAIT lasts (2 MSL).
    pub time_wait: Duration,
    /// How long FIN-WAIT-2 waits for a peer that says nothing.
    pub fin_wait_2: Duration,
    /// How long a pure acknowledgment may be put off (RFC 9293 3.8.6.3: below 0.5 s).
    pub delayed_ack: Duration,
    /// Lower bound of the retransmission timeout. RFC 6298 (2.4) says one second; what is used today is 200 ms.
    pub min_rto: Duration,
    /// The congestion control of connections.
    pub congestion: CongestionControl,
    /// Their first slow start.
    pub slow_start: SlowStart,
    /// How long data may stay unacknowledged before the connection is given up (RFC 9293 3.8.3, R2).
    pub user_timeout: Duration,
    /// How long an open connection may go without progress (nothing new from the peer, nothing of ours acknowledged): then it
    /// is closed if nothing is owed to the peer, and aborted otherwise. `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Whether the timestamps option is offered and answered (RFC 7323 3).
    pub timestamps: bool,
    /// Whether selective acknowledgments are offered and answered (RFC 2018).
    pub sack: bool,
    /// Whether explicit congestion notification is used.
    pub ecn: Ecn,
    /// A peer that announces smaller segments than this is sent such all the same, at least 48 bytes with options: tiny ones cost
    /// as much as large ones (CVE-2019-11479). Above 48 a peer that cannot receive more is lost; BSD systems have 216.
    pub min_mss: u16,
    /// One of about so many windows of data begins late, by a segment that is withheld until the peer shows its absence; a peer
    /// that acknowledges it does so before receipt, to draw data faster than its path carries it, and is reset. It costs others
    /// the arrival of the gap a round trip later. Only where the windows hold 24 segments. 0: never.
    pub withhold_every: u8,
    /// Time to live of what connections send, unless `Stack::set_time_to_live` says otherwise (RFC 9293 3.9.2).
    pub time_to_live: NonZeroU8,
    /// Codepoint of what connections send, unless `Stack::set_dscp` says otherwise (RFC 9293 3.9.1.9).
    pub dscp: Dscp,
    /// Hosts on the link whose Ethernet addresses are remembered, for those that we connect to; the oldest gives way.
    pub max_neighbours: u32,
    /// Source ports of connections that we open.
    pub ephemeral_ports: RangeInclusive<u16>,
    /// How often a SYN is repeated before nobody counts as there, at most 16 times: 7 are three minutes (RFC 9293 3.8.3:
    /// MUST-23).
    pub syn_retries: u8,
    /// How often a SYN-ACK is repeated before the half-open connection is forgotten, at most 16 times: 7 are three minutes
    /// (RFC 9293 3.8.3: MUST-23).
    pub syn_ack_retries: u8,
    /// UDP ports that may be bound.
    pub max_udp_ports: u16,
    /// Whether UDP datagrams that are larger than the path MTU go in fragments unless `DatagramOptions` says otherwise; else
    /// they are refused.
    pub fragment_udp: bool,
    /// Destinations whose path MTUs are remembered.
    pub max_path_mtus: u16,
    /// Datagrams in fragments that are put together at the same time; one source may have a quarter of them. 0: fragments are
    /// dropped.
    pub max_reassemblies: u16,
    /// Bound on what their fragments take; a quarter of it for one source, which must be more than its largest datagram, and at
    /// least the 1,500 bytes that everybody may send (RFC 8200 5).
    pub max_reassembly_bytes: usize,
    /// Groups of each family that may be joined, beside those that IPv6 is in by itself.
    pub max_groups: u16,
    /// Whether routers and switches on the link are told which groups we are in; else somebody speaks for us, or nobody asks.
    pub group_reports: bool,
    /// How long a datagram's fragments are waited for, from the first that arrives on.
    pub reassembly_timeout: Duration,
    /// How often echo requests are answered.
    pub echo_replies: Rate,
    /// How often ICMP errors are sent (RFC 1812 4.3.2.8).
    pub icmp_errors: Rate,
    /// IPv6; without it, its packets are dropped.
    pub ipv6: Option<Ipv6Config>,
    /// 128 random bits, fresh at every boot, for initial sequence numbers (RFC 6528) and the hash of the tables.
    pub secret: [u8; 16],
}

impl Config {
    /// A configuration with the usual bounds and timeouts, without offloads.
    pub fn new(mac: MacAddress, ip: Ipv4Addr, prefix_len: u8, secret: [u8; 16]) -> Self {
        Self {
            mac,
            ip,
            prefix_len,
            gateway: None,
            probing: Probing::default(),
            on_conflict: OnConflict::default(),
            mtu: 1500,
            max_connections: 10_000,
            max_half_open: 1_024,
            syn_cookies: SynCookies::default(),
            syn_cookie_checks: Rate { per_second: 100_000, burst: 10_000 },
            max_time_wait: 65_536,
            receive_window_bytes: 65_535,
            max_buffered_bytes: 64 << 20,
            tso_max_bytes: 0,
            tx_checksum: TxChecksum::Software,
            time_wait: Duration::from_secs(60),
            fin_wait_2: Duration::from_secs(60),
            delayed_ack: Duration::from_millis(40),
            min_rto: Duration::from_millis(200),
            congestion: CongestionControl::default(),
            slow_start: SlowStart::default(),
            user_timeout: Duration::from_secs(120),
            idle_timeout: None,
            timestamps: true,
            sack: true,
            ecn: Ecn::default(),
            min_mss: MIN_MSS,
            withhold_every: 128,
            time_to_live: ipv4::TIME_TO_LIVE,
            dscp: Dscp::DEFAULT,
            max_neighbours: 1_024,
            ephemeral_ports: 32_768..=60_999,
            syn_retries: 7,
            syn_ack_retries: 7,
            max_udp_ports: 64,
            fragment_udp: false,
            max_path_mtus: 256,
            max_reassemblies: 64,
            max_reassembly_bytes: 1 << 20,
            max_groups: 64,
            group_reports: true,
            reassembly_timeout: reassembly::TIMEOUT,
            echo_replies: Rate { per_second: 1_000, burst: 100 },
            icmp_errors: Rate { per_second: 100, burst: 20 },
            ipv6: None,
            secret,
        }
    }

    /// The largest segment we can receive, announced in our SYN-ACK (RFC 9293 3.7.1).
    pub fn receive_mss(&self) -> u16 {
        self.mtu - IP_TCP_HEADER_BYTES
    }

    /// Whether `address` is on our link.
    pub(crate) fn is_on_link(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len)).unwrap_or(0);
        (address.to_bits() ^ self.ip.to_bits()) & mask == 0
    }

    /// Whether `address` is our link's broadcast address, in its new or its old form (RFC 1122 3.3.6).
    pub(crate) fn is_link_broadcast(&self, address: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix_len)).unwrap_or(0);
        let host = address.to_bits() & host_bits;
        self.prefix_len < 31 && self.is_on_link(address) && (host == 0 || host == host_bits)
    }

    /// Whether `address` is everybody's on our link (RFC 1122 3.2.1.3 (c), (d)).
    pub fn is_broadcast(&self, address: Ipv4Addr) -> bool {
        address.is_broadcast() || self.is_link_broadcast(address)
    }

    /// The host on our link that datagrams to `address` are handed to.
    pub(crate) fn hop_to(&self, address: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_on_link(address) { Some(address) } else { self.gateway }
    }

    /// Whether there is an address of ours.
    #[inline]
    pub(crate) fn has_address(&self) -> bool {
        !self.ip.is_unspecified()
    }

    /// Whether it is `address`.
    #[inline]
    pub(crate) fn is_ours(&self, address: Ipv4Addr) -> bool {
        address == self.ip && self.has_address()
    }

    /// There is none, so nothing is on our link.
    pub(crate) fn remove_address(&mut self) {
        (self.ip, self.prefix_len, self.gateway) = (Ipv4Addr::UNSPECIFIED, 32, None);
    }
}
