//! Slices, and several vCPUs: who runs where and how long.

use crate::fixture::{Probe, said};
use exovm::machine::{End, MachineConfig};
use exovm::placement::IoMode;

fn slices(config: &mut MachineConfig) {
    config.spare_environments = Some(16);
    config.memory_bytes = Some(64 << 20);
}

fn two(config: &mut MachineConfig) {
    slices(config);
    (config.vcpus, config.io) = (Some(2), IoMode::Thread);
}

fn run(arguments: &[&str], configure: fn(&mut MachineConfig)) -> Vec<String> {
    let log = Probe::start(arguments, configure).finish().held();
    // For whoever reads why a test failed.
    println!("{log:#?}");
    said(&log).map(str::to_owned).collect()
}

#[test]
fn core_slices_are_refused_to_who_may_not() {
    let expected = [
        "bind what is bound: Err(Busy)",
        "unbind what another capability bound: Err(NotFound)",
        "unbind without the right: Err(NotPermitted)",
        "unbind with memory: Err(NotFound)",
        "unbind nothing: Err(BadArgument)",
        "unbind behind the range: Err(BadArgument)",
        "unbind far behind: Err(BadArgument)",
        "unbind more than there is: Err(BadArgument)",
        "unbind all: Ok(32)",
        "unbind all again: Err(NotFound)",
        "bind without the right: Err(NotPermitted)",
        "bind before the range: Err(BadArgument)",
        "bind a part: Ok(16)",
        "bind all: Ok(16)",
        "drop the part: Ok(0)",
        "bind what it had: Ok(16)",
    ];
    assert_eq!(run(&["slice-refusals"], slices), expected);
}

/// The number behind the last colon.
fn number(line: &str) -> u64 {
    line.rsplit(": ").next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn slices_divide_a_vcpu_as_they_are_held() {
    let said = run(&["slice-shares"], slices);
    assert!((70..=140).contains(&number(&said[0])), "{said:?}");
}

/// Twelve that compute beside it, of its neighbour's, leave it its half.
#[test]
fn what_an_environment_starts_takes_nothing_from_its_neighbour() {
    let outcome = Probe::start(&["slice-neighbour"], |config| {
        slices(config);
        config.environments = Some(2);
    })
    .finish();
    assert_eq!(outcome.end, End::PowerOff { status: 0 }, "{:#?}", outcome.log);
    let said: Vec<&str> = said(&outcome.log).collect();
    assert!(said.contains(&"all of them ran: true"), "{said:?}");
    let times = said.iter().find_map(|line| line.strip_prefix("alone ")).expect("the neighbour said");
    let words: Vec<u64> = times.split(' ').filter_map(|word| word.parse().ok()).collect();
    let (alone, beside) = (words[0], words[2]);
    // Half, and not a thirteenth.
    assert!(3 * beside > alone, "{times}");
}

#[test]
fn core_environments_run_at_the_same_time_on_two_vcpus() {
    let expected = [
        "counts while its parent computes: true",
        "ended with 137, counts: false",
        "one that faulted there ended with 142",
    ];
    assert_eq!(run(&["vcpus-beside"], two), expected);
}

#[test]
fn core_what_is_taken_back_is_not_used_on_another_vcpu_any_more() {
    assert_eq!(run(&["vcpus-flush", "20"], two), ["20 times, 0 did not run, counted afterwards: 0"]);
}

#[test]
fn core_no_wake_up_between_vcpus_is_lost() {
    assert_eq!(run(&["vcpus-wake", "2000"], two), ["2000 of 2000 wake-ups and answers"]);
}

#[test]
fn core_environment_goes_where_it_has_slices() {
    assert_eq!(
        run(&["vcpus-move", "30"], two),
        ["moved 30 times, stood still 0 times, runs: true", "ended with 137"]
    );
}

#[test]
fn core_environment_alone_on_its_vcpu_goes_where_it_has_slices() {
    assert_eq!(run(&["vcpus-move-itself"], two), ["its slice ended: true"]);
}

/// The asker computes, the holder waits for an answer, its vCPU halts: the deadline of the ask is seen to all the same.
#[test]
fn core_what_was_asked_for_is_taken_at_the_deadline_though_the_holder_does_not_run() {
    assert_eq!(run(&["vcpus-ask"], two), ["calls: true, Ok(1), later Err(NotFound)"]);
}

/// As a wake-up that comes before the sleep: the end of another is kept for who is about to wait for it.
#[test]
fn core_end_that_is_complete_before_the_sleep_ends_it_at_once() {
    for machine in [slices as fn(&mut MachineConfig), two] {
        assert_eq!(run(&["vcpus-end"], machine), ["before true, awake soon: true, gone: true"]);
    }
}
