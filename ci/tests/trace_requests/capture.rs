//! A capture of the guest's frames, by the numbers that records give them: a queue pair's frames are numbered from 0 on, in their
//! order.

use abi::trace::subject;
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::path::Path;

/// What of a frame matters here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frame {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload_bytes: usize,
}

/// Both directions of the first queue pair.
#[derive(Default)]
pub(crate) struct Capture {
    received: Vec<Frame>,
    sent: Vec<Frame>,
}

impl Capture {
    pub(crate) fn received(&self, number: u64) -> Frame {
        let (kind, _, queue, n) = subject::parts(number);
        assert_eq!((kind, queue), (subject::RECEIVED, 0));
        self.received[n as usize]
    }

    pub(crate) fn sent(&self, number: u64) -> Frame {
        let (kind, _, queue, n) = subject::parts(number);
        assert_eq!((kind, queue), (subject::SENT, 1));
        self.sent[n as usize]
    }
}

/// Reads a capture.
pub(crate) fn read(path: &Path) -> Capture {
    let mut capture = Capture::default();
    let mut reader = PcapNgReader::new(File::open(path).expect("a file")).expect("a capture");
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.expect("a whole block") else { continue };
        let to_guest = packet.options.iter().any(|option| matches!(option, EnhancedPacketOption::Flags(1)));
        let frame = parse(&packet.data);
        if to_guest { capture.received.push(frame) } else { capture.sent.push(frame) }
    }
    capture
}

/// TCP over IPv4 over Ethernet; anything else has no ports.
fn parse(frame: &[u8]) -> Frame {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if frame.len() < 54 || word(12) != 0x0800 || frame[23] != 6 {
        return Frame::default();
    }
    let tcp = 14 + usize::from(frame[14] & 15) * 4;
    let headers_bytes = usize::from(frame[tcp + 12] >> 4) * 4 + tcp - 14;
    Frame {
        source_port: word(tcp),
        destination_port: word(tcp + 2),
        // Segmentation is left to the host: the length is that of the whole segment, or 0 where it does not fit.
        payload_bytes: match usize::from(word(16)) {
            0 => frame.len() - 14 - headers_bytes,
            bytes => bytes - headers_bytes,
        },
    }
}
