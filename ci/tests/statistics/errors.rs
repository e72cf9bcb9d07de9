//! What goes wrong on the wire, put there by hand, and counted one by one.

use super::{assert_become, once, tcp};
use exovm::machine::End;
use exovm_ci::{Guest, Site};
use exovm_netns::in_namespace;
use exovm_netns::link_layer::{Wire, internet_checksum, set_tcp_checksum};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

fn cheetah() -> Guest {
    Guest::serving(&Site::new().file("a", "a").pattern_file("large", 1, 8 << 20))
}

/// A TCP segment without data from a host that does not exist, in a frame to the guest.
fn segment(guest: &Guest, source: [u8; 4], port: u16, flags: u8) -> Vec<u8> {
    let network = guest.network();
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(source);
    packet.extend(network.guest_address().octets());
    packet.extend(port.to_be_bytes());
    packet.extend(80u16.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    let checksum = internet_checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    set_tcp_checksum(&mut packet);
    frame(guest, 0x0800, &packet)
}

/// A frame to the guest from a made-up neighbour.
pub(crate) fn frame(guest: &Guest, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = guest.network().guest_mac().to_vec();
    frame.extend([2, 0, 0, 0, 0, 0x77]);
    frame.extend(ether_type.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) fn neighbour() -> [u8; 4] {
    Ipv4Addr::new(10, 80, 0, 77).octets()
}

#[test]
fn bad_frames_are_counted_by_what_is_wrong_with_them() {
    in_namespace!(|| {
        let guest = cheetah();
        let wire = Wire::open(guest.network().interface()).unwrap();
        let good = segment(&guest, neighbour(), 4000, 0x10);
        let spoiled = |at: usize, value: u8| {
            let mut frame = good.clone();
            frame[at] ^= value;
            frame
        };
        let repeat = |frame: &[u8], times| (0..times).for_each(|_| wire.send(frame).unwrap());
        // An IPv4 header whose checksum is wrong; a datagram longer than its frame; one for somebody else; one from a multicast address;
        // IPv6; a fragment that is none, as more follow and it does not end at a multiple of eight bytes.
        repeat(&spoiled(24, 0xFF), 2);
        repeat(&good[..40], 3);
        let mut elsewhere = good.clone();
        elsewhere[..6].copy_from_slice(&[2, 0, 0, 0, 9, 9]);
        repeat(&elsewhere, 4);
        repeat(&segment(&guest, [224, 0, 0, 1], 4000, 0x10), 5);
        repeat(&frame(&guest, 0x86DD, &[0x60; 40]), 6);
        let mut fragment = good.clone();
        fragment[20] = 0x20;
        fragment[24..26].copy_from_slice(&[0, 0]);
        let checksum = internet_checksum(&fragment[14..34], 0);
        fragment[24..26].copy_from_slice(&checksum.to_be_bytes());
        repeat(&fragment, 7);
        // From another network, and there is no gateway.
        repeat(&segment(&guest, [192, 0, 2, 1], 4000, 2), 8);
        let expected = [
            ("bad_checksums", 2),
            ("malformed", 3),
            ("bad_source", 5),
            ("unsupported", 6),
            ("fragments", 7),
            ("no_route", 8),
        ];
        let statistics = assert_become(&guest, "ip", &expected);
        assert!(statistics.value("ip", "not_for_us").unwrap() >= 4);
        // A bare acknowledgment for nobody is answered with RST; a RST for nobody with nothing.
        repeat(&good, 3);
        repeat(&segment(&guest, neighbour(), 4001, 4), 2);
        assert_become(&guest, "tcp", &[("out_rsts", 3), ("unacceptable_in", 2)]);
        guest.stop();
    });
}

#[test]
fn half_open_connections_and_cookies_are_counted() {
    const SYNS: u64 = 1_100;
    const HALF_OPEN_MAX: u64 = 1_024;
    in_namespace!(|| {
        let guest = cheetah();
        let wire = Wire::open(guest.network().interface()).unwrap();
        for number in 0..SYNS {
            let syn = segment(&guest, neighbour(), 10_000 + number as u16, 2);
            while wire.send(&syn).is_err() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if number % 100 == 0 {
                once(&guest, "the SYNs so far", |statistics| tcp(statistics, "passive_opens") >= number);
            }
        }
        // The kernel's client gets a cookie, too, and brings it back; a made-up acknowledgment is none.
        let mut client = TcpStream::connect(guest.address()).unwrap();
        client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(client.read(&mut [0; 1000]).unwrap() > 0);
        wire.send(&segment(&guest, neighbour(), 9_000, 0x10)).unwrap();
        let expected = [
            ("passive_opens", HALF_OPEN_MAX + 1),
            ("half_open", HALF_OPEN_MAX),
            ("half_open_evicted", 0),
            ("syn_cookies_sent", SYNS - HALF_OPEN_MAX + 1),
            ("syn_cookies_accepted", 1),
            ("syn_cookies_failed", 1),
            ("opened", 1),
            ("curr_estab", 1),
        ];
        let statistics = assert_become(&guest, "tcp", &expected);
        assert_eq!(tcp(&statistics, "attempt_fails"), 0);
        guest.stop();
    });
}

#[test]
fn resets_both_ways_are_counted() {
    in_namespace!(|| {
        let guest = cheetah();
        for _ in 0..3 {
            let mut client = TcpStream::connect(guest.address()).unwrap();
            client.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            assert!(client.read(&mut [0; 1000]).unwrap() > 0);
            reset(client);
        }
        assert_become(
            &guest,
            "tcp",
            &[("in_rsts", 3), ("reset_by_peer", 3), ("closed", 0), ("curr_estab", 0)],
        );
        // A port where nobody listens.
        let mut closed = guest.address();
        closed.set_port(81);
        for _ in 0..2 {
            assert!(TcpStream::connect(closed).is_err());
        }
        assert_become(&guest, "tcp", &[("out_rsts", 2)]);
        guest.stop();
    });
}

/// Closes with RST instead of FIN.
fn reset(client: TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option is a linger of the length given, and lives through the call.
    let result = unsafe {
        libc::setsockopt(
            client.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn client_that_does_not_read_closes_its_window_and_is_probed() {
    in_namespace!(|| {
        let guest = cheetah();
        let mut client = TcpStream::connect(guest.address()).unwrap();
        client.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let statistics = once(&guest, "a probe", |statistics| tcp(statistics, "window_probes") >= 1);
        assert_eq!(tcp(&statistics, "zero_rwin_rcvd"), 1, "closed once");
        assert_eq!(tcp(&statistics, "zero_rwin_sent"), 0);
        drop(client);
        guest.stop();
    });
}

#[test]
fn arp_claims_and_echo_requests_are_counted_as_they_were_sent() {
    in_namespace!(|| {
        let guest = cheetah();
        let before = guest.machine().statistics().value("ip", "arp_replies").unwrap();
        let wire = Wire::open(guest.network().interface()).unwrap();
        let target = guest.network().guest_address().octets();
        let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x77];
        arp.extend(neighbour());
        arp.extend([0; 6]);
        arp.extend(target);
        (0..3).for_each(|_| wire.send(&frame(&guest, 0x0806, &arp)).unwrap());
        let mut claim = arp.clone();
        claim[14..18].copy_from_slice(&target);
        (0..2).for_each(|_| wire.send(&frame(&guest, 0x0806, &claim)).unwrap());
        guest.wait_for_log("02:00:00:00:00:77 claims our address");
        let echo = echo_request(target, &[5, 6, 7, 8]);
        (0..4).for_each(|_| wire.send(&frame(&guest, 0x0800, &echo)).unwrap());
        assert_become(
            &guest,
            "ip",
            &[("arp_replies", before + 3), ("arp_conflicts", 2), ("echo_replies", 4)],
        );
        // It complained of the claim.
        assert_eq!(guest.end(), End::PowerOff { status: 0 });
    });
}

/// A request of the made-up neighbour's.
fn echo_request(target: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = [&[8, 0, 0, 0, 1, 2, 3, 4], data].concat();
    let checksum = internet_checksum(&message, 0);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = vec![0x45, 0];
    packet.extend((20 + message.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 1, 0, 0]);
    packet.extend(neighbour());
    packet.extend(target);
    let checksum = internet_checksum(&packet, 0);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(message);
    packet
}

/// RFC 1122 3.2.2.6: all of the data comes back, however much fits a packet.
#[test]
fn echo_requests_of_all_sizes_are_answered_with_their_data() {
    in_namespace!(|| {
        let guest = cheetah();
        let wire = Wire::hearing_ipv4(guest.network().interface()).unwrap();
        let target = guest.network().guest_address().octets();
        let mut buffer = vec![0; 2048];
        for len in [0, 100, 400, 450, 457, 458, 459, 600, 969, 970, 971, 1000, 1472] {
            let data: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let is_answer = |frame: &[u8]| {
                frame.get(42..) == Some(&data)
                    && (frame[23], &frame[26..34]) == (1, &[target, neighbour()].concat())
            };
            let answered = (0..10).any(|_| {
                wire.send(&frame(&guest, 0x0800, &echo_request(target, &data))).unwrap();
                wire.wait(Duration::from_secs(2));
                std::iter::from_fn(|| wire.receive(&mut buffer).map(is_answer)).any(|it_is| it_is)
            });
            assert!(answered, "{len} bytes");
        }
        guest.stop();
    });
}
