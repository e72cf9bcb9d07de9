//! What users run: servers that share an address, each with a site of its own, behind a guardian that knows the link for them.

use crate::at;
use exovm::backend::disk::Access;
use exovm::machine::End;
use exovm_ci::{Client, Guest, GuestBuilder, Site, make_image};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const GUEST_MAC: [u8; 6] = [0x02, 0x78, 10, 80, 0, 2];
/// Somebody whose answers have to go through the gateway, and from where its frames come.
const FAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const STRANGER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x99];

/// Two servers, of which each says who it is.
fn servers(scratch: &tempfile::TempDir) -> GuestBuilder {
    ["first", "second"].into_iter().fold(Guest::image("guardian"), |guest, who| {
        let path = scratch.path().join(who);
        make_image(Site::new().file("who", who).path(), &path);
        guest.disk(&path, Access::ReadOnly)
    })
}

/// Waits until somebody serves this there.
fn wait_for(guest: &Guest, port: u16, who: &str) {
    let begun = Instant::now();
    loop {
        let client = Client::connect_within(at(guest, port), Duration::from_secs(2));
        if client.and_then(|mut client| client.get("/who")).is_ok_and(|response| response.text() == who) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody serves {who} at {port}: {:#?}", guest.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn servers_behind_a_guardian_serve_their_own_site_at_the_port_they_asked_for() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let guest = servers(&scratch).arguments(&["8000", "80"]).launch();
        wait_for(&guest, 8000, "first");
        wait_for(&guest, 80, "second");
        let refused = TcpStream::connect_timeout(&at(&guest, 81), PATIENCE).expect_err("nobody's port");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        guest.stop();
    });
}

#[test]
fn server_that_wants_anothers_port_is_told_so_and_the_other_serves() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let guest = servers(&scratch).arguments(&["80", "80"]).launch();
        guest.wait_for_log("port 80: the port belongs to another environment");
        let served = ["first", "second"].into_iter().find(|who| {
            let mut client = Client::connect_within(at(&guest, 80), PATIENCE).expect("somebody serves");
            client.get("/who").is_ok_and(|response| response.text() == *who)
        });
        assert!(served.is_some());
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

/// The first segment of a connection from far away, which came by another way than the gateway.
fn syn(source_port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(FAR.octets());
    packet.extend([10, 80, 0, 2]);
    let checksum = internet_checksum(&packet, 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(source_port.to_be_bytes());
    packet.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xFF, 0xFF, 0, 0, 0, 0]);
    set_tcp_checksum(&mut packet);
    [&GUEST_MAC[..], &STRANGER_MAC, &[8, 0], &packet].concat()
}

/// Where on the link the frames in a capture went that the guest sent to an address.
fn sent_to(capture: &[u8], destination: Ipv4Addr) -> Vec<[u8; 6]> {
    let of_guest = [&GUEST_MAC[..], &[8, 0, 0x45]].concat();
    let sent = |at: usize| {
        let frame = capture.get(at.checked_sub(6)?..at + 28)?;
        (frame[6..15] == of_guest[..] && frame[30..34] == destination.octets())
            .then(|| frame[..6].try_into().ok())?
    };
    (0..capture.len()).filter_map(sent).collect()
}

#[test]
fn server_sends_to_far_peers_through_the_gateway_that_the_guardian_found() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let capture = scratch.path().join("capture");
        let gateway = Ipv4Addr::new(10, 80, 0, 1);
        let guest = servers(&scratch).gateway(gateway).pcap(&capture).launch();
        wait_for(&guest, 80, "first");
        let wire = Wire::open(guest.network().interface()).expect("a socket");
        // The guardian has asked meanwhile, and asked again if that was lost.
        std::thread::sleep(Duration::from_secs(2));
        for source_port in 4000..4005 {
            wire.send(&syn(source_port)).expect("a frame");
        }
        // The answers to these are sent before this.
        wait_for(&guest, 80, "first");
        guest.stop();
        let capture = std::fs::read(capture).expect("a capture");
        let (answers, to_host) = (sent_to(&capture, FAR), sent_to(&capture, gateway));
        assert!(answers.len() >= 5, "{} answers", answers.len());
        assert!(answers.iter().all(|mac| *mac == to_host[0]), "{answers:x?}, and not to {:x?}", to_host[0]);
    });
}
