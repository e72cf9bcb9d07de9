//! Marks: on whom, how many, and when.

use super::*;

const FIELD: usize = HEADER_BYTES + 15;
const NOT_CAPABLE: u8 = 0;
const CAPABLE: u8 = 2;
const MARKED: u8 = 3;

/// A packet with an IPv4 header, whose ECN field is this.
fn ip_packet(field: u8) -> Vec<u8> {
    let mut packet = vec![0; HEADER_BYTES + 14 + 60];
    packet[HEADER_BYTES + 12] = 0x08;
    (packet[HEADER_BYTES + 14], packet[FIELD]) = (0x45, field);
    packet
}

/// Offers packets with fields that repeat, `spacing` apart, and gives back the fields that arrive.
fn fields_of(faults: Faults, fields: &[u8], packets: u32, spacing: Duration) -> (Vec<u8>, LineCounters) {
    let mut line = Line::new(faults, 7);
    for (number, &field) in (0..packets).zip(fields.iter().cycle()) {
        line.offer(&ip_packet(field), spacing * number);
    }
    let arrived = std::iter::from_fn(|| line.next(Duration::MAX)).map(|packet| packet[FIELD]).collect();
    (arrived, line.counters())
}

#[test]
fn share_of_those_that_can_be_marked_is_marked_and_nobody_else() {
    const PACKETS: u32 = 50_000;
    for share in [0.1, 0.5] {
        let faults = Faults { mark: share, ..Faults::default() };
        let (arrived, counters) = fields_of(faults, &[CAPABLE, NOT_CAPABLE], PACKETS, MS);
        let marked = arrived.iter().filter(|field| **field == MARKED).count();
        assert_eq!(marked as u64, counters.marked);
        let of_capable = marked as f64 / f64::from(PACKETS / 2);
        assert!((of_capable - share).abs() < tolerance(share, PACKETS / 2), "{of_capable}");
        assert!(arrived.iter().skip(1).step_by(2).all(|field| *field == NOT_CAPABLE));
        assert_eq!((counters.delivered, counters.lost), (u64::from(PACKETS), 0), "a mark is no loss");
    }
}

#[test]
fn packet_that_is_marked_already_counts_as_no_mark_and_one_that_goes_twice_as_two() {
    let faults = Faults { mark: 1.0, duplicate: 1.0, ..Faults::default() };
    let (arrived, counters) = fields_of(faults, &[MARKED, CAPABLE], 10, MS);
    assert_eq!((arrived, counters.marked), (vec![MARKED; 20], 10));
}

#[test]
fn line_marks_those_that_find_a_queue() {
    // 74 bytes of frame are 592 bits: 592 us at 1 Mbit/s.
    let faults = Faults { rate_bits: Some(1_000_000), mark_from_packets: Some(3), ..Faults::default() };
    let (arrived, counters) = fields_of(faults, &[CAPABLE], 6, Duration::ZERO);
    assert_eq!(arrived, [CAPABLE, CAPABLE, CAPABLE, MARKED, MARKED, MARKED]);
    assert_eq!(counters.marked, 3);
    let (arrived, _) = fields_of(faults, &[CAPABLE], 100, MS);
    assert_eq!(arrived, [CAPABLE; 100], "no queue, no mark");
    let (arrived, _) = fields_of(faults, &[NOT_CAPABLE], 6, Duration::ZERO);
    assert_eq!(arrived, [NOT_CAPABLE; 6]);
}

#[test]
fn marks_do_not_change_what_else_happens() {
    let faults = Faults { loss: 0.1, reorder: 0.1, delay: 5 * MS, jitter: 2 * MS, ..Faults::default() };
    let marking = Faults { mark: 0.3, ..faults };
    let times = |faults| run(faults, 7, 1000, MS).0;
    assert_eq!(times(faults), times(marking));
}
