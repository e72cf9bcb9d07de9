//! `struct virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6), the twelve bytes before each frame: what the guest leaves to us, and what
//! we leave to the guest. Knows bytes only.

/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;

/// Whether the transport checksum of a frame from the guest means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Checksum {
    /// It must be right.
    Complete,
    /// The guest has left it to the device. The frame has not been on a wire, so there is nothing to check or to complete:
    /// the data is taken out of it here.
    LeftToDevice,
}

/// Reads the header of a frame from the guest. `None`: it asks for something that no driver may ask for.
pub(crate) fn parse(header: &[u8; HEADER_BYTES]) -> Option<Checksum> {
    let [flags, gso_type, ..] = *header;
    let checksum = if flags & NEEDS_CSUM != 0 { Checksum::LeftToDevice } else { Checksum::Complete };
    match (gso_type, checksum) {
        (GSO_NONE, _) | (GSO_TCPV4, Checksum::LeftToDevice) => Some(checksum),
        // 5.1.6.2.1: segmentation needs the checksum left to the device. Other kinds are not offered.
        _ => None,
    }
}

/// What the guest shall do with the TCP segment of a frame that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// Nothing; the checksum is there.
    None,
    /// Believe it: the checksum field has the pseudo header's part only.
    Checksum,
    /// Believe it, and see it as that many segments.
    Segments {
        /// Bytes of data in each but the last.
        mss: u16,
    },
}

/// Where a TCP checksum is, from the beginning of the TCP header.
pub(crate) const TCP_CHECKSUM_AT: u16 = 16;

/// The header of a frame to the guest, whose TCP header begins at `start` bytes and ends at `end`.
pub(crate) fn emit(offload: Offload, start: u16, end: u16) -> [u8; HEADER_BYTES] {
    let (flags, gso_type, header_len, mss) = match offload {
        Offload::None => return [0; HEADER_BYTES],
        Offload::Checksum => (NEEDS_CSUM, GSO_NONE, 0, 0),
        Offload::Segments { mss } => (NEEDS_CSUM, GSO_TCPV4, end, mss),
    };
    let mut header = [0; HEADER_BYTES];
    header[0] = flags;
    header[1] = gso_type;
    let words = [header_len, mss, start, TCP_CHECKSUM_AT];
    for (place, word) in header[2..10].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: u8, gso_type: u8) -> Option<Checksum> {
        parse(&[flags, gso_type, 54, 0, 0xB4, 5, 34, 0, 16, 0, 0, 0])
    }

    #[test]
    fn parse_partial_checksum_needs_no_check() {
        assert_eq!(of(0, GSO_NONE), Some(Checksum::Complete));
        assert_eq!(of(NEEDS_CSUM, GSO_NONE), Some(Checksum::LeftToDevice));
        assert_eq!(of(NEEDS_CSUM, GSO_TCPV4), Some(Checksum::LeftToDevice));
    }

    #[test]
    fn parse_segmentation_without_checksum_or_of_unknown_kind_returns_none() {
        assert_eq!(of(0, GSO_TCPV4), None);
        for gso_type in [3, 4, 5, 0x81, 0xFF] {
            assert_eq!(of(NEEDS_CSUM, gso_type), None, "{gso_type}");
        }
    }

    #[test]
    fn emit_lays_the_fields_out_as_the_specification_does() {
        assert_eq!(emit(Offload::None, 34, 54), [0; 12]);
        assert_eq!(emit(Offload::Checksum, 34, 54), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(emit(Offload::Segments { mss: 1460 }, 34, 54), [1, 1, 54, 0, 0xB4, 5, 34, 0, 16, 0, 0, 0]);
    }
}
