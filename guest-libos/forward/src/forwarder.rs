//! The forwarder: whose a frame is, and what is due by itself.

use crate::address::{REQUEST_BYTES, Version};
use crate::config::{Config, ConfigError, Mac};
use crate::counters::{Counters, Reason};
use crate::path::{Common, Path};
use crate::wire::{ETHERNET_BYTES, TYPE_ARP, TYPE_IPV4, TYPE_IPV6, u16_at};
use crate::{arp, ndisc};
use core::net::{Ipv4Addr, Ipv6Addr};
use core::time::Duration;

/// Of a frame, more than this is never looked at or rewritten: Ethernet, IP and TCP headers, or as much of an ICMP error and
/// what it quotes.
pub const HEAD_BYTES: usize = 128;

/// What the device says of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The field of its checksum holds the pseudo header's sum only; a device completes it on the way.
    pub is_partial: bool,
    /// If it stands for several segments: bytes of data in each.
    pub segment_bytes: Option<u16>,
}

/// What the device is to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// Complete the checksum at `offset` from `start` on, where the sum begins, counted from the Ethernet header on.
    Checksum {
        /// The transport header.
        start: u16,
        /// The field.
        offset: u16,
    },
    /// Also cut the data into segments.
    Segment {
        /// What carries them.
        version: Version,
        /// The transport header.
        start: u16,
        /// The field.
        offset: u16,
        /// Bytes of data in each.
        mss: u16,
    },
}

/// A frame to send: `head[..headers_bytes]`, and then bytes of the received frame from `rest_at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Bytes of headers; the whole of what is not TCP, as far as it is not longer than the head.
    pub headers_bytes: usize,
    /// Where in the received frame the rest begins: behind the headers, but for an error, which quotes from further ahead.
    pub rest_at: usize,
    /// Bytes of the whole frame.
    pub len_bytes: usize,
    /// What the device is to do.
    pub offload: Offload,
}

impl Outgoing {
    /// What follows the headers, in the frame that was received.
    #[inline(always)]
    pub fn rest<'f>(&self, received: &'f [u8]) -> &'f [u8] {
        let rest_bytes = self.len_bytes - self.headers_bytes;
        received.get(self.rest_at..self.rest_at + rest_bytes).unwrap_or_default()
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, or an answer goes back.
    Send(Outgoing),
    /// It is about the link and no connection: for the host that answers at the forwarder's addresses.
    Heard,
    /// The forwarder sends it nowhere; that was counted. What is [`Reason::NotForUs`] may be for the host beside it.
    Drop(Reason),
}

/// What is remembered between frames.
#[derive(Debug)]
pub struct Forwarder {
    common: Common,
    ipv4: Option<Path<Ipv4Addr>>,
    ipv6: Option<Path<Ipv6Addr>>,
}

impl Forwarder {
    /// A forwarder without connections. Takes all its memory.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            common: Common::new(config),
            ipv4: config.ipv4.as_ref().map(|network| Path::new(config, network)).transpose()?,
            ipv6: config.ipv6.as_ref().map(|network| Path::new(config, network)).transpose()?,
        })
    }

    /// Whether the address of a version of IP is used: not yet while others are asked whether they have it (RFC 4862 5.4, RFC 5227
    /// 2.1), and not at all if somebody has. Then what is for it is not for us, and nobody is asked from it. At first it is used.
    pub fn set_used(&mut self, version: Version, is_used: bool) {
        match (version, &mut self.ipv4, &mut self.ipv6) {
            (Version::Ipv4, Some(ipv4), _) => ipv4.is_used = is_used,
            (Version::Ipv6, _, Some(ipv6)) => ipv6.is_used = is_used,
            _ => {}
        }
    }

    /// Looks at a received frame, and puts its first bytes into `head`, rewritten if it goes on. `now` never goes back.
    #[inline]
    pub fn forward(
        &mut self,
        now: Duration,
        frame: &[u8],
        head: &mut [u8; HEAD_BYTES],
        meta: Meta,
    ) -> Verdict {
        self.common.counters.frames_in += 1;
        match self.look(now, frame, head, meta) {
            Ok(verdict) => verdict,
            Err(reason) => {
                self.common.counters.drops[reason as usize] += 1;
                Verdict::Drop(reason)
            }
        }
    }

    /// What is due by itself: connections are forgotten, servers are looked for. The bytes of a frame that is to be sent; call it
    /// again then.
    pub fn poll(&mut self, now: Duration, frame: &mut [u8; REQUEST_BYTES]) -> Option<usize> {
        let Self { common, ipv4, ipv6 } = self;
        if let Some(ipv4) = ipv4 {
            ipv4.expire(common, now);
            if let Some(len_bytes) = ipv4.ask(now, frame) {
                common.counters.arp_requests += 1;
                return Some(len_bytes);
            }
        }
        let ipv6 = ipv6.as_mut()?;
        ipv6.expire(common, now);
        let len_bytes = ipv6.ask(now, frame)?;
        common.counters.neighbour_solicitations += 1;
        Some(len_bytes)
    }

    /// When [`Self::poll`] has something to do.
    pub fn deadline(&self) -> Duration {
        let ipv4 = self.ipv4.as_ref().and_then(|ipv4| ipv4.deadline(&self.common));
        let ipv6 = self.ipv6.as_ref().and_then(|ipv6| ipv6.deadline(&self.common));
        [ipv4, ipv6].into_iter().flatten().min().unwrap_or(Duration::MAX)
    }

    /// Totals.
    pub fn counters(&self) -> &Counters {
        &self.common.counters
    }

    /// Connections that are half-open, established and ended but still remembered.
    pub fn connections(&self) -> [u32; 3] {
        let [(ipv4, _), (ipv6, _)] = self.tables();
        [ipv4[0] + ipv6[0], ipv4[1] + ipv6[1], ipv4[2] + ipv6[2]]
    }

    /// How many can be remembered.
    pub fn connections_max(&self) -> u32 {
        self.tables().into_iter().map(|(_, max)| max).sum()
    }

    fn tables(&self) -> [([u32; 3], u32); 2] {
        let ipv4 = self.ipv4.as_ref().map(Path::connections);
        let ipv6 = self.ipv6.as_ref().map(Path::connections);
        [ipv4, ipv6].map(Option::unwrap_or_default)
    }

    /// Where the server of a version of IP, or the gateway to it, is on the link; `None`: not known.
    pub fn next_hop(&self, version: Version) -> Option<Mac> {
        match version {
            Version::Ipv4 => self.ipv4.as_ref()?.server.as_ref()?.next_hop.mac(),
            Version::Ipv6 => self.ipv6.as_ref()?.server.as_ref()?.next_hop.mac(),
        }
    }

    #[inline(always)]
    fn look(
        &mut self,
        now: Duration,
        frame: &[u8],
        head: &mut [u8; HEAD_BYTES],
        meta: Meta,
    ) -> Result<Verdict, Reason> {
        let head_bytes = frame.len().min(HEAD_BYTES);
        if head_bytes < ETHERNET_BYTES {
            return Err(Reason::Malformed);
        }
        let (first, tail) = frame.split_at(head_bytes);
        head[..head_bytes].copy_from_slice(first);
        let Self { common, ipv4, ipv6 } = self;
        let is_ours = head[..6] == common.mac;
        match (u16_at(head, 12), ipv4, ipv6) {
            (TYPE_IPV4, Some(ipv4), _) if is_ours => ipv4.input(common, now, (head, head_bytes, tail), meta),
            (TYPE_IPV6, _, Some(ipv6)) => {
                if ndisc::is_message(&head[..head_bytes]) {
                    discovery(common, ipv6, now, (head, head_bytes, tail), meta)
                } else if is_ours {
                    ipv6.input(common, now, (head, head_bytes, tail), meta)
                } else {
                    Err(Reason::NotForUs)
                }
            }
            (TYPE_IPV4, Some(_), _) => Err(Reason::NotForUs),
            (TYPE_ARP, Some(ipv4), _) => {
                let own = ipv4.own;
                arp::hear(now, own, ipv4.next_hop(), &head[..head_bytes])?;
                Ok(Verdict::Heard)
            }
            _ => Err(Reason::Unsupported),
        }
    }
}

/// Looks at a message of Neighbor Discovery, which may be for a group that we are in.
#[cold]
fn discovery(
    common: &Common,
    ipv6: &mut Path<Ipv6Addr>,
    now: Duration,
    (head, head_bytes, tail): (&[u8; HEAD_BYTES], usize, &[u8]),
    meta: Meta,
) -> Result<Verdict, Reason> {
    let is_group = head[..2] == [0x33; 2];
    if head[..6] != common.mac && !is_group {
        return Err(Reason::NotForUs);
    }
    let own = ipv6.own;
    ndisc::hear(now, own, ipv6.next_hop(), (head, head_bytes, tail), meta)?;
    Ok(Verdict::Heard)
}

/// The clock of the connections.
#[inline(always)]
pub(crate) fn seconds(now: Duration) -> u32 {
    now.as_secs() as u32
}
