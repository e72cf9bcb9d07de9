//! `struct virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6): twelve bytes before each frame, little endian. Out of it come the
//! checksum status of a received frame; into it go the offloads of a frame to send.

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// What is known of the transport checksum of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing: check it.
    Unverified,
    /// The device has checked it (DATA_VALID).
    Verified,
    /// The data never left a machine; the field holds only the pseudo header's part (NEEDS_CSUM).
    Partial,
}

impl Checksum {
    /// True if the data need not be checked: both flags promise that the checksum was or would be right
    /// (VIRTIO 1.3 5.1.6.4).
    pub const fn is_trustworthy(self) -> bool {
        !matches!(self, Self::Unverified)
    }
}

/// The header of a received frame. The device wrote it: nothing in it leads to a memory access unchecked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveHeader {
    pub(crate) checksum: Checksum,
    pub(crate) segment_bytes: Option<u16>,
    pub(crate) buffers: u16,
}

impl ReceiveHeader {
    #[inline(always)]
    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let flags = bytes[0];
        let checksum = if flags & NEEDS_CSUM != 0 {
            Checksum::Partial
        } else if flags & DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Unverified
        };
        let segment_bytes =
            if bytes[1] == GSO_NONE { None } else { Some(u16::from_le_bytes([bytes[4], bytes[5]])) };
        Self { checksum, segment_bytes, buffers: u16::from_le_bytes([bytes[10], bytes[11]]) }
    }
}

/// Where the device puts the checksum that it completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumAt {
    /// First byte that is summed: the transport header, counted from the Ethernet header on.
    pub start: u16,
    /// Where the sum goes, from `start` on. The pseudo header's part must be there already.
    pub offset: u16,
}

/// What the device cuts a large frame into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP segments over IPv4.
    TcpIpv4,
    /// TCP segments over IPv6.
    TcpIpv6,
}

/// What the device does to a frame that is sent. Segmentation needs the checksum (VIRTIO 1.3 5.1.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Nothing.
    None,
    /// Completes the checksum.
    Checksum(ChecksumAt),
    /// Cuts the data into segments and completes the checksum of each.
    Segment {
        /// The checksum of the first one.
        checksum: ChecksumAt,
        /// The protocols.
        kind: SegmentKind,
        /// Bytes of data in a segment.
        mss: u16,
    },
}

/// The offloads that were accepted when the device was started (VIRTIO 1.3 5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offloads {
    checksum: bool,
    tcp_ipv4: bool,
    tcp_ipv6: bool,
}

impl Offloads {
    pub(crate) const fn of_features(features: u64) -> Self {
        const CSUM: u32 = 0;
        const HOST_TSO4: u32 = 11;
        const HOST_TSO6: u32 = 12;
        let checksum = features >> CSUM & 1 == 1;
        Self {
            checksum,
            tcp_ipv4: checksum && features >> HOST_TSO4 & 1 == 1,
            tcp_ipv6: checksum && features >> HOST_TSO6 & 1 == 1,
        }
    }

    #[inline(always)]
    pub(crate) const fn allow(self, offload: Offload) -> bool {
        match offload {
            Offload::None => true,
            Offload::Checksum(_) => self.checksum,
            Offload::Segment { kind: SegmentKind::TcpIpv4, .. } => self.tcp_ipv4,
            Offload::Segment { kind: SegmentKind::TcpIpv6, .. } => self.tcp_ipv6,
        }
    }
}

/// The header of a frame to send whose protocol headers are `headers_bytes` long.
#[inline(always)]
pub(crate) fn transmit_header(offload: Offload, headers_bytes: u16) -> [u8; HEADER_BYTES] {
    let (flags, gso_type, hdr_len, mss, at) = match offload {
        Offload::None => (0, GSO_NONE, 0, 0, ChecksumAt { start: 0, offset: 0 }),
        Offload::Checksum(at) => (NEEDS_CSUM, GSO_NONE, 0, 0, at),
        Offload::Segment { checksum, kind: SegmentKind::TcpIpv4, mss } => {
            (NEEDS_CSUM, GSO_TCPV4, headers_bytes, mss, checksum)
        }
        Offload::Segment { checksum, kind: SegmentKind::TcpIpv6, mss } => {
            (NEEDS_CSUM, GSO_TCPV6, headers_bytes, mss, checksum)
        }
    };
    let [hdr_len, mss, start, offset] = [hdr_len, mss, at.start, at.offset].map(u16::to_le_bytes);
    [flags, gso_type, hdr_len[0], hdr_len[1], mss[0], mss[1], start[0], start[1], offset[0], offset[1], 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_flags_give_the_checksum_status() {
        let of = |flags| ReceiveHeader::parse(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).checksum;
        assert_eq!(of(0), Checksum::Unverified);
        assert_eq!(of(DATA_VALID), Checksum::Verified);
        assert_eq!(of(NEEDS_CSUM), Checksum::Partial);
        assert_eq!(of(NEEDS_CSUM | DATA_VALID), Checksum::Partial);
        assert!(of(DATA_VALID).is_trustworthy() && of(NEEDS_CSUM).is_trustworthy());
        assert!(!of(0).is_trustworthy() && !of(4).is_trustworthy());
    }

    #[test]
    fn segmentation_header_is_as_the_specification_lays_it_out() {
        let checksum = ChecksumAt { start: 34, offset: 16 };
        let offload = Offload::Segment { checksum, kind: SegmentKind::TcpIpv4, mss: 1448 };
        assert_eq!(transmit_header(offload, 66), [1, 1, 66, 0, 0xA8, 5, 34, 0, 16, 0, 0, 0]);
        assert_eq!(transmit_header(Offload::Checksum(checksum), 66), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(transmit_header(Offload::None, 66), [0; 12]);
    }

    #[test]
    fn offload_that_was_not_negotiated_is_not_allowed() {
        let at = ChecksumAt { start: 34, offset: 16 };
        let tso6 = Offload::Segment { checksum: at, kind: SegmentKind::TcpIpv6, mss: 1440 };
        assert!(Offloads::of_features(0).allow(Offload::None));
        assert!(!Offloads::of_features(0).allow(Offload::Checksum(at)));
        assert!(!Offloads::of_features(1 << 12).allow(tso6));
        assert!(Offloads::of_features(1 << 12 | 1).allow(tso6));
    }
}
