//! What a capture of the forwarder's frames shows of TCP.

use exovm_ci::routed::Version;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::path::Path;

/// A TCP frame as the capture has it: version of IP, time to live, and all but the addresses, ports and checksums.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) to_guest: bool,
    pub(crate) version: Version,
    pub(crate) time_to_live: u8,
    pub(crate) rest: Vec<u8>,
}

/// The TCP frames of a capture.
pub(crate) fn capture(path: &Path) -> Vec<Seen> {
    const TO_GUEST: u32 = 1;
    let mut reader = PcapNgReader::new(File::open(path).expect("a file")).expect("a capture");
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a block") else { continue };
        let frame = packet.data.as_ref();
        // The version; the IP header up to the time to live, without it; where that is, and where TCP begins.
        let (version, before, time_to_live_at, tcp_at) = match (frame.len(), frame.get(12..14)) {
            (54.., Some([8, 0])) if frame[23] == 6 => (Version::Ipv4, 14..22, 22, 34),
            (74.., Some([0x86, 0xdd])) if frame[20] == 6 => (Version::Ipv6, 14..21, 21, 54),
            _ => continue,
        };
        let direction = packet.options.iter().find_map(|option| match option {
            pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption::Flags(flags) => Some(flags & 3),
            _ => None,
        });
        // TCP: sequence numbers to window, urgent pointer, options, data.
        let rest = [&frame[before], &frame[tcp_at + 4..tcp_at + 16], &frame[tcp_at + 18..]].concat();
        let time_to_live = frame[time_to_live_at];
        frames.push(Seen { to_guest: direction == Some(TO_GUEST), version, time_to_live, rest });
    }
    frames
}
