//! Neighbor Discovery (RFC 4861): who has the next hop's IPv6 address. Routers are not heard: the one to go through is given.

use crate::address::{Address, Own, REQUEST_BYTES, addresses};
use crate::checksum::sum;
use crate::config::Mac;
use crate::counters::Reason;
use crate::forwarder::Meta;
use crate::ipv6::NEXT_HEADER;
use crate::neighbour::Neighbour;
use crate::wire::{ETHERNET_BYTES, IP, PROTOCOL_ICMPV6, TYPE_IPV6, is_station, mac_at, put_u16};
use core::net::Ipv6Addr;
use core::ops::RangeInclusive;
use core::time::Duration;

/// Where the ICMP message begins.
const MESSAGE: usize = ETHERNET_BYTES + Ipv6Addr::HEADER_BYTES;
/// Offsets in a frame with a message.
const CHECKSUM: usize = MESSAGE + 2;
const FLAGS: usize = MESSAGE + 4;
const TARGET: usize = MESSAGE + 8;
const OPTIONS: usize = TARGET + 16;
/// Bytes of a message with the sender's or target's link-layer address.
const MESSAGE_BYTES: usize = 8 + 16 + 8;
/// Bytes of that in a frame.
const FRAME_BYTES: usize = MESSAGE + MESSAGE_BYTES;

/// Router solicitation to redirect (RFC 4861 4).
const TYPES: RangeInclusive<u8> = 133..=137;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// Whoever forwards decrements this, so a message that has it is from the link (RFC 4861 7.1).
const ON_LINK_HOPS: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Whether a frame of IPv6 is of Neighbor Discovery.
#[inline(always)]
pub(crate) fn is_message(head: &[u8]) -> bool {
    head.len() > MESSAGE && head[IP + NEXT_HEADER] == PROTOCOL_ICMPV6 && TYPES.contains(&head[MESSAGE])
}

/// Reads a message. `head` are the first bytes of the frame, `head_bytes` of them it has, and `tail` is the rest. What it says of
/// `next_hop` is believed.
pub(crate) fn hear(
    now: Duration,
    own: Own<Ipv6Addr>,
    next_hop: Option<&mut Neighbour<Ipv6Addr>>,
    (head, head_bytes, tail): (&[u8], usize, &[u8]),
    meta: Meta,
) -> Result<(), Reason> {
    let parsed = Ipv6Addr::parse(head, head_bytes, head_bytes + tail.len())?;
    let (source, destination) = addresses::<Ipv6Addr>(&head[IP..]);
    if destination != own.address && destination != solicited_node(own.address) && destination != ALL_NODES {
        return Err(Reason::NotForUs);
    }
    if meta != Meta::default() {
        return Err(Reason::Offload);
    }
    let end = ETHERNET_BYTES + parsed.total_bytes;
    let (first, rest) = (&head[MESSAGE..head_bytes.min(end)], &tail[..end.saturating_sub(head_bytes)]);
    let pseudo_sum = Ipv6Addr::icmp_pseudo_sum(&head[IP..], end - MESSAGE);
    if sum(pseudo_sum.into(), first, rest) != 0xFFFF {
        return Err(Reason::BadChecksum);
    }
    let kind = head[MESSAGE];
    if head[IP + Ipv6Addr::HOP_LIMIT] != ON_LINK_HOPS || head[MESSAGE + 1] != 0 {
        return Err(Reason::Malformed);
    }
    if kind != SOLICITATION && kind != ADVERTISEMENT {
        return Ok(());
    }
    if end < OPTIONS {
        return Err(Reason::Malformed);
    }
    let target = Ipv6Addr::read(head, TARGET);
    let options = Options::parse(&head[OPTIONS..head_bytes.min(end)]).ok_or(Reason::Malformed)?;
    if kind == ADVERTISEMENT {
        let flags = head[FLAGS];
        if target.is_multicast() || destination.is_multicast() && flags & SOLICITED != 0 {
            return Err(Reason::Malformed);
        }
        if let Some(next_hop) = next_hop.filter(|next_hop| next_hop.address() == target) {
            advertised(now, own, next_hop, flags, options.target);
        }
        return Ok(());
    }
    // From no address, it asks whether the target is free (RFC 4862 5.4.2).
    let is_probe = source.is_unspecified();
    let is_wrong_probe = is_probe && (options.source.is_some() || destination != solicited_node(own.address));
    if target.is_multicast() || is_wrong_probe || !is_probe && !source.is_host() {
        return Err(Reason::Malformed);
    }
    // RFC 4861 7.2.3.
    if target != own.address {
        return Ok(());
    }
    let said = options.source.filter(|&mac| mac != own.mac);
    if let (Some(next_hop), Some(mac)) = (next_hop.filter(|next_hop| next_hop.address() == source), said) {
        next_hop.tell(now, mac);
    }
    Ok(())
}

/// RFC 4861 7.2.5: without "override" it takes nothing back that is known.
fn advertised(
    now: Duration,
    own: Own<Ipv6Addr>,
    next_hop: &mut Neighbour<Ipv6Addr>,
    flags: u8,
    mac: Option<Mac>,
) {
    let known = next_hop.mac();
    match mac.filter(|&mac| mac != own.mac) {
        Some(mac) if known.is_some_and(|known| known != mac) && flags & OVERRIDE == 0 => {}
        Some(mac) if flags & SOLICITED != 0 => next_hop.confirm(now, mac),
        Some(mac) => next_hop.tell(now, mac),
        None if flags & SOLICITED != 0 => next_hop.confirm_known(now),
        None => {}
    }
}

/// Writes a solicitation of `whom`: to `at` if it was there (RFC 4861 7.3.3), otherwise to its group.
pub(crate) fn write_solicitation(
    frame: &mut [u8; REQUEST_BYTES],
    own: Own<Ipv6Addr>,
    whom: Ipv6Addr,
    at: Option<Mac>,
) -> usize {
    let group = solicited_node(whom);
    let (mac, to) = at.map_or((group_mac(group), group), |mac| (mac, whom));
    frame[..6].copy_from_slice(&mac);
    frame[6..12].copy_from_slice(&own.mac);
    put_u16(frame, 12, TYPE_IPV6);
    Ipv6Addr::write_icmp_header(&mut frame[IP..], own.address, to, MESSAGE_BYTES);
    frame[IP + Ipv6Addr::HOP_LIMIT] = ON_LINK_HOPS;
    frame[MESSAGE..TARGET].copy_from_slice(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0]);
    whom.write(frame, TARGET);
    (frame[OPTIONS], frame[OPTIONS + 1]) = (SOURCE_ADDRESS, 1);
    frame[OPTIONS + 2..FRAME_BYTES].copy_from_slice(&own.mac);
    let pseudo_sum = Ipv6Addr::icmp_pseudo_sum(&frame[IP..], MESSAGE_BYTES);
    let sum = sum(pseudo_sum.into(), &frame[MESSAGE..FRAME_BYTES], &[]);
    put_u16(frame, CHECKSUM, !sum);
    FRAME_BYTES
}

/// The link-layer addresses that a message gives.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    source: Option<Mac>,
    target: Option<Mac>,
}

impl Options {
    /// RFC 4861 4.6: lengths are in units of 8 bytes. `None`: one of no length. What a long message has behind the frame's head
    /// is not looked at.
    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        while let [kind, units, rest @ ..] = bytes {
            let len_bytes = usize::from(*units) * 8;
            if len_bytes == 0 {
                return None;
            }
            if len_bytes == 8 && rest.len() >= 6 {
                let mac = Some(mac_at(rest, 0)).filter(|&mac| is_station(mac));
                match *kind {
                    SOURCE_ADDRESS => found.source = mac,
                    TARGET_ADDRESS => found.target = mac,
                    _ => {}
                }
            }
            bytes = bytes.get(len_bytes..).unwrap_or_default();
        }
        Some(found)
    }
}

/// The group that is asked for an address (RFC 4291 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// A group's Ethernet address (RFC 2464 7).
fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}
