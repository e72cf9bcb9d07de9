//! Environments that do not trust each other: a parent makes children out of a few instructions, gives, takes back, and looks
//! what becomes of them; and what children try against everybody else.

use crate::fixture::{Outcome, Probe, Wire, said, start_with_nic};
use abi::domain::{DomainEntry, position};
use exovm::machine::End;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::FromBytes;

fn run(arguments: &[&str]) -> Outcome {
    Probe::start(arguments, |config| config.spare_environments = Some(3)).finish()
}

/// Lines of the log that are the probe's own, of the parent.
fn lines(log: &[String]) -> Vec<&str> {
    said(log).collect()
}

#[test]
fn core_children_end_and_leave_nothing_behind() {
    let log = run(&["children-end", "300"]).held();
    assert_eq!(lines(&log), ["300 children ended with their numbers"]);
}

#[test]
fn core_child_shares_what_it_was_given_and_no_more() {
    let log = run(&["child-shares"]).held();
    assert_eq!(
        lines(&log),
        [
            "the writer ended with 7, wrote 0x123456789abc",
            "the reader ended with 99",
            "the forbidden writer ended with 142, wrote 0",
            // Present, user, accessed, dirty; its first capability.
            "the entry of its code is 0x65",
        ]
    );
    let reports =
        log.iter().filter(|line| line.contains("page fault writing 0x401000: not permitted")).count();
    assert_eq!(reports, 1, "{log:#?}");
}

/// What ends with which status: 128 and the exception's vector.
const ATTACKS: &[(&str, u32)] = &[
    ("reads the kernel", 142),
    ("reads all memory", 142),
    ("writes its page tables", 142),
    ("reads the kernel's page tables", 142),
    ("reads its parent's heap", 142),
    ("reads its parent's stack", 142),
    ("writes the environment page", 142),
    ("writes the kernel's page", 142),
    ("writes the gate", 142),
    ("writes the resume page", 142),
    ("takes a turn beside others", 142),
    ("rings a doorbell that is not bound", 142),
    ("rings the last doorbell", 142),
    ("executes its data", 142),
    ("halts", 141),
    ("changes its page tables' root", 141),
    ("forbids interrupts", 141),
    ("executes nothing known", 134),
    ("enters the kernel elsewhere", 131),
    ("goes on at an address that cannot be", 141),
];

#[test]
fn core_child_that_attacks_ends_and_its_parent_goes_on() {
    let log = run(&["child-attacks"]).held();
    let expected: Vec<String> =
        ATTACKS.iter().map(|(what, status)| format!("a child that {what}: {status}")).collect();
    assert_eq!(lines(&log), expected);
}

#[test]
fn core_guessed_handles_are_refused() {
    let log = run(&["child-guesses"]).held();
    assert_eq!(
        lines(&log),
        [
            // The one that it was given, whose range does not begin at 0.
            "derive from guessed handles: 1 not refused as unknown",
            "status of guessed handles: 0 not refused as unknown",
        ]
    );
}

#[test]
fn core_what_was_given_is_taken_back_while_it_is_used() {
    let log = run(&["child-loses"]).held();
    assert_eq!(
        lines(&log),
        [
            "before: true",
            "after its memory was revoked: 142",
            "the parent maps it: Ok(1)",
            "destroyed: 137",
            "destroy what is gone: Err(NotFound)",
            "start what is gone: Err(NotFound)",
            "wake what is gone: Err(NotFound)",
            "status of what was dropped: Err(NotFound)",
            "its part is taken back: true",
            "ended itself: 137",
            "and the next: 5",
            "and the next: 5",
            "and the next: 5",
        ]
    );
    let faults = log.iter().filter(|line| line.contains(": page fault ")).count();
    assert_eq!(faults, 1, "who is gone runs: {log:#?}");
}

#[test]
fn core_sleepers_wake_for_what_they_wait_for() {
    let log = run(&["child-sleeps"]).held();
    assert_eq!(
        lines(&log),
        [
            "still asleep: true",
            "woken: 3",
            "woken before: 3",
            "after a deadline: 3, not before it: true",
            "both asleep, not before the deadline: true",
            "asleep over a word: true",
            "the word changed: 3",
        ]
    );
}

const REFUSALS: &[(&str, &str)] = &[
    ("create outside of the range", "Err(BadArgument)"),
    ("create far outside", "Err(BadArgument)"),
    ("create where one is", "Err(Busy)"),
    ("create with an environment's", "Err(NotPermitted)"),
    ("create with memory", "Err(NotFound)"),
    ("start at an address that cannot be", "Err(BadArgument)"),
    ("start with a stack that cannot be", "Err(BadArgument)"),
    ("start the places", "Err(NotFound)"),
    ("status of the places", "Err(BadArgument)"),
    ("derive more rights", "Err(NotPermitted)"),
    ("derive all rights", "Err(NotPermitted)"),
    ("derive before the range", "Err(BadArgument)"),
    ("derive behind the range", "Err(BadArgument)"),
    ("derive nothing", "Err(BadArgument)"),
    ("derive around the end", "Err(BadArgument)"),
    ("give without the right", "Err(NotPermitted)"),
    ("give to memory", "Err(NotFound)"),
    ("give to the places", "Err(NotFound)"),
    ("map the child's handle as one's own", "Err(NotFound)"),
    ("map writable what is read-only", "Err(NotPermitted)"),
    ("map executable what is not", "Err(NotPermitted)"),
    ("map behind the range", "Err(BadArgument)"),
    ("map across its end", "Err(BadArgument)"),
    ("map at null", "Err(BadArgument)"),
    ("map over the fixed pages", "Err(BadArgument)"),
    ("map over the page tables", "Err(BadArgument)"),
    ("map over the kernel", "Err(BadArgument)"),
    ("map over the direct map", "Err(BadArgument)"),
    ("map with bits that mean nothing", "Err(BadArgument)"),
    ("map a large page of small ones", "Err(BadArgument)"),
    ("map inside a large page", "Err(Busy)"),
    ("map", "Ok(4)"),
    ("unmap half of a large page", "Err(BadArgument)"),
    ("unmap the fixed pages", "Err(BadArgument)"),
    ("unmap", "Ok(4)"),
    ("unmap what is not mapped", "Ok(4)"),
    ("let devices have what they may not", "Err(NotPermitted)"),
    ("let devices write what is read-only", "Err(NotPermitted)"),
    ("let devices do what means nothing", "Err(BadArgument)"),
    ("let devices have what is behind", "Err(BadArgument)"),
    ("act for a stranger", "Err(NotFound)"),
    ("destroy without the right", "Err(NotPermitted)"),
];

#[test]
fn core_parent_is_refused_what_it_may_not() {
    let log = run(&["family-refusals"]).held();
    let answers: Vec<(&str, &str)> = lines(&log).iter().filter_map(|line| line.rsplit_once(": ")).collect();
    assert_eq!(answers, REFUSALS);
}

#[test]
fn core_environment_that_runs_on_ends_and_its_neighbour_does_not() {
    let outcome = run(&["child-runs-on"]);
    let told = outcome.log.iter().filter(|line| line.contains("did not give the CPU away")).count();
    assert_eq!(told, 1, "{outcome:#?}");
    assert_eq!(lines(&outcome.held()), ["the child that ran on: 152"]);
}

#[test]
fn core_slices_end_and_no_register_is_lost() {
    let both = Probe::start(&["compute", "400"], |config| config.environments = Some(2)).finish().held();
    assert_eq!(lines(&both), ["others had the CPU more than once: true"; 2]);
    // Alone nobody interrupts it.
    let alone = Probe::start(&["compute", "100"], |_| {}).finish().held();
    assert_eq!(lines(&alone).len(), 1);
}

#[test]
fn core_registers_of_another_are_not_seen() {
    let log = run(&["child-peeks"]).held();
    assert_eq!(lines(&log), ["the child ended with 0 and saw 0x0"]);
}

#[test]
fn core_successor_in_a_place_is_another() {
    let log = run(&["child-follows"]).held();
    assert_eq!(
        lines(&log),
        [
            "wake by the old handle: Err(NotFound)",
            "destroy by the old handle: Err(NotFound)",
            "its state: true",
            "the successor found 0",
        ]
    );
}

/// What devices may do with a page for the child, at the end.
fn rights_of_devices(what: &str) -> Vec<u8> {
    let probe = Probe::start(&["child-grant", what], |config| config.spare_environments = Some(3));
    let (outcome, machine) = probe.finish_and_keep();
    let log = outcome.held();
    let said = lines(&log);
    let page = said[0].strip_prefix("pages from ").and_then(|rest| rest.strip_suffix(" on: Ok(2)"));
    let page: u64 = page.and_then(|page| page.parse().ok()).unwrap_or_else(|| panic!("{log:#?}"));
    let read = |gpa: u64, len: usize| {
        let mut bytes = vec![0; len];
        machine.memory().read_slice(&mut bytes, GuestAddress(gpa)).expect("RAM");
        bytes
    };
    let at = machine.tables_at().domains_gpa + size_of::<DomainEntry>() as u64;
    let domain =
        DomainEntry::read_from_bytes(&read(at, size_of::<DomainEntry>())).expect("of the right size");
    [page, page + 1]
        .map(|page| {
            let (byte, shift) = position(page);
            read(domain.bitmap_gpa + byte, 1)[0] >> shift & 3
        })
        .to_vec()
}

#[test]
fn core_devices_lose_what_is_revoked() {
    assert_eq!(rights_of_devices("keep"), [3, 3]);
    assert_eq!(rights_of_devices("revoke"), [0, 0]);
}

#[test]
fn core_turn_register_is_out_of_reach_beside_others() {
    let outcome = run(&["turn-beside"]);
    let reports =
        outcome.log.iter().filter(|line| line.contains("page fault writing 0x7f0000005000")).count();
    assert_eq!((outcome.end, reports), (End::PowerOff { status: 142 }, 1), "{:#?}", outcome.log);
}

#[test]
fn core_doorbell_is_out_of_reach_after_unbind() {
    let outcome = start_with_nic(&["doorbell-after-unbind"], &Wire::default(), |_| {}).finish();
    assert_eq!(lines(&outcome.log), ["rang"]);
    let report = outcome.report();
    assert!(report.contains("page fault writing 0x7f0001000000: not "), "{report}");
}
