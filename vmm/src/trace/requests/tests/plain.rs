//! Requests as they usually are.

use super::scene::*;
use crate::account::ledger::Bucket;
use crate::trace::stream::Piece;

#[test]
fn each_moment_of_a_request_is_in_its_layer() {
    let mut scene = Scene::new();
    scene.request(1000, 0).silence_until(50_000);
    let report = scene.report();
    let expected = [
        ("backend read", 10),
        ("receive (device)", 10),
        ("wait for the guest", 10),
        ("tcp input", 10),
        ("service", 10),
        ("tcp output", 12),
        ("nic transmit", 10),
        ("wait for the device", 8),
        ("transmit (device)", 10),
        ("backend write", 10),
    ];
    let expected: Vec<_> = expected.iter().map(|(name, cycles)| ((*name).to_owned(), *cycles)).collect();
    assert_eq!(layers(&report), expected);
    assert_eq!(report.figures().end_to_end.cycles.p50, 100);
    assert_eq!(report.figures().end_to_end.us.p50, 100.0);
    assert_eq!((report.summary.complete, report.summary.counted), (1, 1));
    assert_eq!(report.summary.incomplete.sum(), 0);
    let request = &report.slowest[0].request;
    assert_eq!(request.shares().iter().map(|share| share.cycles).sum::<u64>(), request.cycles());
    let nic = request.bars.iter().find(|bar| report.summary.layers.get(bar.layer).name == "nic transmit");
    assert_eq!(nic.map(|bar| (bar.from, bar.to, bar.depth)), Some((1060, 1070, 1)));
}

#[test]
fn sources_may_come_in_any_order_and_in_any_pieces() {
    let mut scene = Scene::new();
    for n in 0..50 {
        scene.request(n * 1000, n);
    }
    let expected = scene.clone().silence_until(200_000).report();
    assert_eq!(expected.summary.complete, 50);
    for size in [1, 7, 1000] {
        for order in [[0, 1, 2], [2, 1, 0]] {
            let mut pieces = Vec::new();
            let longest = scene.records.iter().map(Vec::len).max().unwrap_or(0);
            for chunk in 0..longest.div_ceil(size) {
                for source in order {
                    let records: Vec<_> =
                        scene.records[source].iter().skip(chunk * size).take(size).copied().collect();
                    pieces.push(Piece::Records { source: source as u16, lost: 0, records });
                }
            }
            let mut silence = Scene::new();
            pieces.extend(silence.silence_until(200_000).pieces());
            let report = report(&scene.header, &pieces);
            assert_eq!(report.summary.complete, 50, "{size} {order:?}");
            assert_eq!(layers(&report), layers(&expected), "{size} {order:?}");
        }
    }
}

#[test]
fn requests_beside_each_other_have_only_their_own_time() {
    let mut scene = Scene::new();
    // One batch of three: each waits while the guest is at those before it.
    for n in 0..3 {
        scene.bucket(VCPU, 10 * n, Bucket::BackendRead);
        scene.receives(VCPU, packet(n), [10 * n, 10 * n + 10, 10 * n + 10]);
        // They are one batch: the last bucket is not the batch's end.
        scene.records[0].pop();
    }
    scene.bucket(VCPU, 40, Bucket::Guest).follow(0).enter(50, LOOP, 0);
    for n in 0..3 {
        let at = |ticks| 60 + 20 * n + ticks;
        scene.follow(packet(n)).enter(at(0), INPUT, LOOP).leave(at(5), INPUT, LOOP).data(at(5), 0);
        scene.enter(at(5), SERVICE, LOOP).requests(at(9), 1).queued(at(10), frame(n)).leave(
            at(10),
            SERVICE,
            LOOP,
        );
    }
    scene.follow(0).leave(130, LOOP, 0);
    for n in 0..3 {
        scene.sends(VCPU, frame(n), [140 + 10 * n, 145 + 10 * n, 150 + 10 * n]);
        scene.acknowledged(1000 + n, packet(n));
    }
    let report = scene.silence_until(50_000).report();
    assert_eq!(report.summary.complete, 3);
    assert_eq!(max_of(&report, "tcp input"), 5);
    assert_eq!(max_of(&report, "service"), 5);
    assert_eq!(max_of(&report, "receive (device)"), 30, "the first of the batch waits for the others");
    assert_eq!(max_of(&report, "wait for the guest"), 60, "the last of the batch waits for the others");
    assert_eq!(max_of(&report, "event loop"), 0, "the next frame is nobody's until it is taken");
}

#[test]
fn read_from_the_disk_is_the_disks_time() {
    let mut scene = Scene::new();
    scene.receives(VCPU, packet(0), [0, 10, 10]).follow(0).enter(15, LOOP, 0).follow(packet(0));
    scene.enter(20, SERVICE, LOOP).data(20, 0).disk_queued(25, disk(0)).leave(30, SERVICE, LOOP);
    scene.follow(0).leave(32, LOOP, 0).disk_does(disk(0), 40, 3040);
    scene.goes_on(3100, packet(0), 0).enter(3100, SERVICE, 0).requests(3105, 1);
    scene.queued(3110, frame(0)).leave(3110, SERVICE, 0).follow(0);
    scene.sends(VCPU, frame(0), [3120, 3120, 3130]).acknowledged(3300, packet(0));
    let report = scene.silence_until(50_000).report();
    assert_eq!(max_of(&report, "disk"), 3000);
    assert_eq!(max_of(&report, "wait for the disk"), 10, "it was queued while the guest worked");
    assert_eq!(max_of(&report, "wait for the guest"), 10 + 60);
    assert_eq!(max_of(&report, "service"), 20);
    assert_eq!(report.summary.continued, 1);
    assert_eq!(report.slowest[0].request.cycles(), 3130);
}

#[test]
fn disk_request_of_another_is_waited_for_from_when_the_guest_left_off() {
    let mut scene = Scene::new();
    // It was asked for, and taken, before this packet came.
    scene.follow(0).disk_queued(1, disk(0)).disk_does(disk(0), 5, 3040);
    scene.receives(VCPU, packet(0), [10, 20, 20]).follow(packet(0));
    scene.enter(30, SERVICE, 0).data(30, 0).leave(40, SERVICE, 0).follow(0);
    scene.goes_on(3100, packet(0), disk(0)).enter(3100, SERVICE, 0).requests(3105, 1);
    scene.queued(3110, frame(0)).leave(3110, SERVICE, 0).follow(0);
    scene.sends(VCPU, frame(0), [3120, 3120, 3130]).acknowledged(3300, packet(0));
    let report = scene.silence_until(50_000).report();
    assert_eq!(max_of(&report, "disk"), 3000);
    assert_eq!(max_of(&report, "wait for the guest"), 10 + 60);
    assert_eq!((max_of(&report, "backend read"), max_of(&report, "wait in the guest")), (10, 0));
}

#[test]
fn request_in_two_packets_begins_with_the_first_and_waits_for_its_rest() {
    let mut scene = Scene::new();
    scene.receives(VCPU, packet(0), [0, 10, 10]).follow(packet(0));
    scene.enter(20, SERVICE, LOOP).data(20, 0).queued(28, frame(0)).leave(30, SERVICE, LOOP).follow(0);
    // An acknowledgment is no answer.
    scene.sends(VCPU, frame(0), [31, 31, 32]);
    scene.receives(VCPU, packet(1), [5000, 5010, 5010]).follow(packet(1));
    scene.enter(5020, SERVICE, LOOP).data(5020, packet(0)).requests(5025, 1).queued(5030, frame(1));
    scene.leave(5030, SERVICE, LOOP).follow(0).sends(VCPU, frame(1), [5040, 5040, 5050]);
    scene.acknowledged(5200, packet(1));
    // The next one of the same connection is not of that request.
    scene.receives(VCPU, packet(2), [6000, 6010, 6010]).follow(packet(2));
    scene.enter(6020, SERVICE, LOOP).data(6020, packet(1)).requests(6025, 1).queued(6030, frame(2));
    scene.leave(6030, SERVICE, LOOP).follow(0).sends(VCPU, frame(2), [6040, 6040, 6050]);
    scene.acknowledged(6200, packet(2));
    let report = scene.silence_until(90_000).report();
    assert_eq!((report.summary.complete, report.summary.in_several_packets), (2, 1));
    assert_eq!(max_of(&report, "wait for the request's rest"), 5000 - 30);
    assert_eq!(report.slowest[0].request.packets, [packet(0), packet(1)]);
    let figures = report.figures();
    assert_eq!((figures.end_to_end.cycles.max, figures.without_client.cycles.max), (5050, 5050 - 4970));
    assert_eq!(max_of(&report, "service"), 20);
}

#[test]
fn answer_that_goes_on_when_the_client_acknowledges_is_one() {
    let mut scene = Scene::new();
    scene.receives(IO, packet(0), [0, 10, 10]).follow(packet(0));
    scene
        .enter(20, OUTPUT, LOOP)
        .data(20, 0)
        .requests(25, 2)
        .queued(30, frame(0))
        .leave(30, OUTPUT, LOOP)
        .follow(0);
    scene.sends(IO, frame(0), [35, 40, 50]);
    scene.follow(packet(1)).enter(700, INPUT, LOOP).leave(710, INPUT, LOOP);
    scene
        .goes_on(710, packet(0), packet(1))
        .enter(720, OUTPUT, LOOP)
        .queued(730, frame(1))
        .leave(730, OUTPUT, LOOP);
    scene.follow(0).sends(IO, frame(1), [735, 740, 750]).acknowledged(900, packet(0));
    let report = scene.silence_until(50_000).report();
    assert_eq!(max_of(&report, "wait for the client"), 710 - 50);
    assert_eq!(report.slowest[0].request.frames, [frame(0), frame(1)]);
    assert_eq!(report.slowest[0].request.cycles(), 750);
    assert_eq!((report.summary.several_in_packet, report.summary.counted), (1, 2));
    assert_eq!((report.summary.in_several_frames, report.summary.continued), (1, 1));
}

#[test]
fn percentiles_are_over_all_requests_and_slowest_are_found() {
    let mut scene = Scene::new();
    for n in 0..1000 {
        scene.request(n * 1000, n);
    }
    // One of a thousand had to wait for the device.
    for record in &mut scene.records[0] {
        if record.subject == frame(500) {
            record.tsc += 300;
        }
    }
    let report = scene.silence_until(2_000_000).report();
    let figures = report.figures();
    assert_eq!(figures.complete, 1000);
    let cycles = figures.end_to_end.cycles;
    assert_eq!((cycles.p50, cycles.p99, cycles.p99_9, cycles.max), (100, 100, 100, 400));
    assert_eq!(report.slowest[0].request.packets, [packet(500)]);
    assert_eq!(report.slowest.len(), 5);
    assert!(!report.slowest_pieces().is_empty());
    let table = report.table();
    assert!(table.contains("end to end") && table.contains("nic transmit"), "{table}");
    assert_eq!(report.slowest_table().lines().count(), 6);
}
