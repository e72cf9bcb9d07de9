//! Environments that do not trust each other: a parent makes children out of a few instructions, gives, takes back, and looks
//! what becomes of them; and what children try against everybody else.

use crate::fixture::{Outcome, Probe, Wire, said, start_with_nic};
use abi::capability::{CAPABILITIES, Capability, Kind, number};
use abi::domain::{DomainEntry, position};
use exovm::machine::End;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::FromBytes;

const ENTRY_BYTES: u64 = size_of::<Capability>() as u64;

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

/// Whose memory goes under it ends once, and who is gone does not run.
#[test]
fn core_what_was_given_is_taken_back_while_it_is_used() {
    let log = run(&["child-loses"]).held();
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

/// Whoever lives by another's memory goes before that memory does, and faults at nothing on the way.
#[test]
fn core_parent_that_ends_takes_its_children_with_it_and_none_of_them_faults() {
    let probe = Probe::start(&["family-ends"], |config| {
        config.environments = Some(2);
        config.spare_environments = Some(3);
    });
    let (outcome, machine) = probe.finish_and_keep();
    assert_eq!(lines(&outcome.log), ["a child runs: true"; 3], "and nobody reported a fault");
    assert_eq!(outcome.log.len(), 3, "{:#?}", outcome.log);
    assert_eq!(outcome.end, End::PowerOff { status: 5 });
    // Nothing of what they held is left.
    for environment in [0, 2, 3, 4] {
        let gpa = machine.tables_at().capabilities_gpa + u64::from(number(environment, 0)) * ENTRY_BYTES;
        let mut entries = vec![0; CAPABILITIES * ENTRY_BYTES as usize];
        machine.memory().read_slice(&mut entries, GuestAddress(gpa)).expect("RAM");
        let held = entries.chunks(ENTRY_BYTES as usize).filter(|entry| entry[0] != Kind::None as u8).count();
        assert_eq!(held, 0, "environment {environment}");
    }
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
    assert_eq!(lines(&outcome.log), ["rang, then given back: 0x7f0001000000"]);
    let report = outcome.report();
    assert!(report.contains("page fault writing 0x7f0001000000: not "), "{report}");
}
