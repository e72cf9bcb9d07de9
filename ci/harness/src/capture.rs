//! What a guest sends and receives, written to a file that Wireshark and tshark read: a pcapng section (draft-ietf-opsawg-pcapng)
//! with one interface, times in nanoseconds and the direction of each frame. It wraps any [`Backend`], and sees frames as they
//! pass: before segmentation, so up to 64 KiB long.

use exovm::backend::iovec::gather;
use exovm::backend::{
    Backend, BackendError, FRAME_BYTES_MAX, HEADER_BYTES, IoVec, IoVecMut, Offloads, Written,
};
use exovm::stat::Metric;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::{DataLink, PcapError};
use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Times are written in units of 10^-9 s (option if_tsresol).
const NANOSECONDS: u8 = 9;
/// The checksum of the frame is left to whoever receives it (VIRTIO 1.3 5.1.6, VIRTIO_NET_HDR_F_NEEDS_CSUM).
const NEEDS_CHECKSUM: u8 = 1;
/// Where `csum_start` and `csum_offset` lie in the virtio header.
const CHECKSUM_START: usize = 6;
const CHECKSUM_OFFSET: usize = 8;

/// Which way a frame went: the lowest bits of the option epb_flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToGuest = 1,
    FromGuest = 2,
}

/// A backend whose frames are written down.
pub struct Capture {
    backend: Box<dyn Backend>,
    file: PcapNgWriter<BufWriter<File>>,
    /// The frame at hand, with its header.
    frame: Vec<u8>,
}

impl Capture {
    /// Begins the file, whatever was in it.
    pub fn create(path: &Path, backend: Box<dyn Backend>) -> Result<Self, PcapError> {
        let mut file = PcapNgWriter::new(BufWriter::new(File::create(path).map_err(PcapError::IoError)?))?;
        file.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0, // no limit
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed("guest")),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        })?;
        Ok(Self { backend, file, frame: vec![0; FRAME_BYTES_MAX] })
    }

    /// Writes down the first bytes of `self.frame`.
    ///
    /// # Panics
    /// If the file takes no more: a capture with holes would show what did not happen.
    fn write(&mut self, len_bytes: usize, direction: Direction) {
        let Some((header, frame)) = self.frame[..len_bytes].split_at_mut_checked(HEADER_BYTES) else {
            return;
        };
        finish_checksum(header, frame);
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            original_len: frame.len() as u32,
            data: Cow::Borrowed(frame),
            options: vec![EnhancedPacketOption::Flags(direction as u32)],
        };
        self.file
            .write_pcapng_block(block)
            .unwrap_or_else(|error| panic!("the capture cannot be written: {error}"));
    }
}

impl Backend for Capture {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        let written = self.backend.write_frame(frame);
        if written == Written::Sent {
            let len_bytes = gather(frame, 0, &mut self.frame);
            self.write(len_bytes, Direction::FromGuest);
        }
        written
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        let read = self.backend.read_frame(buffers)?;
        if let Some(len_bytes) = read {
            let len_bytes = len_bytes.min(FRAME_BYTES_MAX);
            let mut at = 0;
            for buffer in buffers {
                at += buffer.copy_to(&mut self.frame[at..len_bytes]);
            }
            self.write(at, Direction::ToGuest);
        }
        Ok(read)
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.backend.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.backend.event_fd()
    }

    fn counters(&self) -> Vec<Metric> {
        self.backend.counters()
    }
}

/// Puts in the checksum that the sender left out (RFC 1071 over what lies from `csum_start` on, where the field itself holds
/// the sum of the pseudo header), so that the file shows no errors that the wire does not have.
fn finish_checksum(header: &[u8], frame: &mut [u8]) {
    let number = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (start, offset) = (number(CHECKSUM_START), number(CHECKSUM_OFFSET));
    if header[0] & NEEDS_CHECKSUM == 0 || start + offset + 2 > frame.len() {
        return;
    }
    let words =
        frame[start..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    let at = start + offset;
    frame[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finish_checksum_makes_the_sum_right_and_leaves_others_alone() {
        // Six bytes of another layer, then a word for the checksum that holds the pseudo header's sum, then an odd payload.
        let mut frame = vec![9; 6];
        frame.extend([0x12, 0x34, 0xAB, 0xCD, 0xEF]);
        let mut header = [0; HEADER_BYTES];
        header[CHECKSUM_START] = 6;
        let untouched = frame.clone();
        finish_checksum(&header, &mut frame);
        assert_eq!(frame, untouched, "nobody asked for it");

        header[0] = NEEDS_CHECKSUM;
        finish_checksum(&header, &mut frame);
        // 0x1234 + 0xABCD + 0xEF00 = 0x1AD01, folded 0xAD02, inverted 0x52FD
        assert_eq!(frame[6..8], [0x52, 0xFD]);

        header[CHECKSUM_OFFSET] = 200;
        let untouched = frame.clone();
        finish_checksum(&header, &mut frame);
        assert_eq!(frame, untouched, "a field outside of the frame");
    }

    /// A backend that does nothing but count.
    struct Counting;

    impl Backend for Counting {
        fn write_frame(&mut self, _: &[IoVec<'_>]) -> Written {
            Written::Dropped
        }

        fn read_frame(&mut self, _: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
            Ok(None)
        }

        fn set_offloads(&mut self, _: Offloads) -> Result<(), BackendError> {
            Ok(())
        }

        fn event_fd(&self) -> Option<RawFd> {
            None
        }

        fn counters(&self) -> Vec<Metric> {
            vec![Metric { name: "frames", help: "Frames.", value: 7 }]
        }
    }

    #[test]
    fn counters_of_the_backend_are_seen_through_the_capture() {
        let dir = tempfile::tempdir().unwrap();
        let capture = Capture::create(&dir.path().join("x.pcapng"), Box::new(Counting)).unwrap();
        assert_eq!(capture.counters(), [Metric { name: "frames", help: "Frames.", value: 7 }]);
    }
}
