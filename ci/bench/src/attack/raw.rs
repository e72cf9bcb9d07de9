//! Somebody on a guest's link who makes every frame by hand, under addresses that the host does not have, and hears what the guest
//! answers, past the host's network stack.

use exovm_netns::Interface;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const ACK: u8 = 16;

/// Where segments begin in a frame without IP options.
const TRANSPORT: usize = 34;
/// The attacker's own.
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x66];

/// A guest on a TAP of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Victim {
    /// The TAP's name.
    pub interface: String,
    /// The host's address on it; its network has 24 bits.
    pub host: Ipv4Addr,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// The guest's Ethernet address.
    pub guest_mac: [u8; 6],
}

/// A segment, or what of one there is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) from: (Ipv4Addr, u16),
    /// The guest's.
    pub(super) to_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    /// Four bytes a word.
    pub(super) options: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// What the guest sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) to_port: u16,
    pub(super) sequence: u32,
    pub(super) flags: u8,
    pub(super) len: u32,
}

/// The attacker.
#[derive(Debug)]
pub(super) struct Raw {
    wire: Wire,
    guest_mac: [u8; 6],
    guest: Ipv4Addr,
    /// An address on the link that nobody has.
    pub(super) own: Ipv4Addr,
    pub(super) sent: u64,
}

impl Raw {
    /// One that sends only.
    pub(super) fn new(victim: &Victim) -> io::Result<Self> {
        Self::with(victim, Wire::open)
    }

    /// One that hears the guest, too.
    pub(super) fn hearing(victim: &Victim) -> io::Result<Self> {
        Self::with(victim, Wire::hearing_ipv4)
    }

    fn with(victim: &Victim, open: fn(&Interface) -> io::Result<Wire>) -> io::Result<Self> {
        let interface = Interface::named(&victim.interface).map_err(io::Error::other)?;
        let [a, b, c, _] = victim.host.octets();
        let (guest_mac, guest, own) = (victim.guest_mac, victim.guest, Ipv4Addr::new(a, b, c, 66));
        Ok(Self { wire: open(&interface)?, guest_mac, guest, own, sent: 0 })
    }

    /// Sends what is behind the Ethernet header.
    pub(super) fn send_packet(&mut self, packet: &[u8]) {
        let frame = [&self.guest_mac[..], &MAC, &[8, 0], packet].concat();
        self.sent += u64::from(self.wire.send(&frame).is_ok());
    }

    /// An IPv4 header of the attacker's, or of `source`, without the checksum's bytes wrong.
    pub(super) fn ip(
        &self,
        source: Ipv4Addr,
        protocol: u8,
        identification: u16,
        place: u16,
        len: usize,
    ) -> [u8; 20] {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
        header[4..6].copy_from_slice(&identification.to_be_bytes());
        header[6..8].copy_from_slice(&place.to_be_bytes());
        header[8..10].copy_from_slice(&[64, protocol]);
        header[12..16].copy_from_slice(&source.octets());
        header[16..20].copy_from_slice(&self.guest.octets());
        let sum = internet_checksum(&header, 0);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    pub(super) fn send(&mut self, segment: &Segment<'_>) {
        let len = 20 + segment.options.len() + segment.payload.len();
        let mut packet = self.ip(segment.from.0, 6, 0, 0x4000, len).to_vec();
        packet.extend(segment.from.1.to_be_bytes());
        packet.extend(segment.to_port.to_be_bytes());
        packet.extend(segment.sequence.to_be_bytes());
        packet.extend(segment.acknowledgment.to_be_bytes());
        packet.extend([((5 + segment.options.len() / 4) as u8) << 4, segment.flags]);
        packet.extend(segment.window.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(segment.options);
        packet.extend(segment.payload);
        set_tcp_checksum(&mut packet);
        self.send_packet(&packet);
    }

    /// "Fragmentation needed" by a router that nobody knows, about a segment of the guest's to `to`.
    pub(super) fn send_too_large(
        &mut self,
        guest_port: u16,
        to: (Ipv4Addr, u16),
        sequence: u32,
        next_mtu: u16,
    ) {
        let mut quote = vec![0x45, 0, 0x05, 0xdc, 0, 0, 0x40, 0, 64, 6, 0, 0];
        quote.extend(self.guest.octets());
        quote.extend(to.0.octets());
        quote.extend(guest_port.to_be_bytes());
        quote.extend(to.1.to_be_bytes());
        quote.extend(sequence.to_be_bytes());
        let mut message = [&[3, 4, 0, 0, 0, 0][..], &next_mtu.to_be_bytes(), &quote].concat();
        let sum = internet_checksum(&message, 0);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let packet = [&self.ip(self.own, 1, 0, 0, message.len())[..], &message].concat();
        self.send_packet(&packet);
    }

    /// The next segment of the guest's to the attacker's address, if one comes soon.
    pub(super) fn hear(&self, patience: Duration) -> Option<Heard> {
        if !self.wire.wait(patience) {
            return None;
        }
        let mut frame = [0; 70_000];
        loop {
            if let Some(heard) = self.read(self.wire.receive(&mut frame)?) {
                return Some(heard);
            }
        }
    }

    fn read(&self, frame: &[u8]) -> Option<Heard> {
        let is_ours = frame.len() >= TRANSPORT + 20
            && frame[6..12] == self.guest_mac
            && frame[12..15] == [8, 0, 0x45]
            && frame[23] == 6
            && frame[30..34] == self.own.octets();
        let number = |at: usize| u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        is_ours.then(|| {
            let header = u32::from(frame[TRANSPORT + 12] >> 4) * 4;
            let total = u32::from(u16::from_be_bytes([frame[16], frame[17]]));
            Heard {
                to_port: u16::from_be_bytes([frame[TRANSPORT + 2], frame[TRANSPORT + 3]]),
                sequence: number(TRANSPORT + 4),
                flags: frame[TRANSPORT + 13],
                len: total.saturating_sub(20 + header),
            }
        })
    }
}
