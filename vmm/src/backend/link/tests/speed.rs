//! A link beside two TAPs in a bridge: the same NICs, the same guests that only send and receive, another backend.
//!
//! `cargo test -p exovm --lib link::tests::speed -- --nocapture` prints the rates of the machine that it runs on.

use super::threads::Busy;
use super::*;
use crate::backend::tap::Tap;
use exovm_netns::{Interface, in_namespace};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long each is measured, and how often, in turn.
const WINDOW: Duration = Duration::from_millis(200);
const TIMES: usize = 3;

/// A TCP segment of so many bytes of payload, to be cut by the hardware if it is long.
fn segment(payload_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame.extend([0x45, 0]);
    frame.extend(((40 + payload_bytes) as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    // A bridge may look whether the header is sound.
    let ip = &frame[HEADER_BYTES + 14..];
    let sum: u32 = ip.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let checksum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    frame[HEADER_BYTES + 24..HEADER_BYTES + 26].copy_from_slice(&checksum.to_be_bytes());
    frame.extend([0x1F, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]);
    frame.resize(frame.len() + payload_bytes, 7);
    // NEEDS_CSUM at 34 + 16.
    (frame[0], frame[6], frame[8]) = (1, 34, 16);
    if payload_bytes > 1460 {
        // TCPV4, headers of 54 bytes, segments of 1460.
        frame[1..6].copy_from_slice(&[1, 54, 0, 0xB4, 5]);
    }
    frame
}

/// Frames a second from one guest to the other.
fn rate(from: Box<dyn Backend>, to: Box<dyn Backend>, frame: &[u8]) -> f64 {
    let (mut sender, mut receiver) = (Busy::with_frame(from, frame), Busy::with_frame(to, frame));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                sender.send();
                sender.work();
            }
        });
        // What a first round costs is not of interest.
        let mut begin = None;
        let rate = loop {
            receiver.receive();
            receiver.work();
            match begin {
                None if receiver.received > 200 => begin = Some((Instant::now(), receiver.received)),
                Some((from, before)) if from.elapsed() >= WINDOW => {
                    break (receiver.received - before) as f64 / from.elapsed().as_secs_f64();
                }
                _ => {}
            }
        };
        over.store(true, Ordering::Relaxed);
        rate
    })
}

fn link_ends() -> (Box<dyn Backend>, Box<dyn Backend>) {
    let [a, b] = pair().expect("a pair");
    (Box::new(a.plug().expect("free")), Box::new(b.plug().expect("free")))
}

/// Two TAPs in a bridge, which vanish with the ends.
fn bridged_taps() -> (Box<dyn Backend>, Box<dyn Backend>) {
    let make = |name: &str| {
        let tap = Tap::create(name).expect("a TAP");
        let interface = Interface::named(name).expect("a good name");
        interface.set_transmit_queue_length(4000).expect("ours");
        interface.up().expect("ours");
        let joined = Command::new("ip").args(["link", "set", "dev", name, "master", "br0"]).status();
        assert!(joined.expect("ip").success());
        Box::new(tap) as Box<dyn Backend>
    };
    (make("a0"), make("b0"))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[test]
fn link_moves_more_frames_than_two_taps_and_a_bridge() {
    in_namespace!(|| {
        let made = Command::new("ip").args(["link", "add", "br0", "type", "bridge"]).status();
        assert!(made.expect("ip").success());
        Interface::named("br0").expect("a good name").up().expect("ours");
        for payload_bytes in [10, 1460, 60_000] {
            let frame = segment(payload_bytes);
            let (mut links, mut taps) = (Vec::new(), Vec::new());
            for _ in 0..TIMES {
                let (a, b) = link_ends();
                links.push(rate(a, b, &frame));
                let (a, b) = bridged_taps();
                taps.push(rate(a, b, &frame));
            }
            let (link, tap) = (median(links), median(taps));
            let gbit = |rate: f64| rate * 8.0 * (frame.len() - HEADER_BYTES) as f64 / 1e9;
            println!(
                "{payload_bytes} bytes of payload: link {link:.0} frames/s, {:.1} Gbit/s; TAPs and bridge {tap:.0}, {:.1}; {:.1} times",
                gbit(link),
                gbit(tap),
                link / tap
            );
            assert!(link > tap, "{payload_bytes} bytes");
        }
    });
}
