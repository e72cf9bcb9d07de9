//! The fixture itself: what it says about a guest is what happened, and what did not happen it does not say.

use exovm::backend::{Backend, BackendError, IoVec, IoVecMut, Offloads, Written};
use exovm_test::{Guest, Site, in_namespace, site};
use pcap_parser::pcapng::Block;
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{PcapBlockOwned, PcapError, PcapNGReader};
use std::fs::File;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a body that must fail says.
fn complaint<T>(body: impl FnOnce() -> T) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(body)) else { panic!("it must fail") };
    panic.downcast_ref::<String>().cloned().expect("a message with what was found")
}

#[test]
fn http_log_and_account_say_what_happened() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "content")).start();
        assert!(guest.wait_for_log("files 1").starts_with("INFO"));
        guest.assert_not_logged("panic");
        let cost = guest.cost_of(|| {
            let mut client = guest.connect();
            for _ in 0..20 {
                let response = client.get("/a.txt").unwrap();
                response
                    .assert_status(200)
                    .assert_field("content-type", "text/plain; charset=utf-8")
                    .assert_text("content");
            }
        });
        cost.assert_requests(20).assert_span_at_most("tcp input", 1e7);
        assert!(cost.span_cycles("service") > 0);
        assert!(cost.bucket_cycles("vcpu", "guest") > cost.span_cycles("service"));
        assert!(cost.bucket_cycles("vcpu", "guest") <= cost.elapsed_cycles() * 101 / 100);
        guest.stop();
    });
}

#[test]
fn what_did_not_happen_is_a_panic_that_says_what_did() {
    in_namespace!(|| {
        let guest = Guest::image("cheetah").site(&Site::new().file("a.txt", "content")).start();
        let response = guest.get("/a.txt");
        assert!(complaint(|| response.assert_status(404)).contains("200"));
        assert!(complaint(|| response.assert_text("contents")).contains("content"));
        assert!(complaint(|| response.assert_field("server", "other")).contains("exovm"));
        guest.wait_for_log("files 1");
        assert!(complaint(|| guest.assert_not_logged("files 1")).contains("cheetah: files 1"));
        let cost = guest.cost_of(|| drop(guest.get("/a.txt")));
        assert!(complaint(|| cost.assert_requests(2)).contains("1"));
        assert!(complaint(|| cost.assert_span_at_most("tcp input", 1.0)).contains("tcp input"));
        assert!(complaint(|| cost.span_cycles("no such span")).contains("tcp input"));
        assert!(complaint(|| cost.bucket_cycles("vcpu", "none")).contains("guest"));
        guest.stop();

        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(complaint(|| Guest::file(file.path())).contains("not an exovm image"));
    });
}

#[test]
fn build_without_a_project_is_a_panic_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    assert!(complaint(|| exovm_test::build(dir.path())).contains("no image.toml"));
}

/// A frame of a capture.
struct Frame {
    /// From the option epb_flags: 1 to the guest, 2 from it.
    direction: u32,
    /// Since 1970.
    at: Duration,
    bytes: Vec<u8>,
}

/// Reads a capture with a parser that is not the writer's.
fn read(path: &Path) -> Vec<Frame> {
    let mut reader = PcapNGReader::new(1 << 20, File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    loop {
        match reader.next() {
            Ok((consumed, block)) => {
                match block {
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => {}
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        assert_eq!(interface.linktype, pcap_parser::Linktype::ETHERNET);
                        assert_eq!(interface.ts_resolution(), Some(1_000_000_000));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        assert_eq!((packet.if_id, packet.origlen), (0, packet.caplen));
                        let flags =
                            packet.options.iter().find(|option| option.code.0 == 2).expect("epb_flags");
                        let at = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                        frames.push(Frame {
                            direction: u32::from_le_bytes(flags.value[..4].try_into().unwrap()),
                            at: Duration::from_nanos(at),
                            bytes: packet.data[..packet.caplen as usize].to_vec(),
                        });
                    }
                    _ => panic!("a block of a kind that nobody wrote"),
                }
                reader.consume(consumed);
            }
            Err(PcapError::Eof) => return frames,
            Err(PcapError::Incomplete(_)) => reader.refill().unwrap(),
            Err(error) => panic!("not a capture: {error:?}"),
        }
    }
}

/// The sum of RFC 1071; 0xFFFF where a checksum is part of it and right.
fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum = words.map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum::<u64>();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    ((folded & 0xFFFF) + (folded >> 16)) as u16
}

/// What TCP carries in an IPv4 frame, with all checksums checked; `None` for other frames.
fn tcp_payload(frame: &[u8]) -> Option<&[u8]> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [8, 0])?;
    let (header_bytes, total_bytes) =
        (usize::from(packet[0] & 15) * 4, usize::from(packet[2]) << 8 | usize::from(packet[3]));
    let (header, segment) = packet[..total_bytes].split_at(header_bytes);
    assert_eq!(sum(&[header]), 0xFFFF, "IPv4 header checksum");
    if header[9] != 6 {
        return None;
    }
    let len = (segment.len() as u16).to_be_bytes();
    assert_eq!(sum(&[&header[12..20], &[0, 6], &len, segment]), 0xFFFF, "TCP checksum");
    Some(&segment[usize::from(segment[12] >> 4) * 4..])
}

#[test]
fn capture_read_by_another_parser_has_every_frame_both_ways_with_right_checksums() {
    in_namespace!(|| {
        const LEN_BYTES: u64 = 300_000;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames.pcapng");
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let site = Site::new().pattern_file("large.bin", 3, LEN_BYTES);
        let guest = Guest::image("cheetah").site(&site).pcap(&path).start();
        let cost = guest.cost_of(|| assert_eq!(guest.get("/large.bin").body.len() as u64, LEN_BYTES));
        let mac = guest.network().guest_mac();
        let counted = |name| cost.account().nic_counter(name).unwrap() as usize;
        let (sent, received) = (counted("sent frames"), counted("received frames"));
        guest.stop();

        let frames = read(&path);
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(frames.is_sorted_by_key(|frame| frame.at));
        assert!(frames.iter().all(|frame| (before..after).contains(&frame.at)), "times of this test");
        let (to_guest, from_guest): (Vec<_>, Vec<_>) = frames.iter().partition(|frame| frame.direction == 1);
        assert!(from_guest.iter().all(|frame| frame.direction == 2 && frame.bytes[6..12] == mac));
        assert!(to_guest.iter().all(|frame| frame.bytes[6..12] != mac));
        assert!(from_guest.len() >= sent && to_guest.len() >= received, "none is missing");
        let payload = |frames: &[&Frame]| -> Vec<u8> {
            frames.iter().filter_map(|frame| tcp_payload(&frame.bytes)).flatten().copied().collect()
        };
        assert!(payload(&to_guest).starts_with(b"GET /large.bin HTTP/1.1\r\n"));
        let response = payload(&from_guest);
        assert!(response.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let body = site::Pattern::bytes(3, LEN_BYTES as usize);
        assert!(response.ends_with(&body), "the body is in the capture, in order");
    });
}

#[test]
fn capture_of_a_test_that_fails_is_complete() {
    in_namespace!(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames.pcapng");
        complaint(|| {
            let guest = Guest::image("hello").pcap(&path).start();
            guest.get("/").assert_text("something else");
        });
        let frames = read(&path);
        assert!(frames.iter().any(|frame| {
            tcp_payload(&frame.bytes).is_some_and(|data| data.ends_with(b"hello from ring 3\n"))
        }));
    });
}

/// Loses every so many-th frame on its way to the guest.
struct Lossy {
    inner: Box<dyn Backend>,
    every: usize,
    seen: usize,
}

impl Backend for Lossy {
    fn write_frame(&mut self, frame: &[IoVec<'_>]) -> Written {
        self.inner.write_frame(frame)
    }

    fn read_frame(&mut self, buffers: &[IoVecMut<'_>]) -> Result<Option<usize>, BackendError> {
        loop {
            let read = self.inner.read_frame(buffers)?;
            self.seen += usize::from(read.is_some());
            if read.is_none() || !self.seen.is_multiple_of(self.every) {
                return Ok(read);
            }
        }
    }

    fn set_offloads(&mut self, offloads: Offloads) -> Result<(), BackendError> {
        self.inner.set_offloads(offloads)
    }

    fn event_fd(&self) -> Option<RawFd> {
        self.inner.event_fd()
    }
}

#[test]
fn wrapped_backend_that_loses_frames_is_survived() {
    in_namespace!(|| {
        let site = Site::new().pattern_file("large.bin", 5, 1 << 20);
        let lossy = |inner| Box::new(Lossy { inner, every: 5, seen: 0 }) as Box<dyn Backend>;
        let guest = Guest::image("cheetah").site(&site).wrap_backend(lossy).start();
        let response = guest.get("/large.bin");
        assert_eq!(response.body, site::Pattern::bytes(5, 1 << 20));
        guest.stop();
    });
}
