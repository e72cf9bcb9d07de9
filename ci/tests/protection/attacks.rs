//! The list of attacks: every one gets what it should, and there is none in the image that the list does not know.

use crate::fixture::{run, said};
use exovm::attacks::{NO_ATTACKS, Outcome, trials};
use std::collections::BTreeSet;

/// Tries all that are against this; says what got through.
fn assert_refused(against: &str) {
    let trials: Vec<_> = trials().into_iter().filter(|trial| trial.against == against).collect();
    assert!(!trials.is_empty(), "nothing is against {against}");
    let outcomes: Vec<Outcome> = trials
        .iter()
        .flat_map(|trial| exovm::attacks::run(trial, 1).unwrap_or_else(|error| panic!("{error}")))
        .collect();
    let through: Vec<String> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_refused())
        .map(|it| format!("{}: {} got {:?} and not {:?}", it.arguments, it.what, it.got, it.expected))
        .collect();
    assert!(through.is_empty(), "{through:#?}");
}

/// A test for each thing that attacks are against.
macro_rules! against {
    ($($test:ident $against:literal;)*) => {
        const AGAINST: &[&str] = &[$($against),*];
        $(#[test]
        fn $test() {
            assert_refused($against);
        })*
    };
}

against! {
    core_attacks_on_the_processor_are_refused "the processor";
    core_attacks_on_addresses_are_refused "addresses";
    core_attacks_on_kernel_calls_are_refused "kernel calls";
    core_attacks_on_the_vmm_are_refused "the VMM";
    core_attacks_on_queues_are_refused "queues";
    core_attacks_on_flows_are_refused "flows";
    core_attacks_on_extents_are_refused "extents";
    core_attacks_on_devices_are_refused "devices";
    core_attacks_on_environments_are_refused "environments";
    core_attacks_on_capabilities_are_refused "capabilities";
    core_attacks_by_messages_are_refused "messages";
    core_attacks_on_tables_are_refused "tables";
    core_attacks_on_registers_are_refused "registers";
    core_attacks_on_the_cpu_are_refused "the CPU";
}

/// Where a thread does the device work while the guest runs on two vCPUs.
#[test]
fn core_nothing_arrives_behind_a_revocation_on_two_vcpus() {
    let trial =
        trials().into_iter().find(|trial| trial.arguments[0] == "revoke-in-flight").expect("in the list");
    let outcomes = exovm::attacks::run(&trial, 2).unwrap_or_else(|error| panic!("{error}"));
    assert!(outcomes.iter().all(Outcome::is_refused), "{outcomes:#?}");
}

/// What is in the list is tested, and what is in the image is in the list.
#[test]
fn core_attacks_of_the_image_are_all_in_the_list() {
    let log = run(&["cases"]).held();
    let in_image: BTreeSet<&str> = said(&log).filter_map(|line| line.strip_prefix("case ")).collect();
    let trials = trials();
    let in_list: BTreeSet<&str> = trials.iter().map(|trial| trial.arguments[0].as_str()).collect();
    let others: BTreeSet<&str> = NO_ATTACKS.iter().copied().collect();
    let known: BTreeSet<&str> = in_list.union(&others).copied().collect();
    assert_eq!(in_image.difference(&known).collect::<Vec<_>>(), [&""; 0], "cases that no list has");
    assert_eq!(known.difference(&in_image).collect::<Vec<_>>(), [&""; 0], "cases that the image has not");
    assert_eq!(in_list.intersection(&others).collect::<Vec<_>>(), [&""; 0], "an attack, or none");
    let tested: BTreeSet<&str> = AGAINST.iter().copied().collect();
    let listed: BTreeSet<&str> = trials.iter().map(|trial| trial.against).collect();
    assert_eq!(listed, tested);
}
