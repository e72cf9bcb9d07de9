//! UDP, while webswamp is at work, which has found its server by name.

use super::errors::{frame, neighbour};
use super::{assert_become, once};
use exovm_ci::Guest;
use exovm_ci::dnsmasq::Dnsmasq;
use exovm_ci::swamp::{Manners, Server};
use exovm_netns::link_layer::{Wire, internet_checksum};
use exovm_netns::{Interface, in_namespace};
use std::net::Ipv4Addr;

const HOST: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 1);
/// The host's as well, where nobody answers questions.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(10, 80, 0, 3);
const CLOSED_PORT: u16 = 9;

/// A datagram to the guest, whose length or checksum may be wrong by so much.
fn datagram(guest: &Guest, length_off: u16, checksum_off: u16) -> Vec<u8> {
    let data = *b"anybody?";
    let length = 8 + data.len() as u16;
    let mut packet = vec![0x45, 0, 0, 20 + length as u8, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(neighbour());
    packet.extend(guest.network().guest_address().octets());
    let checksum = internet_checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    let mut udp = [4_000u16, CLOSED_PORT, length + length_off, 0].map(u16::to_be_bytes).concat();
    udp.extend(data);
    // The pseudo-header (RFC 768): addresses, protocol, length.
    let pseudo = [&packet[12..20], &[0, 17], &length.to_be_bytes(), &udp].concat();
    let checksum = internet_checksum(&pseudo, 0).wrapping_add(checksum_off);
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(udp);
    frame(guest, 0x0800, &packet)
}

#[test]
fn names_that_are_asked_for_and_datagrams_that_are_wrong_are_counted() {
    in_namespace!(|| {
        let server = Server::start(Manners::Good(64));
        // At this address only, whenever it comes; at the other one the kernel says that nobody is at the port.
        let record = format!("--host-record=www.test,{HOST}");
        let dnsmasq = Dnsmasq::start(&[&record, "--bind-dynamic", &format!("--listen-address={HOST}")]);
        let target = format!("http://www.test:{}/", server.port);
        let guest = Guest::image("webswamp")
            .name_server(ELSEWHERE)
            .name_server(HOST)
            .arguments(&["--target", &target, "-c", "1", "-d", "1h"])
            .wrap_backend(|backend| {
                Interface::named("tap0").unwrap().add_address(ELSEWHERE.into(), 24).unwrap();
                backend
            })
            .launch();
        guest.wait_for_log("the server is at 10.80.0.1:");
        // A question to each, an error and an answer; a slow dnsmasq is asked again, and answers again.
        assert!(dnsmasq.questions("A", "www.test") >= 1);
        let before = once(&guest, "an answer and an error", |statistics| {
            ["in_datagrams", "icmp_errors_in"].iter().all(|name| statistics.value("udp", name) >= Some(1))
        });
        let udp = |name| before.value("udp", name).unwrap();
        let answered = udp("in_datagrams");
        assert!(udp("out_datagrams") >= answered + udp("icmp_errors_in"), "{before:?}");
        let wire = Wire::open(guest.network().interface()).unwrap();
        let repeat = |frame: &[u8], times| (0..times).for_each(|_| wire.send(frame).unwrap());
        repeat(&datagram(&guest, 0, 0), 5);
        repeat(&datagram(&guest, 0, 1), 3);
        repeat(&datagram(&guest, 1, 0), 4);
        assert_become(
            &guest,
            "udp",
            &[
                ("no_ports", udp("no_ports") + 5),
                ("in_errors", udp("in_errors") + 7),
                ("in_datagrams", answered),
            ],
        );
        assert_become(&guest, "ip", &[("bad_checksums", 3), ("malformed", 4)]);
        guest.stop();
    });
}
