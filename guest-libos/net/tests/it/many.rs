//! A thousand connections at once, and how steady state leaves memory alone.

use exos_net::{AckPolicy, Config, End};

use crate::harness::{Client, Host, config, pattern};

type StaticHost = Host<&'static [u8]>;

#[test]
fn thousand_connections_are_served_interleaved() {
    let mut host = StaticHost::with(config());
    let mut clients: Vec<_> = (0..1_000).map(|i| Client::on_port(1_000 + i)).collect();
    let conns: Vec<_> = clients.iter_mut().map(|client| client.connect(&mut host)).collect();
    assert_eq!(host.stack.connections(), 1_000);
    let data = pattern(5_000);
    for round in 0..3u32 {
        for (client, &conn) in clients.iter().zip(&conns) {
            let request = host.input(&client.data(1 + 3 * round, 1 + 5_000 * round, b"GET")).events();
            assert_eq!((request.conn, request.data.as_slice()), (conn, &b"GET"[..]));
            host.stack.send(conn, data).unwrap();
        }
        for (client, &conn) in clients.iter().zip(&conns) {
            host.output(conn, AckPolicy::Merge);
            let bytes: Vec<u8> =
                client.seen(&mut host).into_iter().flat_map(|segment| segment.payload).collect();
            assert!(bytes == data);
        }
    }
    for (client, &conn) in clients.iter().zip(&conns) {
        host.stack.close(conn).unwrap();
        host.output(conn, AckPolicy::Merge);
        host.nic.frames.clear();
        let events = host.input(&client.fin(10, 15_002)).events();
        assert_eq!((events.low_water, events.ended), (true, Some(End::Closed)));
    }
    assert_eq!((host.stack.connections(), host.stack.time_wait()), (0, 1_000));
    assert_eq!(host.stack.counters().retransmits, 0);
    host.wait_secs(61);
    assert_eq!((host.stack.time_wait(), host.stack.next_deadline()), (0, None));
}

#[test]
fn thousand_silent_connections_time_out_by_themselves() {
    let mut host = StaticHost::with(Config { user_timeout: exos_net::Duration::from_secs(20), ..config() });
    for i in 0..1_000 {
        let conn = Client::on_port(1_000 + i).connect(&mut host);
        host.stack.send(conn, b"hello?").unwrap();
        host.output(conn, AckPolicy::Merge);
        host.wait_ms(1);
    }
    host.wait_secs(60);
    assert_eq!((host.ended.len(), host.stack.connections()), (1_000, 0));
    let mut ended: Vec<_> = host.ended.iter().map(|(conn, _)| conn.index()).collect();
    ended.sort_unstable();
    ended.dedup();
    assert_eq!(ended.len(), 1_000, "each once");
}

#[test]
fn connection_churn_reuses_places() {
    let mut host = StaticHost::with(Config { max_time_wait: 100, ..config() });
    for i in 0..20_000u32 {
        let mut client = Client { isn: i << 8, ..Client::on_port((i % 60_000) as u16 + 1) };
        let conn = client.connect(&mut host);
        assert_eq!(conn.index(), 0);
        host.stack.send(conn, b"x").unwrap();
        host.stack.close(conn).unwrap();
        host.output(conn, AckPolicy::Merge);
        host.nic.frames.clear();
        assert_eq!(host.input(&client.fin(1, 3)).events().ended, Some(End::Closed));
    }
    assert_eq!(host.stack.counters().closed, 20_000);
}
