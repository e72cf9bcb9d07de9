//! What is missing, strange or hostile.

use super::super::{Keep, Requests};
use super::scene::*;
use crate::trace::record::Record;
use crate::trace::stream::Piece;
use abi::trace::{RECORD_ENTER, pack_what};

#[test]
fn request_across_a_gap_is_counted_and_not_shown() {
    for gap in [VCPU, IO, GUEST] {
        let mut scene = Scene::new();
        for n in 0..10 {
            scene.request(n * 1000, n);
        }
        scene.silence_until(100_000);
        // One that looks faster than all others, for a record of it is missing.
        let (mut pieces, mut lost) = (Vec::new(), 0);
        for (source, records) in (0u16..).zip(&scene.records) {
            let (before, after): (Vec<Record>, Vec<Record>) =
                records.iter().partition(|record| record.tsc < 5045);
            pieces.push(Piece::Records { source, lost: 0, records: before });
            let mut after = after;
            if source == gap {
                lost = 1;
                if !after.is_empty() {
                    after.remove(0);
                }
            }
            pieces.push(Piece::Records { source, lost: u64::from(source == gap), records: after });
        }
        let report = report(&scene.header, &pieces);
        assert_eq!((report.summary.lost_records, lost), (1, 1));
        assert!(report.slowest.iter().all(|kept| kept.request.packets != [packet(5)]), "{gap}");
        let counted = report.summary.complete + report.summary.incomplete.lost_records;
        // The record that is missing may be the one that counts the request. A source that was silent says nothing about when.
        let at_least = if gap == GUEST { 9 } else { 10 };
        assert!(
            counted >= at_least && report.summary.incomplete.lost_records <= 10,
            "{gap}: {:?}",
            report.summary
        );
        assert_eq!(report.summary.end_to_end.percentiles(0).p50, if gap == IO { 0 } else { 100 }, "{gap}");
    }
}

#[test]
fn requests_that_are_not_whole_are_counted_by_reason() {
    let mut scene = Scene::new();
    scene.request(0, 0).request(1000, 1).request(2000, 2).request(3000, 3);
    let is_of = |record: &Record, subject: u64, tsc: u64| record.subject == subject && record.tsc >= tsc;
    // No packet; no answer; no acknowledgment; and one that is whole.
    scene.records[usize::from(VCPU)].retain(|record| record.subject != packet(0));
    scene.records[usize::from(GUEST)]
        .retain(|record| record.subject != frame(1) && !is_of(record, packet(2), 2200));
    let report = scene.silence_until(3_200_000).report();
    let incomplete = report.summary.incomplete;
    assert_eq!(report.summary.complete, 1);
    assert_eq!((incomplete.begun_before, incomplete.unanswered, incomplete.unacknowledged), (1, 1, 1));
    assert_eq!(incomplete.sum(), 3);
    let remarks = report.remarks().join("\n");
    assert!(
        remarks.contains("never acknowledged") && remarks.contains("1 request with a complete record"),
        "{remarks}"
    );
}

#[test]
fn request_under_way_at_the_end_is_not_shown_as_fast() {
    let mut scene = Scene::new();
    scene.request(0, 0);
    scene.records[usize::from(GUEST)].retain(|record| record.tsc < 150);
    let report = scene.report();
    assert_eq!((report.summary.complete, report.summary.incomplete.under_way), (0, 1));
}

#[test]
fn image_that_counts_no_requests_is_told() {
    let mut scene = Scene::new();
    scene.header.sites.iter_mut().for_each(|site| site.kind = "span".to_owned());
    let report = scene.request(0, 0).report();
    assert!(report.table().contains("this image counts none"), "{}", report.table());
    assert_eq!(report.figures().complete, 0);
}

#[test]
fn sample_without_buckets_and_neighbours_gives_the_same_times_where_it_can() {
    let mut scene = Scene::new();
    scene.request(0, 0).silence_until(50_000);
    scene.header.one_in = 64;
    // A sample has no buckets, and of the guest only what is followed.
    for source in [VCPU, IO] {
        scene.records[usize::from(source)].retain(|record| record.subject != 0);
    }
    scene.records[usize::from(GUEST)].retain(|record| record.subject != 0);
    // The clock of the threads goes on with what others sent.
    scene.sends(VCPU, frame(9), [90_000, 90_000, 90_000]);
    scene.records[usize::from(VCPU)].retain(|record| record.subject != 0);
    let report = scene.report();
    assert_eq!(report.summary.complete, 1, "{:?}", report.summary);
    assert_eq!(report.figures().end_to_end.cycles.max, 100);
    assert_eq!(
        max_of(&report, "wait for the guest"),
        20,
        "with the device's part, of which nothing is known"
    );
    assert_eq!(max_of(&report, "tcp output"), 12);
    assert_eq!(max_of(&report, "event loop"), 0);
}

#[test]
fn work_that_goes_on_in_a_sample_is_not_work_meanwhile() {
    let mut scene = Scene::new();
    scene.receives(VCPU, packet(0), [0, 10, 10]).follow(packet(0));
    scene.enter(20, OUTPUT, LOOP).data(20, 0).requests(25, 1).queued(30, frame(0)).leave(30, OUTPUT, LOOP);
    scene.sends(VCPU, frame(0), [40, 40, 50]);
    // Nothing is recorded between, and the span around is the same.
    scene.goes_on(710, packet(0), 1).enter(710, OUTPUT, LOOP).queued(730, frame(1)).leave(730, OUTPUT, LOOP);
    scene.sends(VCPU, frame(1), [735, 740, 750]).acknowledged(900, packet(0));
    let report = scene.silence_until(50_000).report();
    assert_eq!(max_of(&report, "event loop"), 0);
    assert_eq!(max_of(&report, "wait for the client"), 660);
}

#[test]
fn stream_without_end_is_followed_in_bounded_memory() {
    let header = header();
    let mut requests = Requests::new(&header, Keep { slowest: 3, typical: true });
    let mut most = 0;
    for n in 0..20_000 {
        let mut scene = Scene::new();
        scene.request(n * 1000, n);
        // And packets that nobody ever answers.
        scene.receives(VCPU, packet(1_000_000 + n), [n * 1000 + 300, n * 1000 + 301, n * 1000 + 302]);
        scene.follow(packet(1_000_000 + n)).enter(n * 1000 + 310, INPUT, LOOP).leave(
            n * 1000 + 311,
            INPUT,
            LOOP,
        );
        scene.pieces().iter().for_each(|piece| requests.feed(piece));
        most = most.max(
            requests.environments.values().map(|environment| environment.works.len()).max().unwrap_or(0),
        );
    }
    assert!(most < 200, "{most} packets at once");
    let report = requests.finish();
    assert_eq!(report.summary.complete, 20_000);
}

/// An environment that says as much as it can of as many packets as it can, at one moment.
fn flood(source: u16, packets: u64, parts: u64) -> impl Iterator<Item = Piece> {
    (0..packets).map(move |n| {
        let mut scene = Scene::new();
        scene.follow(packet(1_000_000 + n));
        for part in 0..parts {
            scene.disk_queued(part, disk(part)).enter(part, INPUT, LOOP).leave(part + 1, INPUT, LOOP);
        }
        scene.requests(parts + 1, 1);
        Piece::Records { source, lost: 0, records: std::mem::take(&mut scene.records[usize::from(GUEST)]) }
    })
}

#[test]
fn guest_that_says_too_much_takes_no_more_memory_than_there_is_and_its_neighbours_requests_are_there() {
    let mut scene = Scene::new();
    let numbers = 1..4;
    scene.header.sources.extend(numbers.map(|number| crate::trace::stream::Source::Environment { number }));
    let mut requests = Requests::new(&scene.header, Keep { slowest: 5, typical: true });
    for source in 3..6 {
        flood(source, 500, 4000).for_each(|piece| requests.feed(&piece));
    }
    let max = super::super::room::Room::max();
    assert!(requests.room.used() > max / 2 && requests.room.used() <= max, "{}", requests.room.used());
    (0..5).for_each(|n| {
        scene.request(n * 1000, n);
    });
    scene.silence_until(100_000).pieces().iter().for_each(|piece| requests.feed(piece));
    let report = requests.finish();
    assert_eq!(report.summary.complete, 5);
    assert!(report.summary.crowded > 0);
    let remarks = report.remarks().join("\n");
    assert!(remarks.contains("left out: times go backwards, or too many packets at once"), "{remarks}");
}

#[test]
fn request_for_which_there_was_no_room_is_counted_and_not_shown() {
    let mut scene = Scene::new();
    let mut requests = Requests::new(&scene.header, Keep { slowest: 5, typical: true });
    // It has begun when others take all the room.
    scene.request(0, 0).silence_until(100_000);
    let mut records = std::mem::take(&mut scene.records[usize::from(GUEST)]);
    let rest = records.split_off(4);
    requests.feed(&Piece::Records { source: GUEST, lost: 0, records });
    flood(GUEST, 400, 5000).for_each(|piece| requests.feed(&piece));
    requests.feed(&Piece::Records { source: GUEST, lost: 0, records: rest });
    scene.pieces().iter().for_each(|piece| requests.feed(piece));
    let report = requests.finish();
    assert_eq!((report.summary.complete, report.summary.incomplete.no_room > 0), (0, true));
    let remarks = report.remarks().join("\n");
    assert!(remarks.contains("too much was under way at once to keep all of it"), "{remarks}");
    assert!(report.slowest.is_empty());
}

#[test]
fn request_of_very_many_parts_is_put_together_soon_or_not_at_all() {
    for (parts, complete) in [(3000, 1), (30_000, 0)] {
        let mut scene = Scene::new();
        scene.request(0, 0);
        for part in 0..parts {
            scene.disk_does(disk(part), 210 + part, 220 + part);
            scene.follow(packet(0)).disk_queued(205, disk(part)).goes_on(
                230 + part,
                packet(0),
                disk(part + parts),
            );
            scene.disk_does(disk(part + parts), 211 + part, 221 + part);
        }
        scene.acknowledged(240 + parts, packet(0));
        let begun = std::time::Instant::now();
        let report = scene.silence_until(100_000).report();
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
        let summary = &report.summary;
        assert_eq!((summary.complete, summary.incomplete.too_long), (complete, 1 - complete), "{summary:?}");
    }
}

fn any_record() -> impl proptest::strategy::Strategy<Value = Record> {
    use proptest::prelude::*;
    let subjects = prop_oneof![
        (0u64..4).prop_map(packet),
        (0u64..4).prop_map(frame),
        (0u64..4).prop_map(disk),
        any::<u64>(),
        Just(0)
    ];
    let sites = prop_oneof![0u32..16, 100u32..103, any::<u32>()];
    let tscs = prop_oneof![0u64..2000, 0u64..20_000_000, any::<u64>()];
    (tscs, sites, 0u16..6, subjects, prop_oneof![0u64..2000, any::<u64>(), (0u64..4).prop_map(packet)])
        .prop_map(|(tsc, site, kind, subject, argument)| Record {
            tsc,
            what: pack_what(site, kind, 0),
            subject,
            argument,
        })
}

proptest::proptest! {
    #[test]
    fn garbage_of_any_source_harms_nobody(
        pieces in proptest::collection::vec(
            (0u16..5, 0u64..2, proptest::collection::vec(any_record(), 0..40)), 0..30)
    ) {
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(source, lost, records)| Piece::Records { source, lost, records })
            .collect();
        let report = report(&header(), &pieces);
        for kept in &report.slowest {
            let shares: u64 = kept.request.shares().iter().map(|share| share.cycles).sum();
            proptest::prop_assert_eq!(shares, kept.request.cycles());
        }
        let _ = (report.table(), report.slowest_table(), report.html(), serde_json::to_string(&report.figures()));
    }

    #[test]
    fn garbage_of_the_guest_does_not_change_its_neighbours_requests(
        records in proptest::collection::vec(any_record(), 0..200)
    ) {
        let mut scene = Scene::new();
        scene.header.sources.push(crate::trace::stream::Source::Environment { number: 1 });
        (0..5).for_each(|n| { scene.request(n * 1000, n); });
        scene.silence_until(100_000);
        let mut pieces = scene.pieces();
        pieces.insert(pieces.len() / 2, Piece::Records { source: 3, lost: 0, records });
        let mut requests = Requests::new(&scene.header, Keep::default());
        pieces.iter().for_each(|piece| requests.feed(piece));
        proptest::prop_assert!(requests.finish().summary.complete >= 5);
    }
}

#[test]
fn unknown_spans_have_a_layer() {
    let mut scene = Scene::new();
    scene.request(0, 0);
    for record in &mut scene.records[usize::from(GUEST)] {
        if record.parts() == (SERVICE, RECORD_ENTER, 0) {
            record.what = pack_what(99, RECORD_ENTER, 0);
        }
    }
    let report = scene.silence_until(50_000).report();
    assert_eq!(max_of(&report, "guest, unknown span"), 5);
}
