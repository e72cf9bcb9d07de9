//! TCP segments (RFC 9293 3.1, 3.2) as they arrive; their options are `tcp_options`' part. What we send is written by
//! `tcp::template`, which has most of it ready beforehand.

use super::checksum::Sum;
use super::ipv4::Ipv4Header;
use super::{Ecn, WireError, u16_at, u32_at};
use crate::tcp::Seq;

/// Length of a TCP header without options.
pub const HEADER_BYTES: usize = 20;
/// Offset of the checksum in the header.
pub const CHECKSUM_OFFSET: usize = 16;
/// Offset of the urgent pointer in the header.
pub const URGENT_OFFSET: usize = 18;

/// Control bits on the wire.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
    /// A mark has come (RFC 3168 6.1).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced.
    pub const CWR: u8 = 0x80;
}

/// The control bit that decides what a segment is. SYN with FIN or RST does not exist; RST overrules FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Data or acknowledgment only.
    None,
    /// Opens.
    Syn,
    /// Closes after the payload.
    Fin,
    /// Aborts.
    Rst,
}

/// A received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'f> {
    /// The sender's port.
    pub source_port: u16,
    /// Our port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub sequence: Seq,
    /// SEG.ACK, if the ACK bit is set.
    pub acknowledgment: Option<Seq>,
    /// SYN, FIN, RST or none.
    pub control: Control,
    /// Offset from SEG.SEQ to the octet after the urgent data (RFC 9293 3.8.5, MUST-62), if the URG bit is set.
    pub urgent: Option<u16>,
    /// The ECN-echo bit (RFC 3168 6.1).
    pub ece: bool,
    /// The congestion-window-reduced bit.
    pub cwr: bool,
    /// The ECN field of the IP header around it, which who parsed that fills in.
    pub ecn: Ecn,
    /// SEG.WND as on the wire, not scaled.
    pub window: u16,
    /// The options, unread: see [`super::tcp_options`].
    pub options: &'f [u8],
    /// The data.
    pub payload: &'f [u8],
}

impl<'f> Segment<'f> {
    /// Reads a segment from an IPv4 payload. With `verify`, the checksum is verified against that pseudo-header.
    #[inline]
    pub fn parse(bytes: &'f [u8], verify: Option<&Ipv4Header>) -> Result<Self, WireError> {
        Self::parse_summed(bytes, verify.map(Ipv4Header::pseudo_sum_without_length))
    }

    /// Reads a segment. With `pseudo_sum`, the checksum is verified; it is the sum of a pseudo-header without the length.
    #[inline(always)]
    pub fn parse_summed(bytes: &'f [u8], pseudo_sum: Option<Sum>) -> Result<Self, WireError> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or(WireError::Malformed)?;
        let header_len = usize::from(header[12] >> 4) * 4;
        if header_len < HEADER_BYTES || header_len > bytes.len() {
            return Err(WireError::Malformed);
        }
        if let Some(sum) = pseudo_sum
            && !sum.double(bytes.len() as u32).bytes(bytes).is_valid()
        {
            return Err(WireError::Checksum);
        }
        let bits = header[13];
        let control = if bits & (flags::SYN | flags::FIN | flags::RST) == 0 {
            Control::None
        } else if bits & flags::SYN == 0 {
            if bits & flags::RST == 0 { Control::Fin } else { Control::Rst }
        } else if bits & (flags::FIN | flags::RST) == 0 {
            Control::Syn
        } else {
            // Nobody sends SYN with FIN or RST but scanners.
            return Err(WireError::Malformed);
        };
        Ok(Self {
            source_port: u16_at(header, 0),
            destination_port: u16_at(header, 2),
            sequence: Seq::new(u32_at(header, 4)),
            acknowledgment: (bits & flags::ACK != 0).then(|| Seq::new(u32_at(header, 8))),
            control,
            ece: bits & flags::ECE != 0,
            cwr: bits & flags::CWR != 0,
            ecn: Ecn::NotCapable,
            urgent: (bits & flags::URG != 0).then(|| u16_at(header, URGENT_OFFSET)),
            window: u16_at(header, 14),
            options: &bytes[HEADER_BYTES..header_len],
            payload: &bytes[header_len..],
        })
    }

    /// SEG.LEN: the payload, and one each for SYN and FIN.
    #[inline]
    pub fn sequence_len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(matches!(self.control, Control::Syn | Control::Fin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn header(bits: u8) -> [u8; 20] {
        let mut bytes = [0, 80, 0x12, 0x34, 0, 0, 0, 5, 0, 0, 0, 9, 0x50, bits, 1, 0, 0, 0, 0, 0];
        let sum = ip().pseudo_sum_without_length().double(20).bytes(&bytes).checksum();
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn ip() -> Ipv4Header {
        Ipv4Header {
            source: Ipv4Addr::new(10, 0, 0, 1),
            destination: Ipv4Addr::new(10, 0, 0, 2),
            protocol: super::super::ipv4::Protocol::Tcp,
        }
    }

    #[test]
    fn tcp_parse_returns_fields() {
        let bytes = header(flags::FIN | flags::ACK);
        let segment = Segment::parse(&bytes, Some(&ip())).unwrap();
        assert_eq!((segment.source_port, segment.destination_port), (80, 0x1234));
        assert_eq!((segment.sequence, segment.acknowledgment), (Seq::new(5), Some(Seq::new(9))));
        assert_eq!((segment.control, segment.window, segment.sequence_len()), (Control::Fin, 256, 1));
    }

    #[test]
    fn tcp_wrong_checksum_returns_checksum() {
        let mut bytes = header(flags::ACK);
        bytes[7] ^= 1;
        assert_eq!(Segment::parse(&bytes, Some(&ip())), Err(WireError::Checksum));
        assert!(Segment::parse(&bytes, None).is_ok());
    }

    #[test]
    fn tcp_syn_with_fin_or_rst_returns_malformed() {
        for bits in [flags::SYN | flags::FIN, flags::SYN | flags::RST] {
            assert_eq!(Segment::parse(&header(bits), None), Err(WireError::Malformed));
        }
    }

    #[test]
    fn tcp_header_length_outside_segment_returns_malformed() {
        for offset in [0x40, 0x60] {
            let mut bytes = header(flags::ACK);
            bytes[12] = offset;
            assert_eq!(Segment::parse(&bytes, None), Err(WireError::Malformed));
        }
    }

    proptest! {
        #[test]
        fn tcp_garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(segment) = Segment::parse(&bytes, None) {
                prop_assert_eq!(segment.payload.len() + segment.options.len() + HEADER_BYTES, bytes.len());
            }
        }
    }
}
