//! Ends: orderly from either side and both at once, FIN with data, aborts, TIME-WAIT (RFC 9293 3.6, 3.10.4, 3.10.5).

use exos_net::{AckDue, AckPolicy, Config, ConnId, End, SendError};
use smoltcp::wire::TcpControl;

use crate::harness::{Client, Host, config, pattern};

type StaticHost = Host<&'static [u8]>;

fn connected() -> (StaticHost, Client, ConnId) {
    connected_with(config())
}

fn connected_with(config: Config) -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config);
    let mut client = Client::default();
    let conn = client.connect(&mut host);
    (host, client, conn)
}

/// The server answers, closes first, the client follows: what a request on its own connection looks like.
fn served(host: &mut StaticHost, client: &Client, conn: ConnId) {
    host.input(&client.data(1, 1, b"GET")).events();
    host.stack.send(conn, b"OK").unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let response = client.seen_one(host);
    assert_eq!((response.flags.as_str(), response.ack, response.payload.as_slice()), ("FPA", 4, &b"OK"[..]));
    let events = host.input(&client.fin(4, 4)).events();
    assert_eq!((events.acked_bytes, events.low_water, events.peer_closed), (2, true, true));
    assert_eq!(events.ended, Some(End::Closed));
    let ack = client.see(&events.last_ack.unwrap());
    assert_eq!((ack.flags.as_str(), ack.seq, ack.ack), ("A", 4, 5));
}

#[test]
fn small_response_takes_three_server_packets() {
    let (mut host, client, conn) = connected();
    served(&mut host, &client, conn);
    // SYN-ACK, data with FIN and ACK, ACK of FIN.
    assert_eq!(host.stack.counters().segments_out, 3);
    assert_eq!(host.stack.counters().pure_acks_out, 1);
    assert_eq!((host.stack.connections(), host.stack.time_wait()), (0, 1));
}

#[test]
fn close_by_peer_first_ends_with_the_ack_of_our_fin() {
    let (mut host, client, conn) = connected();
    let events = host.input(&client.fin(1, 1)).events();
    assert_eq!((events.peer_closed, events.ended, events.reply), (true, None, AckDue::Now));
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen_one(&mut host).ack, 2);
    // CLOSE-WAIT: sending is still possible.
    host.stack.send(conn, b"bye").unwrap();
    host.stack.close(conn).unwrap();
    assert_eq!(host.stack.send(conn, b"more"), Err(SendError::Closing));
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen_one(&mut host).flags, "FPA");
    let events = host.input(&client.ack(2, 5)).events();
    assert_eq!((events.ended, events.low_water, events.last_ack), (Some(End::Closed), true, None));
    assert_eq!((host.stack.connections(), host.stack.time_wait()), (0, 0));
    assert_eq!(host.stack.counters().closed, 1);
}

#[test]
fn close_without_data_sends_fin_alone() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let fin = client.seen_one(&mut host);
    assert_eq!((fin.flags.as_str(), fin.seq), ("FA", 1));
    host.output(conn, AckPolicy::Merge);
    assert!(client.seen(&mut host).is_empty());
}

#[test]
fn half_closed_connection_still_receives() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen_one(&mut host);
    let events = host.input(&client.ack(1, 2)).events();
    assert_eq!((events.ended, events.output_due), (None, false));
    assert_eq!(host.input(&client.data(1, 2, b"late")).events().data, b"late");
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0, "the FIN has arrived");
    let events = host.input(&client.frame(TcpControl::Fin, 5, Some(2), b"last")).events();
    assert_eq!(
        (events.data.as_slice(), events.peer_closed, events.ended),
        (&b"last"[..], true, Some(End::Closed))
    );
    assert_eq!(client.see(&events.last_ack.unwrap()).ack, 10);
}

#[test]
fn simultaneous_close_goes_through_closing() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    // The peer's FIN does not acknowledge ours.
    let events = host.input(&client.fin(1, 1)).events();
    assert_eq!((events.peer_closed, events.ended), (true, None));
    host.output(conn, AckPolicy::IfDue);
    host.nic.frames.clear();
    let events = host.input(&client.ack(2, 2)).events();
    assert_eq!((events.ended, events.last_ack), (Some(End::Closed), None));
    assert_eq!(host.stack.time_wait(), 1);
}

#[test]
fn fin_out_of_order_waits_for_the_hole() {
    let (mut host, client, conn) = connected();
    let events = host.input(&client.frame(TcpControl::Fin, 4, Some(1), b"def")).events();
    assert!(!events.peer_closed);
    let events = host.input(&client.data(1, 1, b"abc")).events();
    assert!(events.readable && events.peer_closed);
    assert_eq!(host.stack.pending(conn), b"abcdef");
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen(&mut host).pop().unwrap().ack, 8);
}

#[test]
fn fin_before_data_that_is_here_already_ends_the_stream_after_it() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(4, 1, b"defg")).events();
    // The peer contradicts itself: its FIN lies inside what it has sent.
    host.input(&client.fin(6, 1)).events();
    let events = host.input(&client.data(1, 1, b"abc")).events();
    assert!(events.peer_closed);
    assert_eq!(host.stack.pending(conn), b"abcdefg");
}

#[test]
fn repeated_fin_is_acknowledged_again() {
    let (mut host, client, _) = connected();
    host.input(&client.fin(1, 1)).events();
    for _ in 0..3 {
        assert_eq!(client.see(&host.input(&client.fin(1, 1)).reply()).ack, 2);
    }
}

#[test]
fn lost_fin_is_sent_again() {
    let (mut host, client, conn) = connected();
    host.stack.send(conn, b"OK").unwrap();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    let first = client.seen_one(&mut host);
    host.wait_ms(250);
    assert_eq!(client.seen_one(&mut host), first);
    // Only the data arrived: the FIN alone is sent again.
    host.input(&client.ack(1, 3)).events();
    host.wait_ms(5_000);
    let fin = client.seen(&mut host).remove(0);
    assert_eq!((fin.flags.as_str(), fin.seq), ("FA", 3));
}

#[test]
fn reset_by_peer_ends_at_once() {
    let (mut host, client, conn) = connected();
    host.stack.send(conn, pattern(100_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let events = host.input(&client.rst(1)).events();
    assert_eq!(events.ended, Some(End::Reset));
    assert_eq!((host.stack.connections(), host.stack.counters().reset_by_peer), (0, 1));
    host.wait_secs(300);
    assert!(host.ended.is_empty(), "reported once");
}

#[test]
fn abort_sends_reset_that_the_peer_accepts() {
    let (mut host, client, conn) = connected();
    host.input(&client.data(1, 1, b"GET")).events();
    host.stack.send(conn, b"partial").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.nic.frames.clear();
    let frame = host.stack.abort(conn).unwrap();
    let reset = client.see(frame.head());
    assert_eq!((reset.flags.as_str(), reset.seq, reset.ack), ("RA", 8, 4));
    assert_eq!((host.stack.connections(), host.stack.next_deadline()), (0, None));
    // Whoever still talks to it hears the same.
    assert_eq!(client.see(&host.input(&client.data(4, 8, b"x")).reply()).flags, "R");
}

#[test]
fn silent_peer_in_fin_wait_2_is_given_up() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.ack(1, 2)).events();
    host.wait_secs(59);
    assert!(host.ended.is_empty());
    host.wait_secs(2);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
    assert_eq!(host.stack.connections(), 0);
}

#[test]
fn peer_that_keeps_sending_in_fin_wait_2_is_not_given_up() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.ack(1, 2)).events();
    for byte in 0..5 {
        host.wait_secs(40);
        assert_eq!(host.input(&client.data(1 + byte, 2, b"x")).events().data, b"x");
    }
    host.wait_secs(61);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
}

#[test]
fn time_wait_acknowledges_repeated_fin_and_expires() {
    let (mut host, client, conn) = connected();
    served(&mut host, &client, conn);
    let ack = client.see(&host.input(&client.fin(4, 4)).reply());
    assert_eq!((ack.flags.as_str(), ack.seq, ack.ack), ("A", 4, 5));
    host.input(&client.rst(5)).assert_nothing();
    assert_eq!(host.stack.time_wait(), 1);
    host.wait_secs(61);
    assert_eq!((host.stack.time_wait(), host.stack.next_deadline()), (0, None));
    assert_eq!(client.see(&host.input(&client.fin(4, 4)).reply()).flags, "R");
}

#[test]
fn time_wait_is_reopened_by_a_new_syn_with_a_later_isn() {
    let (mut host, mut client, conn) = connected();
    served(&mut host, &client, conn);
    let old_isn = client.server_isn;
    client.isn = client.isn.wrapping_add(10);
    let next = client.connect(&mut host);
    assert_eq!(host.stack.counters().time_wait_reused, 1);
    assert!((client.server_isn.wrapping_sub(old_isn) as i32) > 0);
    assert_ne!(next, conn);
    assert_eq!(host.input(&client.data(1, 1, b"again")).events().data, b"again");
}

#[test]
fn unread_data_survives_time_wait_until_consumed() {
    let (mut host, client, conn) = connected();
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    host.input(&client.data(4, 2, b"def")).events();
    let events = host.input(&client.data(1, 2, b"abc")).events();
    assert!(events.readable);
    let events = host.input(&client.fin(7, 2)).events();
    assert_eq!((events.peer_closed, events.ended), (true, None));
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen(&mut host).pop().unwrap().ack, 8);
    assert_eq!(host.stack.pending(conn), b"abcdef");
    // The peer's FIN again: still acknowledged.
    host.wait_secs(50);
    assert_eq!(client.see(&host.input(&client.fin(7, 2)).reply()).ack, 8);
    // Which begins TIME-WAIT anew; and a RST does not end it (RFC 1337).
    host.wait_secs(50);
    host.input(&client.rst(8)).assert_nothing();
    assert_eq!(host.stack.pending(conn), b"abcdef");
    host.stack.consume(conn, 6).unwrap();
    host.wait_ms(3);
    assert_eq!(host.ended, [(conn, End::Closed)]);
    assert_eq!((host.stack.connections(), host.stack.time_wait(), host.stack.buffered_bytes()), (0, 1, 0));
}

#[test]
fn time_wait_records_are_bounded() {
    let mut host = StaticHost::with(Config { max_time_wait: 10, ..config() });
    for port in 1..=50 {
        let mut client = Client::on_port(port);
        let conn = client.connect(&mut host);
        served(&mut host, &client, conn);
    }
    assert_eq!((host.stack.time_wait(), host.stack.counters().time_wait_evicted), (10, 40));
}
