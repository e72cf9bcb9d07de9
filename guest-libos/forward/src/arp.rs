//! ARP (RFC 826): who has the next hop's IPv4 address.

use crate::address::{Address, Own};
use crate::config::Mac;
use crate::counters::Reason;
use crate::neighbour::Neighbour;
use crate::wire::{TYPE_ARP, is_station, mac_at, put_u16, u16_at};
use core::net::Ipv4Addr;
use core::time::Duration;

/// Bytes of an ARP packet in an Ethernet frame without padding.
const FRAME_BYTES: usize = 42;
const BROADCAST: Mac = [0xFF; 6];
const REQUEST: u16 = 1;

/// Reads an ARP packet. What it says of `next_hop` is believed.
pub(crate) fn hear(
    now: Duration,
    own: Own<Ipv4Addr>,
    next_hop: Option<&mut Neighbour<Ipv4Addr>>,
    frame: &[u8],
) -> Result<(), Reason> {
    if frame.len() < FRAME_BYTES
        || u16_at(frame, 14) != 1
        || u16_at(frame, 16) != 0x0800
        || frame[18..20] != [6, 4]
    {
        return Err(Reason::Malformed);
    }
    let sender = mac_at(frame, 22);
    let sender_address = Ipv4Addr::read(frame, 28);
    let is_one_station = is_station(sender) && sender != own.mac;
    if let Some(next_hop) = next_hop.filter(|next_hop| next_hop.address() == sender_address && is_one_station)
    {
        next_hop.confirm(now, sender);
    }
    Ok(())
}

/// Writes a request for an address. Gives back its bytes.
pub(crate) fn write_request(frame: &mut [u8], own: Own<Ipv4Addr>, whom: Ipv4Addr) -> usize {
    frame[..6].copy_from_slice(&BROADCAST);
    put_u16(frame, 14, 1);
    put_u16(frame, 16, 0x0800);
    (frame[18], frame[19]) = (6, 4);
    frame[6..12].copy_from_slice(&own.mac);
    put_u16(frame, 12, TYPE_ARP);
    put_u16(frame, 20, REQUEST);
    frame[22..28].copy_from_slice(&own.mac);
    own.address.write(frame, 28);
    frame[32..38].fill(0);
    whom.write(frame, 38);
    FRAME_BYTES
}
