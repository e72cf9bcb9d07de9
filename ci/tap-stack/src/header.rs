//! `virtio_net_hdr_v1` (VIRTIO 1.3 5.1.6), the bytes before each frame of a TAP.

use exos_net::{ChecksumRequest, Gso, GsoKind};
use exovm_netns::tap::VNET_HEADER_BYTES;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// The header of a frame that we send, whose own headers up to TCP's end are `headers_bytes` long.
pub fn emit(
    checksum: Option<ChecksumRequest>,
    gso: Option<Gso>,
    headers_bytes: usize,
) -> [u8; VNET_HEADER_BYTES] {
    let mut header = [0; VNET_HEADER_BYTES];
    if let Some(request) = checksum {
        header[0] = NEEDS_CSUM;
        header[6..8].copy_from_slice(&request.start.to_le_bytes());
        header[8..10].copy_from_slice(&request.offset.to_le_bytes());
    }
    if let Some(Gso { kind, mss }) = gso {
        header[1] = match kind {
            GsoKind::TcpIpv4 => GSO_TCPV4,
            GsoKind::TcpIpv6 => GSO_TCPV6,
        };
        header[2..4].copy_from_slice(&(headers_bytes as u16).to_le_bytes());
        header[4..6].copy_from_slice(&mss.to_le_bytes());
    }
    header
}

/// Whether the transport checksum of a frame with this header was verified, or was never needed.
pub fn transport_is_valid(header: &[u8]) -> bool {
    header.first().is_some_and(|flags| flags & (NEEDS_CSUM | DATA_VALID) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emit_lays_the_fields_out_as_the_specification_does() {
        let checksum = Some(ChecksumRequest { start: 34, offset: 16 });
        assert_eq!(emit(None, None, 54), [0; 12]);
        assert_eq!(emit(checksum, None, 54), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        let of = |kind| Some(Gso { kind, mss: 1460 });
        let ipv4 = emit(checksum, of(GsoKind::TcpIpv4), 54);
        assert_eq!(ipv4, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
        let checksum = Some(ChecksumRequest { start: 54, offset: 16 });
        let ipv6 = emit(checksum, of(GsoKind::TcpIpv6), 74);
        assert_eq!(ipv6, [1, 4, 74, 0, 0xb4, 5, 54, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn transport_is_valid_with_either_flag() {
        assert!(transport_is_valid(&[1, 0]) && transport_is_valid(&[2, 0]));
        assert!(!transport_is_valid(&[0, 1]) && !transport_is_valid(&[4]) && !transport_is_valid(&[]));
    }
}
