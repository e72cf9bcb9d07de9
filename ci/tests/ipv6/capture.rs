//! What a capture of a guest's frames shows of TCP over IPv6.

use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption::Flags;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::path::Path;

const HEADERS_BYTES: usize = 14 + 40;
const NEXT_HEADER_TCP: u8 = 6;

/// Whose frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToGuest = 1,
    FromGuest = 2,
}

/// Frames of TCP over IPv6 that carry data.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tcp6 {
    pub(crate) frames: usize,
    /// Bytes of data in them.
    pub(crate) bytes: usize,
    /// Bytes of data in the largest.
    pub(crate) largest: usize,
}

/// The frames of a capture, each with its direction.
pub(crate) struct Seen(Vec<(u32, Vec<u8>)>);

impl Seen {
    pub(crate) fn read(capture: &Path) -> Self {
        let mut reader = PcapNgReader::new(File::open(capture).unwrap()).unwrap();
        let mut frames = Vec::new();
        while let Some(block) = reader.next_block() {
            let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
            let flags = packet.options.iter().find_map(|option| match option {
                Flags(flags) => Some(flags & 3),
                _ => None,
            });
            frames.push((flags.expect("a direction"), packet.data.to_vec()));
        }
        Self(frames)
    }

    pub(crate) fn tcp6(&self, direction: Direction) -> Tcp6 {
        let mut sum = Tcp6::default();
        for (_, frame) in self.0.iter().filter(|(flags, _)| *flags == direction as u32) {
            let is_tcp6 = frame.len() > HEADERS_BYTES + 20
                && frame[12..14] == [0x86, 0xdd]
                && frame[20] == NEXT_HEADER_TCP;
            if !is_tcp6 {
                continue;
            }
            let packet_bytes = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
            let bytes = packet_bytes - usize::from(frame[HEADERS_BYTES + 12] >> 4) * 4;
            sum.frames += usize::from(bytes > 0);
            sum.bytes += bytes;
            sum.largest = sum.largest.max(bytes);
        }
        sum
    }
}
