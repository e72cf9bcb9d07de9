//! Streams made by hand, and what the file says of them.

use super::proto::Trace;
use super::*;
use crate::trace::record::{FIRST_NAME, Happening};
use crate::trace::stream::{KvmHeader, Site};
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, pack_what, subject};
use prost::Message;

const VCPU: u16 = 0;
const ENVIRONMENT: u16 = 1;
const KVM: u16 = 2;

fn header() -> Header {
    let site = |name: &str, kind: &str| Site { name: name.to_owned(), kind: kind.to_owned() };
    Header {
        schema: String::new(),
        machine: "cheetah".to_owned(),
        image: "cheetah".to_owned(),
        tsc_khz: 1_000_000,
        tsc: 1_000_000_000_000,
        utc_us: 5_000_000,
        one_in: 1,
        sources: vec![
            Source::Thread { name: "vcpu".to_owned() },
            Source::Environment { number: 0 },
            Source::Kvm { thread: "vcpu".to_owned() },
        ],
        sites: vec![
            site("tcp input", "span"),
            site("service", "span"),
            site("requests", "counter"),
            site("frame queued", "event"),
        ],
        buckets: vec!["vmm other".to_owned(), "guest".to_owned()],
        happenings: vec![],
        kvm: KvmHeader {
            names: ["HLT", "halted", "to the VMM: MMIO"].map(str::to_owned).to_vec(),
            missing: None,
        },
    }
}

/// A record `us` microseconds after the beginning.
fn record(us: u64, site: u32, kind: u16, subject: u64, argument: u64) -> Record {
    Record { tsc: header().tsc + us * 1000, what: pack_what(site, kind, 0), subject, argument }
}

fn export(only: &[&str], pieces: Vec<(u16, u64, Vec<Record>)>) -> (Trace, Exported) {
    let only = Only::new(&only.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let mut file = Vec::new();
    let mut exporter = Exporter::new(&mut file, &header(), only).expect("a vector");
    for (source, lost, records) in pieces {
        exporter.push(&Piece::Records { source, lost, records }).expect("a vector");
    }
    let exported = exporter.finish().0.expect("a vector");
    (Trace::decode(file.as_slice()).expect("our own"), exported)
}

/// The events, as "us kind name" with flows.
fn events(trace: &Trace) -> Vec<String> {
    let mut names = HashMap::new();
    let mut events = Vec::new();
    for packet in &trace.packet {
        let sequence = packet.trusted_packet_sequence_id();
        for name in packet.interned_data.iter().flat_map(|data| &data.event_names) {
            names.insert((sequence, name.iid()), name.name().to_owned());
        }
        let Some(event) = &packet.track_event else { continue };
        let kind = ["?", "begin", "end", "instant", "counter"][event.r#type() as usize];
        let name = event.name_iid.map_or("", |iid| names[&(sequence, iid)].as_str());
        let flows: Vec<_> = event.flow_ids.iter().chain(&event.terminating_flow_ids).collect();
        let us = (packet.timestamp() - 5_000_000_000) / 1000;
        events.push(format!("{us} {kind} {name} {flows:?}"));
    }
    events
}

const FRAME: u64 = subject::of(subject::RECEIVED, 0, 0, 7);
const ANSWER: u64 = subject::of(subject::SENT, 0, 1, 3);

fn request() -> Vec<(u16, u64, Vec<Record>)> {
    vec![
        (
            VCPU,
            0,
            vec![
                record(1, 1, RECORD_ENTER, 0, 0),
                Record {
                    argument: record(2, 0, 0, 0, 0).tsc,
                    ..record(3, Happening::Received as u32, RECORD_EVENT, FRAME, 0)
                },
            ],
        ),
        (
            ENVIRONMENT,
            0,
            vec![
                record(4, 1, RECORD_ENTER, FRAME, 0),
                record(5, 1, RECORD_LEAVE, FRAME, 0),
                record(6, 2, RECORD_ENTER, FRAME, 0),
                record(7, 3, RECORD_COUNTER, FRAME, 2),
                record(8, 4, RECORD_EVENT, ANSWER, FRAME),
                record(9, 2, RECORD_LEAVE, FRAME, 0),
            ],
        ),
        (
            VCPU,
            0,
            vec![
                record(10, 0, RECORD_ENTER, 0, 0),
                Record {
                    argument: record(11, 0, 0, 0, 0).tsc,
                    ..record(12, Happening::Sent as u32, RECORD_EVENT, ANSWER, 0)
                },
            ],
        ),
    ]
}

#[test]
fn request_has_slices_and_arrows_on_one_time_line() {
    let (trace, exported) = export(&[], request());
    assert_eq!(exported, Exported { records: 10, ..Exported::default() });
    let expected = [
        "1 begin guest []".to_owned(),
        format!("2 begin frame received [{FRAME}]"),
        "3 end  []".to_owned(),
        format!("4 begin tcp input [{FRAME}]"),
        "5 end  []".to_owned(),
        format!("6 begin service [{FRAME}]"),
        "7 counter  []".to_owned(),
        format!("8 instant frame queued [{ANSWER}, {FRAME}]"),
        "9 end  []".to_owned(),
        "10 end  []".to_owned(),
        "10 begin vmm other []".to_owned(),
        format!("11 begin frame sent [{ANSWER}]"),
        "12 end  []".to_owned(),
        "12 end  []".to_owned(),
    ];
    assert_eq!(events(&trace), expected);
}

#[test]
fn only_leaves_out_what_has_none_of_the_words() {
    let (trace, _) = export(&["TCP", "frame"], request());
    let names: Vec<_> = events(&trace)
        .into_iter()
        .filter(|event| event.contains("begin") || event.contains("instant"))
        .map(|event| event.split(' ').skip(2).collect::<Vec<_>>().join(" "))
        .map(|event| event.split(" [").next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(names, ["frame received", "tcp input", "frame queued", "frame sent"]);
}

#[test]
fn own_spans_and_messages_of_the_vmm_are_named_and_chosen_like_all_else() {
    let all = |only: &[&str]| {
        let only = Only::new(&only.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        let mut file = Vec::new();
        let mut exporter = Exporter::new(&mut file, &header(), only).expect("a vector");
        let names = ["device register", "INFO nic.rs:7"].map(str::to_owned).to_vec();
        exporter.push(&Piece::Names(names)).expect("a vector");
        let records = vec![
            record(1, 1, RECORD_ENTER, 0, 0),
            record(2, FIRST_NAME, RECORD_ENTER, 0, 0),
            record(3, FIRST_NAME + 1, RECORD_EVENT, 0, 0),
            record(4, FIRST_NAME, RECORD_LEAVE, 0, 0),
            record(5, 0, RECORD_ENTER, 0, 0),
        ];
        exporter.push(&Piece::Records { source: VCPU, lost: 0, records }).expect("a vector");
        exporter.finish().0.expect("a vector");
        events(&Trace::decode(file.as_slice()).expect("our own"))
    };
    let expected = [
        "1 begin guest []",
        "2 begin device register []",
        "3 instant INFO nic.rs:7 []",
        "4 end  []",
        "5 end  []",
        "5 begin vmm other []",
        "5 end  []",
    ];
    assert_eq!(all(&[]), expected);
    assert_eq!(all(&["guest"]), ["1 begin guest []", "5 end  []"]);
    assert_eq!(all(&["device"]), ["2 begin device register []", "4 end  []"]);
}

#[test]
fn gap_is_a_slice_that_ends_what_was_open() {
    let pieces = vec![
        (ENVIRONMENT, 0, vec![record(1, 1, RECORD_ENTER, 0, 0), record(2, 2, RECORD_ENTER, 0, 1)]),
        (ENVIRONMENT, 50, vec![record(9, 1, RECORD_LEAVE, 0, 0), record(10, 1, RECORD_ENTER, 0, 0)]),
    ];
    let (trace, exported) = export(&[], pieces);
    assert_eq!((exported.records, exported.lost), (4, 50));
    let expected = [
        "1 begin tcp input []",
        "2 begin service []",
        "2 end  []",
        "2 end  []",
        "2 begin records lost []",
        "9 end  []",
        "10 begin tcp input []",
        "10 end  []",
    ];
    assert_eq!(events(&trace), expected);
}

/// What KVM says: an exit with a halt in it, an exit to the VMM, and one that is not over.
fn kvm() -> Vec<Record> {
    let event = |from: u64, to, site| Record {
        argument: record(from, 0, 0, 0, 0).tsc,
        ..record(to, site, RECORD_EVENT, 0x40, 0)
    };
    vec![
        record(1, 0, RECORD_ENTER, 0x1000, 12),
        event(2, 8, 1),
        record(9, 0, RECORD_LEAVE, 0, 0),
        record(20, 99, RECORD_ENTER, 0x1000, 77),
        record(21, 0, RECORD_LEAVE, 0, 0),
        event(21, 21, 2),
        record(30, 0, RECORD_ENTER, 0x1000, 12),
    ]
}

#[test]
fn exits_are_slices_with_what_happened_within_them() {
    let (trace, exported) = export(&[], vec![(KVM, 0, kvm())]);
    assert_eq!((exported.kvm, exported.kvm_exits, exported.garbage), (7, 3, 0));
    let expected = [
        "1 begin HLT []",
        "2 begin halted []",
        "8 end  []",
        "9 end  []",
        "20 begin ? []",
        "21 end  []",
        "21 instant to the VMM: MMIO []",
        "30 begin HLT []",
        "30 end  []",
    ];
    assert_eq!(events(&trace), expected);
    let (trace, exported) = export(&["halted"], vec![(KVM, 0, kvm())]);
    assert_eq!(events(&trace), ["2 begin halted []", "8 end  []"]);
    assert_eq!(exported.kvm_exits, 3, "also those that nobody wants to see");
    assert_eq!(events(&export(&["kvm"], vec![(KVM, 0, kvm())]).0), expected);
}

#[test]
fn events_of_kvm_that_were_lost_are_a_gap_that_ends_the_exit() {
    let later: Vec<_> = kvm().into_iter().skip(1).collect();
    let (trace, exported) = export(&[], vec![(KVM, 0, kvm()[..1].to_vec()), (KVM, 7, later[1..3].to_vec())]);
    assert_eq!(exported.lost, 7);
    let expected = [
        "1 begin HLT []",
        "1 end  []",
        "1 begin records lost []",
        "9 end  []",
        "20 begin ? []",
        "20 end  []",
    ];
    assert_eq!(events(&trace), expected);
}

#[test]
fn disk_requests_that_cross_have_tracks_of_their_own() {
    let request = |n, from, to| {
        let subject = subject::of(subject::DISK, 1, 0, n);
        Record {
            argument: record(from, 0, 0, 0, 0).tsc,
            ..record(to, Happening::DiskDone as u32, RECORD_EVENT, subject, 0)
        }
    };
    let (trace, _) = export(&[], vec![(VCPU, 0, vec![request(0, 1, 5), request(1, 2, 6), request(2, 5, 7)])]);
    let tracks: Vec<_> = trace
        .packet
        .iter()
        .filter_map(|packet| packet.track_event.as_ref())
        .filter(|event| event.r#type() == EventType::SliceBegin)
        .map(TrackEvent::track_uuid)
        .collect();
    assert_eq!(tracks.len(), 3);
    assert!(tracks[0] != tracks[1] && tracks[0] == tracks[2], "{tracks:?}");
}

#[test]
fn garbage_of_the_guest_is_counted_and_left_out() {
    let mut records = vec![
        record(0, 0, RECORD_ENTER, 0, 0),
        record(0, 77, RECORD_ENTER, 0, 0),
        record(0, 1, 99, 0, 0),
        Record { tsc: 5, ..record(0, 1, RECORD_ENTER, 0, 0) },
        Record { tsc: u64::MAX, ..record(0, 1, RECORD_ENTER, 0, 0) },
        record(5, 1, RECORD_LEAVE, u64::MAX, u64::MAX),
        record(4, 1, RECORD_ENTER, 0, 0),
    ];
    records.extend((0..100).map(|us| record(10 + us, 1, RECORD_ENTER, 0, 0)));
    let (trace, exported) =
        export(&[], vec![(ENVIRONMENT, 0, records), (99, 0, vec![record(1, 1, RECORD_ENTER, 0, 0)])]);
    assert_eq!((exported.garbage, exported.records), (6 + 36, 108 - 42));
    let begins = events(&trace).iter().filter(|event| event.contains("begin")).count();
    let ends = events(&trace).iter().filter(|event| event.contains("end ")).count();
    assert_eq!((begins, ends), (64, 64));
}

proptest::proptest! {
    #[test]
    fn any_records_make_a_file(words in proptest::collection::vec(proptest::array::uniform4(proptest::num::u64::ANY), 0..50)) {
        let records: Vec<_> = words.iter().map(|&[tsc, what, subject, argument]| Record { tsc, what, subject, argument }).collect();
        export(&[], vec![(VCPU, 3, records.clone()), (KVM, 3, records.clone()), (ENVIRONMENT, 3, records)]);
    }
}
