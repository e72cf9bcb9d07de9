//! The TAP backend, against real interfaces in a private network namespace.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use exovm_netns::{Interface, TapQueues, create_tap, in_namespace};

use super::*;
use crate::device::virtio::test_utils::Piece;
use crate::device::virtio::test_utils::nic::{Nic, buffer_gpa, give_buffers};

#[test]
fn open_invalid_name_returns_bad_name() {
    for name in ["", "a/b", "sixteen-bytes-xx", "with space", "nul\0", "tap%d"] {
        assert!(matches!(Tap::open(name), Err(TapError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn missing_interface_message_has_the_commands() {
    let message = TapError::Missing { name: "exo0".into() }.to_string();
    assert!(message.contains("ip tuntap add dev exo0 mode tap user $USER"), "{message}");
    assert!(message.contains("ip link set dev exo0 txqueuelen 4000 up"), "{message}");
}

/// A TAP named `exo0` with the address 10.0.0.1/24, up.
fn interface() -> Interface {
    let interface = Interface::named("exo0").expect("a name");
    create_tap(&interface, TapQueues::Single).expect("root in its namespace");
    interface.add_address(Ipv4Addr::new(10, 0, 0, 1).into(), 24).expect("root in its namespace");
    interface.up().expect("root in its namespace");
    interface
}

#[test]
fn open_tells_missing_busy_and_foreign_interfaces_apart() {
    in_namespace!(|| {
        assert!(matches!(Tap::open("exo0"), Err(TapError::Missing { .. })));
        assert!(!Interface::named("exo0").expect("a name").exists(), "opening makes none");
        assert!(matches!(Tap::open("lo"), Err(TapError::NotTap { .. })));
        let interface = interface();
        let tap = Tap::open("exo0").expect("free");
        assert!(matches!(Tap::open("exo0"), Err(TapError::Busy { .. })));
        assert_eq!((tap.mtu_bytes().expect("known"), tap.is_up().expect("known")), (1500, true));
        interface.down().expect("root in its namespace");
        assert!(!tap.is_up().expect("known"));
        drop(tap);
        Tap::open("exo0").expect("free again");
    });
}

#[test]
fn frame_to_an_interface_that_is_down_is_dropped() {
    in_namespace!(|| {
        let interface = interface();
        let mut tap = Tap::open("exo0").expect("free");
        interface.down().expect("root in its namespace");
        let frame = [0; HEADER_BYTES + 60];
        assert_eq!(tap.write_frame(&[IoVec::of(&frame)]), Written::Dropped);
    });
}

/// A UDP packet of the guest at 10.0.0.2 to 10.0.0.1:7, its checksum left to the host.
fn datagram(payload: &[u8]) -> Vec<u8> {
    // struct virtio_net_hdr: NEEDS_CSUM from byte 34 on, at 6 further.
    let mut frame = vec![1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];
    frame.extend([0xFF; 6]);
    frame.extend([2, 0, 0, 0, 0, 1, 8, 0]);
    let len = 28 + payload.len() as u16;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1];
    header[2..4].copy_from_slice(&len.to_be_bytes());
    let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = !((sum & 0xFFFF) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(header);
    frame.extend([0x10, 0, 0, 7]);
    frame.extend((len - 20).to_be_bytes());
    // The pseudo header's sum, as a driver leaves it (VIRTIO 1.3 5.1.6.2).
    let pseudo = 0x0A00 + 2 + 0x0A00 + 1 + 17 + u32::from(len - 20);
    frame.extend((pseudo as u16).to_be_bytes());
    frame.extend(payload);
    frame
}

#[test]
fn datagrams_pass_both_ways_between_a_guest_and_a_socket() {
    in_namespace!(|| {
        let _interface = interface();
        let tap = Tap::open("exo0").expect("free");
        let mut nic = Nic::with_backend(tap, !0);
        let (mut receive, mut transmit) = (nic.bind(0, 1), nic.bind(1, 1));
        give_buffers(&mut receive, buffer_gpa(1, 0), 4096, 40);
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 7)).expect("free");
        socket.set_broadcast(true).expect("a UDP socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a UDP socket");

        let frame = datagram(b"from the guest");
        nic.guest.write(buffer_gpa(1, 0x5_0000), &frame);
        transmit.add(&[Piece::out(buffer_gpa(1, 0x5_0000), frame.len() as u32)]);
        assert_eq!(nic.work().sent, 1);
        let mut bytes = [0; 64];
        let (len, from) = socket.recv_from(&mut bytes).expect("it arrives, its checksum completed");
        assert_eq!((&bytes[..len], from.ip()), (&b"from the guest"[..], Ipv4Addr::new(10, 0, 0, 2).into()));

        // The carrier comes up a moment after the TAP was opened; until then the host drops what it sends.
        let deadline = Instant::now() + Duration::from_secs(10);
        let found = loop {
            socket.send_to(b"from the socket", (Ipv4Addr::new(10, 0, 0, 255), 9)).expect("sent");
            nic.work();
            let found = receive.all_used().into_iter().find_map(|(head, len)| {
                let frame = nic.guest.read(buffer_gpa(1, u64::from(head) * 4096), len as usize);
                frame.ends_with(b"from the socket").then_some(frame)
            });
            assert!(Instant::now() < deadline, "no frame within 10 s");
            if let Some(found) = found {
                break found;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(found[10..12], [1, 0], "one buffer");
        assert_eq!(found[0], 1, "the checksum was left to the guest, as negotiated");
        assert_eq!(found[12..18], [0xFF; 6]);
    });
}
