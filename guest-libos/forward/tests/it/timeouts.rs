//! How long a connection is remembered, by what was seen of it, and who gives way when places run out.

use crate::common::*;
use exos_forward::{Config, Reason};

const TRANSITORY_S: u64 = 240;
const ESTABLISHED_S: u64 = 7440;

/// Whether a server's segment still finds its connection `after_s` seconds later.
fn lives(bench: &mut Bench, after_s: u64) -> bool {
    bench.now += seconds(after_s);
    bench.poll();
    bench.connections() != [0; 3]
}

#[test]
fn half_open_connection_is_forgotten_after_4_minutes() {
    let mut bench = Bench::new(&config());
    let port = bench.open(CLIENT_PORT);
    assert!(lives(&mut bench, TRANSITORY_S - 1));
    // What passes keeps it.
    bench.forwarded(&Frame::of_server(port, SYN | ACK).numbers(9000, 1001));
    assert!(lives(&mut bench, TRANSITORY_S - 1));
    assert!(!lives(&mut bench, 1));
    assert_eq!(bench.dropped(&Frame::of_server(port, SYN | ACK).bytes()), Reason::NoFlow);
    assert_eq!(bench.forwarder.counters().expired, 1);
}

#[test]
fn established_connection_is_forgotten_after_2_hours_and_4_minutes() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    assert_eq!(bench.connections(), [0, 1, 0]);
    assert!(lives(&mut bench, ESTABLISHED_S - 1));
    bench.forwarded(&Frame::of_server(port, ACK));
    assert!(lives(&mut bench, ESTABLISHED_S - 1));
    bench.forwarded(&Frame::of_client(ACK));
    assert!(lives(&mut bench, ESTABLISHED_S - 1));
    assert!(!lives(&mut bench, 1));
}

#[test]
fn handshake_ends_with_the_acknowledgment_of_what_the_server_said_and_no_other() {
    let mut bench = Bench::new(&config());
    let port = bench.open(CLIENT_PORT);
    bench.forwarded(&Frame::of_client(ACK).numbers(1001, 9001));
    assert_eq!(bench.connections(), [1, 0, 0], "the server said nothing");
    bench.forwarded(&Frame::of_server(port, SYN | ACK).numbers(9000, 1001));
    for guess in [0, 8999, 9000, 9001 + (1 << 16), 9001 + (1 << 31)] {
        bench.forwarded(&Frame::of_client(ACK).numbers(1001, guess));
        assert_eq!(bench.connections(), [1, 0, 0], "{guess}");
    }
    bench.forwarded(&Frame::of_client(ACK).numbers(1001, 9001));
    assert_eq!(bench.connections(), [0, 1, 0]);
    assert_eq!(bench.forwarder.counters().established, 1);
}

#[test]
fn one_fin_ends_nothing_and_one_each_way_does() {
    for first_is_client in [true, false] {
        let mut bench = Bench::new(&config());
        let port = bench.establish(CLIENT_PORT);
        let frames = [Frame::of_client(FIN | ACK), Frame::of_server(port, FIN | ACK)];
        let [first, second] = if first_is_client { [0, 1] } else { [1, 0] };
        bench.forwarded(&frames[first]);
        bench.forwarded(&frames[first]);
        assert_eq!(bench.connections(), [0, 1, 0]);
        assert!(lives(&mut bench, TRANSITORY_S * 3), "the other way may go on for hours");
        bench.forwarded(&frames[second]);
        assert_eq!(bench.connections(), [0, 0, 1]);
        assert!(lives(&mut bench, TRANSITORY_S - 1), "the last acknowledgment, and FINs that come again");
        bench.forwarded(&Frame::of_client(ACK));
        bench.forwarded(&Frame::of_server(port, ACK));
        assert_eq!(bench.connections(), [0, 0, 1]);
        assert!(!lives(&mut bench, TRANSITORY_S));
    }
}

#[test]
fn reset_ends_and_what_both_ends_ignore_does_not() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    bench.forwarded(&Frame::of_server(port, RST));
    assert_eq!(bench.connections(), [0, 0, 1]);
    // One end had sent data before it heard.
    bench.forwarded(&Frame::of_client(ACK));
    bench.forwarded(&Frame::of_client(ACK));
    assert_eq!(bench.connections(), [0, 0, 1]);
    // Both go on: it was a stranger's.
    bench.forwarded(&Frame::of_server(port, ACK));
    assert_eq!(bench.connections(), [0, 1, 0]);
    assert!(lives(&mut bench, TRANSITORY_S * 2));
    // And twice more: what they said before the last one does not count.
    bench.forwarded(&Frame::of_client(RST));
    bench.forwarded(&Frame::of_server(port, ACK));
    bench.forwarded(&Frame::of_client(RST));
    bench.forwarded(&Frame::of_client(ACK));
    assert_eq!(bench.connections(), [0, 0, 1]);
    assert!(!lives(&mut bench, TRANSITORY_S));
}

#[test]
fn refused_connection_is_over() {
    let mut bench = Bench::new(&config());
    let port = bench.open(CLIENT_PORT);
    bench.forwarded(&Frame::of_server(port, RST | ACK));
    assert_eq!(bench.connections(), [0, 0, 1]);
}

#[test]
fn only_a_syn_begins_a_connection() {
    let mut bench = Bench::new(&config());
    for flags in [0, ACK, FIN | ACK, RST, RST | ACK, SYN | ACK, PSH | ACK] {
        assert_eq!(bench.dropped(&Frame::of_client(flags).bytes()), Reason::NoFlow, "{flags}");
    }
    assert_eq!(bench.connections(), [0; 3]);
}

#[test]
fn new_connection_from_the_same_port_has_the_same_place() {
    let mut bench = Bench::new(&config());
    let port = bench.establish(CLIENT_PORT);
    // One that lives is the server's to judge.
    assert_eq!(bench.open(CLIENT_PORT), port);
    assert_eq!(bench.connections(), [0, 1, 0]);
    bench.forwarded(&Frame::of_client(RST));
    assert_eq!(bench.open(CLIENT_PORT), port);
    assert_eq!(bench.connections(), [1, 0, 0]);
    assert_eq!(bench.forwarder.counters().opened, 2);
    // Nothing of the former one is left.
    bench.forwarded(&Frame::of_client(ACK).numbers(1001, 9001));
    assert_eq!(bench.connections(), [1, 0, 0]);
}

fn small(max_connections: u32) -> Config {
    Config { max_connections, ..config() }
}

#[test]
fn syn_flood_pushes_out_half_open_connections_and_no_others() {
    const PLACES: u32 = 64;
    let mut bench = Bench::new(&small(PLACES));
    let ports: Vec<u16> = (0..16).map(|number| bench.establish(CLIENT_PORT + number)).collect();
    for number in 0..2000 {
        bench.open(1 + number);
    }
    assert_eq!(bench.connections(), [PLACES - 16, 16, 0]);
    assert_eq!(bench.forwarder.counters().evicted_half_open, 2000 - u64::from(PLACES - 16));
    for (number, port) in (0..).zip(ports) {
        assert_eq!(source_port(&bench.forwarded(&Frame::of_client(ACK).port(CLIENT_PORT + number))), port);
        bench.forwarded(&Frame::of_server(port, ACK));
    }
    // An honest client finds its place, and keeps it for as long as the flood takes to fill the others.
    bench.establish(CLIENT_PORT + 100);
}

#[test]
fn ended_connections_give_way_before_half_open_ones_and_established_ones_never() {
    let mut bench = Bench::new(&small(3));
    bench.establish(1);
    let half_open = bench.open(2);
    let ended = bench.establish(3);
    bench.forwarded(&Frame::of_server(ended, RST));
    bench.establish(4);
    assert_eq!((bench.connections(), bench.forwarder.counters().evicted_closing), ([1, 2, 0], 1));
    assert_eq!(bench.dropped(&Frame::of_server(ended, ACK).bytes()), Reason::NoFlow);
    bench.establish(5);
    assert_eq!((bench.connections(), bench.forwarder.counters().evicted_half_open), ([0, 3, 0], 1));
    assert_eq!(bench.dropped(&Frame::of_server(half_open, ACK).bytes()), Reason::NoFlow);
    assert_eq!(bench.dropped(&Frame::of_client(SYN).port(6).bytes()), Reason::TableFull);
    assert_eq!(bench.connections(), [0, 3, 0]);
}
