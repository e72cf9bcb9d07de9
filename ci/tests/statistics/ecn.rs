//! Explicit congestion notification in a machine: each counter moved by marks that the fault injector sets on the way between the
//! guest and Linux, and the option that turns it off.

use super::{once, tcp};
use exovm::stat::StatSnapshot;
use exovm_ci::sockets::uses_ecn;
use exovm_ci::swamp::{host_at, swamp};
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;

const LARGE: u64 = 2_000_000;
/// A line that marks long before it would drop.
const MARKING: &str = "delay=5ms,tx:rate=50mbit,tx:mark-from=20";

/// What the kernel's TCP in this namespace does: 0 never, 1 ask and agree, 2 agree.
fn set_kernels_ecn(mode: u8) {
    std::fs::write("/proc/sys/net/ipv4/tcp_ecn", mode.to_string()).unwrap();
}

/// A server behind these faults, and what it has counted when a large file has been fetched from it and `is` holds.
fn fetched(arguments: &[&str], faults: &str, what: &str, is: impl Fn(&StatSnapshot) -> bool) -> StatSnapshot {
    let site = Site::new().pattern_file("large", 1, LARGE);
    let guest = Guest::image("cheetah").site(&site).arguments(arguments).impair(faults).start();
    assert_eq!(guest.get("/large").body.len() as u64, LARGE);
    let statistics = once(&guest, what, is);
    guest.stop();
    statistics
}

fn marked(statistics: &StatSnapshot, direction: &str) -> u64 {
    statistics.value("backend", &format!("impair_{direction}_marked")).unwrap()
}

#[test]
fn client_that_asks_has_a_server_that_slows_down_for_marks_and_loses_nothing() {
    in_namespace!(|| {
        set_kernels_ecn(1);
        let statistics =
            fetched(&[], MARKING, "reductions", |statistics| tcp(statistics, "ecn_reductions") > 0);
        assert!(marked(&statistics, "tx") > 0);
        assert!(tcp(&statistics, "ecn_signals") >= tcp(&statistics, "ecn_reductions"));
        let of = |name: &str| statistics.value("backend", name).unwrap();
        assert_eq!(
            (of("impair_tx_lost"), of("impair_tx_dropped"), tcp(&statistics, "fast_retran")),
            (0, 0, 0)
        );
        assert_eq!((tcp(&statistics, "ce_rcvd"), marked(&statistics, "rx")), (0, 0));
    });
}

#[test]
fn marks_on_what_comes_are_counted_and_echoed() {
    in_namespace!(|| {
        set_kernels_ecn(1);
        let statistics = fetched(&[], "rx:mark=100%", "a mark", |statistics| tcp(statistics, "ce_rcvd") > 0);
        // The kernel's pure acknowledgments cannot be marked; its request can.
        assert!(tcp(&statistics, "ce_rcvd") <= marked(&statistics, "rx"));
        assert_eq!(tcp(&statistics, "ecn_signals"), 0);
    });
}

#[test]
fn capture_shows_marks_and_echoes() {
    const MARKED: u8 = 3;
    const ECE: u8 = 0x40;
    in_namespace!(|| {
        set_kernels_ecn(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("frames.pcapng");
        let site = Site::new().file("a", "a");
        let guest = Guest::image("cheetah").site(&site).impair("rx:mark=100%").pcap(&path).start();
        assert_eq!(guest.get("/a").status(), 200);
        guest.stop();
        let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
        let (mut marked, mut echoed) = (0, 0);
        while let Some(block) = reader.next_block() {
            let Block::EnhancedPacket(packet) = block.unwrap() else { continue };
            let Some(([8, 0], 6, field, flags)) = packet
                .data
                .get(..54)
                .map(|frame| ([frame[12], frame[13]], frame[23], frame[15] & 3, frame[47]))
            else {
                continue;
            };
            marked += u32::from(field == MARKED);
            // Not the SYN-ACK, which agrees.
            echoed += u32::from(flags & ECE != 0 && flags & 2 == 0);
        }
        assert!(marked > 0 && echoed > 0, "{marked} {echoed}");
    });
}

#[test]
fn server_that_is_told_to_does_without() {
    in_namespace!(|| {
        set_kernels_ecn(1);
        let statistics = fetched(&["--ecn=never"], "mark=100%", "a connection", |statistics| {
            tcp(statistics, "opened") > 0
        });
        assert_eq!((marked(&statistics, "tx"), marked(&statistics, "rx")), (0, 0));
    });
}

#[test]
fn load_generator_asks_if_it_is_told_to() {
    in_namespace!(|| {
        set_kernels_ecn(2);
        for (words, asked) in [("", false), (" --ecn=ask", true)] {
            let listener = TcpListener::bind(("0.0.0.0", 0)).unwrap();
            let target = host_at(listener.local_addr().unwrap().port());
            let agreed = std::thread::spawn(move || {
                let (mut socket, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                assert!(socket.read(&mut request).unwrap() > 0);
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").unwrap();
                uses_ecn(&socket)
            });
            let outcome = swamp(&format!("--target http://{target}/ -n 1 -c 1{words}"));
            assert_eq!(outcome.number("answered"), 1);
            assert_eq!(agreed.join().unwrap(), asked, "{words}");
        }
    });
}
