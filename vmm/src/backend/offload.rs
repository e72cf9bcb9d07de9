//! What a sender left to the hardware, done in software: checksums (VIRTIO 1.3 5.1.6.2) and the segmentation of TCP (TSO). For
//! readers without offloads, and for who wants the packets as they would be on a wire.
//!
//! Frames come led by the 12 bytes of `struct virtio_net_hdr_v1`. Their contents are a guest's, and may be anything.

use super::{HEADER_BYTES, Offloads};

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Marks a TCP segment that reduced the congestion window; only the first segment has it (RFC 3168 6.1.2).
const GSO_ECN: u8 = 0x80;
/// Smallest segment that anybody sends: as on Linux, the smallest MSS less all options.
const SEGMENT_BYTES_MIN: usize = 8;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Why a frame cannot be finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// The place of the checksum lies outside of the frame.
    #[error("the frame's checksum lies outside of it")]
    Checksum,
    /// Segmentation of something that is not TCP over IPv4 or IPv6, or whose headers are cut.
    #[error("the frame to be segmented is no TCP segment whose headers make sense")]
    NotTcp,
}

/// What a frame wants of its reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    flags: u8,
    gso_type: u8,
}

impl Wanted {
    /// What the frame wants that begins with these bytes, at least the two first of its header.
    #[inline]
    pub fn of(header: &[u8]) -> Self {
        let byte = |at: usize| header.get(at).copied().unwrap_or(0);
        Self { flags: byte(0), gso_type: byte(1) }
    }

    /// Whether a reader with these offloads copes with it.
    #[inline]
    pub fn is_met_by(self, offloads: Offloads) -> bool {
        let checksum = self.flags & NEEDS_CSUM == 0 || offloads.checksum;
        let segmentation = match self.gso_type & !GSO_ECN {
            0 => true,
            GSO_TCPV4 => offloads.tso4,
            GSO_TCPV6 => offloads.tso6,
            _ => false,
        };
        checksum && segmentation
    }
}

/// Little-endian words of the header: header length, segment size, checksum start, checksum offset.
fn word(header: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([header[at], header[at + 1]]))
}

/// A big-endian word of a packet.
fn be(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])))
}

/// The sum of 16-bit words, not folded (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let sum: u64 = words.by_ref().map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum + words.remainder().first().map_or(0, |&last| u64::from(last) << 8)
}

/// The checksum that goes with a sum.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    // Of the two forms of zero, the one that UDP does not take for "none" (RFC 768).
    match !(sum as u16) {
        0 => 0xFFFF,
        checksum => checksum,
    }
}

/// Calls `emit` with each packet that this frame is on a wire, behind an empty header: with its checksum, and segmented. A
/// frame that wants nothing is emitted as it is. `packet` is memory for segments.
pub fn finish(
    frame: &mut [u8],
    packet: &mut Vec<u8>,
    mut emit: impl FnMut(&mut [u8]),
) -> Result<(), OffloadError> {
    let Some((header, bytes)) = frame.split_at_mut_checked(HEADER_BYTES) else {
        return Err(OffloadError::Checksum);
    };
    let needs_checksum = header[0] & NEEDS_CSUM != 0;
    let gso_type = header[1] & !GSO_ECN;
    let (segment_bytes, start) = (word(header, 4), word(header, 6));
    if gso_type != 0 {
        let headers = Headers::parse(bytes, gso_type, start).ok_or(OffloadError::NotTcp)?;
        if segment_bytes < SEGMENT_BYTES_MIN || !needs_checksum {
            return Err(OffloadError::NotTcp);
        }
        headers.segment(bytes, segment_bytes, packet, emit);
        return Ok(());
    }
    if needs_checksum {
        let at = start + word(header, 8);
        if at + 2 > bytes.len() {
            return Err(OffloadError::Checksum);
        }
        let checksum = fold(sum(&bytes[start..]));
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    header.fill(0);
    emit(frame);
    Ok(())
}

/// Fills in the checksum that a frame's header asks for, so that it can be shown to people: also in a frame that is yet to be
/// segmented, as if it were one packet. What makes no sense stays as it is.
pub fn fill_in_checksum(header: &[u8], frame: &mut [u8]) {
    if header.len() < HEADER_BYTES || header[0] & NEEDS_CSUM == 0 {
        return;
    }
    let start = word(header, 6);
    let at = start + word(header, 8);
    if at + 2 <= frame.len() {
        let checksum = fold(sum(&frame[start..]));
        frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Where the headers of a TCP segment lie in its Ethernet frame.
#[derive(Clone, Copy, Debug)]
struct Headers {
    is_v4: bool,
    ip: usize,
    tcp: usize,
    payload: usize,
    /// End of the IP packet; what follows is padding.
    end: usize,
}

impl Headers {
    fn parse(frame: &[u8], gso_type: u8, tcp: usize) -> Option<Self> {
        let mut ip = 14;
        let mut ether_type = be(frame, 12)?;
        if ether_type == 0x8100 {
            (ether_type, ip) = (be(frame, 16)?, 18);
        }
        let is_v4 = gso_type == GSO_TCPV4;
        let (fixed_bytes, ip_bytes, protocol) = match (is_v4, ether_type) {
            (true, 0x0800) => {
                let header_bytes = usize::from(frame.get(ip)? & 15) * 4;
                if ip + header_bytes != tcp {
                    return None;
                }
                (20, be(frame, ip + 2)?, Some(*frame.get(ip + 9)?))
            }
            // Extension headers may lie before TCP; where it begins, the sender says.
            (false, 0x86DD) => (40, 40 + be(frame, ip + 4)?, None),
            _ => return None,
        };
        let end = ip + ip_bytes;
        let payload = tcp + usize::from(frame.get(tcp + 12)? >> 4) * 4;
        let sensible = tcp >= ip + fixed_bytes && payload >= tcp + 20 && payload <= end && end <= frame.len();
        (sensible && protocol.is_none_or(|protocol| protocol == 6)).then_some(Self {
            is_v4,
            ip,
            tcp,
            payload,
            end,
        })
    }

    /// Makes the segments (RFC 9293 3.1; the identification of IPv4 goes on by one, as hardware does it).
    fn segment(
        self,
        frame: &[u8],
        segment_bytes: usize,
        packet: &mut Vec<u8>,
        mut emit: impl FnMut(&mut [u8]),
    ) {
        let Self { is_v4, ip, tcp, payload, end } = self;
        let sequence = u32::from_be_bytes(std::array::from_fn(|at| frame[tcp + 4 + at]));
        let flags = frame[tcp + 13];
        let identification = u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]);
        let payload_bytes = end - payload;
        // A segment without payload is one all the same.
        for (number, from) in (0..payload_bytes.max(1)).step_by(segment_bytes).enumerate() {
            let part = &frame[payload + from..(payload + from + segment_bytes).min(end)];
            packet.clear();
            packet.resize(HEADER_BYTES, 0);
            packet.extend_from_slice(&frame[..payload]);
            packet.extend_from_slice(part);
            let bytes = &mut packet[HEADER_BYTES..];
            let is_last = from + segment_bytes >= payload_bytes;
            let kept = if is_last { 0 } else { FIN_PSH } | if number > 0 { CWR } else { 0 };
            bytes[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(from as u32).to_be_bytes());
            bytes[tcp + 13] = flags & !kept;
            let addresses = if is_v4 {
                let ip_bytes = (bytes.len() - ip) as u16;
                bytes[ip + 2..ip + 4].copy_from_slice(&ip_bytes.to_be_bytes());
                let identification = identification.wrapping_add(number as u16);
                bytes[ip + 4..ip + 6].copy_from_slice(&identification.to_be_bytes());
                bytes[ip + 10..ip + 12].fill(0);
                let checksum = fold(sum(&bytes[ip..tcp]));
                bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
                ip + 12..ip + 20
            } else {
                let ip_bytes = (bytes.len() - ip - 40) as u16;
                bytes[ip + 4..ip + 6].copy_from_slice(&ip_bytes.to_be_bytes());
                ip + 8..ip + 40
            };
            bytes[tcp + 16..tcp + 18].fill(0);
            let pseudo_header = sum(&bytes[addresses]) + 6 + (bytes.len() - tcp) as u64;
            let checksum = fold(pseudo_header + sum(&bytes[tcp..]));
            bytes[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
            emit(packet);
        }
    }
}

#[cfg(test)]
mod tests;
