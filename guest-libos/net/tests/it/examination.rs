//! Which segment is withheld once an examination is due: a full one that was never sent, which enough others follow, while
//! nothing else is amiss. Otherwise an honest peer would wait for its timeout, or acknowledge what counts as withheld and be reset.

use std::iter;

use exos_net::{AckPolicy, Config, CongestionControl, ConnId, End};

use crate::harness::{Client, Host, MSS, Seen, config, pattern};

type StaticHost = Host<&'static [u8]>;

/// A connection whose next suitable segment will be withheld: the client has all that was sent.
struct Due {
    host: StaticHost,
    client: Client,
    conn: ConnId,
    /// The next sequence number.
    next: u32,
}

impl Due {
    fn new(config: Config, sack: bool) -> Self {
        let config = Config { withhold_every: 1, ..config };
        let mut host = StaticHost::with(config);
        let mut client = Client { sack, window_scale: Some(2), ..Client::default() };
        let conn = client.connect(&mut host);
        let mut due = Self { host, client, conn, next: 1 };
        // Round trips of as many segments as may leave, each handed over when nothing else is queued: none is followed by
        // another. Three with a window that is large enough: the first draws when, the second is then.
        let mut large = 0;
        while large < 3 {
            while due.has_room() {
                due.push(1);
            }
            large += u32::from(due.host.stack.numbers(conn).unwrap().congestion_window > 24 * MSS as u32);
            due.acknowledge_all();
        }
        assert_eq!(due.host.stack.counters().segments_withheld, 0, "no segment was suitable");
        due
    }

    fn has_room(&self) -> bool {
        let numbers = self.host.stack.numbers(self.conn).unwrap();
        numbers.pipe + MSS as u32 <= numbers.congestion_window.min(40 * MSS as u32)
    }

    /// So many full segments are queued, and leave if they may.
    fn push(&mut self, segments: usize) {
        self.host.stack.send(self.conn, pattern(segments * MSS)).unwrap();
        self.host.output(self.conn, AckPolicy::Merge);
    }

    /// A millisecond later the client has all that left.
    fn acknowledge_all(&mut self) {
        let segments = self.client.seen(&mut self.host);
        self.next = end_of(&segments).unwrap_or(self.next);
        self.acknowledge(self.next);
    }

    fn acknowledge(&mut self, end: u32) {
        self.host.wait_ms(1);
        assert_eq!(self.host.input(&self.client.ack(1, end)).events().ended, None, "an honest peer");
    }

    fn withheld(&self) -> u64 {
        self.host.stack.counters().segments_withheld
    }

    /// What leaves begins where the last segment ended: nothing is withheld.
    fn assert_whole(&mut self, segments: usize) {
        let seen = self.client.seen(&mut self.host);
        assert_eq!(starts(&seen), expected(self.next, segments));
        assert_eq!(self.withheld(), 0);
    }

    /// The first one is missing.
    fn assert_withheld(&mut self, following: usize) -> Vec<Seen> {
        let seen = self.client.seen(&mut self.host);
        assert_eq!(starts(&seen), expected(self.next + MSS as u32, following));
        assert_eq!(self.withheld(), 1);
        seen
    }
}

fn end_of(segments: &[Seen]) -> Option<u32> {
    segments.iter().map(|seen| seen.seq + seen.payload.len() as u32).max()
}

fn starts(segments: &[Seen]) -> Vec<u32> {
    segments.iter().map(|seen| seen.seq).collect()
}

fn expected(first: u32, segments: usize) -> Vec<u32> {
    (0..segments as u32).map(|index| first + index * MSS as u32).collect()
}

#[test]
fn segment_is_withheld_that_as_many_follow_as_show_the_gap() {
    // One that is reported, or four, three of whose acknowledgments are duplicates, one perhaps lost.
    for (sack, following) in [(true, 1), (false, 4)] {
        let mut due = Due::new(config(), sack);
        due.push(following);
        due.assert_whole(following);
        due.next += (following * MSS) as u32;
        due.acknowledge(due.next);
        due.push(1 + following);
        due.assert_withheld(following);
    }
}

#[test]
fn without_congestion_control_nothing_is_withheld() {
    let mut due = Due::new(Config { congestion: CongestionControl::Uncontrolled, ..config() }, true);
    due.push(20);
    due.assert_whole(20);
}

#[test]
fn nothing_is_withheld_before_urgent_data() {
    let mut due = Due::new(config(), true);
    due.host.stack.send_urgent(due.conn, pattern(20 * MSS)).unwrap();
    due.host.output(due.conn, AckPolicy::Merge);
    due.assert_whole(20);
}

/// Of data in pieces so small that a device gathers no full segment.
#[test]
fn segment_that_is_not_full_is_not_withheld() {
    let mut due = Due::new(config(), true);
    for _ in 0..200 {
        due.host.stack.send(due.conn, pattern(50)).unwrap();
    }
    due.host.output(due.conn, AckPolicy::Merge);
    let seen = due.client.seen(&mut due.host);
    assert_eq!((seen[0].seq, due.withheld()), (due.next, 0));
    assert!(seen[0].payload.len() < MSS);
}

/// One is withheld at a time: a second would hide the first, which were then a loss.
#[test]
fn second_segment_is_not_withheld_before_the_first_was_found_missing() {
    let mut due = Due::new(config(), true);
    due.push(1);
    due.push(10);
    let before = due.next + MSS as u32;
    let seen = due.client.seen(&mut due.host);
    assert_eq!(starts(&seen), iter::chain([due.next], expected(before + MSS as u32, 9)).collect::<Vec<_>>());
    // What came before the gap is acknowledged: that is a round trip, and another examination due.
    due.acknowledge(before);
    due.push(10);
    let after = due.client.seen(&mut due.host);
    assert_eq!(starts(&after), expected(end_of(&seen).unwrap(), 10));
    assert_eq!(due.withheld(), 1);
    due.client.blocks = vec![(before + MSS as u32, end_of(&after).unwrap())];
    due.acknowledge(before);
    due.host.output(due.conn, AckPolicy::Merge);
    assert_eq!(due.client.seen(&mut due.host)[0].seq, before);
    let counters = due.host.stack.counters();
    assert_eq!((counters.fast_retransmits, counters.losses_found), (0, 0));
}

/// The octet that probes a closed window was sent, though SND.NXT stays before it: the peer may acknowledge it.
#[test]
fn segment_whose_first_octet_was_a_probe_is_not_withheld() {
    let mut due = Due::new(config(), true);
    due.client.window = 0;
    due.acknowledge(due.next);
    due.push(20);
    due.host.wait_ms(1_000);
    let probes = due.client.seen(&mut due.host);
    assert!(probes.iter().all(|seen| (seen.seq, seen.payload.len()) == (due.next, 1)) && !probes.is_empty());
    // The window opens before the probe arrives.
    due.client.window = 65_535;
    due.acknowledge(due.next);
    due.host.output(due.conn, AckPolicy::Merge);
    assert_eq!((due.client.seen(&mut due.host)[0].seq, due.withheld()), (due.next, 0));
    due.acknowledge(due.next + 1);
}

/// What a probe takes out of the gap may be acknowledged; the rest may not.
#[test]
fn rest_of_a_withheld_segment_is_withheld_when_its_first_octet_was_a_probe() {
    let mut due = Due::new(config(), true);
    due.push(11);
    due.assert_withheld(10);
    due.client.window = 0;
    due.acknowledge(due.next);
    due.host.wait_ms(3_000);
    let probes = due.client.seen(&mut due.host);
    assert!(probes.iter().any(|seen| (seen.seq, seen.payload.len()) == (due.next, 1)), "{probes:?}");
    due.acknowledge(due.next + 1);
    let lie = due.client.ack(1, due.next + MSS as u32);
    assert_eq!(due.host.input(&lie).events().ended, Some(End::OptimisticAck));
}
