//! Explicit congestion notification (RFC 3168) as a router sees it, in frames led by the virtio-net header.

use exos_net::wire::checksum::sum_bytes;
use exovm_netns::tap::VNET_HEADER_BYTES;

const IP: usize = VNET_HEADER_BYTES + 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP: u8 = 6;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// What one frame says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notice {
    /// It may be marked, and is not: ECT(0) or ECT(1).
    pub(crate) capable: bool,
    /// A SYN with ECE and CWR.
    pub(crate) setup: bool,
    /// A SYN-ACK with ECE alone.
    pub(crate) agreement: bool,
    /// Another segment with ECE.
    pub(crate) echo: bool,
    /// Another segment with CWR.
    pub(crate) reduction: bool,
}

/// The ECN field and the flags of a TCP segment without IP options or extension headers; of all else, that it says nothing.
pub(crate) fn notice(frame: &[u8]) -> Notice {
    let Some(ip) = frame.get(IP..) else { return Notice::default() };
    let (field, protocol, tcp) = match ip.first() {
        Some(0x45) if ip.len() >= IPV4_BYTES => (ip[1] & 3, ip[9], IPV4_BYTES),
        Some(0x60..=0x6f) if ip.len() >= IPV6_BYTES => (ip[1] >> 4 & 3, ip[6], IPV6_BYTES),
        _ => return Notice::default(),
    };
    let Some(&flags) = ip.get(tcp + 13).filter(|_| protocol == TCP) else { return Notice::default() };
    let (syn, bits) = (flags & SYN != 0, flags & (ECE | CWR));
    Notice {
        capable: matches!(field, 1 | 2),
        setup: syn && flags & ACK == 0 && bits == ECE | CWR,
        agreement: syn && flags & ACK != 0 && bits == ECE,
        echo: !syn && bits & ECE != 0,
        reduction: !syn && bits & CWR != 0,
    }
}

/// Marks a frame that [`notice`] calls capable: Congestion Experienced.
pub(crate) fn mark(frame: &mut [u8]) {
    let ip = &mut frame[IP..];
    if ip[0] >> 4 == 6 {
        ip[1] |= 0x30;
        return;
    }
    ip[1] |= 3;
    ip[10..12].fill(0);
    let checksum = !sum_bytes(&ip[..IPV4_BYTES]);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}
