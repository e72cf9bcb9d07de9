//! Receiving: data lent, kept, reassembled; acknowledgments at once, delayed, merged (RFC 9293 3.8.6.3, RFC 5681 4.2).

use exos_net::{AckDue, AckPolicy, Config, ConnId, KeepError, SendError, StaleConnection};

use crate::harness::{Client, Host, MSS, config, pattern};

type StaticHost = Host<&'static [u8]>;

fn connected() -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config());
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    (host, client, conn)
}

#[test]
fn data_in_order_is_lent_and_its_ack_is_delayed() {
    let (mut host, client, conn) = connected();
    let events = host.input(&client.data(1, 1, b"GET / HTTP/1.1")).events();
    assert_eq!(
        (events.data.as_slice(), events.reply, events.output_due),
        (&b"GET / HTTP/1.1"[..], AckDue::Delayed, false)
    );
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);
    assert_eq!(host.output(conn, AckPolicy::IfDue).segments, 0);
    host.wait_ms(38);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(4);
    let ack = client.seen_one(&mut host);
    assert_eq!((ack.flags.as_str(), ack.seq, ack.ack), ("A", 1, 15));
    host.wait_ms(1_000);
    assert!(client.seen(&mut host).is_empty(), "one acknowledgment is enough");
}

#[test]
fn ack_rides_on_the_response() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(1, 1, b"GET")).events();
    host.stack.send(conn, b"OK").unwrap();
    host.output(conn, AckPolicy::Now);
    let response = client.seen_one(&mut host);
    assert_eq!((response.flags.as_str(), response.ack, response.payload.as_slice()), ("PA", 4, &b"OK"[..]));
    host.input(&client.ack(4, 3)).events();
    host.wait_ms(1_000);
    assert!(client.seen(&mut host).is_empty());
    assert_eq!(host.stack.counters().pure_acks_out, 0);
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    let (mut host, client, conn) = connected();
    let data = pattern(2 * MSS);
    assert_eq!(host.input(&client.data(1, 1, &data[..MSS])).events().reply, AckDue::Delayed);
    let events = host.input(&client.data(1 + MSS as u32, 1, &data[MSS..])).events();
    assert_eq!((events.reply, events.output_due), (AckDue::Now, true));
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);
    assert_eq!(host.output(conn, AckPolicy::IfDue).segments, 1);
    assert_eq!(client.seen_one(&mut host).ack, 1 + 2 * MSS as u32);
}

#[test]
fn sixteen_segments_after_one_out_of_order_are_acknowledged_at_once() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(11, 1, pattern(10))).events();
    host.output(conn, AckPolicy::IfDue);
    host.input(&client.data(1, 1, pattern(10))).events();
    host.stack.consume(conn, 20).unwrap();
    host.output(conn, AckPolicy::IfDue);
    let replies: Vec<AckDue> = (0..17)
        .map(|number| {
            let reply = host.input(&client.data(21 + 10 * number, 1, pattern(10))).events().reply;
            host.output(conn, AckPolicy::IfDue);
            reply
        })
        .collect();
    assert!(replies[..16].iter().all(|&reply| reply == AckDue::Now), "{replies:?}");
    assert_eq!(replies[16], AckDue::Delayed);
}

#[test]
fn kept_tail_is_pending_and_narrows_the_window() {
    let (mut host, client, conn) = connected();
    let events = host.input(&client.data(1, 1, b"one two")).events();
    assert_eq!(events.data, b"one two");
    host.stack.keep(conn, b"two").unwrap();
    assert_eq!(host.stack.pending(conn), b"two");
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen_one(&mut host).window, 65_535 - 7);

    // What follows joins it, and is not lent.
    let events = host.input(&client.data(8, 1, b" three")).events();
    assert!(events.data.is_empty() && events.readable);
    assert_eq!(host.stack.pending(conn), b"two three");
    host.stack.consume(conn, 4).unwrap();
    assert_eq!(host.stack.pending(conn), b"three");
    host.stack.consume(conn, 5).unwrap();
    assert_eq!(host.stack.pending(conn), b"");
    assert_eq!(host.input(&client.data(14, 1, b"!")).events().data, b"!");
}

#[test]
fn keep_invalid_bytes_returns_not_lent() {
    let (mut host, client, conn) = connected();
    assert_eq!(host.stack.keep(conn, b"x"), Err(KeepError::NotLent));
    host.input(&client.data(1, 1, b"ab")).events();
    assert_eq!(host.stack.keep(conn, b"abc"), Err(KeepError::NotLent));
    host.stack.keep(conn, b"b").unwrap();
    assert_eq!(host.stack.keep(conn, b"b"), Err(KeepError::NotLent));
    host.stack.consume(conn, 1).unwrap();
    host.input(&client.data(3, 1, b"c")).events();
    host.input(&client.ack(4, 1)).events();
    assert_eq!(host.stack.keep(conn, b"c"), Err(KeepError::NotLent));
}

#[test]
fn segment_out_of_order_is_acknowledged_at_once_by_a_duplicate() {
    let (mut host, client, conn) = connected();
    for start in [4, 7] {
        let events = host.input(&client.data(start, 1, b"def")).events();
        assert!(events.data.is_empty() && !events.readable);
        assert_eq!(events.reply, AckDue::Now);
        // Even when there is data to carry it: a duplicate acknowledgment has none.
        host.stack.send(conn, b"x").unwrap();
        host.output(conn, AckPolicy::IfDue);
        let seen = client.seen(&mut host);
        assert_eq!((seen[0].flags.as_str(), seen[0].ack, seen[0].payload.len()), ("A", 1, 0));
        assert_eq!(seen[1].payload, b"x");
    }
    let events = host.input(&client.data(1, 1, b"abc")).events();
    assert!(events.readable);
    assert_eq!(events.reply, AckDue::Now);
    assert_eq!(host.stack.pending(conn), b"abcdefdef");
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen_one(&mut host).ack, 10);
}

#[test]
fn overlapping_segments_deliver_each_byte_once() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(1, 1, b"abc")).events();
    let events = host.input(&client.data(2, 1, b"bcde")).events();
    assert_eq!(events.data, b"de");
    assert_eq!(events.reply, AckDue::Now);
    let ack = client.see(&host.input(&client.data(1, 1, b"abc")).reply());
    assert_eq!((ack.flags.as_str(), ack.ack), ("A", 6));
    assert!(host.stack.pending(conn).is_empty());
}

#[test]
fn data_beyond_the_window_is_cut_off() {
    let mut host = StaticHost::with(Config { receive_window_bytes: 2_000, ..config() });
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    let data = pattern(2_000);
    host.input(&client.data(1, 1, &data[..1_400])).events();
    host.stack.keep(conn, &data[..1_400]).unwrap();
    let events = host.input(&client.data(1_401, 1, &pattern(3_000)[1_400..2_900])).events();
    assert!(events.readable);
    assert_eq!(host.stack.pending(conn).len(), 2_000);
    host.output(conn, AckPolicy::IfDue);
    let ack = client.seen(&mut host).pop().unwrap();
    assert_eq!((ack.ack, ack.window), (2_001, 0));

    // Closed: a probe is acknowledged and not taken (RFC 9293 3.8.6.1).
    let events = host.input(&client.data(2_001, 1, b"p")).events();
    assert!(!events.readable && events.data.is_empty());
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen(&mut host).pop().unwrap().window, 0);

    // A little room is not announced (3.8.6.2.2), half the buffer is, at once.
    assert_eq!(host.stack.consume(conn, 300), Ok(AckDue::None));
    assert_eq!(host.stack.consume(conn, 700), Ok(AckDue::Now));
    host.output(conn, AckPolicy::IfDue);
    let update = client.seen_one(&mut host);
    assert_eq!((update.ack, update.window), (2_001, 1_000));
}

#[test]
fn scaled_window_does_not_move_its_edge_left() {
    let mut host = StaticHost::with(Config { receive_window_bytes: 1 << 20, ..config() });
    let mut client = Client { window_scale: Some(0), ..Client::default() };
    let conn = client.connect(&mut host);
    let mut edge = 0;
    for byte in 0..100 {
        host.input(&client.data(1 + byte, 1, b"x")).events();
        if byte == 0 {
            host.stack.keep(conn, b"x").unwrap();
        }
        host.output(conn, AckPolicy::Now);
        let ack = client.seen_one(&mut host);
        let announced = ack.ack + (u32::from(ack.window) << 5);
        assert!(announced >= edge, "{announced} after {edge}");
        edge = announced;
    }
}

#[test]
fn window_update_is_sent_by_a_timer_if_the_application_forgets() {
    let mut host = StaticHost::with(Config { receive_window_bytes: 2_000, ..config() });
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    let data = pattern(1_460);
    host.input(&client.data(1, 1, data)).events();
    host.stack.keep(conn, data).unwrap();
    host.output(conn, AckPolicy::Now);
    host.nic.frames.clear();
    assert_eq!(host.stack.consume(conn, 1_460), Ok(AckDue::Now));
    host.wait_ms(3);
    assert_eq!(client.seen_one(&mut host).window, 2_000);
}

#[test]
fn reassembly_memory_is_bounded_over_all_connections() {
    let mut host = StaticHost::with(Config { max_buffered_bytes: 100_000, ..config() });
    for port in 1..=20 {
        let mut client = Client::on_port(port);
        client.connect(&mut host);
        for segment in 1..30 {
            host.input(&client.data(1 + 1_460 * segment, 1, &[7; 1_460])).events();
        }
    }
    assert!(host.stack.buffered_bytes() <= 100_000, "{}", host.stack.buffered_bytes());
    assert!(host.stack.counters().dropped_no_buffer > 0);
    // In-order data is still lent, and little of it can be kept.
    let mut client = Client::on_port(99);
    let conn = client.connect(&mut host);
    let data = pattern(1_400);
    let mut kept = 0;
    while host.stack.buffered_bytes() + 1_400 <= 100_000 {
        let mut client = Client::on_port(1_000 + kept);
        let conn = client.connect(&mut host);
        host.input(&client.data(1, 1, data)).events();
        host.stack.keep(conn, data).unwrap();
        kept += 1;
    }
    assert_eq!(host.input(&client.data(1, 1, data)).events().data, data);
    assert_eq!(host.stack.keep(conn, data), Err(KeepError::NoBuffer));
    assert!(host.stack.buffered_bytes() <= 100_000);
}

#[test]
fn buffers_of_ended_connections_are_given_back() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(101, 1, b"far")).events();
    assert!(host.stack.buffered_bytes() > 0);
    host.stack.abort(conn);
    assert_eq!(host.stack.buffered_bytes(), 0);
}

#[test]
fn calls_with_a_stale_connection_return_errors() {
    let (mut host, _, conn) = connected();
    assert!(host.stack.abort(conn).is_some());
    assert_eq!(host.stack.send(conn, b"x"), Err(SendError::Stale));
    assert_eq!(host.stack.close(conn), Err(StaleConnection));
    assert_eq!(host.stack.keep(conn, b""), Err(KeepError::Stale));
    assert_eq!(host.stack.consume(conn, 1), Err(StaleConnection));
    assert!(host.stack.abort(conn).is_none());
    assert!(host.stack.output(conn, host.now, &mut host.nic, AckPolicy::Now).is_err());
    assert_eq!((host.stack.pending(conn), host.stack.unacked_bytes(conn)), (&b""[..], 0));
    assert_eq!(host.stack.counters().aborted, 1);
}
