//! `--impair` and `--pcap`.

use crate::scene;
use exovm_ci::Client;
use pcap_file::pcapng::{Block, PcapNgReader};
use std::fs::File;
use std::net::SocketAddr;

fn get(address: SocketAddr) {
    assert_eq!(Client::connect(address).unwrap().get("/").unwrap().status(), 200);
}

#[test]
fn faults_and_frames_of_a_machine_are_counted_and_written_down() {
    let scene = scene();
    let dir = scene.dir();
    let path = dir.path().join("frames.pcapng");
    let running = scene.start(&[
        "run",
        "hello",
        "--publish",
        "0:80",
        "--impair",
        "duplicate=100%,tx:delay=2ms",
        "--pcap",
        path.to_str().unwrap(),
    ]);
    (0..5).for_each(|_| get(running.address()));
    let stat = scene.play(&["stat", "hello", "--json"]).stdout;
    for name in ["impair_tx_duplicated", "impair_rx_delivered", "capture_frames", "tcp_accepted"] {
        assert!(stat.contains(name), "{name}: {stat}");
    }
    running.stop();
    let mut reader = PcapNgReader::new(File::open(&path).unwrap()).unwrap();
    let (mut packets, mut interfaces) = (0, 0);
    while let Some(block) = reader.next_block() {
        match block.unwrap() {
            Block::EnhancedPacket(_) => packets += 1,
            Block::InterfaceDescription(_) => interfaces += 1,
            other => panic!("nobody wrote {other:?}"),
        }
    }
    assert_eq!(interfaces, 1);
    assert!(packets > 30, "{packets}");
    scene.assert_clean();
}

#[test]
fn capture_that_cannot_be_written_is_one_warning_and_the_machine_serves_on() {
    let scene = scene();
    let running = scene.start(&["run", "hello", "--publish", "0:80", "--pcap", "/dev/full"]);
    (0..20).for_each(|_| get(running.address()));
    let (status, output) = running.end_by(libc::SIGTERM);
    assert!(status.success(), "{output}");
    assert_eq!(output.matches("the capture /dev/full ends here").count(), 1, "{output}");
    scene.assert_clean();
}

#[test]
fn wrong_faults_and_captures_are_refused_with_what_to_say() {
    let scene = scene();
    let refused = |arguments: &[&str], parts: &[&str]| {
        let outcome = scene.play(&[&["run", "hello"], arguments].concat());
        assert_eq!(outcome.status.code(), Some(2), "{}", outcome.stderr);
        for part in parts {
            assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
        }
    };
    refused(&["--impair", "loss=1"], &["loss=1", "a percentage", "loss=1%"]);
    refused(&["--impair", "losses=1%"], &["losses", "loss=, burst="]);
    scene.assert_refused(&["run", "hello", "--net", "none", "--impair", "loss=1%"], &["--net none has none"]);
    scene.assert_refused(&["run", "hello", "--pcap", "/no/such/dir/x"], &["/no/such/dir/x", "another path"]);
}
