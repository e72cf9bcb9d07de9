//! Who gives way: half-open connections to newer ones, silent connections to the idle timeout and to whoever asks for room.

use exos_net::{AckPolicy, Config, Duration, End, SynCookies};

use crate::harness::{Client, Host, config, pattern};

type StaticHost = Host<&'static [u8]>;

const IDLE_SECS: u64 = 60;

fn host() -> StaticHost {
    StaticHost::with(Config { idle_timeout: Some(Duration::from_secs(IDLE_SECS)), ..config() })
}

#[test]
fn syn_beyond_half_open_limit_replaces_the_oldest() {
    let mut host = StaticHost::with(Config { max_half_open: 2, syn_cookies: SynCookies::Never, ..config() });
    let mut clients = [1, 2, 3].map(Client::on_port);
    for client in &mut clients {
        client.handshake_begin(&mut host);
    }
    assert_eq!((host.stack.half_open(), host.stack.counters().half_open_evicted), (2, 1));
    let [first, second, third] = clients;
    // The first is not known any more: its acknowledgment is nobody's.
    assert_eq!(first.see(&host.input(&first.ack(1, 1)).reply()).flags, "R");
    assert!(host.input(&second.ack(1, 1)).events().opened);
    assert!(host.input(&third.ack(1, 1)).events().opened);
}

#[test]
fn opened_connections_do_not_give_way_to_syns() {
    let mut host = StaticHost::with(Config { max_half_open: 2, ..config() });
    let open: Vec<_> = (1..=10).map(|port| Client::on_port(port).connect(&mut host)).collect();
    for port in 100..10_000 {
        host.input(&Client::on_port(port).syn()).reply();
    }
    assert!(open.iter().all(|&conn| host.stack.peer(conn).is_some()));
    assert_eq!((host.stack.half_open(), host.stack.connections()), (2, 12));
}

#[test]
fn client_gets_in_through_a_syn_flood_without_cookies() {
    let mut host = StaticHost::with(Config { syn_cookies: SynCookies::Never, ..config() });
    for port in 1_000..3_000 {
        host.input(&Client::on_port(port).syn()).reply();
    }
    // A round trip during which fewer SYNs come than there are places.
    let mut client = Client::on_port(1);
    client.handshake_begin(&mut host);
    for port in 3_000..4_000 {
        host.input(&Client::on_port(port).syn()).reply();
    }
    assert!(host.input(&client.ack(1, 1)).events().opened);
}

#[test]
fn idle_connection_is_closed_in_order() {
    let mut host = host();
    let mut client = Client::default();
    client.connect(&mut host);
    host.wait_secs(IDLE_SECS - 1);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(1_100);
    assert_eq!(client.seen_one(&mut host).flags, "FA");
    let events = host.input(&client.fin(1, 2)).events();
    assert_eq!(events.ended, Some(End::Closed));
}

#[test]
fn request_and_answer_postpone_the_idle_timeout() {
    let mut host = host();
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    for round in 0..5 {
        host.wait_secs(IDLE_SECS - 10);
        let _ = host.input(&client.data(1 + round, 1 + round, b"?")).events();
        host.stack.send(conn, b"!").unwrap();
        host.output(conn, AckPolicy::Merge);
        let _ = host.input(&client.ack(2 + round, 2 + round)).events();
    }
    assert!(host.stack.peer(conn).is_some());
    assert_eq!(host.stack.counters().timed_out, 0);
}

#[test]
fn reader_that_stalls_is_aborted_even_if_it_answers_probes() {
    let mut host = host();
    let mut client = Client { window: 0, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(100_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    for _ in 0..IDLE_SECS + 1 {
        host.wait_secs(1);
        if host.stack.peer(conn).is_some() {
            let _ = host.input(&client.ack(1, 1)).events();
        }
    }
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    assert_eq!(client.seen(&mut host).last().map(|last| last.flags.clone()), Some("RA".to_owned()));
}

#[test]
fn reader_that_is_slow_is_not_aborted() {
    let mut host = host();
    let mut client = Client { window: 1_000, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(100_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let mut acked = 1;
    for _ in 0..20 {
        host.wait_secs(IDLE_SECS / 2);
        acked += 1_000;
        let _ = host.input(&client.ack(1, acked)).events();
        host.output(conn, AckPolicy::Merge);
    }
    assert!(host.stack.peer(conn).is_some());
}

#[test]
fn peer_that_never_answers_the_close_is_forgotten() {
    let mut host = host();
    let conn = Client::default().connect(&mut host);
    host.wait_secs(3 * IDLE_SECS);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    assert_eq!((host.stack.connections(), host.stack.next_deadline()), (0, None));
}

#[test]
fn room_is_made_by_the_most_silent() {
    let mut host = StaticHost::with(config());
    let mut clients: Vec<_> = (1..=20).map(Client::on_port).collect();
    let conns: Vec<_> = clients.iter_mut().map(|client| client.connect(&mut host)).collect();
    host.wait_ms(5);
    for (number, client) in clients.iter().enumerate() {
        if number != 7 {
            let _ = host.input(&client.data(1, 1, b"?")).events();
        }
    }
    host.wait_secs(2);
    let evicted = host.stack.make_room(host.now, Duration::from_secs(1)).expect("all are silent");
    assert_eq!(evicted.conn, conns[7]);
    let reset = evicted.reset.expect("an open connection is reset");
    assert_eq!(clients[7].see(&[reset.head(), reset.body()].concat()).flags, "RA");
    assert!(host.stack.peer(conns[7]).is_none());
    assert_eq!((host.stack.connections(), host.stack.counters().evicted), (19, 1));
}

#[test]
fn room_is_not_made_by_the_busy() {
    let mut host = StaticHost::with(config());
    assert!(host.stack.make_room(host.now, Duration::ZERO).is_none());
    let client = &mut Client::default();
    client.connect(&mut host);
    host.wait_ms(900);
    assert!(host.stack.make_room(host.now, Duration::from_secs(1)).is_none());
    assert_eq!(host.stack.connections(), 1);
}
