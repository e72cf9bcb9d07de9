//! Anything may arrive. Random bytes, random segments that are close to valid, random calls: no panic, bounds kept, and
//! an honest connection beside it still works.

use std::net::SocketAddrV4;

use exos_net::{AckPolicy, Coalesce, Config, ConnId, KeepAlive, MacAddress, RxChecksum, RxMeta};
use proptest::collection::vec;
use proptest::prelude::*;
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use crate::harness::{CLIENT_IP, CLIENT_MAC, Client, Host, Outcome, SERVER_MAC, config, frame_of};
use crate::link::arp_reply;

type StaticHost = Host<&'static [u8]>;

fn small() -> Config {
    Config { max_connections: 8, max_half_open: 4, max_buffered_bytes: 300_000, max_time_wait: 4, ..config() }
}

#[derive(Clone, Debug)]
enum Step {
    Segment { client: usize, control: u8, seq: i32, ack: Option<i32>, len: usize, window: u16 },
    Send(usize),
    Close(usize),
    Abort(usize),
    Consume(usize, usize),
    Keep(usize),
    Urgent { client: usize, seq: i32, pointer: u16 },
    SendUrgent(usize),
    Choose(usize, u8),
    Output(usize),
    Room(Option<usize>),
    Wait(u64),
}

fn near() -> impl Strategy<Value = i32> {
    prop_oneof![4 => -3i32..8, 2 => -2_000i32..70_000, 1 => any::<i32>()]
}

fn step() -> impl Strategy<Value = Step> {
    let segment =
        (0usize..4, 0u8..5, near(), proptest::option::weighted(0.9, near()), 0usize..2_000, any::<u16>());
    prop_oneof![
        12 => segment.prop_map(|(client, control, seq, ack, len, window)| Step::Segment {
            client, control, seq, ack, len, window
        }),
        2 => (0usize..4).prop_map(Step::Send),
        1 => (0usize..4).prop_map(Step::Close),
        1 => (0usize..4).prop_map(Step::Abort),
        2 => (0usize..4, 0usize..3_000).prop_map(|(client, len)| Step::Consume(client, len)),
        2 => (0usize..4).prop_map(Step::Keep),
        2 => (0usize..4, near(), any::<u16>())
            .prop_map(|(client, seq, pointer)| Step::Urgent { client, seq, pointer }),
        1 => (0usize..4).prop_map(Step::SendUrgent),
        2 => (0usize..4, 0u8..6).prop_map(|(client, choice)| Step::Choose(client, choice)),
        4 => (0usize..4).prop_map(Step::Output),
        1 => proptest::option::of(0usize..3).prop_map(Step::Room),
        2 => (0u64..3_000).prop_map(Step::Wait),
    ]
}

/// Connections as an application knows them: opened once, ended once.
#[derive(Default)]
struct Known([Option<ConnId>; 4]);

impl Known {
    fn handle(&mut self, client: usize, outcome: &Outcome) {
        let Outcome::Events(events) = outcome else { return };
        if events.opened {
            assert!(self.0[client].is_none(), "opened twice");
            self.0[client] = Some(events.conn);
        }
        assert_eq!(self.0[client], Some(events.conn), "events of an unknown connection");
        if events.ended.is_some() {
            self.0[client] = None;
        }
    }

    fn forget(&mut self, conn: ConnId) {
        let known = self.0.iter_mut().find(|known| **known == Some(conn)).expect("ended twice");
        *known = None;
    }
}

/// Choices of an application for a connection.
fn choose(host: &mut StaticHost, conn: ConnId, choice: u8) {
    let (short, probes) = (exos_net::Duration::from_millis(50), 2);
    let keep_alive = KeepAlive { idle: short, interval: short, probes };
    match choice {
        0 => host.stack.set_keep_alive(conn, Some(keep_alive)).unwrap(),
        1 => host.stack.set_keep_alive(conn, None).unwrap(),
        2 => host.stack.set_coalesce(conn, Coalesce::Nagle).unwrap(),
        3 => host.stack.set_coalesce(conn, Coalesce::Cork).unwrap(),
        4 => host.stack.set_coalesce(conn, Coalesce::NoDelay).unwrap(),
        _ => host.stack.set_user_timeout(conn, Some(short)).unwrap(),
    }
    assert!(host.stack.urgent_bytes(conn) <= 1 << 18, "more urgent data than a window and a pointer can say");
}

/// What happens to connections that we open.
#[derive(Clone, Debug)]
enum AttemptStep {
    Connect,
    Arp(u8),
    Segment { port: u16, control: u8, seq: i32, ack: Option<i32>, isn_known: bool },
    Close(usize),
    Abort(usize),
    Output(usize),
    Wait(u64),
}

fn attempt_step() -> impl Strategy<Value = AttemptStep> {
    let ack = proptest::option::weighted(0.7, prop_oneof![4 => 0i32..3, 1 => near()]);
    let control = prop_oneof![1 => Just(2u8), 1 => 0u8..5];
    let segment = (50_000u16..50_004, control, prop_oneof![3 => 0i32..3, 1 => near()], ack, any::<bool>());
    prop_oneof![
        3 => Just(AttemptStep::Connect),
        2 => (0u8..4).prop_map(AttemptStep::Arp),
        12 => segment.prop_map(|(port, control, seq, ack, isn_known)| AttemptStep::Segment {
            port, control, seq, ack, isn_known
        }),
        1 => (0usize..4).prop_map(AttemptStep::Close),
        1 => (0usize..4).prop_map(AttemptStep::Abort),
        4 => (0usize..4).prop_map(AttemptStep::Output),
        3 => (0u64..3_000).prop_map(AttemptStep::Wait),
    ]
}

fn control(number: u8) -> TcpControl {
    [TcpControl::None, TcpControl::Psh, TcpControl::Syn, TcpControl::Fin, TcpControl::Rst]
        [usize::from(number)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_do_not_panic(frames in vec(vec(any::<u8>(), 0..200), 0..50)) {
        let mut host = StaticHost::with(small());
        for mut frame in frames {
            host.input(&frame);
            if frame.len() >= 40 {
                // Further in: our address, IPv4, TCP or ICMP or ARP.
                frame[..6].copy_from_slice(&SERVER_MAC.0);
                frame[6] &= 0xfe;
                frame[12] = 8;
                frame[13] = [0, 6][usize::from(frame[13] & 1)];
                frame[14] = 0x45;
                let total_len = (frame.len() - 14) as u16;
                frame[16..18].copy_from_slice(&total_len.to_be_bytes());
                frame[20..22].fill(0);
                frame[23] = [1, 6][usize::from(frame[23] & 1)];
                frame[26] = 10;
                frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
                let _ = host.stack.input(host.now, &frame, RxMeta { checksum: RxChecksum::AllValid });
            }
        }
        host.wait_ms(100);
    }

    #[test]
    fn bit_flips_in_valid_frames_do_not_panic(flips in vec((0usize..4, any::<prop::sample::Index>(), 0u8..8), 0..200)) {
        let mut host = StaticHost::with(small());
        let mut client = Client::default();
        client.connect(&mut host);
        let frames = [client.syn(), client.ack(1, 1), client.data(1, 1, b"some data"), client.fin(1, 1)];
        for (which, at, bit) in flips {
            let mut frame = frames[which].clone();
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            let _ = host.stack.input(host.now, &frame, RxMeta { checksum: RxChecksum::AllValid });
        }
        host.wait_ms(100);
    }

    #[test]
    fn random_segments_and_calls_keep_the_books(steps in vec(step(), 0..150)) {
        let mut host = StaticHost::with(small());
        let mut clients: Vec<_> = (0..4).map(|i| Client { isn: 1_000, ..Client::on_port(10 + i) }).collect();
        let mut known = Known::default();
        for client in &mut clients {
            client.handshake_begin(&mut host);
        }
        for (number, client) in clients.iter().take(2).enumerate() {
            let outcome = host.input(&client.ack(1, 1));
            known.handle(number, &outcome);
        }
        let mut honest = Client::on_port(99);
        let honest_conn = honest.connect(&mut host);
        for step in steps {
            match step {
                Step::Segment { client, control: number, seq, ack, len, window } => {
                    clients[client].window = window;
                    let payload = vec![7; len];
                    let frame = clients[client].frame(control(number), seq as u32, ack.map(|ack| ack as u32), &payload);
                    let outcome = host.input(&frame);
                    known.handle(client, &outcome);
                }
                Step::Send(client) => {
                    if let Some(conn) = known.0[client] {
                        let _ = host.stack.send(conn, &[9; 4_000]);
                    }
                }
                Step::Close(client) => {
                    if let Some(conn) = known.0[client] {
                        host.stack.close(conn).unwrap();
                    }
                }
                Step::Abort(client) => {
                    if let Some(conn) = known.0[client].take() {
                        let _ = host.stack.abort(conn);
                    }
                }
                Step::Consume(client, len) => {
                    if let Some(conn) = known.0[client] {
                        host.stack.consume(conn, len).unwrap();
                    }
                }
                Step::Keep(client) => {
                    if let Some(conn) = known.0[client] {
                        let _ = host.stack.keep(conn, &[7; 10]);
                    }
                }
                Step::Urgent { client, seq, pointer } => {
                    let outcome = host.input(&clients[client].urgent(seq as u32, 1, b"!", pointer));
                    known.handle(client, &outcome);
                }
                Step::SendUrgent(client) => {
                    if let Some(conn) = known.0[client] {
                        let _ = host.stack.send_urgent(conn, &[9; 3_000]);
                    }
                }
                Step::Choose(client, choice) => {
                    if let Some(conn) = known.0[client] {
                        choose(&mut host, conn, choice);
                    }
                }
                Step::Output(client) => {
                    if let Some(conn) = known.0[client] {
                        host.output(conn, AckPolicy::IfDue);
                    }
                }
                Step::Room(room) => {
                    host.nic.room = room;
                    host.stack.retry_blocked(host.now, &mut host.nic);
                }
                Step::Wait(ms) => {
                    host.now += exos_net::Duration::from_millis(ms);
                    host.wait_ms(1);
                    for (conn, _) in std::mem::take(&mut host.ended) {
                        known.forget(conn);
                    }
                }
            }
            host.nic.frames.clear();
            prop_assert!(host.stack.connections() <= 8 && host.stack.half_open() <= 4 && host.stack.time_wait() <= 4);
            prop_assert!(host.stack.buffered_bytes() <= 300_000);
        }
        // The honest one was not touched.
        host.nic.room = None;
        let events = host.input(&honest.data(1, 1, b"GET")).events();
        prop_assert_eq!(events.data, b"GET");
        host.stack.send(honest_conn, b"OK").unwrap();
        host.nic.frames.clear();
        host.output(honest_conn, AckPolicy::Merge);
        prop_assert_eq!(honest.seen_one(&mut host).payload, b"OK");
        // And everything ends: with nobody answering, only idle connections are left.
        host.stack.abort(honest_conn);
        for conn in known.0.iter_mut().filter_map(Option::take) {
            let _ = host.stack.abort(conn);
        }
        host.wait_secs(400);
        prop_assert_eq!(host.stack.connections(), 0);
        prop_assert_eq!(host.stack.time_wait(), 0);
        prop_assert_eq!(host.stack.buffered_bytes(), 0);
        prop_assert_eq!(host.stack.next_deadline(), None);
    }

    #[test]
    fn random_segments_to_our_attempts_keep_the_books(steps in vec(attempt_step(), 0..150)) {
        let mut host = StaticHost::with(Config { ephemeral_ports: 50_000..=50_003, max_neighbours: 2, ..small() });
        let mut known: Vec<ConnId> = Vec::new();
        let mut isns = [0; 4];
        for step in steps {
            match step {
                AttemptStep::Connect => {
                    if let Ok(conn) = host.stack.connect(host.now, SocketAddrV4::new(CLIENT_IP, 8_080)) {
                        host.stack.send(conn, b"request").unwrap();
                        known.push(conn);
                    }
                }
                AttemptStep::Arp(last) => {
                    let _ = host.input(&arp_reply(CLIENT_IP, MacAddress([2, 0, 0, 0, 0, last])));
                }
                AttemptStep::Segment { port, control: number, seq, ack, isn_known } => {
                    // As somebody who sees our SYN, or who guesses.
                    let our_isn = if isn_known { isns[usize::from(port - 50_000)] } else { 0 };
                    let tcp = TcpRepr {
                        src_port: 8_080,
                        dst_port: port,
                        control: control(number),
                        seq_number: TcpSeqNumber(seq),
                        ack_number: ack.map(|ack| TcpSeqNumber((our_isn as i32).wrapping_add(ack))),
                        window_len: 1_000,
                        window_scale: None,
                        max_seg_size: None,
                        sack_permitted: false,
                        sack_ranges: [None; 3],
                        timestamp: None,
                        payload: b"text",
                    };
                    if let Outcome::Events(events) = host.input(&frame_of(CLIENT_MAC, CLIENT_IP, &tcp)) {
                        prop_assert!(known.contains(&events.conn), "events of an unknown connection");
                        if events.ended.is_some() {
                            known.retain(|&conn| conn != events.conn);
                        }
                    }
                }
                AttemptStep::Close(which) => {
                    if let Some(&conn) = known.get(which) {
                        host.stack.close(conn).unwrap();
                    }
                }
                AttemptStep::Abort(which) => {
                    if which < known.len() {
                        let _ = host.stack.abort(known.remove(which));
                    }
                }
                AttemptStep::Output(which) => {
                    if let Some(&conn) = known.get(which) {
                        host.output(conn, AckPolicy::IfDue);
                    }
                }
                AttemptStep::Wait(ms) => {
                    host.now += exos_net::Duration::from_millis(ms);
                    host.wait_ms(1);
                    for (ended, _) in std::mem::take(&mut host.ended) {
                        prop_assert!(known.contains(&ended), "ended twice");
                        known.retain(|&conn| conn != ended);
                    }
                    host.stack.retry_blocked(host.now, &mut host.nic);
                }
            }
            for frame in host.nic.frames.drain(..).filter(|frame| frame[12..14] == [8, 0] && frame[47] & 2 != 0) {
                let port = u16::from_be_bytes([frame[34], frame[35]]);
                isns[usize::from(port - 50_000)] = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            }
            prop_assert_eq!(host.stack.connections(), known.len());
            prop_assert!(host.stack.opening() + host.stack.established() <= known.len());
            prop_assert_eq!(host.stack.half_open(), 0);
        }
        for conn in known {
            let _ = host.stack.abort(conn);
        }
        host.wait_secs(100);
        prop_assert_eq!((host.stack.connections(), host.stack.opening(), host.stack.established()), (0, 0, 0));
        prop_assert_eq!((host.stack.time_wait(), host.stack.buffered_bytes(), host.stack.next_deadline()), (0, 0, None));
    }
}
