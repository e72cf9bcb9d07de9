//! What is asked back: who answers keeps the rest, who does not loses the tail and is told, and nobody else notices. The probe's
//! children are functions of its own program.

use crate::fixture::{Outcome, Probe, Wire, said, start_with_nic};
use abi::domain::{DomainEntry, position};
use abi::extent::{EXTENTS, ExtentEntry};
use exovm::backend::disk::Access;
use exovm::machine::{DiskSetup, Machine};
use exovm::placement::IoMode;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::FromBytes;

fn run(arguments: &[&str]) -> Outcome {
    Probe::start(arguments, |config| config.spare_environments = Some(3)).finish()
}

fn lines(log: &[String]) -> Vec<&str> {
    said(log).collect()
}

/// Its first capability but one, from its page 3 on, five pages; memory, not given.
const TOLD: &str = "(true, 3, 5, 257)";

#[test]
fn core_who_answers_keeps_the_rest_and_the_asker_gets_the_tail() {
    let log = run(&["revoke-answered"]).held();
    assert_eq!(
        lines(&log),
        [
            "answered before the deadline",
            "answers 1, wrong 0",
            "lost 0",
            "the tail is usable: true",
            "the neighbour goes on: true, wrong 0",
            "it touches the tail: 142",
        ]
    );
}

#[test]
fn core_who_does_not_answer_loses_the_tail_and_is_told() {
    let log = run(&["revoke-ignored"]).held();
    assert_eq!(
        lines(&log),
        [
            "answered after the deadline",
            "the tail is usable: true",
            "it ended with 9, wrong 0",
            "it faulted at page 5",
            &format!("it was told {TOLD}"),
            "the neighbour: wrong 0",
        ]
    );
}

#[test]
fn core_all_of_a_range_is_given_back_or_taken() {
    let log = run(&["revoke-whole"]).held();
    assert_eq!(
        lines(&log),
        [
            "answered before the deadline",
            "the range is usable: true",
            "answered after the deadline",
            "the range is usable: true",
            "it was told (true, 0, 8, 257)",
        ]
    );
}

#[test]
fn core_large_page_that_reaches_into_the_tail_goes_as_a_whole() {
    let log = run(&["revoke-large"]).held();
    assert_eq!(
        lines(&log),
        [
            "mapped Ok(512)",
            "answered after the deadline",
            "it ended with 9, faulted at page 0",
            "it was told (true, 3, 509, 257)",
        ]
    );
}

#[test]
fn core_who_computes_is_told_by_an_upcall() {
    let log = run(&["revoke-computes"]).held();
    assert_eq!(
        lines(&log),
        [
            "answered before the deadline",
            "it ended with 6, answers 1",
            // Its parent sleeps, so nobody wants the CPU of who does not hear.
            "answered after the deadline",
            "it runs on: true",
        ]
    );
}

#[test]
fn core_of_a_partial_answer_the_rest_is_taken() {
    let log = run(&["revoke-partly"]).held();
    assert_eq!(lines(&log), ["answered after the deadline", "answers 1, told (true, 3, 3, 257)"]);
}

/// Gives something else back, derives much, binds and trims without end; and the same with a drop that it does not finish.
#[test]
fn core_who_stalls_loses_the_tail_all_the_same() {
    for how in ["0", "1"] {
        let log = run(&["revoke-stalls", how]).held();
        assert_eq!(
            lines(&log),
            ["answered after the deadline", "it goes on: true", "it ended with 4, bound 0"],
            "{how}"
        );
    }
}

const REFUSALS: &[(&str, &str)] = &[
    ("ask with nothing", "Err(NotFound)"),
    ("ask with another's", "Err(NotPermitted)"),
    ("ask with what was derived beside it", "Err(NotPermitted)"),
    ("ask with the places", "Err(NotPermitted)"),
    ("ask nobody", "Err(NotFound)"),
    ("ask memory", "Err(NotFound)"),
    ("ask the places", "Err(NotFound)"),
    ("ask for nothing known", "Err(NotFound)"),
    ("ask for what is behind the table", "Err(NotFound)"),
    ("ask for no time", "Err(BadArgument)"),
    ("ask for too little time", "Err(BadArgument)"),
    ("ask for too much time", "Err(BadArgument)"),
    ("ask for all time", "Err(BadArgument)"),
    ("ask for no more than there is", "Ok(0)"),
    ("ask for less than there is", "Ok(0)"),
    ("ask for a part of an environment", "Err(BadArgument)"),
    ("ask", "Ok(5)"),
    ("ask again", "Ok(5)"),
    ("ask again from further up", "Ok(5)"),
    ("ask for more", "Err(Busy)"),
    ("a second", "Ok(7)"),
    ("a third", "Ok(7)"),
    ("a fourth", "Ok(7)"),
    ("a fifth", "Err(NoSpace)"),
    ("trim nothing known", "Err(NotFound)"),
    ("trim to nothing", "Err(BadArgument)"),
    ("trim to more", "Err(BadArgument)"),
    ("trim to far more", "Err(BadArgument)"),
    ("trim an environment", "Err(BadArgument)"),
    ("trim to what there is", "Ok(0)"),
    ("trim", "Ok(0)"),
    ("trim back", "Err(BadArgument)"),
    ("map behind it", "Err(BadArgument)"),
    ("trim for a stranger", "Err(NotFound)"),
    ("all of it is there", "true"),
];

#[test]
fn core_asking_and_trimming_are_refused_where_they_must_be() {
    let log = run(&["revoke-refusals"]).held();
    let answers: Vec<(&str, &str)> = lines(&log).iter().filter_map(|line| line.rsplit_once(": ")).collect();
    assert_eq!(answers, REFUSALS);
}

#[test]
fn core_an_ask_ends_with_the_asked_and_with_the_asker() {
    let log = run(&["revoke-ends"]).held();
    assert_eq!(
        lines(&log),
        [
            "answered before the deadline",
            "it ended with 3",
            "the next one in its place: 0",
            // What came from it goes with it, which is a loss to the other, and nothing is asked any more.
            "the asker ended with 2, was answered 7",
            "the asked is still asked: 0, lost 1",
            // 1000 and `NotPermitted`: it did not come from there.
            "the asker ended with 2, was answered 1004",
            "the asked is still asked: 0, lost 0",
        ]
    );
}

#[test]
fn core_a_queue_is_taken_and_the_one_before_it_stays_bound() {
    let outcome = start_with_nic(&["revoke-queues"], &Wire::default(), |config| {
        config.spare_environments = Some(3);
    });
    let log = outcome.finish().held();
    assert_eq!(
        lines(&log),
        ["answered after the deadline", "queue 0: Err(Busy), Err(Busy)", "queue 1: Err(NotPermitted), Ok(0)",]
    );
}

#[test]
fn core_slices_are_taken_and_those_before_them_stay_bound() {
    let log = run(&["revoke-slices"]).held();
    assert_eq!(
        lines(&log),
        [
            "bound Ok(8)",
            "answered after the deadline",
            "slice 16: Err(Busy)",
            "slice 18: Err(Busy)",
            "slice 19: Ok(1)",
            "slice 23: Ok(1)",
        ]
    );
}

/// The same where the asked and the asker run at the same time, on a vCPU each.
#[test]
fn core_on_several_vcpus_who_computes_is_told_and_who_does_not_answer_loses_the_tail() {
    for (case, expected) in [
        (
            "revoke-computes",
            &[
                "answered before the deadline",
                "it ended with 6, answers 1",
                "answered after the deadline",
                "it runs on: true",
            ][..],
        ),
        (
            "revoke-ignored",
            &[
                "answered after the deadline",
                "the tail is usable: true",
                "it ended with 9, wrong 0",
                "it faulted at page 5",
                &format!("it was told {TOLD}"),
                "the neighbour: wrong 0",
            ],
        ),
    ] {
        let outcome = Probe::start(&[case], |config| {
            config.spare_environments = Some(3);
            (config.vcpus, config.io) = (Some(2), IoMode::Thread);
        });
        assert_eq!(lines(&outcome.finish().held()), expected, "{case}");
    }
}

fn read(machine: &Machine, gpa: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    machine.memory().read_slice(&mut bytes, GuestAddress(gpa)).expect("RAM");
    bytes
}

/// What devices may do with the pages of a child's, at the end, and the blocks of its extent.
fn devices_may(what: &str) -> (Vec<u8>, Vec<(u64, u64)>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    file.as_file().set_len(1 << 20).expect("room");
    let mut probe = Probe::start(&["revoke-devices", what], |config| {
        config.spare_environments = Some(3);
        config.disks = vec![DiskSetup::open(file.path(), Access::ReadWrite).expect("an image")];
    });
    let begun = Instant::now();
    while lines(&probe.log()).last() != Some(&"done") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:#?}", probe.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    let (log, machine) = (probe.log(), &probe.machine);
    let said = lines(&log);
    assert!(said[1..said.len() - 1].iter().all(|line| *line == "answered after the deadline"), "{said:?}");
    let page = said[0].strip_prefix("pages from ").and_then(|rest| rest.strip_suffix(" on: Ok(8)"));
    let page: u64 = page.and_then(|page| page.parse().ok()).unwrap_or_else(|| panic!("{log:#?}"));
    let tables = machine.tables_at();
    let at = tables.domains_gpa + size_of::<DomainEntry>() as u64;
    let domain = read(machine, at, size_of::<DomainEntry>());
    let domain = DomainEntry::read_from_bytes(&domain).expect("of the right size");
    let rights = (page..page + 8).map(|page| {
        let (byte, shift) = position(page);
        read(machine, domain.bitmap_gpa + byte, 1)[0] >> shift & 3
    });
    let extents = (0..EXTENTS as u64).filter_map(|index| {
        let size = size_of::<ExtentEntry>();
        let bytes = read(machine, tables.extents_gpa + index * size as u64, size);
        let entry = ExtentEntry::read_from_bytes(&bytes).expect("of the right size");
        (entry.environment == 1 && entry.blocks > 0).then_some((entry.start_block, entry.blocks))
    });
    let found = (rights.collect(), extents.collect());
    probe.stop(Duration::from_secs(30));
    found
}

#[test]
fn core_devices_lose_what_is_taken_and_keep_the_rest() {
    assert_eq!(devices_may("keep"), (vec![3; 8], vec![(64, 32)]));
    assert_eq!(devices_may("take"), (vec![3, 3, 3, 0, 0, 0, 0, 0], vec![(64, 10)]));
}

#[test]
fn core_losses_that_are_not_kept_are_counted() {
    let log = run(&["revoke-losses"]).held();
    assert_eq!(lines(&log), ["lost 32, and missed 8", "the next lost 0, and missed 0"]);
}
