//! Peers are examined for acknowledging what they have not received (Savage et al. 1999): who does is reset, who does not loses nothing
//! but the time that a gap takes to be seen.

use std::iter;

use exos_net::{AckPolicy, Config, ConnId, Duration, End};

use crate::harness::{Client, Events, Host, MSS, Seen, config, pattern};
use crate::simulation::stations;
use crate::simulation::{LinkConfig, Network, Setup};

type StaticHost = Host<&'static [u8]>;

/// Every window is examined.
fn examining() -> Config {
    Config { withhold_every: 1, ..config() }
}

/// A client that has a megabyte coming.
fn downloading(config: Config, sack: bool) -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config);
    let mut client = Client { sack, window_scale: Some(2), ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(1 << 20)).unwrap();
    host.output(conn, AckPolicy::Merge);
    (host, client, conn)
}

/// Where what has arrived ends, and where it begins again if there is a gap.
fn gap(received: u32, segments: &[Seen]) -> (u32, Option<u32>) {
    let mut end = received;
    for segment in segments {
        if segment.seq > end {
            return (end, Some(segment.seq));
        }
        end = end.max(segment.seq + segment.payload.len() as u32);
    }
    (end, None)
}

/// An honest client takes what comes, a round trip at a time, until a segment is missing. Returns what it has in order and what came
/// after the gap.
fn until_a_gap(host: &mut StaticHost, client: &Client, conn: ConnId) -> (u32, Vec<Seen>) {
    let mut received = 1;
    loop {
        let segments = client.seen(host);
        assert!(!segments.is_empty(), "nothing is withheld before the end");
        let (end, missing) = gap(received, &segments);
        host.wait_ms(1);
        if end != received {
            host.input(&client.ack(1, end)).events();
        }
        received = end;
        if let Some(after) = missing {
            let later = segments.into_iter().filter(|segment| segment.seq >= after).collect();
            return (received, later);
        }
        host.output(conn, AckPolicy::Merge);
    }
}

/// The client acknowledges what was sent, by how much that is, however it came.
fn acknowledge_all(host: &mut StaticHost, client: &Client, conn: ConnId) -> Result<u32, (u32, Events)> {
    let total = 1 + (1 << 20);
    let mut believed = 1;
    while believed < total {
        let end = client.seen(host).iter().map(|seen| seen.seq + seen.payload.len() as u32).max();
        believed = end.expect("the wire does not fall silent");
        host.wait_ms(1);
        let events = host.input(&client.ack(1, believed)).events();
        if events.ended.is_some() {
            return Err((believed, events));
        }
        host.output(conn, AckPolicy::Merge);
    }
    Ok(believed)
}

#[test]
fn acknowledgment_of_a_withheld_segment_resets_the_connection() {
    let (mut host, client, conn) = downloading(Config { withhold_every: 16, ..config() }, true);
    let (believed, events) = acknowledge_all(&mut host, &client, conn).expect_err("it lies");
    assert_eq!(events.ended, Some(End::OptimisticAck));
    let reset = client.see(&events.last_ack.unwrap());
    assert_eq!((reset.flags.as_str(), reset.seq), ("RA", believed));
    let counters = host.stack.counters();
    assert_eq!((counters.optimistic_acks, counters.segments_withheld, counters.resets_out), (1, 1, 1));
    assert_eq!((host.stack.is_alive(conn), host.stack.connections()), (false, 0));
}

#[test]
fn reset_of_a_liar_is_sent_after_our_close_too() {
    let (mut host, client, conn) = downloading(examining(), true);
    host.stack.close(conn).unwrap();
    host.input(&client.fin(1, 1)).events();
    host.output(conn, AckPolicy::Now);
    let mut believed = 1;
    let events = loop {
        let end = client.seen(&mut host).iter().map(|seen| seen.seq + seen.payload.len() as u32).max();
        believed = end.unwrap_or(believed);
        host.wait_ms(1);
        let events = host.input(&client.ack(2, believed)).events();
        if events.ended.is_some() {
            break events;
        }
        host.output(conn, AckPolicy::Merge);
    };
    assert_eq!(client.see(&events.last_ack.unwrap()).flags, "RA");
}

#[test]
fn without_examination_what_was_not_received_is_taken_for_received() {
    let (mut host, client, conn) = downloading(Config { withhold_every: 0, ..config() }, true);
    assert_eq!(acknowledge_all(&mut host, &client, conn).ok(), Some(1 + (1 << 20)));
    assert_eq!(host.stack.counters().segments_withheld, 0);
}

#[test]
fn peer_that_reports_the_gap_gets_the_segment_and_nothing_answers_to_a_loss() {
    let (mut host, mut client, conn) = downloading(examining(), true);
    let (received, later) = until_a_gap(&mut host, &client, conn);
    assert_eq!(later[0].seq, received + MSS as u32);
    host.wait_ms(1);
    let end = later.last().map(|seen| seen.seq + seen.payload.len() as u32).unwrap();
    client.blocks = vec![(later[0].seq, end)];
    host.input(&client.ack(1, received)).events();
    host.output(conn, AckPolicy::Merge);
    let segments = client.seen(&mut host);
    assert_eq!((segments[0].seq, segments[0].payload.len()), (received, MSS));
    // And new data, as much as has arrived: the window is what it was.
    assert!(segments.len() >= later.len(), "{} after {}", segments.len(), later.len());
    client.blocks.clear();
    let end = segments.last().map(|seen| seen.seq + seen.payload.len() as u32).unwrap();
    let events = host.input(&client.ack(1, end)).events();
    assert_eq!(events.ended, None);
    let counters = *host.stack.counters();
    assert_eq!((counters.fast_retransmits, counters.losses_found, counters.timeouts), (0, 0, 0));
    assert_eq!((counters.retransmits, counters.bytes_retransmitted, counters.spurious_recoveries), (0, 0, 0));
    assert_eq!((counters.segments_withheld, counters.optimistic_acks), (1, 0));
}

#[test]
fn peer_without_sack_reports_it_by_three_duplicates() {
    let (mut host, client, conn) = downloading(examining(), false);
    let (received, later) = until_a_gap(&mut host, &client, conn);
    assert!(later.len() >= 4, "{} after the gap", later.len());
    for duplicate in 1..=later.len() {
        host.input(&client.ack(1, received)).events();
        host.output(conn, AckPolicy::Merge);
        let again = client.seen(&mut host).iter().filter(|seen| seen.seq == received).count();
        assert_eq!(again, usize::from(duplicate == 3), "after duplicate {duplicate}");
    }
    let counters = host.stack.counters();
    assert_eq!((counters.fast_retransmits, counters.losses_found, counters.retransmits), (0, 0, 0));
    let end = later.last().map(|seen| seen.seq + seen.payload.len() as u32).unwrap();
    assert_eq!(host.input(&client.ack(1, end)).events().acked_bytes, end - received);
}

/// Whoever claims gaps everywhere has losses everywhere.
#[test]
fn liar_who_reports_gaps_that_are_none_is_slowed_down_by_them() {
    let (mut host, client, conn) = downloading(examining(), false);
    let (received, _) = until_a_gap(&mut host, &client, conn);
    let before = host.stack.counters().fast_retransmits;
    host.wait_ms(1);
    for _ in 0..3 {
        host.input(&client.ack(1, received)).events();
    }
    host.output(conn, AckPolicy::Merge);
    let end = client.seen(&mut host).iter().map(|seen| seen.seq + seen.payload.len() as u32).max().unwrap();
    let next = received + 3 * MSS as u32;
    assert!(end > next);
    host.input(&client.ack(1, next)).events();
    for _ in 0..3 {
        host.input(&client.ack(1, next)).events();
    }
    assert_eq!(host.stack.counters().fast_retransmits, before + 1);
}

#[test]
fn loss_of_everything_after_the_gap_is_repaired_by_the_timeout() {
    for sack in [false, true] {
        let (mut host, client, conn) = downloading(examining(), sack);
        let (received, _) = until_a_gap(&mut host, &client, conn);
        host.wait_ms(2_000);
        let segments = client.seen(&mut host);
        assert!(segments.iter().any(|seen| seen.seq == received), "SACK {sack}");
        let events = host.input(&client.ack(1, received + MSS as u32)).events();
        assert_eq!(events.ended, None, "SACK {sack}");
    }
}

/// A loss beside it is a loss.
#[test]
fn loss_before_the_gap_is_answered_to() {
    let (mut host, mut client, conn) = downloading(examining(), true);
    let (received, later) = until_a_gap(&mut host, &client, conn);
    host.wait_ms(1);
    client.blocks = vec![(later[1].seq, later[5].seq)];
    host.input(&client.ack(1, received)).events();
    let counters = host.stack.counters();
    assert_eq!((counters.fast_retransmits, counters.losses_found), (1, 2));
}

/// A closed window is probed with an octet of it.
#[test]
fn window_that_shrinks_to_the_gap_lets_a_probe_through() {
    let (mut host, client, conn) = downloading(examining(), true);
    let (received, _) = until_a_gap(&mut host, &client, conn);
    let closed = Client { window: 0, ..client.clone() };
    host.input(&closed.ack(1, received)).events();
    host.wait_ms(5_000);
    let probes = client.seen(&mut host).into_iter().filter(|seen| seen.seq == received);
    let probed = probes.map(|seen| seen.payload.len() as u32).max().expect("it is probed");
    assert_eq!(host.input(&client.ack(1, received + probed)).events().ended, None);
}

#[test]
fn windows_of_less_than_24_segments_are_not_examined() {
    let mut host = StaticHost::with(examining());
    let mut client = Client { window: 24 * MSS as u16, ..Client::default() };
    let conn = client.connect(&mut host);
    host.stack.send(conn, pattern(1 << 20)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(acknowledge_all(&mut host, &client, conn).is_ok());
    assert_eq!(host.stack.counters().segments_withheld, 0);
}

/// One in 128 windows, in the mean, is examined, and none can be foretold from another connection's.
#[test]
fn examinations_come_as_often_as_configured_and_at_no_fixed_place() {
    let link = LinkConfig::delay(Duration::from_millis(10));
    let places: Vec<u64> = (0..8u8)
        .map(|secret| {
            let sender = Config { secret: [secret; 16], ..stations::config() };
            let mut network = Network::new(&bulk(sender, link, 1));
            // Of 20 ms each.
            network.run(Duration::from_secs(40), u64::MAX);
            network.senders[0].stack.counters().segments_withheld
        })
        .collect();
    let sum: u64 = places.iter().sum();
    println!("{places:?} in 2,000 round trips each");
    assert!(places.iter().all(|&count| (10..=32).contains(&count)), "{places:?}");
    assert!((8 * 12..=8 * 20).contains(&sum) && places.iter().any(|&count| count != places[0]), "{places:?}");
}

fn bulk(sender: Config, link: LinkConfig, seed: u64) -> Setup {
    Setup {
        senders: vec![sender],
        receiver: Config { receive_window_bytes: 256 << 10, ..stations::config() },
        forward: link,
        backward: link,
        send_buffer_bytes: 256 << 10,
        seed,
    }
}

/// Bytes that arrive in 40 s of 20 ms round trips.
fn goodput(sender: Config, loss_ppm: u64, seed: u64) -> (u64, exos_net::Counters) {
    let link = LinkConfig { loss_ppm, ..LinkConfig::delay(Duration::from_millis(10)) };
    let mut network = Network::new(&bulk(sender, link, seed));
    network.run(Duration::from_secs(40), u64::MAX);
    (network.received()[0], *network.senders[0].stack.counters())
}

#[test]
fn honest_peers_pay_a_round_trip_now_and_then() {
    let (without, _) = goodput(Config { withhold_every: 0, ..stations::config() }, 0, 1);
    let (with, counters) = goodput(stations::config(), 0, 1);
    println!("{without} bytes, {with} with {} segments withheld", counters.segments_withheld);
    assert!(counters.segments_withheld > 5 && with as f64 > 0.99 * without as f64, "{with} of {without}");
    assert_eq!((counters.fast_retransmits, counters.timeouts, counters.retransmits), (0, 0, 0));
}

#[test]
fn honest_peers_are_never_reset_whatever_is_lost() {
    for (sack, loss_ppm) in
        iter::zip([true, false].repeat(4), [0, 0, 1_000, 1_000, 10_000, 10_000, 50_000, 50_000])
    {
        for seed in 1..4 {
            // The stations of the simulation take no end.
            let sender = Config { withhold_every: 1, sack, ..stations::config() };
            let (received, counters) = goodput(sender, loss_ppm, seed);
            assert!(
                received > 0 && counters.optimistic_acks == 0,
                "SACK {sack}, {loss_ppm} ppm, seed {seed}"
            );
            assert!(counters.segments_withheld > 5 || loss_ppm > 10_000, "{}", counters.segments_withheld);
        }
    }
}

/// Nothing comes after the gap: the tail's probe is the segment, and no loss.
#[test]
fn withheld_segment_that_is_the_last_leaves_as_a_probe() {
    let (mut host, mut client, conn) = downloading(examining(), true);
    let end_of =
        |segments: &[Seen]| segments.last().map(|seen| seen.seq + seen.payload.len() as u32).unwrap();
    let (received, later) = until_a_gap(&mut host, &client, conn);
    client.blocks = vec![(later[0].seq, end_of(&later))];
    host.input(&client.ack(1, received)).events();
    client.blocks.clear();
    host.output(conn, AckPolicy::Merge);
    let mut received = end_of(&client.seen(&mut host));
    host.input(&client.ack(1, received)).events();
    while host.stack.counters().segments_withheld == 1 {
        host.output(conn, AckPolicy::Merge);
        received = end_of(&client.seen(&mut host));
        host.wait_ms(1);
        // The window has room for one segment more: nothing follows it.
        client.window = MSS as u16 >> 2;
        host.input(&client.ack(1, received)).events();
        host.output(conn, AckPolicy::Merge);
    }
    assert!(client.seen(&mut host).is_empty());
    host.wait_ms(250);
    let probe = client.seen_one(&mut host);
    assert_eq!((probe.seq, probe.payload.len()), (received, MSS));
    client.window = 65_535;
    assert_eq!(host.input(&client.ack(1, received + MSS as u32)).events().ended, None);
    let counters = *host.stack.counters();
    assert_eq!((counters.tail_probes, counters.tail_probe_recoveries, counters.retransmits), (1, 0, 0));
}

/// What tells whether a timeout was in vain is new data (RFC 5682): none of it is withheld while something counts as lost.
#[test]
fn nothing_is_withheld_while_it_is_found_out_whether_a_timeout_was_in_vain() {
    let mut host = StaticHost::with(examining());
    let mut client = Client { window_scale: Some(3), ..Client::default() };
    let conn = client.connect(&mut host);
    // All of it arrives, whatever is withheld.
    let (total, mut received, mut highest) = (1 + 300 * MSS as u32, 1, 1);
    host.stack.send(conn, pattern(300 * MSS)).unwrap();
    while received < total {
        host.output(conn, AckPolicy::Merge);
        let segments = client.seen(&mut host);
        let (in_order, missing) = gap(received, &segments);
        highest = segments.iter().map(|seen| seen.seq + seen.payload.len() as u32).fold(highest, u32::max);
        host.wait_ms(1);
        let repeats = if missing.is_some() && in_order == received { 3 } else { 1 };
        received = if missing.is_some() { in_order } else { highest };
        (0..repeats).for_each(|_| drop(host.input(&client.ack(1, received)).events()));
    }
    // Another window passes, and the next one is to be examined; there is too little behind the next segment for it.
    let mut end = total;
    for segments in [1, 4] {
        host.stack.send(conn, pattern(segments * MSS)).unwrap();
        host.output(conn, AckPolicy::Merge);
        end += (segments * MSS) as u32;
        host.wait_ms(1);
        if segments == 1 {
            host.input(&client.ack(1, end)).events();
        }
    }
    host.nic.frames.clear();
    while host.stack.counters().timeouts == 0 {
        host.wait_ms(1);
    }
    host.stack.send(conn, pattern(20 * MSS)).unwrap();
    let withheld = host.stack.counters().segments_withheld;
    host.nic.frames.clear();
    host.input(&client.ack(1, end - 2 * MSS as u32)).events();
    host.output(conn, AckPolicy::Merge);
    assert_eq!((client.seen(&mut host)[0].seq, host.stack.counters().segments_withheld), (end, withheld));
}
