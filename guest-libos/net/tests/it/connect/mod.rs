//! Active open: SEGMENT ARRIVES in SYN-SENT by RFC 9293 3.10.7.3, the SYN and its repetition, the next hop's address.

mod negotiation;
mod neighbours;

use std::net::{Ipv4Addr, SocketAddrV4};

use exos_net::{AckPolicy, Config, ConnId, ConnectError, Duration, End, MacAddress, SendError};
use smoltcp::wire::{IpAddress, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Host, SERVER_IP, SERVER_MAC, config, frame_of, pattern};
use crate::link::{arp_reply, arp_request};

type StaticHost = Host<&'static [u8]>;

/// The server that we connect to, made of scripted segments. Numbers are relative: the first byte is 1 both ways.
pub(crate) struct Peer {
    port: u16,
    isn: u32,
    our_isn: u32,
    our_port: u16,
    mss: Option<u16>,
    window_scale: Option<u8>,
    /// TSval and TSecr.
    timestamp: Option<(u32, u32)>,
    window: u16,
}

const REMOTE: SocketAddrV4 = SocketAddrV4::new(CLIENT_IP, 8_080);

/// A segment of ours as the peer sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    flags: String,
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
}

impl Peer {
    /// One that has seen nothing of us yet.
    fn to_port(our_port: u16) -> Self {
        Self {
            port: REMOTE.port(),
            isn: 0xffff_ff00,
            our_isn: 0,
            our_port,
            mss: Some(1_460),
            window_scale: None,
            timestamp: None,
            window: 65_535,
        }
    }

    /// Connects, answers ARP, and reads the SYN.
    fn with_syn(host: &mut StaticHost) -> (Self, ConnId) {
        let (peer, _, conn) = Self::with_syn_frame(host);
        (peer, conn)
    }

    /// The same, with the SYN.
    fn with_syn_frame(host: &mut StaticHost) -> (Self, Vec<u8>, ConnId) {
        let conn = host.stack.connect(host.now, REMOTE).unwrap();
        host.output(conn, AckPolicy::IfDue);
        assert_eq!(host.nic.frames.pop_front(), Some(arp_request(SERVER_IP, SERVER_MAC, CLIENT_IP)));
        host.input(&arp_reply(CLIENT_IP, CLIENT_MAC)).assert_nothing();
        host.stack.retry_blocked(host.now, &mut host.nic);
        let frame = host.nic.frames.pop_front().expect("a SYN");
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let tcp = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(tcp.syn() && !tcp.ack());
        let our_isn = tcp.seq_number().0 as u32;
        (Self { our_isn, ..Self::to_port(tcp.src_port()) }, frame, conn)
    }

    fn frame(&self, control: TcpControl, seq: u32, ack: Option<u32>, payload: &[u8]) -> Vec<u8> {
        let syn = control == TcpControl::Syn;
        let tcp = TcpRepr {
            src_port: self.port,
            dst_port: self.our_port,
            control,
            seq_number: TcpSeqNumber(self.isn.wrapping_add(seq) as i32),
            ack_number: ack.map(|ack| TcpSeqNumber(self.our_isn.wrapping_add(ack) as i32)),
            window_len: self.window,
            window_scale: self.window_scale.filter(|_| syn),
            max_seg_size: self.mss.filter(|_| syn),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: self.timestamp.map(|(value, echo)| TcpTimestampRepr::new(value, echo)),
            payload,
        };
        frame_of(CLIENT_MAC, CLIENT_IP, &tcp)
    }

    fn syn_ack(&self) -> Vec<u8> {
        self.frame(TcpControl::Syn, 0, Some(1), &[])
    }

    fn see(&self, frame: &[u8]) -> Seen {
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&IpAddress::from(SERVER_IP), &IpAddress::from(CLIENT_IP)));
        assert_eq!((tcp.src_port(), tcp.dst_port()), (self.our_port, self.port));
        let letters =
            [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), 'A')];
        Seen {
            flags: letters.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect(),
            seq: (tcp.seq_number().0 as u32).wrapping_sub(self.our_isn),
            ack: (tcp.ack_number().0 as u32).wrapping_sub(self.isn),
            payload: tcp.payload().to_vec(),
        }
    }

    fn seen(&self, host: &mut StaticHost) -> Vec<Seen> {
        host.nic.frames.drain(..).map(|frame| self.see(&frame)).collect()
    }

    fn seen_one(&self, host: &mut StaticHost) -> Seen {
        let mut seen = self.seen(host);
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

fn seen(flags: &str, seq: u32, ack: u32, payload: &[u8]) -> Seen {
    Seen { flags: flags.into(), seq, ack, payload: payload.to_vec() }
}

#[test]
fn syn_ack_opens_and_its_acknowledgment_carries_what_was_queued() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    assert_eq!((host.stack.opening(), host.stack.half_open()), (1, 0));
    host.stack.send(conn, b"GET").unwrap();
    let events = host.input(&peer.syn_ack()).events();
    assert!(events.opened && events.output_due);
    assert_eq!((host.stack.opening(), host.stack.established()), (0, 1));
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(peer.seen_one(&mut host), seen("PA", 1, 1, b"GET"));
}

#[test]
fn closed_before_its_syn_is_answered_ends_and_what_was_queued_does_not_leave() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.stack.send(conn, b"all").unwrap();
    host.stack.close(conn).unwrap();
    host.stack.close(conn).unwrap();
    assert_eq!(host.stack.send(conn, b"more"), Err(SendError::Closing));
    // Before its end is told, it is none any more.
    let reset = peer.see(&host.input(&peer.syn_ack()).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 1));
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).assert_nothing();
    host.input(&peer.frame(TcpControl::Rst, 0, Some(1), &[])).assert_nothing();
    assert!(host.stack.next_deadline().is_some_and(|at| at <= host.now + Duration::from_millis(1)));
    host.wait_ms(1);
    assert_eq!(host.ended, [(conn, End::Cancelled)]);
    assert_eq!(
        (host.stack.connections(), host.stack.opening(), host.stack.counters().opening_failed),
        (0, 0, 1)
    );
    assert!(host.nic.frames.is_empty());
}

#[test]
fn closed_before_its_syn_has_left_sends_none() {
    let mut host = StaticHost::with(config());
    let conn = host.stack.connect(host.now, (CLIENT_IP, 80)).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.wait_ms(1);
    assert_eq!(host.ended, [(conn, End::Cancelled)]);
    assert!(host.nic.frames.is_empty());
}

#[test]
fn acknowledgment_of_what_was_not_sent_is_answered_by_a_reset_and_changes_nothing() {
    let mut host = StaticHost::with(config());
    let (peer, _) = Peer::with_syn(&mut host);
    for ack in [0, 2, 0x8000_0000] {
        let reply = host.input(&peer.frame(TcpControl::Syn, 0, Some(ack), &[])).reply();
        let reset = peer.see(&reply);
        assert_eq!((reset.flags.as_str(), reset.seq), ("R", ack));
        host.input(&peer.frame(TcpControl::Rst, 0, Some(ack), &[])).assert_nothing();
    }
    assert!(host.input(&peer.syn_ack()).events().opened);
}

#[test]
fn reset_refuses_only_with_an_acknowledgment_of_our_syn() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::Rst, 0, None, &[])).assert_nothing();
    assert!(host.stack.is_alive(conn));
    let events = host.input(&peer.frame(TcpControl::Rst, 0, Some(1), &[])).events();
    assert_eq!(events.ended, Some(End::Refused));
    assert_eq!((host.stack.connections(), host.stack.opening(), host.stack.counters().refused), (0, 0, 1));
}

#[test]
fn simultaneous_open_opens_once() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.stack.send(conn, b"x").unwrap();
    let syn_ack = host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    assert_eq!(peer.see(&syn_ack), seen("SA", 0, 1, &[]));
    host.output(conn, AckPolicy::Now);
    assert!(peer.seen(&mut host).is_empty(), "nothing before the handshake is over");
    // The peer does the same: its SYN-ACK acknowledges our SYN.
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(peer.seen_one(&mut host), seen("PA", 1, 1, b"x"));
    assert_eq!((host.stack.opening(), host.stack.half_open(), host.stack.established()), (0, 0, 1));
}

#[test]
fn reset_in_syn_received_of_ours_refuses() {
    let mut host = StaticHost::with(config());
    let (peer, _) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::Syn, 0, None, &[])).reply();
    let events = host.input(&peer.frame(TcpControl::Rst, 1, None, &[])).events();
    assert_eq!(events.ended, Some(End::Refused));
    assert_eq!((host.stack.opening(), host.stack.half_open()), (0, 0));
}

#[test]
fn segment_without_syn_is_dropped() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.input(&peer.frame(TcpControl::None, 1, Some(1), b"data")).assert_nothing();
    host.input(&peer.frame(TcpControl::Fin, 1, Some(1), &[])).assert_nothing();
    assert!(host.stack.is_alive(conn));
}

#[test]
fn window_of_a_syn_ack_is_not_scaled_and_later_ones_are() {
    let mut host = StaticHost::with(config());
    let (mut peer, conn) = Peer::with_syn(&mut host);
    (peer.window_scale, peer.window) = (Some(7), 1_000);
    host.stack.send(conn, pattern(10_000)).unwrap();
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::IfDue);
    let sent: usize = peer.seen(&mut host).iter().map(|segment| segment.payload.len()).sum();
    assert_eq!(sent, 1_000);
    peer.window = 100;
    host.input(&peer.frame(TcpControl::None, 1, Some(1_001), &[])).events();
    host.output(conn, AckPolicy::IfDue);
    let sent: usize = peer.seen(&mut host).iter().map(|segment| segment.payload.len()).sum();
    assert_eq!(sent, 9_000);
}

#[test]
fn syn_is_repeated_for_three_minutes_and_then_times_out() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    let start = host.now;
    while host.ended.is_empty() {
        host.wait_secs(1);
    }
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    let waited_secs = host.now.since(start).as_nanos() / 1_000_000_000;
    assert!((180..260).contains(&waited_secs), "{waited_secs}");
    let (mut syns, mut asks) = (0, 0);
    for frame in host.nic.frames.drain(..) {
        if frame[12..14] == [8, 6] {
            asks += 1;
        } else {
            assert_eq!(peer.see(&frame).flags, "S");
            syns += 1;
        }
    }
    assert_eq!(syns, 7);
    assert!(asks > 0, "whether the next hop is still there is asked");
}

#[test]
fn after_a_lost_syn_one_segment_leaves_and_the_timeout_is_three_seconds() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    host.stack.send(conn, pattern(20_000)).unwrap();
    host.wait_ms(1_010);
    assert_eq!(peer.seen_one(&mut host).flags, "S");
    assert!(host.input(&peer.syn_ack()).events().opened);
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(peer.seen_one(&mut host).payload.len(), 1_460);
    host.wait_ms(2_900);
    assert!(peer.seen(&mut host).is_empty());
    host.wait_ms(200);
    assert_eq!(peer.seen_one(&mut host).seq, 1);
}

#[test]
fn neighbour_that_does_not_answer_is_asked_three_times_and_unreachable() {
    let mut host = StaticHost::with(config());
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    let other = host.stack.connect(host.now, SocketAddrV4::new(CLIENT_IP, 81)).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.output(other, AckPolicy::IfDue);
    host.wait_ms(999);
    assert_eq!(host.nic.frames.len(), 1, "both want the same neighbour");
    host.wait_secs(5);
    assert_eq!(host.nic.frames.len(), 3);
    let mut ended = host.ended.clone();
    ended.sort_by_key(|(conn, _)| conn.index());
    assert_eq!(ended, [(conn, End::Unreachable), (other, End::Unreachable)]);
    assert_eq!((host.stack.opening(), host.stack.counters().unreachable), (0, 2));
}

#[test]
fn answer_of_another_neighbour_or_of_nobody_we_asked_sends_nothing() {
    let mut host = StaticHost::with(config());
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    host.input(&arp_reply([10, 0, 0, 9].into(), MacAddress([2, 0, 0, 0, 0, 9]))).assert_nothing();
    host.stack.retry_blocked(host.now, &mut host.nic);
    assert!(host.nic.frames.is_empty());
}

#[test]
fn beyond_the_link_the_gateway_is_asked() {
    let gateway = Ipv4Addr::new(10, 0, 0, 254);
    let mut host = StaticHost::with(Config { gateway: Some(gateway), ..config() });
    let conn = host.stack.connect(host.now, "192.0.2.1:80".parse::<std::net::SocketAddr>().unwrap()).unwrap();
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(host.nic.frames.pop_front(), Some(arp_request(SERVER_IP, SERVER_MAC, gateway)));
}

#[test]
fn neighbour_that_somebody_tells_is_not_asked() {
    let mut host = StaticHost::with(config());
    host.stack.set_neighbour(CLIENT_IP, CLIENT_MAC);
    let conn = host.stack.connect(host.now, REMOTE).unwrap();
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(host.nic.frames.len(), 1);
    assert_eq!(host.nic.frames[0][..6], CLIENT_MAC.0);
    assert_eq!(host.nic.frames[0][12..14], [8, 0]);
}

#[test]
fn connect_to_what_is_no_peer_returns_why() {
    let connect = |config: Config, to: &str| {
        let mut host = StaticHost::with(config);
        host.stack.connect(host.now, to.parse::<std::net::SocketAddr>().unwrap()).unwrap_err()
    };
    for (to, why) in [
        ("10.0.0.2:0", ConnectError::PortZero),
        ("10.0.0.1:80", ConnectError::NotAHost),
        ("10.0.0.255:80", ConnectError::NotAHost),
        ("10.0.0.0:80", ConnectError::NotAHost),
        ("255.255.255.255:80", ConnectError::NotAHost),
        ("224.0.0.1:80", ConnectError::NotAHost),
        ("0.0.0.0:80", ConnectError::NotAHost),
        ("192.0.2.1:80", ConnectError::NoRoute),
    ] {
        assert_eq!(connect(config(), to), why, "{to}");
    }
    let mut host = StaticHost::with(Config { max_connections: 1, ..config() });
    host.stack.connect(host.now, REMOTE).unwrap();
    assert_eq!(host.stack.connect(host.now, REMOTE).unwrap_err(), ConnectError::ConnectionsFull);
    let mut host = StaticHost::with(Config { ephemeral_ports: 50_000..=50_001, ..config() });
    let ports = [0, 1].map(|_| {
        let conn = host.stack.connect(host.now, REMOTE).unwrap();
        host.stack.local_port(conn).unwrap()
    });
    assert_ne!(ports[0], ports[1]);
    assert_eq!(host.stack.connect(host.now, REMOTE).unwrap_err(), ConnectError::PortsInUse);
    assert!(host.stack.connect(host.now, SocketAddrV4::new(CLIENT_IP, 81)).is_ok(), "another destination");
}

#[test]
fn aborted_attempt_leaves_nothing_and_sends_nothing() {
    let mut host = StaticHost::with(config());
    let (peer, conn) = Peer::with_syn(&mut host);
    assert!(host.stack.abort(conn).is_none());
    assert_eq!((host.stack.connections(), host.stack.opening()), (0, 0));
    // Who answers later is told.
    let reset = peer.see(&host.input(&peer.syn_ack()).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 1));
}

#[test]
fn peer_that_knows_another_connection_is_reset_and_gets_the_next_syn_at_once() {
    let mut host = StaticHost::with(config());
    let (peer, _) = Peer::with_syn(&mut host);
    // What a host in TIME-WAIT answers (RFC 9293 3.10.7.4).
    let reset = peer.see(&host.input(&peer.frame(TcpControl::None, 0, Some(0x1234_5678), &[])).reply());
    assert_eq!((reset.flags.as_str(), reset.seq), ("R", 0x1234_5678));
    host.wait_ms(3);
    assert_eq!(peer.seen_one(&mut host).flags, "S");
    // Once: who forges such segments gets no stream of SYNs.
    let _ = host.input(&peer.frame(TcpControl::None, 0, Some(0x1234_5678), &[])).reply();
    host.wait_ms(900);
    assert_eq!(peer.seen(&mut host), []);
}
