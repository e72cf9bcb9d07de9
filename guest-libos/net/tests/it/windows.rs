//! The peer's window: zero, silly, shrinking, reopened (RFC 9293 3.8.6).

use exos_net::{AckPolicy, Config, ConnId, Duration, End};

use crate::harness::{Client, Host, MSS, config, pattern};

type StaticHost = Host<&'static [u8]>;

fn connected(window: u16) -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config());
    let mut client = Client { window, ..Client::default() };
    let conn = client.connect(&mut host);
    (host, client, conn)
}

#[test]
fn peer_window_bounds_what_is_sent() {
    let (mut host, client, conn) = connected(4_000);
    host.stack.send(conn, pattern(10_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    // Two full segments; the remaining 1,080 bytes of the window are neither full nor half of it.
    assert_eq!(seen.iter().map(|segment| segment.payload.len()).collect::<Vec<_>>(), [MSS, MSS]);
}

#[test]
fn closed_window_is_probed_and_reopened() {
    let (mut host, mut client, conn) = connected(2_920);
    let data = pattern(5_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).len(), 2);
    client.window = 0;
    let events = host.input(&client.ack(1, 2_921)).events();
    assert!(!events.output_due);
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);

    // One octet, with backoff, and the peer's refusals keep the connection.
    let mut probes = 0;
    for _ in 0..300 {
        host.wait_secs(1);
        for probe in client.seen(&mut host) {
            assert_eq!((probe.seq, probe.payload.as_slice()), (2_921, &data[2_920..2_921]));
            probes += 1;
            host.input(&client.ack(1, 2_921)).events();
        }
    }
    assert!((8..=20).contains(&probes), "{probes}");
    assert!(host.ended.is_empty());

    client.window = 65_535;
    let events = host.input(&client.ack(1, 2_921)).events();
    assert!(events.output_due);
    host.output(conn, AckPolicy::Merge);
    let seen = client.seen(&mut host);
    assert_eq!(seen.concat_payload(), &data[2_920..]);
    // The retransmission timer is itself again, not the persist timer's backoff.
    host.wait_ms(450);
    assert_eq!(client.seen(&mut host)[0].seq, 2_921);
}

trait ConcatPayload {
    fn concat_payload(&self) -> Vec<u8>;
}

impl ConcatPayload for Vec<crate::harness::Seen> {
    fn concat_payload(&self) -> Vec<u8> {
        self.iter().flat_map(|segment| segment.payload.clone()).collect()
    }
}

#[test]
fn probe_octet_that_is_taken_counts() {
    let (mut host, mut client, conn) = connected(0);
    let data = pattern(100);
    host.stack.send(conn, data).unwrap();
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);
    host.wait_ms(250);
    assert_eq!(client.seen_one(&mut host).payload, &data[..1]);
    client.window = 1_000;
    let events = host.input(&client.ack(1, 2)).events();
    assert_eq!((events.acked_bytes, events.output_due), (1, true));
    host.output(conn, AckPolicy::Merge);
    let rest = client.seen_one(&mut host);
    assert_eq!((rest.seq, rest.payload.as_slice()), (2, &data[1..]));
}

#[test]
fn closed_window_also_holds_back_a_fin_and_probes_with_it() {
    let (mut host, client, conn) = connected(0);
    host.stack.close(conn).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(250);
    assert_eq!(client.seen_one(&mut host).flags, "FA");
    assert!(host.input(&client.ack(1, 2)).events().ended.is_none());
    let events = host.input(&client.fin(1, 2)).events();
    assert_eq!(events.ended, Some(End::Closed));
}

#[test]
fn peer_that_ignores_probes_is_given_up() {
    let mut host = StaticHost::with(Config { user_timeout: Duration::from_secs(30), ..config() });
    let mut client = Client { window: 0, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, b"x").unwrap();
    host.output(conn, AckPolicy::Merge);
    host.wait_secs(100);
    assert_eq!(host.ended, [(conn, End::TimedOut)]);
}

#[test]
fn silly_window_is_not_filled_until_the_override() {
    let (mut host, mut client, conn) = connected(MSS as u16);
    let data = pattern(4_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen_one(&mut host).payload.len(), MSS);
    client.window = 100;
    host.input(&client.ack(1, 1 + MSS as u32)).events();
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);
    host.wait_ms(250);
    // RFC 9293 3.8.6.2.1: after a while, what fits.
    assert_eq!(client.seen_one(&mut host).payload, &data[MSS..MSS + 100]);
}

#[test]
fn half_of_the_largest_window_is_worth_a_segment() {
    let (mut host, client, conn) = connected(1_000);
    host.stack.send(conn, pattern(4_000)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen_one(&mut host).payload.len(), 1_000);
}

#[test]
fn shrunk_window_stops_new_data_and_retransmits_what_fits() {
    let (mut host, mut client, conn) = connected(65_535);
    let data = pattern(40_000);
    host.stack.send(conn, data).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert_eq!(client.seen(&mut host).len(), 10);
    // The edge moves left, behind what is on its way.
    client.window = 3_000;
    host.input(&client.ack(1, 1 + MSS as u32)).events();
    assert_eq!(host.output(conn, AckPolicy::Merge).segments, 0);
    host.wait_ms(250);
    let again = client.seen_one(&mut host);
    assert_eq!((again.seq, again.payload.len()), (1 + MSS as u32, MSS));
    // Pure acknowledgments carry a sequence number that the peer accepts.
    host.input(&client.data(1, 1 + MSS as u32, b"x")).events();
    host.output(conn, AckPolicy::Now);
    assert_eq!(client.seen(&mut host).pop().unwrap().seq, 1 + MSS as u32 + 3_000);
    // And it ends well.
    client.window = 65_535;
    let mut received = MSS;
    host.input(&client.ack(2, 1 + received as u32)).events();
    host.output(conn, AckPolicy::Merge);
    for _ in 0..100 {
        for segment in client.seen(&mut host) {
            if segment.seq as usize == received + 1 {
                assert_eq!(segment.payload, &data[received..received + segment.payload.len()]);
                received += segment.payload.len();
            }
        }
        host.input(&client.ack(2, 1 + received as u32)).events();
        host.output(conn, AckPolicy::Merge);
        host.wait_ms(100);
    }
    assert_eq!(received, data.len());
}

#[test]
fn old_segment_does_not_bring_an_old_window() {
    let (mut host, mut client, conn) = connected(65_535);
    host.input(&client.data(1, 1, b"abc")).events();
    client.window = 0;
    host.input(&client.ack(4, 1)).events();
    // A delayed segment from before, overlapping but with an older sequence number and a larger window.
    client.window = 65_535;
    host.input(&client.data(2, 1, b"bcd")).events();
    host.stack.send(conn, pattern(100)).unwrap();
    assert_eq!(host.output(conn, AckPolicy::Merge).bytes, 0);
}
