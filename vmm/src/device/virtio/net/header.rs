//! `struct virtio_net_hdr_v1` of a frame that the guest sends (VIRTIO 1.3 5.1.6.2): read once, and only what was negotiated
//! and makes sense goes on to the backend.

use super::super::features as bits;
use crate::backend::HEADER_BYTES;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The header for the backend; `None`: the frame asks for something impossible, or not negotiated.
#[inline]
pub(super) fn check(
    header: &[u8; HEADER_BYTES],
    frame_bytes: usize,
    features: u64,
) -> Option<[u8; HEADER_BYTES]> {
    let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let [flags, gso_type, ..] = *header;
    let (header_len, gso_size, start, offset) = (word(2), word(4), word(6), word(8));
    let mut checked = [0; HEADER_BYTES];
    // 5.1.6.2.2: the device ignores flags it does not know, and those that are for the other direction.
    if flags & NEEDS_CSUM != 0 {
        if features & bits::NET_CSUM == 0 || start + offset + 2 > frame_bytes {
            return None;
        }
        checked[0] = NEEDS_CSUM;
        checked[6..10].copy_from_slice(&header[6..10]);
    }
    let needed = match gso_type {
        GSO_NONE => return Some(checked),
        GSO_TCPV4 => bits::NET_HOST_TSO4,
        GSO_TCPV6 => bits::NET_HOST_TSO6,
        _ => return None,
    };
    // 5.1.6.2.1: segmentation needs the checksum's place and a segment size; the header length is a hint that must lie
    // inside.
    let sensible = checked[0] == NEEDS_CSUM && gso_size > 0 && header_len <= frame_bytes;
    if features & needed == 0 || !sensible {
        return None;
    }
    checked[1..6].copy_from_slice(&header[1..6]);
    Some(checked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u64 = bits::NET_CSUM | bits::NET_HOST_TSO4 | bits::NET_HOST_TSO6;

    fn header(flags: u8, gso_type: u8, words: [u16; 4]) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = flags;
        header[1] = gso_type;
        for (place, word) in header[2..10].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        header
    }

    #[test]
    fn check_tso_header_passes_unchanged() {
        let tso = header(NEEDS_CSUM, GSO_TCPV4, [54, 1448, 34, 16]);
        assert_eq!(check(&tso, 60_000, ALL), Some(tso));
        assert_eq!(check(&tso, 60_000, bits::NET_CSUM), None, "not negotiated");
        assert_eq!(check(&tso, 60_000, bits::NET_HOST_TSO4), None, "checksums not negotiated");
        assert_eq!(check(&tso, 50, ALL), None, "the checksum lies behind the frame");
    }

    #[test]
    fn check_tso_of_a_family_that_was_not_negotiated_returns_none() {
        let (tso4, tso6) = (bits::NET_HOST_TSO4, bits::NET_HOST_TSO6);
        for (gso_type, own, other) in [(GSO_TCPV4, tso4, tso6), (GSO_TCPV6, tso6, tso4)] {
            let tso = header(NEEDS_CSUM, gso_type, [74, 1440, 54, 16]);
            assert_eq!(check(&tso, 60_000, bits::NET_CSUM | own), Some(tso));
            assert_eq!(check(&tso, 60_000, bits::NET_CSUM | other), None);
        }
    }

    #[test]
    fn check_segmentation_without_checksum_or_size_returns_none() {
        assert_eq!(check(&header(0, GSO_TCPV4, [54, 1448, 34, 16]), 60_000, ALL), None);
        assert_eq!(check(&header(NEEDS_CSUM, GSO_TCPV4, [54, 0, 34, 16]), 60_000, ALL), None);
        assert_eq!(check(&header(NEEDS_CSUM, GSO_TCPV4, [65535, 1448, 34, 16]), 60_000, ALL), None);
        assert_eq!(
            check(&header(NEEDS_CSUM, GSO_TCPV4 | 0x80, [54, 1448, 34, 16]), 60_000, ALL),
            None,
            "ECN"
        );
        assert_eq!(check(&header(NEEDS_CSUM, 3, [54, 1448, 34, 16]), 60_000, ALL), None, "UDP");
    }

    #[test]
    fn check_clears_flags_and_fields_that_mean_nothing() {
        let plain = header(0xFE, GSO_NONE, [1, 2, 3, 4]);
        assert_eq!(check(&plain, 60, ALL), Some([0; HEADER_BYTES]));
    }

    proptest! {
        #[test]
        fn checksum_never_lies_behind_the_frame(bytes: [u8; HEADER_BYTES], frame_bytes in 14usize..70_000) {
            if let Some(checked) = check(&bytes, frame_bytes, ALL) {
                let word = |at: usize| usize::from(u16::from_le_bytes([checked[at], checked[at + 1]]));
                prop_assert!(checked[0] == 0 || word(6) + word(8) + 2 <= frame_bytes);
                prop_assert!(checked[1] == 0 || (checked[0] == 1 && word(4) > 0 && word(2) <= frame_bytes));
                prop_assert_eq!(&checked[10..], &[0, 0]);
            }
        }
    }
}
