//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng): section header, interface description, enhanced packets. Numbers are
//! little-endian, which the section header tells.

use std::time::Duration;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
/// No frame is longer.
const SNAP_BYTES: u32 = 1 << 18;

const OPTION_END: u16 = 0;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
/// Times are in units of 10^-9 s.
const NANOSECONDS: u8 = 9;

/// Bytes of a packet's block besides the packet.
pub(super) const BLOCK_BYTES: usize = 32 + 12 + 3;

/// Which way a frame went: the lowest bits of the option epb_flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    ToGuest = 1,
    FromGuest = 2,
}

/// Appends a block: type, length, body, length.
fn append_block(to: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = to.len();
    to.extend(kind.to_le_bytes());
    to.extend([0; 4]);
    body(to);
    let bytes = (to.len() - start + 4) as u32;
    to[start + 4..start + 8].copy_from_slice(&bytes.to_le_bytes());
    to.extend(bytes.to_le_bytes());
}

fn pad(to: &mut Vec<u8>) {
    to.resize(to.len().next_multiple_of(4), 0);
}

fn append_option(to: &mut Vec<u8>, code: u16, value: &[u8]) {
    to.extend(code.to_le_bytes());
    to.extend((value.len() as u16).to_le_bytes());
    to.extend(value);
    pad(to);
}

/// What stands before the first packet.
pub(super) fn beginning() -> Vec<u8> {
    let mut bytes = Vec::new();
    append_block(&mut bytes, SECTION_HEADER, |body| {
        body.extend(BYTE_ORDER.to_le_bytes());
        // Version 1.0, of unknown length.
        body.extend([1, 0, 0, 0]);
        body.extend([0xFF; 8]);
    });
    append_block(&mut bytes, INTERFACE_DESCRIPTION, |body| {
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        body.extend(SNAP_BYTES.to_le_bytes());
        append_option(body, IF_NAME, b"guest");
        append_option(body, IF_TSRESOL, &[NANOSECONDS]);
        append_option(body, OPTION_END, &[]);
    });
    bytes
}

/// Appends a frame that passed `at`, since 1970. Everything begins and ends at multiples of four bytes in the file, and so in
/// `to`, which is empty or ends with a block.
pub(super) fn append_packet(to: &mut Vec<u8>, at: Duration, direction: Direction, frame: &[u8]) {
    let nanoseconds = at.as_nanos() as u64;
    append_block(to, ENHANCED_PACKET, |body| {
        body.extend([0; 4]);
        body.extend(((nanoseconds >> 32) as u32).to_le_bytes());
        body.extend((nanoseconds as u32).to_le_bytes());
        body.extend((frame.len() as u32).to_le_bytes());
        body.extend((frame.len() as u32).to_le_bytes());
        body.extend(frame);
        pad(body);
        append_option(body, EPB_FLAGS, &(direction as u32).to_le_bytes());
        append_option(body, OPTION_END, &[]);
    });
}
