//! Somebody on a guest's link who makes every frame by hand, under addresses that the host does not have, and hears what the guest
//! answers: an AF_PACKET socket on the guest's TAP (packet(7)), past the host's network stack.

use std::ffi::CString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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
    socket: OwnedFd,
    guest_mac: [u8; 6],
    guest: Ipv4Addr,
    /// An address on the link that nobody has.
    pub(super) own: Ipv4Addr,
    pub(super) sent: u64,
}

impl Raw {
    /// One that sends only.
    pub(super) fn new(victim: &Victim) -> io::Result<Self> {
        Self::with(victim, 0)
    }

    /// One that hears the guest, too.
    pub(super) fn hearing(victim: &Victim) -> io::Result<Self> {
        Self::with(victim, libc::ETH_P_IP as u16)
    }

    fn with(victim: &Victim, protocol: u16) -> io::Result<Self> {
        let [a, b, c, _] = victim.host.octets();
        let (guest_mac, guest, own) = (victim.guest_mac, victim.guest, Ipv4Addr::new(a, b, c, 66));
        Ok(Self { socket: open(&victim.interface, protocol)?, guest_mac, guest, own, sent: 0 })
    }

    /// Sends what is behind the Ethernet header.
    pub(super) fn send_packet(&mut self, packet: &[u8]) {
        let frame = [&self.guest_mac[..], &MAC, &[8, 0], packet].concat();
        // SAFETY: the frame is readable for its length during the call.
        let sent = unsafe {
            libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT)
        };
        self.sent += u64::from(sent > 0);
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
        let ear = self.socket.as_raw_fd();
        let mut poll = libc::pollfd { fd: ear, events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, which lives through the call.
        if unsafe { libc::poll(&raw mut poll, 1, patience.as_millis() as i32) } <= 0 {
            return None;
        }
        let mut frame = [0u8; 70_000];
        loop {
            // SAFETY: the buffer is writable for its length during the call.
            let len = unsafe { libc::recv(ear, frame.as_mut_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) };
            if len < 0 {
                return None;
            }
            if let Some(heard) = self.read(&frame[..len as usize]) {
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

/// A socket that sends frames on an interface and hears those of one protocol, of none if it is 0.
fn open(name: &str, protocol: u16) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    // SAFETY: the name ends with NUL and lives through the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    let protocol = protocol.to_be();
    // SAFETY: no pointers are passed.
    let raw =
        unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(protocol)) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: zero is a value of every member of this plain C structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    (address.sll_family, address.sll_protocol) = (libc::AF_PACKET as u16, protocol);
    address.sll_ifindex = index as i32;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address is a sockaddr_ll of the length given, and lives through the call.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Makes the checksum of a TCP segment right, in a packet whose IPv4 header has no options (RFC 9293 3.1).
fn set_tcp_checksum(packet: &mut [u8]) {
    packet[36..38].copy_from_slice(&[0, 0]);
    let words = packet[12..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let pseudo_header = words.sum::<u32>() + 6 + (packet.len() - 20) as u32;
    let checksum = internet_checksum(&packet[20..], pseudo_header);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
}

/// The Internet checksum (RFC 1071) of these bytes, on top of a sum of 16-bit words.
fn internet_checksum(bytes: &[u8], initial: u32) -> u16 {
    let mut sum = initial;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
