//! What SYN and SYN-ACK say: options, text, and the opening ACKs of both sides at once.

use exos_net::{AckPolicy, Config, End};
use smoltcp::wire::{Ipv4Packet, TcpControl, TcpOption, TcpPacket};

use super::{Peer, StaticHost, seen};
use crate::harness::{config, pattern};

/// The SYN that opens a connection to the peer, as its options: size, shift, SACK, TSval.
fn offered(config: Config) -> (Option<u16>, Option<u8>, bool, Option<u32>) {
    let mut host = StaticHost::with(config);
    let (_, frame, _) = Peer::with_syn_frame(&mut host);
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
    let (mut found, mut bytes) = ((None, None, false, None), tcp.options());
    while !bytes.is_empty() {
        let (rest, option) = TcpOption::parse(bytes).unwrap();
        match option {
            TcpOption::MaxSegmentSize(mss) => found.0 = Some(mss),
            TcpOption::WindowScale(shift) => found.1 = Some(shift),
            TcpOption::SackPermitted => found.2 = true,
            TcpOption::TimeStamp { tsval, tsecr } => {
                assert_eq!(tsecr, 0, "there is nothing to echo yet");
                found.3 = Some(tsval);
            }
            _ => {}
        }
        bytes = rest;
    }
    found
}

#[test]
fn syn_offers_what_the_configuration_allows() {
    let (mss, shift, sack, timestamp) = offered(Config { receive_window_bytes: 1 << 20, ..config() });
    assert_eq!((mss, shift, sack), (Some(1_460), Some(5), true));
    assert!(timestamp.is_some());
    let plain = offered(Config { timestamps: false, sack: false, mtu: 1_000, ..config() });
    assert_eq!(plain, (Some(960), Some(0), false, None));
}

#[test]
fn peer_without_options_gets_segments_of_536_and_sees_an_unscaled_window() {
    let mut host = StaticHost::with(Config { receive_window_bytes: 1 << 20, ..config() });
    let (mut peer, conn) = Peer::with_syn(&mut host);
    (peer.mss, peer.window_scale) = (None, None);
    host.stack.send(conn, pattern(2_000)).unwrap();
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::IfDue);
    let frame = host.nic.frames[0].clone();
    let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!(TcpPacket::new_checked(packet.payload()).unwrap().window_len(), 65_535);
    let sizes: Vec<_> = peer.seen(&mut host).iter().map(|segment| segment.payload.len()).collect();
    assert_eq!(sizes, [536, 536, 536, 392]);
}

#[test]
fn timestamps_of_the_syn_ack_are_echoed_and_leave_less_room() {
    let mut host = StaticHost::with(config());
    let (mut peer, conn) = Peer::with_syn(&mut host);
    peer.timestamp = Some((77, 0));
    host.stack.send(conn, pattern(3_000)).unwrap();
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::IfDue);
    let frame = host.nic.frames[0].clone();
    // Behind two no-operations, kind and length: TSval, TSecr.
    assert_eq!(frame[62..66], 77u32.to_be_bytes());
    assert_eq!(peer.seen(&mut host)[0].payload.len(), 1_448);
}

#[test]
fn text_of_a_syn_ack_is_delivered_and_acknowledged() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    let events = host.input(&peer.frame(TcpControl::Syn, 0, Some(1), b"hello")).events();
    assert!(events.opened);
    assert_eq!(events.data, b"hello");
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(peer.seen_one(&mut host), seen("A", 1, 6, &[]));
}

#[test]
fn text_of_a_syn_without_acknowledgment_is_delivered_once_the_handshake_is_over() {
    let mut host = StaticHost::with(config());
    let (peer, _) = Peer::with_syn(&mut host);
    let reply = host.input(&peer.frame(TcpControl::Syn, 0, None, b"early")).reply();
    assert_eq!(peer.see(&reply), seen("SA", 0, 1, &[]), "not taken yet");
    let events = host.input(&peer.frame(TcpControl::Psh, 1, Some(1), b"early")).events();
    assert!(events.opened);
    assert_eq!(events.data, b"early");
}

#[test]
fn simultaneous_open_ends_with_a_plain_acknowledgment_too() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.stack.send(conn, b"x").unwrap();
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    // SYN-RECEIVED: the FIN follows when the handshake is over.
    host.stack.close(conn).unwrap();
    assert!(host.input(&peer.frame(TcpControl::None, 1, Some(1), &[])).events().opened);
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(peer.seen_one(&mut host), seen("FPA", 1, 1, b"x"));
    assert_eq!(host.stack.established(), 0);
}

#[test]
fn simultaneous_open_repeats_its_syn_ack_and_the_application_learns_of_its_end() {
    let mut host = StaticHost::with(Config { syn_retries: 3, ..config() });
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    host.wait_ms(1_010);
    assert_eq!(peer.seen_one(&mut host), seen("SA", 0, 1, &[]));
    // The peer's SYN again: so is the answer.
    let again = host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    assert_eq!(peer.see(&again), seen("SA", 0, 1, &[]));
    host.wait_secs(30);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    assert_eq!((host.stack.connections(), host.stack.opening(), host.stack.half_open()), (0, 0, 0));
}

#[test]
fn abort_after_the_peers_syn_sends_a_reset() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    let reset = host.stack.abort(conn).unwrap();
    let reset = peer.see(reset.head());
    assert_eq!((reset.flags.as_str(), reset.seq), ("RA", 1));
    assert_eq!((host.stack.opening(), host.stack.counters().opening_failed), (0, 1));
}

#[test]
fn syn_ack_again_after_the_handshake_is_answered_by_an_acknowledgment() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.syn_ack()).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(peer.seen_one(&mut host), seen("A", 1, 1, &[]));
    // Our acknowledgment was lost.
    let again = host.input(&peer.syn_ack()).reply();
    assert_eq!(peer.see(&again), seen("A", 1, 1, &[]));
}
