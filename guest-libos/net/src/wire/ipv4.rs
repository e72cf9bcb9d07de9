//! IPv4 headers (RFC 791). Options are skipped but source routes, which are refused; fragments are read as such, and put
//! together elsewhere.

use core::net::Ipv4Addr;
use core::num::NonZeroU8;

use super::checksum::{Sum, sum_bytes};
use super::{WireError, u16_at, u32_at};

/// Length of an IPv4 header without options.
pub const HEADER_BYTES: usize = 20;
/// Time to live of what we send (the assigned number, RFC 1700).
pub const TIME_TO_LIVE: NonZeroU8 = NonZeroU8::new(64).unwrap();
/// Flags and fragment offset of what we send: don't fragment. With it the identification may be any value (RFC 6864
/// 4.1), so it is zero.
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// Options that say which way a datagram went and answers are to go (RFC 791 3.1).
const LOOSE_SOURCE_ROUTE: u8 = 131;
const STRICT_SOURCE_ROUTE: u8 = 137;

/// The protocol of a datagram's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 1.
    Icmp,
    /// 6.
    Tcp,
    /// 17.
    Udp,
}

impl Protocol {
    /// The protocol's number in the IPv4 header.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// The protocol with this number, if it is one of ours.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Icmp),
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            _ => None,
        }
    }
}

/// Whether the header checksum is verified here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Verify it.
    Here,
    /// The device has done so.
    Done,
}

/// An IPv4 datagram's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// What the datagram carries.
    pub protocol: Protocol,
}

impl Ipv4Header {
    /// Reads the header and returns it with the payload, cut to the datagram's length.
    #[inline]
    pub fn parse(bytes: &[u8], verify: Verify) -> Result<(Self, &[u8]), WireError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(u16_at(header, 2));
        if header[0] >> 4 != 4
            || header_len < HEADER_BYTES
            || total_len < header_len
            || total_len > bytes.len()
        {
            return Err(WireError::Malformed);
        }
        if verify == Verify::Here && sum_bytes(&bytes[..header_len]) != 0xffff {
            return Err(WireError::Checksum);
        }
        if header_len > HEADER_BYTES && is_source_routed(&bytes[HEADER_BYTES..header_len]) {
            return Err(WireError::Unsupported);
        }
        // More fragments, or not the first one; reserved and DF bits do not matter.
        if u16_at(header, 6) & 0x3fff != 0 {
            return Err(WireError::Fragment);
        }
        let protocol = Protocol::from_wire(header[9]).ok_or(WireError::Unsupported)?;
        let source = Ipv4Addr::from_bits(u32_at(header, 12));
        let destination = Ipv4Addr::from_bits(u32_at(header, 16));
        Ok((Self { source, destination, protocol }, &bytes[header_len..total_len]))
    }

    /// The sum of everything in the header that [`Self::emit`] writes, except the total length.
    pub fn sum_without_length(&self) -> Sum {
        Sum::ZERO
            .word(0x4500)
            .word(DONT_FRAGMENT)
            .word(u16::from_be_bytes([TIME_TO_LIVE.get(), self.protocol.to_wire()]))
            .double(self.source.to_bits())
            .double(self.destination.to_bits())
    }

    /// The sum of the pseudo-header (RFC 9293 3.1) except the length.
    pub fn pseudo_sum_without_length(&self) -> Sum {
        Sum::ZERO
            .double(self.source.to_bits())
            .double(self.destination.to_bits())
            .word(u16::from(self.protocol.to_wire()))
    }

    /// Writes the header of a datagram with `payload_len` bytes of payload. A length that does not fit is cut to 16
    /// bits; callers are bounded by the MTU or by `MAX_TSO_BYTES`.
    pub fn emit(&self, payload_len: usize, out: &mut [u8; HEADER_BYTES]) {
        self.emit_with(payload_len, 0, DONT_FRAGMENT, out);
    }

    /// Writes the header of a fragment: `payload_len` bytes that belong at `offset`, a multiple of eight.
    pub fn emit_fragment(&self, payload_len: usize, place: FragmentPlace, out: &mut [u8; HEADER_BYTES]) {
        let more = if place.more { MORE_FRAGMENTS } else { 0 };
        self.emit_with(payload_len, place.identification, more | (place.offset / 8) as u16, out);
    }

    fn emit_with(
        &self,
        payload_len: usize,
        identification: u16,
        fragment: u16,
        out: &mut [u8; HEADER_BYTES],
    ) {
        let total_len = (HEADER_BYTES + payload_len) as u16;
        let lifetime_and_protocol = u16::from_be_bytes([TIME_TO_LIVE.get(), self.protocol.to_wire()]);
        let sum = Sum::ZERO
            .word(0x4500)
            .word(total_len)
            .word(identification)
            .word(fragment)
            .word(lifetime_and_protocol)
            .double(self.source.to_bits())
            .double(self.destination.to_bits());
        out[..2].copy_from_slice(&[0x45, 0]);
        out[2..4].copy_from_slice(&total_len.to_be_bytes());
        out[4..6].copy_from_slice(&identification.to_be_bytes());
        out[6..8].copy_from_slice(&fragment.to_be_bytes());
        out[8..10].copy_from_slice(&lifetime_and_protocol.to_be_bytes());
        out[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..20].copy_from_slice(&self.destination.octets());
    }
}

/// Gives a header another codepoint (RFC 2474) and time to live.
pub fn mark(codepoint: u8, time_to_live: NonZeroU8, header: &mut [u8; HEADER_BYTES]) {
    (header[1], header[8]) = (codepoint << 2, time_to_live.get());
    header[10..12].fill(0);
    let checksum = Sum::ZERO.bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Whether the sender says which way answers would go: such datagrams are dropped (RFC 7126 4.3, 4.4). Whatever follows a
/// malformed option is not read.
#[cold]
pub(super) fn is_source_routed(mut options: &[u8]) -> bool {
    loop {
        match *options {
            [LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, ..] => return true,
            [1, ref rest @ ..] => options = rest,
            [kind, len, ..] if kind != 0 && len >= 2 && usize::from(len) <= options.len() => {
                options = &options[usize::from(len)..];
            }
            _ => return false,
        }
    }
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPlace {
    /// What fragments of one datagram have in common.
    pub identification: u16,
    /// Where its payload belongs, in bytes, a multiple of eight.
    pub offset: usize,
    /// More follow behind it.
    pub more: bool,
}

/// A fragment of a datagram, or a whole one of any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Fragment<'f> {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// The number of what the datagram carries.
    pub protocol: u8,
    /// What fragments of one datagram have in common.
    pub identification: u16,
    /// Where the payload belongs, in bytes.
    pub offset: usize,
    /// More follow behind it.
    pub more: bool,
    /// The packet from the header on, without padding behind it.
    pub packet: &'f [u8],
    /// The fragment's part of the datagram's payload.
    pub payload: &'f [u8],
}

impl<'f> Ipv4Fragment<'f> {
    /// Reads a packet whose lengths and checksum [`Ipv4Header::parse`] has verified.
    pub fn parse(bytes: &'f [u8]) -> Result<Self, WireError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let packet = bytes.get(..usize::from(u16_at(header, 2))).ok_or(WireError::Malformed)?;
        let flags_and_offset = u16_at(header, 6);
        Ok(Self {
            source: Ipv4Addr::from_bits(u32_at(header, 12)),
            destination: Ipv4Addr::from_bits(u32_at(header, 16)),
            protocol: header[9],
            identification: u16_at(header, 4),
            offset: usize::from(flags_and_offset & 0x1fff) * 8,
            more: flags_and_offset & MORE_FRAGMENTS != 0,
            packet,
            payload: packet.get(header_len..).ok_or(WireError::Malformed)?,
        })
    }
}

/// Whether a host can have `address` as its source: not unspecified, multicast, reserved, broadcast or loopback
/// (RFC 1122 3.2.1.3).
#[inline]
pub fn is_host(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..=255)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn emitted(payload: &[u8]) -> (Ipv4Header, Vec<u8>) {
        let header = Ipv4Header {
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            protocol: Protocol::Tcp,
        };
        let mut out = [0; HEADER_BYTES];
        header.emit(payload.len(), &mut out);
        (header, [&out[..], payload].concat())
    }

    fn reseal(bytes: &mut [u8]) {
        bytes[10..12].fill(0);
        let checksum = Sum::ZERO.bytes(&bytes[..usize::from(bytes[0] & 15) * 4]).checksum();
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    }

    #[test]
    fn ipv4_emit_then_parse_returns_same_and_cuts_padding() {
        let (header, mut bytes) = emitted(b"payload");
        bytes.extend_from_slice(&[0; 20]);
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Here), Ok((header, &b"payload"[..])));
    }

    #[test]
    fn ipv4_wrong_checksum_returns_checksum_unless_verified_by_device() {
        let (header, mut bytes) = emitted(b"");
        bytes[10] ^= 1;
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Here), Err(WireError::Checksum));
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Done), Ok((header, &b""[..])));
    }

    #[test]
    fn ipv4_options_are_skipped() {
        let (header, mut bytes) = emitted(b"");
        bytes[0] = 0x46;
        bytes[3] += 8;
        bytes.extend_from_slice(&[1, 1, 1, 0, b'd', b'a', b't', b'a']);
        reseal(&mut bytes);
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Here), Ok((header, &b"data"[..])));
    }

    #[test]
    fn ipv4_fragment_returns_fragment() {
        let (_, mut bytes) = emitted(b"12345678");
        bytes[6] = 0x20;
        reseal(&mut bytes);
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Here), Err(WireError::Fragment));
    }

    #[test]
    fn ipv4_lengths_that_contradict_return_malformed() {
        let (_, good) = emitted(b"12345678");
        let version = |bytes: &mut Vec<u8>| bytes[0] = 0x65;
        let header_len = |bytes: &mut Vec<u8>| bytes[0] = 0x44;
        let total_above_frame = |bytes: &mut Vec<u8>| bytes[3] += 1;
        let total_below_header = |bytes: &mut Vec<u8>| bytes[3] = 19;
        for break_it in [version, header_len, total_above_frame, total_below_header] {
            let mut bytes = good.clone();
            break_it(&mut bytes);
            assert_eq!(Ipv4Header::parse(&bytes, Verify::Done), Err(WireError::Malformed));
        }
    }

    #[test]
    fn ipv4_fragment_reads_its_place_and_leaves_padding_out() {
        let (_, mut bytes) = emitted(b"12345678");
        bytes[4..8].copy_from_slice(&[0xab, 0xcd, 0x20, 0x03]);
        bytes.extend_from_slice(&[0; 9]);
        let fragment = Ipv4Fragment::parse(&bytes).unwrap();
        assert_eq!((fragment.identification, fragment.offset, fragment.more), (0xabcd, 24, true));
        assert_eq!((fragment.payload, fragment.packet.len()), (&b"12345678"[..], 28));
    }

    #[test]
    fn ipv4_emit_fragment_then_parse_returns_same() {
        let (header, _) = emitted(b"");
        let mut out = [0; HEADER_BYTES];
        let place = FragmentPlace { identification: 0x1234, offset: 1480, more: true };
        header.emit_fragment(8, place, &mut out);
        let bytes = [&out[..], b"12345678"].concat();
        assert_eq!(Ipv4Header::parse(&bytes, Verify::Here), Err(WireError::Fragment));
        let fragment = Ipv4Fragment::parse(&bytes).unwrap();
        assert_eq!((fragment.source, fragment.destination), (header.source, header.destination));
        assert_eq!((fragment.identification, fragment.offset, fragment.more), (0x1234, 1480, true));
    }

    proptest! {
        #[test]
        fn ipv4_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Ipv4Header::parse(&bytes, Verify::Done);
            let _ = Ipv4Fragment::parse(&bytes);
        }
    }
}
