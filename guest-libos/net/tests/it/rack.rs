//! Loss recovery with SACK: RACK and tail loss probes (RFC 8985), PRR (RFC 6937), mistaken recoveries taken back (RFC 3522,
//! RFC 3708, RFC 5682), peers that take back or invent what they report (RFC 2018 8).

use exos_net::{AckPolicy, Config, ConnId, Duration, TxChecksum};

use crate::harness::{Client, Host, MSS, Seen, config, pattern};

type StaticHost = Host<&'static [u8]>;

const M: u32 = MSS as u32;
const RTT: Duration = Duration::from_millis(40);

/// A connection with a round trip of 40 ms and `segments` segments on their way.
fn sending_with(config: Config, client: Client, segments: usize) -> (StaticHost, Client, ConnId) {
    let mut host = StaticHost::with(config);
    let mut client = client;
    client.handshake_begin(&mut host);
    host.now += RTT;
    let conn = host.input(&client.ack(1, 1)).events().conn;
    host.stack.send(conn, pattern(segments * MSS)).unwrap();
    host.output(conn, AckPolicy::Merge);
    (host, client, conn)
}

fn sending(segments: usize) -> (StaticHost, Client, ConnId) {
    let client = Client { sack: true, ..Client::default() };
    let (mut host, client, conn) = sending_with(config(), client, segments);
    assert_eq!(starts(&client.seen(&mut host)), (0..segments.min(10) as u32).collect::<Vec<_>>());
    (host, client, conn)
}

fn starts(seen: &[Seen]) -> Vec<u32> {
    seen.iter().map(|segment| (segment.seq - 1) / M).collect()
}

/// The client acknowledges `acked` segments and reports blocks of segments; the server sends what that lets out.
fn report(host: &mut StaticHost, client: &Client, acked: u32, blocks: &[(u32, u32)]) -> Vec<u32> {
    let blocks = blocks.iter().map(|&(start, end)| (1 + start * M, 1 + end * M)).collect();
    let client = Client { blocks, ..client.clone() };
    let conn = host.input(&client.ack(1, 1 + acked * M)).events().conn;
    host.output(conn, AckPolicy::IfDue);
    starts(&client.seen(host))
}

/// Mistaken recoveries taken back, and those of them that were timeouts.
fn spurious(host: &StaticHost) -> (u64, u64) {
    (host.stack.counters().spurious_recoveries, host.stack.counters().spurious_timeouts)
}

#[test]
fn holes_of_one_window_are_repaired_in_one_round_trip() {
    let (mut host, client, conn) = sending(10);
    host.now += RTT;
    // Of ten segments 0, 2, 4 and 6 are lost; the others arrive one after the other.
    assert_eq!(report(&mut host, &client, 0, &[(1, 2)]), []);
    assert_eq!(report(&mut host, &client, 0, &[(3, 4), (1, 2)]), []);
    let mut again = report(&mut host, &client, 0, &[(5, 6), (3, 4), (1, 2)]);
    for end in 8..=10 {
        again.extend(report(&mut host, &client, 0, &[(7, end), (5, 6), (3, 4)]));
    }
    assert_eq!(again, [0, 2, 4, 6]);
    host.now += RTT;
    report(&mut host, &client, 10, &[]);
    assert_eq!(host.stack.unacked_bytes(conn), 0);
    let counters = host.stack.counters();
    assert_eq!((counters.timeouts, counters.fast_retransmits), (0, 1));
    assert_eq!((counters.losses_found, counters.reordering_timeouts, counters.sacks_in), (4, 0, 6));
}

#[test]
fn holes_without_sack_take_a_round_trip_each() {
    let (mut host, client, conn) = sending_with(config(), Client::default(), 10);
    client.seen(&mut host);
    host.now += RTT;
    let again: Vec<u32> = (0..6).flat_map(|_| report(&mut host, &client, 0, &[])).collect();
    assert_eq!(again, [0]);
    for (acked, next) in [(2, 2), (4, 4), (6, 6)] {
        host.now += RTT;
        assert_eq!(report(&mut host, &client, acked, &[]), [next]);
    }
    host.now += RTT;
    report(&mut host, &client, 10, &[]);
    assert_eq!((host.stack.unacked_bytes(conn), host.stack.counters().timeouts), (0, 0));
    assert_eq!((host.stack.counters().losses_found, host.stack.counters().sacks_in), (4, 0));
}

#[test]
fn lost_stretch_of_many_segments_is_one_frame_to_be_cut() {
    let config = Config { tso_max_bytes: 65_000, tx_checksum: TxChecksum::Offload, ..config() };
    let client = Client { sack: true, ..Client::default() };
    let (mut host, client, _) = sending_with(config, client, 10);
    assert_eq!((client.seen(&mut host).len(), host.nic.gso_frames), (10, 1));
    host.now += RTT;
    report(&mut host, &client, 0, &[(5, 6)]);
    report(&mut host, &client, 0, &[(5, 7)]);
    // Of five lost segments PRR lets out as many as have just arrived.
    assert_eq!(report(&mut host, &client, 0, &[(5, 10)]), [0, 1, 2]);
    assert_eq!(host.nic.gso_frames, 2);
    let pages = host.stack.counters().bytes_retransmitted;
    assert_eq!(pages, 3 * u64::from(M));
}

#[test]
fn reordering_within_a_quarter_of_the_round_trip_is_no_loss() {
    let (mut host, client, _) = sending(10);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 2)]), []);
    // 40 ms / 4 may a segment be late.
    host.wait_ms(5);
    assert_eq!(client.seen(&mut host), []);
    assert_eq!(report(&mut host, &client, 2, &[]), []);
    assert_eq!(host.stack.counters().fast_retransmits, 0);
    // From here on reordering is expected: three segments beyond a hole are not enough.
    assert_eq!(report(&mut host, &client, 2, &[(3, 7)]), []);
    host.wait_ms(5);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(8);
    assert_eq!(starts(&client.seen(&mut host)), [2]);
    let counters = host.stack.counters();
    assert_eq!((counters.fast_retransmits, counters.timeouts), (1, 0));
    assert_eq!((counters.losses_found, counters.reordering_timeouts), (1, 1));
}

#[test]
fn blocks_by_age_in_one_acknowledgment_are_no_reordering() {
    let (mut host, client, _) = sending(10);
    host.now += RTT;
    // The acknowledgments of segments 1 and 2 are lost; this one has the later block first. Three beyond the hole are enough
    // where nothing was reordered.
    assert_eq!(report(&mut host, &client, 0, &[(5, 6), (1, 3)]), [0, 3, 4]);
}

#[test]
fn duplicate_reports_widen_the_reordering_window() {
    let (mut host, client, _) = sending(10);
    host.now += RTT;
    // Out of order, and later than a quarter of the round trip.
    assert_eq!(report(&mut host, &client, 0, &[(2, 3)]), []);
    assert_eq!(report(&mut host, &client, 0, &[(1, 4)]), []);
    host.wait_ms(12);
    assert_eq!(starts(&client.seen(&mut host)), [0]);
    // But it was late only, and the retransmission came second.
    report(&mut host, &client, 4, &[]);
    report(&mut host, &client, 4, &[(0, 1)]);
    assert_eq!(host.stack.counters().duplicates_reported, 1);
    assert_eq!(report(&mut host, &client, 4, &[(5, 8)]), []);
    // Twice a quarter of 40 ms now, beyond the round trip just seen.
    host.wait_ms(17);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(6);
    assert_eq!(starts(&client.seen(&mut host)), [4]);
}

#[test]
fn lost_retransmission_is_found_by_what_was_sent_after_it() {
    let (mut host, client, conn) = sending(10);
    host.stack.send(conn, pattern(10 * MSS)).unwrap();
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 4)]), [0]);
    let new = report(&mut host, &client, 0, &[(1, 10)]);
    assert!(!new.is_empty() && new[0] == 10, "{new:?}");
    host.now += RTT;
    // The new segments have arrived, what was sent again before them has not.
    assert_eq!(report(&mut host, &client, 0, &[(1, 10 + new.len() as u32)])[0], 0);
    assert_eq!(host.stack.counters().timeouts, 0);
}

#[test]
fn lost_tail_is_probed_after_two_round_trips() {
    let (mut host, client, conn) = sending(4);
    host.now += RTT;
    // The last two are lost; nothing comes after them.
    assert_eq!(report(&mut host, &client, 2, &[]), []);
    host.wait_ms(75);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(8);
    assert_eq!(starts(&client.seen(&mut host)), [3]);
    host.now += RTT;
    // The probe has arrived and shows the other.
    assert_eq!(report(&mut host, &client, 2, &[(3, 4)]), [2]);
    host.now += RTT;
    report(&mut host, &client, 4, &[]);
    let counters = host.stack.counters();
    assert_eq!((host.stack.unacked_bytes(conn), counters.tail_probes, counters.timeouts), (0, 1, 0));
}

#[test]
fn probe_carries_new_data_if_the_peer_has_room() {
    let (mut host, client, _) = sending(30);
    // Nothing at all comes back; beyond the congestion window one new segment leaves.
    host.wait_ms(75);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(8);
    assert_eq!(starts(&client.seen(&mut host)), [10]);
    // And one only, until the timeout.
    host.wait_ms(110);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(200);
    assert_eq!(starts(&client.seen(&mut host))[0], 0);
}

#[test]
fn loss_that_a_probe_repairs_alone_reduces_the_window() {
    for (reported, reduced) in [(false, 1), (true, 0)] {
        let (mut host, client, conn) = sending(4);
        host.now += RTT;
        report(&mut host, &client, 3, &[]);
        host.stack.send(conn, pattern(1)).unwrap();
        host.output(conn, AckPolicy::Merge);
        client.seen(&mut host);
        host.wait_ms(90);
        let probe = client.seen(&mut host);
        assert_eq!((probe.len(), probe[0].seq), (1, 1 + 4 * M));
        // An acknowledgment of the probe and of more, or of the originals with a report of the probe as a duplicate.
        let end = 2 + 4 * M;
        host.stack.send(conn, pattern(10)).unwrap();
        host.output(conn, AckPolicy::Merge);
        let blocks = if reported { vec![(1 + 4 * M, end)] } else { vec![] };
        let told = Client { blocks, ..client.clone() };
        host.input(&told.ack(1, end + 10)).events();
        assert_eq!(host.stack.counters().tail_probe_recoveries, reduced, "reported {reported}");
    }
}

#[test]
fn single_segment_is_probed_when_the_timeout_is_due_and_instead_of_it() {
    let (mut host, client, _) = sending(1);
    // SRTT 40 ms, RTTVAR 20 ms: the timeout of 200 ms comes first, as two round trips and 200 ms for a delayed
    // acknowledgment would be more.
    host.wait_ms(195);
    assert_eq!(client.seen(&mut host), []);
    host.wait_ms(10);
    assert_eq!(starts(&client.seen(&mut host)), [0]);
    assert_eq!((host.stack.counters().tail_probes, host.stack.counters().timeouts), (1, 0));
    // The probe is lost, too: now it is the timeout's turn.
    host.wait_ms(190);
    assert_eq!(host.stack.counters().timeouts, 0);
    host.wait_ms(15);
    assert_eq!(starts(&client.seen(&mut host)), [0]);
    assert_eq!((host.stack.counters().tail_probes, host.stack.counters().timeouts), (1, 1));
}

#[test]
fn duplicate_where_nothing_was_reordered_does_not_widen_the_reordering_window() {
    let (mut host, client, conn) = sending(10);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 4)]), [0]);
    report(&mut host, &client, 10, &[]);
    report(&mut host, &client, 10, &[(0, 1)]);
    assert_eq!(host.stack.counters().duplicates_reported, 1);
    host.stack.send(conn, pattern(6 * MSS)).unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 10, &[(11, 12)]), []);
    host.wait_ms(12);
    assert_eq!(starts(&client.seen(&mut host)), [10]);
}

#[test]
fn needless_probe_does_not_widen_the_reordering_window() {
    let (mut host, client, conn) = sending(10);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 2)]), []);
    assert_eq!(report(&mut host, &client, 2, &[]), []);
    // Reordering is expected from here on. Silence, a probe, and its duplicate.
    host.wait_ms(120);
    assert_eq!(starts(&client.seen(&mut host)), [9]);
    report(&mut host, &client, 10, &[]);
    report(&mut host, &client, 10, &[(9, 10)]);
    assert_eq!((host.stack.counters().tail_probes, host.stack.counters().duplicates_reported), (1, 1));
    host.stack.send(conn, pattern(6 * MSS)).unwrap();
    host.output(conn, AckPolicy::Merge);
    client.seen(&mut host);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 10, &[(11, 12)]), []);
    host.wait_ms(12);
    assert_eq!(starts(&client.seen(&mut host)), [10]);
}

#[test]
fn what_was_sent_at_the_time_of_a_retransmission_and_before_it_does_not_show_it_lost() {
    let (mut host, client, _) = sending(20);
    host.now += RTT;
    // New data leaves, and at the same time what is found lost leaves again.
    assert_eq!(report(&mut host, &client, 4, &[]), (10..18).collect::<Vec<_>>());
    assert_eq!(report(&mut host, &client, 4, &[(5, 8)])[0], 4);
    host.now += RTT;
    assert!(!report(&mut host, &client, 4, &[(5, 18)]).contains(&4), "it is on its way yet");
    // But what is sent after it shows it.
    let later = report(&mut host, &client, 4, &[(5, 19)]);
    assert!(later.contains(&4), "{later:?}");
}

#[test]
fn timeout_counts_from_the_retransmission_of_the_first_segment() {
    let (mut host, client, _) = sending(10);
    host.wait_ms(150);
    assert_eq!(starts(&client.seen(&mut host)), [9], "a probe, after 80 ms");
    assert_eq!(report(&mut host, &client, 0, &[(1, 4)]), [0]);
    // Later than 200 ms after the probe.
    host.wait_ms(140);
    assert_eq!(host.stack.counters().timeouts, 0);
    host.wait_ms(70);
    assert_eq!(host.stack.counters().timeouts, 1);
}

#[test]
fn duplicate_report_of_all_that_was_sent_again_gives_the_window_back() {
    let (mut host, client, conn) = sending(10);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 4)]), [0]);
    assert_eq!(report(&mut host, &client, 10, &[]), []);
    report(&mut host, &client, 10, &[(0, 1)]);
    assert_eq!(spurious(&host), (1, 0));
    host.stack.send(conn, pattern(30 * MSS)).unwrap();
    host.output(conn, AckPolicy::Merge);
    assert!(client.seen(&mut host).len() >= 10);
}

#[test]
fn echo_of_the_original_takes_a_timeout_back_at_once() {
    let client = Client { sack: true, timestamps: Some((1, 0)), ..Client::default() };
    let (mut host, mut client, conn) = sending_with(config(), client, 10);
    let first = client.seen(&mut host);
    // The path freezes for longer than the timeout.
    host.wait_ms(300);
    assert!(host.stack.counters().timeouts == 1);
    client.seen(&mut host);
    // Acknowledgments of the originals.
    client.timestamps = Some((2, first[0].timestamps.unwrap().0));
    host.input(&client.ack(1, 1 + 2 * (M - 12))).events();
    assert_eq!(spurious(&host), (1, 1));
    host.output(conn, AckPolicy::IfDue);
    assert_eq!(client.seen(&mut host), [], "nothing more is sent again");
    client.timestamps = Some((2, first[0].timestamps.unwrap().0));
    host.input(&client.ack(1, 1 + 10 * M)).events();
    assert_eq!((host.stack.unacked_bytes(conn), host.stack.counters().retransmits), (0, 1));
}

#[test]
fn frto_takes_a_timeout_back_when_what_was_not_sent_again_arrives() {
    for sack in [true, false] {
        let client = Client { sack, ..Client::default() };
        let (mut host, client, _) = sending_with(config(), client, 30);
        client.seen(&mut host);
        // Silence, until the timeout that follows the tail probe, if there is one.
        host.wait_ms(300);
        let sent = starts(&client.seen(&mut host));
        assert_eq!(sent.last(), Some(&0), "{sent:?}");
        let next = 10 + u32::from(sack);
        assert_eq!(report(&mut host, &client, 1, &[]), [next, next + 1]);
        report(&mut host, &client, 2, &[]);
        assert_eq!(spurious(&host), (1, 1), "sack {sack}");
        let rest: Vec<u32> = (3..=10).flat_map(|acked| report(&mut host, &client, acked, &[])).collect();
        assert!(rest.iter().all(|&start| start > next), "{rest:?}");
    }
}

#[test]
fn real_timeout_sends_everything_again_in_order() {
    let (mut host, client, conn) = sending(10);
    host.wait_ms(300);
    let sent = starts(&client.seen(&mut host));
    assert_eq!(sent, [9, 0], "the probe and the first");
    let mut received = 1;
    for _ in 0..20 {
        host.now += RTT;
        for start in report(&mut host, &client, received, &[]) {
            assert_eq!(start, received);
            received += 1;
        }
        if host.stack.unacked_bytes(conn) == 0 {
            break;
        }
    }
    assert_eq!((host.stack.unacked_bytes(conn), host.stack.counters().timeouts), (0, 1));
}

#[test]
fn peer_that_throws_away_what_it_reported_gets_it_again() {
    let (mut host, client, conn) = sending(10);
    host.now += RTT;
    assert_eq!(report(&mut host, &client, 0, &[(1, 10)]), [0]);
    host.now += RTT;
    // The hole is filled, and what lay behind it is gone.
    assert_eq!(report(&mut host, &client, 1, &[]), []);
    host.wait_ms(300);
    assert_eq!(starts(&client.seen(&mut host)), [1]);
    assert_eq!(host.stack.counters().sacks_forgotten, 1);
    let mut received = 2;
    for _ in 0..20 {
        host.now += RTT;
        received += report(&mut host, &client, received, &[]).len() as u32;
        if received >= 10 {
            break;
        }
    }
    report(&mut host, &client, 10, &[]);
    assert_eq!(host.stack.unacked_bytes(conn), 0);
}

#[test]
fn blocks_of_what_was_never_sent_or_is_acknowledged_are_passed_over() {
    let (mut host, client, _) = sending(10);
    host.now += RTT;
    report(&mut host, &client, 2, &[]);
    let nonsense = [(10, 12), (9, 11), (8, 6), (5, 5), (1, 4), (1_000_000, 1_000_001)];
    for block in nonsense {
        // In the second place: the first may report a duplicate.
        assert_eq!(report(&mut host, &client, 2, &[(3, 4), block]), []);
    }
    assert_eq!(host.stack.counters().sack_blocks_ignored, nonsense.len() as u64);
    assert_eq!(host.stack.counters().fast_retransmits, 0);
}

#[test]
fn peer_that_acknowledges_what_was_never_sent_gains_nothing() {
    let (mut host, client, conn) = sending(30);
    for acked in [11, 100, 20_000] {
        host.input(&client.ack(1, 1 + acked * M));
        assert_eq!(host.output(conn, AckPolicy::IfDue).bytes, 0);
    }
    assert_eq!(host.stack.unacked_bytes(conn), 30 * MSS);
}

#[test]
fn acknowledgments_in_slices_let_out_no_more_than_whole_ones() {
    let sent = |slices: u32| {
        let (mut host, client, conn) = sending(60);
        host.now += RTT;
        for slice in 1..=slices {
            let ack = 1 + 2 * M * slice / slices;
            let told = Client { blocks: vec![], ..client.clone() };
            host.input(&told.ack(1, ack)).events();
            host.output(conn, AckPolicy::IfDue);
        }
        client.seen(&mut host).len()
    };
    assert!(sent(100) <= sent(1), "{} for slices, {} for a whole", sent(100), sent(1));
}

#[test]
fn invented_duplicates_let_out_no_more_than_was_on_its_way() {
    let (mut host, client, _) = sending_with(config(), Client::default(), 40);
    client.seen(&mut host);
    let sent: usize = (0..1_000).map(|_| report(&mut host, &client, 0, &[]).len()).sum();
    assert!(sent <= 10, "{sent}");
}
