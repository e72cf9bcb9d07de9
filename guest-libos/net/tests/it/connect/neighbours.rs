//! Next hops of connections that we open: who is asked, who is believed, what a full driver, a flood of SYNs and ICMP errors
//! do to an attempt.

use std::net::{Ipv4Addr, SocketAddrV4};

use exos_net::{AckPolicy, Config, ConnectError, Duration, End, MacAddress, SynCookies};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
};

use super::{Peer, REMOTE, StaticHost, seen};
use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, SERVER_IP, SERVER_MAC, config};
use crate::link::{arp_reply, arp_request};

const OTHER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xfd]);

/// Whether connecting asks for the peer's address.
fn asks(host: &mut StaticHost) -> bool {
    host.nic.frames.clear();
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let frame = host.nic.frames.pop_front().expect("a frame");
    host.stack.abort(conn);
    frame == arp_request(SERVER_IP, SERVER_MAC, CLIENT_IP)
}

#[test]
fn answer_to_nobodys_question_is_not_believed() {
    let mut host = StaticHost::with(config());
    host.input(&arp_reply(CLIENT_IP, OTHER_MAC)).assert_nothing();
    host.input(&arp_request(CLIENT_IP, OTHER_MAC, SERVER_IP)).reply();
    assert!(asks(&mut host));
}

#[test]
fn neighbour_is_asked_again_after_a_minute_without_a_connection() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.now += Duration::from_secs(40);
    // Opening says that it is there.
    host.input(&peer.syn_ack()).events();
    host.stack.abort(conn);
    host.now += Duration::from_secs(59);
    assert!(!asks(&mut host));
    host.now += Duration::from_secs(2);
    assert!(asks(&mut host));
}

#[test]
fn connections_follow_a_neighbour_that_moves_but_not_at_once() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.syn_ack()).events();
    let target = |host: &mut StaticHost| {
        host.stack.send(conn, b"x").unwrap();
        host.output(conn, AckPolicy::Now);
        let frame = host.nic.frames.pop_back().unwrap();
        MacAddress(frame[..6].try_into().unwrap())
    };
    assert_eq!(target(&mut host), CLIENT_MAC);
    host.input(&arp_reply(CLIENT_IP, OTHER_MAC)).assert_nothing();
    assert_eq!(target(&mut host), CLIENT_MAC);
    host.now += Duration::from_secs(1);
    host.input(&arp_reply(CLIENT_IP, OTHER_MAC)).assert_nothing();
    assert_eq!(target(&mut host), OTHER_MAC);
}

#[test]
fn syn_and_request_wait_for_a_full_driver() {
    let mut host = StaticHost::with(config());
    host.nic.room = Some(0);
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    assert!(host.output(conn, AckPolicy::IfDue).blocked);
    host.nic.room = Some(1);
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(host.nic.frames.pop_front(), Some(arp_request(SERVER_IP, SERVER_MAC, CLIENT_IP)));
    host.input(&arp_reply(CLIENT_IP, CLIENT_MAC)).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert!(host.nic.frames.is_empty());
    host.nic.room = None;
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert_eq!(host.nic.frames.len(), 1);
    // Asking again sends nothing again.
    assert_eq!(host.output(conn, AckPolicy::Now).segments, 0);
}

#[test]
fn forgotten_output_is_made_up_by_the_timer() {
    let mut host = StaticHost::with(config());
    host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
    host.stack.connect(host.now, REMOTE).unwrap();
    host.wait_ms(1_010);
    assert_eq!(host.nic.frames.len(), 1);
}

#[test]
fn segments_before_our_syn_open_nothing() {
    let mut host = StaticHost::with(config());
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let port = host.stack.local_port(conn).unwrap();
    let peer = Peer::to_port(port);
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).assert_nothing();
    host.input(&peer.frame(TcpControl::Rst, 0, Some(1), &[])).assert_nothing();
    let reset = peer.see(&host.input(&peer.syn_ack()).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 1));
    assert!(host.stack.is_alive(conn));
}

#[test]
fn flood_of_syns_pushes_out_none_of_our_attempts() {
    let config = Config { max_half_open: 2, syn_cookies: SynCookies::Never, ..config() };
    let mut host = StaticHost::with(config);
    let (peer, _) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    for port in 1..20 {
        host.input(&Client::on_port(port).syn()).reply();
    }
    assert_eq!((host.stack.opening(), host.stack.half_open()), (1, 2));
    assert!(host.input(&peer.syn_ack()).events().opened);
    assert_eq!((host.stack.opening(), host.stack.half_open()), (0, 2));
}

#[test]
fn ports_that_wait_or_are_listened_on_are_passed_over() {
    let mut host = StaticHost::with(Config { ephemeral_ports: 50_000..=50_002, ..config() });
    host.stack.listen(50_001).unwrap();
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.syn_ack()).events();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Now);
    let ended = host.input(&peer.frame(TcpControl::Fin, 1, Some(2), &[])).events().ended;
    assert_eq!((ended, host.stack.time_wait()), (Some(End::Closed), 1));
    let second = host.stack.connect(host.now, REMOTE).unwrap();
    let ports = [peer.our_port, host.stack.local_port(second).unwrap()];
    assert!(ports.contains(&50_000) && ports.contains(&50_002), "{ports:?}");
    assert_eq!(host.stack.connect(host.now, REMOTE), Err(ConnectError::PortsInUse));
    host.now += Duration::from_secs(61);
    let third = host.stack.connect(host.now, REMOTE).unwrap();
    assert_eq!(host.stack.local_port(third), Some(peer.our_port));
}

#[test]
fn more_neighbours_than_there_are_places_are_reached_one_after_the_other() {
    let mut host = StaticHost::with(Config { max_neighbours: 4, ..config() });
    for last in 10..30 {
        let ip = Ipv4Addr::new(10, 0, 0, last);
        let conn = host.stack.connect(host.now, SocketAddrV4::new(ip, 80)).unwrap();
        host.output(conn, AckPolicy::IfDue);
        assert_eq!(host.nic.frames.pop_front(), Some(arp_request(SERVER_IP, SERVER_MAC, ip)));
        host.input(&arp_reply(ip, OTHER_MAC)).assert_nothing();
        host.stack.retry_blocked(host.now, &mut host.nic);
        assert_eq!(host.nic.frames.pop_front().unwrap()[12..14], [8, 0]);
    }
}

#[test]
fn attempt_that_waits_for_an_aged_neighbour_goes_on_when_it_is_told_or_shown() {
    for is_told in [true, false] {
        let mut host = StaticHost::with(config());
        let (peer, first) = Peer::with_syn(&mut host);
        host.now += Duration::from_secs(61);
        let second = host.stack.connect(host.now, REMOTE).unwrap();
        host.output(second, AckPolicy::IfDue);
        assert_eq!(host.nic.frames.pop_front(), Some(arp_request(SERVER_IP, SERVER_MAC, CLIENT_IP)));
        if is_told {
            host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
            host.stack.retry_blocked(host.now, &mut host.nic);
        } else {
            assert_eq!(host.input(&peer.syn_ack()).events().conn, first);
            host.stack.abort(first);
            host.wait_ms(1_010);
        }
        assert_eq!(host.nic.frames.len(), 1, "told: {is_told}");
        assert_eq!(host.nic.frames[0][..14], [&CLIENT_MAC.0[..], &SERVER_MAC.0, &[8, 0]].concat());
    }
}

/// An ICMP error about our SYN, quoted with sequence number `seq`.
fn unreachable(peer: &Peer, reason: Icmpv4DstUnreachable, seq: u32) -> Vec<u8> {
    let mut quoted = [0; 8];
    quoted[..2].copy_from_slice(&peer.our_port.to_be_bytes());
    quoted[2..4].copy_from_slice(&peer.port.to_be_bytes());
    quoted[4..].copy_from_slice(&peer.our_isn.wrapping_add(seq).to_be_bytes());
    let header = Ipv4Repr {
        src_addr: SERVER_IP,
        dst_addr: CLIENT_IP,
        next_header: IpProtocol::Tcp,
        payload_len: quoted.len(),
        hop_limit: 64,
    };
    let icmp = Icmpv4Repr::DstUnreachable { reason, header, data: &quoted };
    let ip = Ipv4Repr {
        src_addr: CLIENT_IP,
        dst_addr: SERVER_IP,
        next_header: IpProtocol::Icmp,
        payload_len: icmp.buffer_len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 34 + icmp.buffer_len()];
    frame[..6].copy_from_slice(&SERVER_MAC.0);
    frame[6..12].copy_from_slice(&CLIENT_MAC.0);
    frame[12] = 8;
    let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.emit(&mut packet, &Default::default());
    icmp.emit(&mut Icmpv4Packet::new_unchecked(packet.payload_mut()), &Default::default());
    frame
}

#[test]
fn hard_error_about_our_syn_ends_the_attempt() {
    let mut host = StaticHost::with(config());
    let (peer, _) = Peer::with_syn(&mut host);
    host.input(&unreachable(&peer, Icmpv4DstUnreachable::PortUnreachable, 1)).assert_nothing();
    let events = host.input(&unreachable(&peer, Icmpv4DstUnreachable::PortUnreachable, 0)).events();
    assert_eq!(events.ended, Some(End::Unreachable));
    assert_eq!((host.stack.opening(), host.stack.counters().unreachable), (0, 1));
}

#[test]
fn soft_error_about_our_syn_ends_nothing() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    let events = host.input(&unreachable(&peer, Icmpv4DstUnreachable::HostUnreachable, 0)).events();
    assert_eq!(events.ended, None);
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::Now);
    assert_eq!(peer.seen_one(&mut host), seen("A", 1, 1, &[]));
}
