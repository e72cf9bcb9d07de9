//! The forwarder: a frame's way through it, its timers.

use crate::checksum;
use crate::config::{Config, ConfigError, Mac, is_host};
use crate::counters::{Counters, Reason};
use crate::flows::{Flows, State};
use crate::neighbour::{ARP_FRAME_BYTES, Arp, Neighbour, Own};
use crate::wire::{
    ETHERNET_BYTES, IP, IP_BYTES, PROTOCOL_ICMP, PROTOCOL_TCP, TRANSPORT, TYPE_ARP, TYPE_IPV4, ip, u16_at,
    u32_at,
};
use core::net::Ipv4Addr;
use core::time::Duration;

/// Of a frame, more than this is never looked at or rewritten: Ethernet, IP and TCP headers, or as much of an ICMP error and
/// what it quotes.
pub const HEAD_BYTES: usize = 128;
/// Bytes of a frame of [`Forwarder::poll`].
pub const REQUEST_BYTES: usize = ARP_FRAME_BYTES;

/// Connections that one call forgets at most.
const EXPIRE_MAX: usize = 64;
/// Errors of its own that it sends in a second (RFC 1812 4.3.2.8).
const ERRORS_PER_SECOND: u32 = 100;

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
        /// The transport header.
        start: u16,
        /// The field.
        offset: u16,
        /// Bytes of data in each.
        mss: u16,
    },
}

/// A frame to send: `head[..headers_bytes]`, and then `received[headers_bytes..len_bytes]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Bytes of headers; the whole of what is not TCP, as far as it is not longer than the head.
    pub headers_bytes: usize,
    /// Bytes of the whole frame.
    pub len_bytes: usize,
    /// What the device is to do.
    pub offload: Offload,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, or an answer goes back.
    Send(Outgoing),
    /// It was for the forwarder, which has nothing to say.
    Heard,
    /// It goes nowhere; that was counted.
    Drop(Reason),
}

/// An IP packet for us in a frame: no options, no fragment, a right header checksum.
pub(crate) struct Packet<'a> {
    /// The frame's first bytes.
    pub(crate) head: &'a mut [u8; HEAD_BYTES],
    /// The rest of the frame.
    pub(crate) tail: &'a [u8],
    /// How many of `head` are the packet's.
    pub(crate) head_bytes: usize,
    /// Of the IP packet.
    pub(crate) total_bytes: usize,
    pub(crate) source: u32,
    pub(crate) meta: Meta,
}

impl Packet<'_> {
    pub(crate) fn sender_mac(&self) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.head[6..12]);
        mac
    }

    /// Addresses the frame.
    #[inline(always)]
    pub(crate) fn send_to(&mut self, mac: Mac, own: Own) {
        self.head[..6].copy_from_slice(&mac);
        self.head[6..12].copy_from_slice(&own.mac);
    }

    /// The packet's bytes behind the IP header.
    pub(crate) fn transport(&self) -> (&[u8], &[u8]) {
        let rest = (ETHERNET_BYTES + self.total_bytes).saturating_sub(self.head_bytes);
        (&self.head[TRANSPORT..self.head_bytes], &self.tail[..rest.min(self.tail.len())])
    }
}

/// What is remembered between frames.
#[derive(Debug)]
pub struct Forwarder {
    pub(crate) own: Own,
    pub(crate) listen: u16,
    pub(crate) server: u32,
    pub(crate) server_port: u16,
    pub(crate) flows: Flows,
    pub(crate) next_hop: Neighbour,
    pub(crate) counters: Counters,
    established_s: u32,
    transitory_s: u32,
    /// The second in which errors are counted, and how many there were.
    errors: (u32, u32),
}

impl Forwarder {
    /// A forwarder without connections. Takes all its memory.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1);
        Ok(Self {
            own: Own { mac: config.mac, address: config.address.to_bits() },
            listen: config.listen,
            server: config.to.ip().to_bits(),
            server_port: config.to.port(),
            flows: Flows::new(config.max_connections, config.listen, &config.secret),
            next_hop: Neighbour::new(config.next_hop()?.to_bits()),
            counters: Counters::default(),
            established_s: seconds(config.established_timeout),
            transitory_s: seconds(config.transitory_timeout),
            errors: (0, 0),
        })
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
        self.counters.frames_in += 1;
        match self.look(now, frame, head, meta) {
            Ok(verdict) => verdict,
            Err(reason) => {
                self.counters.drops[reason as usize] += 1;
                Verdict::Drop(reason)
            }
        }
    }

    /// What is due by itself: connections are forgotten, the server is looked for. True if `frame` is to be sent; call it again
    /// then.
    pub fn poll(&mut self, now: Duration, frame: &mut [u8; REQUEST_BYTES]) -> bool {
        let (now_s, timeout_s) = (seconds(now), self.timeouts());
        for _ in 0..EXPIRE_MAX {
            if !self.flows.expire(now_s, &timeout_s) {
                break;
            }
            self.counters.expired += 1;
        }
        let asks = self.next_hop.ask(now, self.own, frame);
        self.counters.arp_requests += u64::from(asks);
        asks
    }

    /// When [`Self::poll`] has something to do.
    pub fn deadline(&self) -> Duration {
        let expiry = self.flows.next_expiry_s(self.timeouts()).map(|at_s| Duration::from_secs(at_s.into()));
        let asking = self.next_hop.deadline();
        expiry.map_or(asking, |expiry| expiry.min(asking))
    }

    /// Totals.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections that are half-open, established and ended but still remembered.
    pub fn connections(&self) -> [u32; 3] {
        [State::HalfOpen, State::Established, State::Closing].map(|state| self.flows.count(state))
    }

    /// How many can be remembered.
    pub fn connections_max(&self) -> u32 {
        self.flows.max()
    }

    /// Where the server, or the gateway to it, is on the link; `None`: not known.
    pub fn next_hop(&self) -> Option<Mac> {
        match self.next_hop.known() {
            crate::neighbour::Known::At(mac) => Some(mac),
            _ => None,
        }
    }

    fn timeouts(&self) -> impl Fn(State) -> u32 + use<> {
        let (established_s, transitory_s) = (self.established_s, self.transitory_s);
        move |state| if state == State::Established { established_s } else { transitory_s }
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
        match u16_at(head, 12) {
            TYPE_IPV4 if head[..6] == self.own.mac => {
                let packet = self.packet(head, head_bytes, tail, meta)?;
                match packet.head[IP + ip::PROTOCOL] {
                    PROTOCOL_TCP => self.segment(now, packet),
                    PROTOCOL_ICMP => self.icmp(packet),
                    _ => Err(Reason::Unsupported),
                }
            }
            TYPE_IPV4 => Err(Reason::NotForUs),
            TYPE_ARP => match self.next_hop.hear(now, self.own, &mut head[..head_bytes]) {
                Arp::Answer => {
                    self.counters.arp_replies += 1;
                    Ok(Verdict::Send(whole(ARP_FRAME_BYTES)))
                }
                Arp::Heard => Ok(Verdict::Heard),
                Arp::Malformed => Err(Reason::Malformed),
            },
            _ => Err(Reason::Unsupported),
        }
    }

    /// Checks the IP header (RFC 1812 5.2.2).
    #[inline(always)]
    fn packet<'a>(
        &self,
        head: &'a mut [u8; HEAD_BYTES],
        head_bytes: usize,
        tail: &'a [u8],
        meta: Meta,
    ) -> Result<Packet<'a>, Reason> {
        if head_bytes < TRANSPORT || head[IP] >> 4 != 4 || head[IP] & 15 < 5 {
            return Err(Reason::Malformed);
        }
        if head[IP] & 15 > 5 {
            return Err(Reason::IpOptions);
        }
        let total_bytes = usize::from(u16_at(head, IP + ip::TOTAL_LEN));
        if total_bytes < IP_BYTES || total_bytes > head_bytes + tail.len() - ETHERNET_BYTES {
            return Err(Reason::Malformed);
        }
        if checksum::sum(&head[IP..TRANSPORT], &[]) != 0xFFFF {
            return Err(Reason::BadChecksum);
        }
        if u32_at(head, IP + ip::DESTINATION) != self.own.address {
            return Err(Reason::NotForUs);
        }
        let source = u32_at(head, IP + ip::SOURCE);
        if !is_host(Ipv4Addr::from_bits(source)) || source == self.own.address {
            return Err(Reason::BadSource);
        }
        if u16_at(head, IP + ip::FLAGS) & ip::FRAGMENT != 0 {
            return Err(Reason::Fragment);
        }
        // What follows the packet is Ethernet's padding.
        let head_bytes = head_bytes.min(ETHERNET_BYTES + total_bytes);
        Ok(Packet { head, tail, head_bytes, total_bytes, source, meta })
    }

    /// Whether another error of its own may go out now.
    pub(crate) fn may_complain(&mut self, now: Duration) -> bool {
        let now_s = seconds(now);
        if self.errors.0 != now_s {
            self.errors = (now_s, 0);
        }
        self.errors.1 += 1;
        self.errors.1 <= ERRORS_PER_SECOND
    }
}

/// A frame that lies in the head as a whole, and needs nothing.
pub(crate) fn whole(len_bytes: usize) -> Outgoing {
    Outgoing { headers_bytes: len_bytes, len_bytes, offload: Offload::None }
}

/// The clock of the connections.
#[inline(always)]
pub(crate) fn seconds(now: Duration) -> u32 {
    now.as_secs() as u32
}
