//! What is refused of a [`Config`], and what to do about it: values that no link, no RFC or no stack could live with.

use core::fmt;

use super::{Config, MAX_TSO_BYTES, Rate, SynCookies, TxChecksum};
use crate::ip::reassembly;
use crate::ipv6;
use crate::tcp::negotiation::MIN_MSS;
use crate::tcp::rto;
use crate::tcp::template::Family;
use crate::time::Duration;

/// Smallest IPv4 MTU a link may have (RFC 791).
const MIN_MTU_BYTES: u16 = 68;
/// The largest receive window that window scaling can express (RFC 7323 2.3: 65,535 << 14).
const MAX_RECEIVE_WINDOW_BYTES: u32 = 65_535 << 14;
/// What everybody may send in fragments (RFC 8200 5), at what it costs in two of them.
const MIN_SOURCE_BYTES: usize = 1_500 + 2 * reassembly::FRAGMENT_COST_BYTES;

impl Rate {
    /// Whether there is a rate without a token for it.
    fn is_empty_bucket(self) -> bool {
        self.per_second > 0 && self.burst == 0
    }
}

impl Config {
    pub(crate) fn check_address(&self) -> Result<(), ConfigError> {
        if self.ip.is_multicast() || self.ip.is_broadcast() {
            return Err(ConfigError::AddressNotUnicast);
        }
        if self.prefix_len > 32 {
            return Err(ConfigError::PrefixLength);
        }
        if self.gateway.is_some_and(|gateway| gateway == self.ip || !self.is_on_link(gateway)) {
            return Err(ConfigError::GatewayOffLink);
        }
        Ok(())
    }

    pub(crate) fn check_mtu(&self) -> Result<(), ConfigError> {
        if self.ipv6.is_some() && self.mtu < ipv6::MIN_MTU {
            return Err(ConfigError::MtuTooSmallForIpv6);
        }
        if self.mtu < MIN_MTU_BYTES { Err(ConfigError::MtuTooSmall) } else { Ok(()) }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !self.mac.is_unicast() {
            return Err(ConfigError::MacNotUnicast);
        }
        self.check_address()?;
        self.check_mtu()?;
        if let Some(ipv6) = &self.ipv6 {
            ipv6.check()?;
        }
        if self.max_connections == 0 || self.max_half_open == 0 {
            return Err(ConfigError::NoConnections);
        }
        if self.max_neighbours == 0 {
            return Err(ConfigError::NoNeighbours);
        }
        if self.ephemeral_ports.is_empty() || *self.ephemeral_ports.start() == 0 {
            return Err(ConfigError::EphemeralPorts);
        }
        if self.receive_window_bytes < u32::from(self.receive_mss())
            || self.receive_window_bytes > MAX_RECEIVE_WINDOW_BYTES
        {
            return Err(ConfigError::ReceiveWindow);
        }
        if self.tso_max_bytes > MAX_TSO_BYTES {
            return Err(ConfigError::TsoTooLarge);
        }
        if self.tso_max_bytes > 0 && self.tx_checksum == TxChecksum::Software {
            return Err(ConfigError::TsoWithoutChecksum);
        }
        if self.delayed_ack > Duration::from_millis(500) {
            return Err(ConfigError::DelayedAckTooLong);
        }
        if !(MIN_MSS..=Family::V4.default_mss()).contains(&self.min_mss) {
            return Err(ConfigError::MinMss);
        }
        if self.min_rto == Duration::ZERO {
            return Err(ConfigError::MinRtoZero);
        }
        if self.min_rto > rto::MAX_RTO {
            return Err(ConfigError::MinRtoTooLong);
        }
        self.check_patience()?;
        self.check_limits()
    }
}

impl Config {
    /// How long, and how often, something is tried.
    fn check_patience(&self) -> Result<(), ConfigError> {
        if self.syn_retries > rto::MAX_BACKOFF || self.syn_ack_retries > rto::MAX_BACKOFF {
            return Err(ConfigError::TooManyRetries);
        }
        if [self.fin_wait_2, self.user_timeout].contains(&Duration::ZERO)
            || self.idle_timeout == Some(Duration::ZERO)
        {
            return Err(ConfigError::TimeoutZero);
        }
        if self.max_reassemblies > 0 && self.reassembly_timeout == Duration::ZERO {
            return Err(ConfigError::ReassemblyTimeoutZero);
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        if [self.syn_cookie_checks, self.echo_replies, self.icmp_errors]
            .into_iter()
            .any(Rate::is_empty_bucket)
        {
            return Err(ConfigError::RateWithoutBurst);
        }
        if self.syn_cookies != SynCookies::Never && self.syn_cookie_checks.per_second == 0 {
            return Err(ConfigError::CookiesUnchecked);
        }
        if self.max_reassemblies > 0
            && self.max_reassembly_bytes / reassembly::SOURCE_SHARE < MIN_SOURCE_BYTES
        {
            return Err(ConfigError::ReassemblyTooSmall);
        }
        Ok(())
    }
}

/// Why a [`Config`] was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// `mac` is a group or the zero address.
    MacNotUnicast,
    /// The address is not a host's.
    AddressNotUnicast,
    /// `prefix_len` is above 32.
    PrefixLength,
    /// `gateway` is not another host on our link.
    GatewayOffLink,
    /// `mtu` is below IPv4's minimum.
    MtuTooSmall,
    /// `mtu` is below IPv6's minimum.
    MtuTooSmallForIpv6,
    /// An address or the gateway of `ipv6` is no host's, or `max_addresses` are too few.
    Ipv6Addresses,
    /// An address of `ipv6` is there twice.
    Ipv6AddressTwice,
    /// The gateway of `ipv6` is one of its addresses.
    Ipv6GatewayOurs,
    /// `max_connections` or `max_half_open` is 0.
    NoConnections,
    /// `max_neighbours` is 0.
    NoNeighbours,
    /// `ephemeral_ports` is empty or begins at 0.
    EphemeralPorts,
    /// `receive_window_bytes` is below one segment or above what window scaling can say.
    ReceiveWindow,
    /// `tso_max_bytes` is above [`MAX_TSO_BYTES`].
    TsoTooLarge,
    /// `tso_max_bytes` is set while `tx_checksum` is [`TxChecksum::Software`].
    TsoWithoutChecksum,
    /// `delayed_ack` is above 500 ms.
    DelayedAckTooLong,
    /// `min_mss` is below 48 or above what every host must take.
    MinMss,
    /// `min_rto` is 0.
    MinRtoZero,
    /// `min_rto` is above 60 seconds, which every timeout is bounded by.
    MinRtoTooLong,
    /// `syn_retries` or `syn_ack_retries` is above 16.
    TooManyRetries,
    /// `user_timeout`, `fin_wait_2` or `idle_timeout` is 0.
    TimeoutZero,
    /// `reassembly_timeout` is 0 while `max_reassemblies` is not.
    ReassemblyTimeoutZero,
    /// A rate allows something every second, but nothing at once.
    RateWithoutBurst,
    /// SYNs are answered by cookies, and `syn_cookie_checks` lets none come back.
    CookiesUnchecked,
    /// A quarter of `max_reassembly_bytes` does not hold a datagram of 1,500 bytes in fragments.
    ReassemblyTooSmall,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MacNotUnicast => {
                "the MAC address is not a unicast address; set one such as 02:00:00:00:00:01"
            }
            Self::AddressNotUnicast => "the IPv4 address is not a host address; set one such as 10.0.0.2",
            Self::PrefixLength => "the prefix length is above 32; set it between 0 and 32",
            Self::GatewayOffLink => {
                "the gateway is not on the link; use an address inside our prefix, not our own"
            }
            Self::MtuTooSmall => "the MTU is below 68 bytes; set the link's real MTU, usually 1500",
            Self::MtuTooSmallForIpv6 => "the MTU is below 1,280 bytes, which IPv6 needs; raise it, or set ipv6 to None",
            Self::Ipv6Addresses => {
                "an IPv6 address is not a host's or there are too many; set unicast addresses with prefix lengths up to \
                 128, fewer than max_addresses"
            }
            Self::Ipv6AddressTwice => "an IPv6 address is there twice; give each once, without our link-local one",
            Self::Ipv6GatewayOurs => "the IPv6 gateway is an address of our own; name the router's",
            Self::NoConnections => {
                "no connections are allowed; set max_connections and max_half_open above 0"
            }
            Self::NoNeighbours => "no neighbours can be remembered; set max_neighbours above 0",
            Self::EphemeralPorts => {
                "there are no source ports; set ephemeral_ports to a range such as 32,768 to 60,999"
            }
            Self::ReceiveWindow => {
                "the receive window is out of range; set it between one segment and 1,073,725,440 bytes"
            }
            Self::TsoTooLarge => "tso_max_bytes is above 65,455; lower it, or set 0 for no TSO",
            Self::TsoWithoutChecksum => {
                "TSO needs checksum offload; set tx_checksum to Offload or tso_max_bytes to 0"
            }
            Self::DelayedAckTooLong => "delayed_ack is above 500 ms (RFC 9293 3.8.6.3); lower it",
            Self::MinMss => "min_mss is out of range; set it between 48 and 536 bytes (RFC 9293 3.7.1), usually 48",
            Self::MinRtoZero => "min_rto is 0; set it to a few round-trip times, usually 200 ms",
            Self::MinRtoTooLong => "min_rto is above 60 s, the longest timeout there is; lower it, usually to 200 ms",
            Self::TooManyRetries => "syn_retries and syn_ack_retries are at most 16, which are eleven minutes; lower them",
            Self::TimeoutZero => {
                "user_timeout, fin_wait_2 and idle_timeout end connections, and 0 ends all; raise them, or set idle_timeout to \
                 None"
            }
            Self::ReassemblyTimeoutZero => {
                "reassembly_timeout is 0, so nothing is ever put together; raise it, or set max_reassemblies to 0"
            }
            Self::RateWithoutBurst => "a rate has no burst, so it allows nothing; set burst to 1 or more, or per_second to 0",
            Self::CookiesUnchecked => {
                "syn_cookie_checks lets no cookie come back; raise it, or set syn_cookies to Never"
            }
            Self::ReassemblyTooSmall => {
                "max_reassembly_bytes is below 6,512; raise it, or set max_reassemblies to 0"
            }
        })
    }
}

impl core::error::Error for ConfigError {}
