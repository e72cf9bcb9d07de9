//! Captures, read by another's parser; and what happens when they cannot be written.

use super::*;
use crate::backend::link::{self, End};
use crate::backend::offload::Wanted;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

fn captured(path: &Path) -> (Capture<End>, End) {
    let [near, far] = link::pair().expect("a pair");
    let capture = Capture::create(path, near.plug().expect("free")).expect("a file");
    (capture, far.plug().expect("free"))
}

fn frame(len_bytes: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.resize(HEADER_BYTES + len_bytes, fill);
    frame
}

fn counter(backend: &impl Backend, name: &str) -> u64 {
    backend.counters().iter().find(|metric| metric.name == name).expect(name).value
}

/// Direction and bytes of each frame in a file.
fn read(mut bytes: impl Read) -> Vec<(u32, Vec<u8>)> {
    let mut reader = PcapNgReader::new(&mut bytes).expect("a section");
    let mut frames = Vec::new();
    let mut last = Duration::ZERO;
    while let Some(block) = reader.next_block() {
        match block.expect("a block") {
            Block::InterfaceDescription(interface) => {
                assert_eq!(interface.linktype, pcap_file::DataLink::ETHERNET);
                assert!(interface.snaplen as usize >= FRAME_BYTES_MAX);
            }
            Block::EnhancedPacket(packet) => {
                assert_eq!(packet.original_len as usize, packet.data.len());
                assert!(packet.timestamp >= last);
                last = packet.timestamp;
                use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption::Flags;
                let Some(Flags(direction)) = packet.options.first() else { panic!("no direction") };
                frames.push((*direction, packet.data.into_owned()));
            }
            other => panic!("nobody wrote {other:?}"),
        }
    }
    frames
}

#[test]
fn frames_of_both_directions_are_in_the_file_with_their_checksums() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.pcapng");
    let (mut capture, mut far) = captured(&path);
    capture.set_offloads(Offloads { checksum: true, tso4: true, tso6: true }).expect("any");
    for len in [14, 15, 16, 17, 60_000] {
        assert_eq!(capture.write_frame(&[IoVec::of(&frame(len, len as u8))]), Written::Sent);
    }
    let mut partial = frame(60, 0);
    partial[HEADER_BYTES + 20] = 0x12;
    (partial[0], partial[6], partial[8]) = (1, 20, 4);
    far.write_frame(&[IoVec::of(&partial)]);
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    let got = capture.read_frame(&[IoVecMut::of(&mut bytes)]).expect("no failure");
    assert_eq!(
        (got, Wanted::of(&bytes)),
        (Some(partial.len()), Wanted::of(&partial)),
        "the guest gets it as it is"
    );
    assert_eq!(counter(&capture, "capture_frames"), 6);
    drop(capture);
    let frames = read(File::open(&path).expect("a file"));
    assert_eq!(frames.len(), 6);
    for ((direction, bytes), len) in frames.iter().zip([14, 15, 16, 17, 60_000]) {
        assert_eq!((*direction, bytes.as_slice()), (2, &frame(len, len as u8)[HEADER_BYTES..]));
    }
    assert_eq!(frames[5].0, 1);
    assert_eq!(frames[5].1[24..26], [0xED, 0xFF], "the checksum of 0x1200");
}

#[test]
fn frame_that_was_not_sent_is_not_in_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("x.pcapng");
    let (mut capture, far) = captured(&path);
    drop(far);
    assert_eq!(capture.write_frame(&[IoVec::of(&frame(60, 1))]), Written::Dropped);
    drop(capture);
    assert_eq!(read(File::open(&path).expect("a file")), []);
}

#[test]
fn full_disk_ends_the_capture_and_nothing_else() {
    let (mut capture, mut far) = captured(Path::new("/dev/full"));
    let sent = frame(1000, 7);
    let mut sent_frames = 0;
    while counter(&capture, "capture_missed_frames") == 0 {
        assert_eq!(capture.write_frame(&[IoVec::of(&sent)]), Written::Sent);
        sent_frames += 1;
        let mut bytes = vec![0; FRAME_BYTES_MAX];
        assert_eq!(far.read_frame(&[IoVecMut::of(&mut bytes)]).expect("no failure"), Some(sent.len()));
        std::thread::sleep(Duration::from_micros(10));
        assert!(sent_frames < 1_000_000, "nobody noticed");
    }
}

/// A pipe by the name that the system gives its writing end.
fn pipe() -> (std::io::PipeReader, std::io::PipeWriter, PathBuf) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let path = PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()));
    (reader, writer, path)
}

#[test]
fn reader_of_a_pipe_sees_frames_as_they_come_and_may_go() {
    let (mut reader, writer, path) = pipe();
    let (mut capture, _far) = captured(&path);
    drop(writer);
    capture.write_frame(&[IoVec::of(&frame(60, 1))]);
    let mut bytes = vec![0; pcapng::beginning().len() + pcapng::BLOCK_BYTES - 3 + 60];
    reader.read_exact(&mut bytes).expect("no end of the capture is needed");
    assert_eq!(read(&bytes[..]).len(), 1);
    drop(reader);
    while counter(&capture, "capture_missed_frames") == 0 {
        assert_ne!(capture.write_frame(&[IoVec::of(&frame(60, 1))]), Written::Busy);
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn reader_of_a_pipe_that_stops_reading_does_not_stop_the_machine() {
    let (reader, writer, path) = pipe();
    let (mut capture, mut far) = captured(&path);
    drop(writer);
    let large = frame(60_000, 1);
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    for _ in 0..200 {
        assert_eq!(capture.write_frame(&[IoVec::of(&large)]), Written::Sent);
        assert_eq!(far.read_frame(&[IoVecMut::of(&mut bytes)]).expect("no failure"), Some(large.len()));
    }
    assert!(counter(&capture, "capture_missed_frames") > 50);
    let before = Instant::now();
    drop(capture);
    assert!(before.elapsed() < Duration::from_secs(5), "nor its end");
    drop(reader);
}
