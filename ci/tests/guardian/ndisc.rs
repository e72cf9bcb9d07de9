//! Neighbor Discovery between the guardian and Linux, and between the guardian and who forges it.

use crate::{PATIENCE, at, guarded, wait_for};
use exovm::machine::End;
use exovm_ci::Guest;
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum};
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

/// What the guardian makes of the guest's Ethernet address, 02:78:0a:50:00:02.
const GUARDIAN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x78, 0xaff, 0xfe50, 2);
const GUEST_MAC: [u8; 6] = [0x02, 0x78, 10, 80, 0, 2];
const PREFIX_LEN: u8 = 64;

/// What Linux knows of its neighbours on the guest's link.
fn neighbours_of_host() -> String {
    let output = Command::new("ip").args(["-6", "neigh", "show", "dev", "tap0"]).output().expect("ip");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Gives the host an address on the guest's link.
fn add_host_address(guest: &Guest, address: Ipv6Addr) {
    guest.network().interface().add_address(IpAddr::V6(address), PREFIX_LEN).expect("an address");
}

/// Has Linux look for an address, by sending something there, until it has found it.
fn wait_until_host_knows(address: Ipv6Addr) {
    let socket = UdpSocket::bind("[::]:0").expect("a socket");
    let link = link_of_host();
    let scope = link.split(':').next().and_then(|scope| scope.parse().ok()).expect("a number");
    let destination = SocketAddrV6::new(address, 9, 0, scope);
    let begun = Instant::now();
    // FAILED, INCOMPLETE and STALE are other words that could stand there.
    let found = format!("{address} lladdr 02:78:0a:50:00:02 REACHABLE");
    while !neighbours_of_host().contains(&found) {
        assert!(begun.elapsed() < PATIENCE, "Linux does not find {address}, but {:?}", neighbours_of_host());
        // Until Linux has an address of its own it has nothing to send from.
        let _ = socket.send_to(b"anybody there?", destination);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What Linux says of the guest's interface: its number first.
fn link_of_host() -> String {
    let output = Command::new("ip").args(["-o", "link", "show", "dev", "tap0"]).output().expect("ip");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The Ethernet address that a line of the guest's log names.
fn place(line: &str) -> Option<&str> {
    line.split_once(" at ").map(|(_, place)| place.split(',').next().unwrap_or(place))
}

/// An advertisement of `last`, who is at 02:..:`last`, in answer to the guardian; everything is right but perhaps the hop limit.
fn advertisement(last: u8, hop_limit: u8) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last.into());
    let mac = [2, 0, 0, 0, 0, last];
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend(source.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, hop_limit];
    packet.extend(source.octets());
    packet.extend(GUARDIAN.octets());
    let words = packet[8..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let checksum = internet_checksum(&message, words.sum::<u32>() + message.len() as u32 + 58);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    [&GUEST_MAC[..], &mac, &[0x86, 0xdd], &packet, &message].concat()
}

/// Sends frames again and again until the guest has logged something.
fn send_until_logged(guest: &Guest, frames: &[Vec<u8>], text: &str) {
    let wire = Wire::open(guest.network().interface()).expect("a socket");
    let begun = Instant::now();
    while !guest.log().iter().any(|line| line.contains(text)) {
        assert!(begun.elapsed() < PATIENCE, "the guest does not log {text:?}, but {:#?}", guest.log());
        for frame in frames {
            // A full queue: the next time.
            let _ = wire.send(frame);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn linux_finds_the_guardian_and_the_guardian_learns_who_asked() {
    in_namespace!(|| {
        let guest = guarded(&["watch", "serve:80"]).launch();
        let host = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
        add_host_address(&guest, host);
        guest.wait_for_log(&format!("[0] {GUARDIAN} is ours"));
        wait_until_host_knows(GUARDIAN);
        guest.wait_for_log(&format!("[1] probe: {GUARDIAN} Preferred"));
        guest.wait_for_log("[1] probe: route fe80::/64 None");
        let learned = guest.wait_for_log("[1] probe: neighbour fe80::");
        assert!(
            place(&learned).is_some_and(|mac| link_of_host().contains(mac)),
            "{learned}: {}",
            link_of_host()
        );
        wait_for(at(&guest, 80), "environment 2\n");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn guardian_finds_linux_for_a_client_by_both_protocols() {
    in_namespace!(|| {
        let guest = guarded(&["neighbour:fe80::77", "neighbour:10.80.0.1", "neighbour:10.80.0.99"]).launch();
        add_host_address(&guest, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77));
        let found = guest.wait_for_log("[1] probe: fe80::77 is at ");
        let by_arp = guest.wait_for_log("[2] probe: 10.80.0.1 is at ");
        assert_eq!(place(&found), place(&by_arp), "it is the same host");
        assert!(place(&found).is_some_and(|mac| link_of_host().contains(mac)), "{found}: {}", link_of_host());
        guest.wait_for_log("[3] probe: 10.80.0.99: nobody on the link answers");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn forged_advertisement_with_another_hop_limit_is_ignored_and_counted() {
    in_namespace!(|| {
        let guest = guarded(&["neighbour:fe80::66", "neighbour:fe80::67", "watch"]).launch();
        let frames = [advertisement(0x66, 64), advertisement(0x67, 255)];
        send_until_logged(&guest, &frames, "[1] probe: fe80::66: nobody on the link answers");
        guest.wait_for_log("[2] probe: fe80::67 is at 02:00:00:00:00:67");
        guest.assert_not_logged("neighbour fe80::66");
        let counted = guest.log().iter().any(|line| {
            let count = line.split_once("hop_limit: ").and_then(|(_, rest)| rest.split(',').next());
            count.and_then(|count| count.parse().ok()).is_some_and(|count: u64| count > 10)
        });
        assert!(counted, "{:#?}", guest.log());
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn address_that_another_host_has_is_left_to_it() {
    in_namespace!(|| {
        let guest = guarded(&["watch", "neighbour:fe80::77", "serve:80"]).launch();
        add_host_address(&guest, GUARDIAN);
        guest.wait_for_log(&format!("[0] {GUARDIAN} belongs to another host"));
        guest.wait_for_log(&format!("[1] probe: {GUARDIAN} Duplicate"));
        guest.wait_for_log("[2] probe: fe80::77: another host on the link has the guardian's IPv6 address");
        guest.assert_not_logged("is ours");
        guest.assert_not_logged("route fe80");
        wait_for(at(&guest, 80), "environment 3\n");
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

#[test]
fn garbage_for_the_guardian_is_counted_and_it_goes_on() {
    in_namespace!(|| {
        let guest = guarded(&["watch", "serve:80"]).launch();
        guest.wait_for_log("is ours");
        let wire = Wire::open(guest.network().interface()).expect("a socket");
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for round in 0..4000 {
            let mut frame = advertisement(round as u8, 255);
            if round % 2 == 0 {
                // A solicitation for the guardian's address, from the same.
                frame[54] = 135;
                frame[62..78].copy_from_slice(&GUARDIAN.octets());
            }
            for _ in 0..next() % 4 {
                let at = 14 + next() as usize % (frame.len() - 14);
                frame[at] = next() as u8;
            }
            frame.truncate(14 + next() as usize % (frame.len() - 13));
            let _ = wire.send(&frame);
            if round % 64 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        wait_until_host_knows(GUARDIAN);
        wait_for(at(&guest, 80), "environment 2\n");
        let bad = |line: &String| line.contains("Counters { malformed: ") && !line.contains("malformed: 0,");
        assert!(guest.log().iter().any(bad), "{:#?}", guest.log().last());
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}
