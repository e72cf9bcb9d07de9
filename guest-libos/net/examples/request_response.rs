//! How long the stack takes from a request's segment to the response's: prints nanoseconds for keep-alive requests on 1,
//! 64, 1,000 and 10,000 connections, with and without checksum offload, and for a connection per request. The driver
//! copies headers, as a real one does, and nothing else. Run it with
//! `cargo run --release -p exos-net --example request_response`.
//!
//! With `-- CONNECTIONS REQUESTS` it does one of them so many times, 0 for a connection per request: the difference between
//! two runs under `valgrind --tool=callgrind` is what a request costs in instructions, which a busy machine does not change.

use std::hint::black_box;
use std::time::Instant as Clock;

use exos_net::{
    AckPolicy, Config, ConnId, ControlFrame, Full, Input, Instant, MacAddress, RxChecksum, RxMeta, Stack,
    TimerEvent, Transmit, TxChecksum, TxSegment,
};

const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const REQUEST: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: 10.0.0.1\r\nUser-Agent: none\r\nAccept: */*\r\n\r\n";
const HEADER: &[u8] = &[b'h'; 180];
const BODY: &[u8] = &[b'b'; 64];
const RESPONSE_LEN: u32 = (HEADER.len() + BODY.len()) as u32;

/// A descriptor ring of sorts: headers go to slots, payload is noted by address and length.
struct Ring {
    slots: Vec<[u8; 128]>,
    at: usize,
    payload: usize,
    last: [u8; 54],
}

impl Transmit<&'static [u8]> for Ring {
    fn transmit(&mut self, segment: TxSegment<'_, &'static [u8]>) -> Result<(), Full> {
        self.at = (self.at + 1) % self.slots.len();
        self.slots[self.at][..segment.header.len()].copy_from_slice(segment.header);
        for piece in segment.payload {
            self.payload += black_box(piece.bytes()).as_ptr() as usize & 1;
        }
        Ok(())
    }

    fn transmit_control(&mut self, frame: &ControlFrame<'_>) -> Result<(), Full> {
        self.last.copy_from_slice(&frame.head()[..54]);
        Ok(())
    }
}

/// A client that owns one frame and patches its numbers. Checksums are the device's business here.
struct Client {
    frame: Vec<u8>,
    seq: u32,
    ack: u32,
}

impl Client {
    fn new(number: u32) -> Self {
        let mut frame = vec![0; 54];
        frame[..6].copy_from_slice(&SERVER.0);
        frame[6..12].copy_from_slice(&CLIENT.0);
        frame[12] = 8;
        frame[14] = 0x45;
        frame[22] = 64;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&[10, 1, (number >> 8) as u8, number as u8]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 1]);
        frame[34..36].copy_from_slice(&40_000u16.to_be_bytes());
        frame[37] = 80;
        frame[46] = 0x50;
        frame[48..50].copy_from_slice(&[0xff, 0xff]);
        Self { frame, seq: 0x1234_5678u32.wrapping_mul(number), ack: 0 }
    }

    fn set(&mut self, flags: u8, payload: &[u8]) {
        self.frame.truncate(54);
        self.frame.extend_from_slice(payload);
        let total_len = (self.frame.len() - 14) as u16;
        self.frame[16..18].copy_from_slice(&total_len.to_be_bytes());
        self.frame[47] = flags;
        self.patch();
    }

    fn patch(&mut self) {
        self.frame[38..42].copy_from_slice(&self.seq.to_be_bytes());
        self.frame[42..46].copy_from_slice(&self.ack.to_be_bytes());
    }

    fn connect(&mut self, stack: &mut Stack<&'static [u8]>, ring: &mut Ring, now: Instant) -> ConnId {
        self.set(0x02, &[]);
        let Input::Reply(reply) = stack.input(now, &self.frame, META) else { panic!("no SYN-ACK") };
        let _ = ring.transmit_control(&reply);
        self.ack =
            u32::from_be_bytes([ring.last[38], ring.last[39], ring.last[40], ring.last[41]]).wrapping_add(1);
        self.seq = self.seq.wrapping_add(1);
        self.set(0x10, &[]);
        let Input::Segment(events) = stack.input(now, &self.frame, META) else { panic!("not opened") };
        events.conn
    }
}

const META: RxMeta = RxMeta { checksum: RxChecksum::AllValid };

fn stack(tx_checksum: TxChecksum) -> Stack<&'static [u8]> {
    let mut config = Config::new(SERVER, [10, 0, 0, 1].into(), 8, *b"0123456789abcdef");
    config.tx_checksum = tx_checksum;
    config.max_connections = 20_000;
    config.max_half_open = 20_000;
    let mut stack = Stack::new(config, Instant::ZERO).unwrap();
    stack.listen(80).unwrap();
    stack
}

fn ring() -> Ring {
    Ring { slots: vec![[0; 128]; 256], at: 0, payload: 0, last: [0; 54] }
}

fn answer(stack: &mut Stack<&'static [u8]>, ring: &mut Ring, frame: &[u8], now: Instant) {
    let Input::Segment(events) = stack.input(now, frame, META) else { panic!("not a segment") };
    black_box(events.data);
    stack.send(events.conn, HEADER).unwrap();
    stack.send(events.conn, BODY).unwrap();
    stack.output(events.conn, now, ring, AckPolicy::Merge).unwrap();
}

fn keep_alive(connections: u32, requests: u32, tx_checksum: TxChecksum) {
    let (mut stack, mut ring) = (stack(tx_checksum), ring());
    let mut clients: Vec<_> = (1..=connections).map(Client::new).collect();
    for client in &mut clients {
        client.connect(&mut stack, &mut ring, Instant::ZERO);
        client.set(0x18, REQUEST);
    }
    let (mut best, mut total) = (f64::MAX, 0.0);
    let rounds = requests / connections;
    let mut now = Instant::ZERO;
    for _ in 0..5 {
        let start = Clock::now();
        for _ in 0..rounds {
            for client in &mut clients {
                client.patch();
                answer(&mut stack, &mut ring, &client.frame, now);
                client.seq = client.seq.wrapping_add(REQUEST.len() as u32);
                client.ack = client.ack.wrapping_add(RESPONSE_LEN);
                now += exos_net::Duration::from_nanos(1_000);
            }
            stack.expire(now, &mut ring, |_, event: TimerEvent| panic!("{event:?}"));
        }
        let ns = start.elapsed().as_nanos() as f64 / f64::from(rounds * connections);
        best = best.min(ns);
        total += ns;
    }
    assert_eq!((stack.counters().retransmits, stack.counters().pure_acks_out), (0, 0));
    println!(
        "keep-alive, {connections:>6} connections, {tx_checksum:?} checksums: {best:.0} ns a request (mean {:.0})",
        total / 5.0
    );
}

fn connection_per_request(requests: u32) {
    let (mut stack, mut ring) = (stack(TxChecksum::Offload), ring());
    let start = Clock::now();
    let mut now = Instant::ZERO;
    for number in 0..requests {
        let mut client = Client::new(number & 0xffff);
        client.seq = number << 12;
        let conn = client.connect(&mut stack, &mut ring, now);
        client.set(0x18, REQUEST);
        let Input::Segment(_) = stack.input(now, &client.frame, META) else { panic!("not a segment") };
        stack.send(conn, HEADER).unwrap();
        stack.send(conn, BODY).unwrap();
        stack.close(conn).unwrap();
        stack.output(conn, now, &mut ring, AckPolicy::Merge).unwrap();
        client.seq = client.seq.wrapping_add(REQUEST.len() as u32);
        client.ack = client.ack.wrapping_add(RESPONSE_LEN + 1);
        client.set(0x11, &[]);
        let Input::Segment(events) = stack.input(now, &client.frame, META) else { panic!("not a segment") };
        assert!(events.ended.is_some());
        now += exos_net::Duration::from_nanos(5_000);
        stack.expire(now, &mut ring, |_, event| panic!("{event:?}"));
    }
    let ns = start.elapsed().as_nanos() as f64 / f64::from(requests);
    println!(
        "connection per request: {ns:.0} ns a connection (4 segments in, 3 out, client's work included)"
    );
}

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).map(|number| number.parse().unwrap()).collect();
    match numbers[..] {
        [0, requests] => return connection_per_request(requests),
        [connections, requests] => return keep_alive(connections, requests, TxChecksum::Offload),
        _ => {}
    }
    for connections in [1, 64, 1_000, 10_000] {
        keep_alive(connections, 1_000_000, TxChecksum::Offload);
    }
    keep_alive(64, 1_000_000, TxChecksum::Software);
    connection_per_request(500_000);
}
