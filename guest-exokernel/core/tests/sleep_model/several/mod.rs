//! The same for several vCPUs: the kernel's lock, the idle bits, what vCPUs tell each other, halts, slices that end only where
//! somebody else wants the vCPU, environments that start, move, end and are asked for something.
//!
//! The devices' side is small here: a thread of its own does the work (there are no turns with several vCPUs), publishes, and
//! interrupts the vCPU that the queue names. How a driver and a device ask each other for interrupts is the other model's matter; it
//! knows no vCPUs. Nobody naps: a sleep that ends after some milliseconds whatever happens would hide what is lost.
//!
//! Messages are not in it: who gets one is offered to vCPUs by the same steps as who is woken.
//!
//! What may not stay as it is:
//! - something came for an environment, and it does not look;
//! - an environment could run, and does not, though others do;
//! - a vCPU halts, and somebody could run there;
//! - a vCPU waits for the lock or for another one for good;
//! - an environment runs where it may not;
//! - an environment's end is not complete; what was asked for is not taken after the deadline.
//!
//! A slice's end looks at everybody, so with it most wake-ups would only be late. Where nobody else wants a vCPU slices have no end:
//! there, and where all halt, is what is lost for good.

mod kernel;
mod rules;
mod schedule;
mod state;
mod vcpu;
mod world;

use crate::explore::{assert_none_can_be_left_out, explore};
use rules::{Act, BOTH, FIRST, Rules, SECOND, Setup, Then, Wake, Work};
use state::State;

const SERVES: Work = Work {
    vcpus: FIRST,
    begins: true,
    acts: &[],
    then: Then::Serve,
    frames: 0,
    deadline: false,
    answers: false,
};
const COMPUTES: Work = Work { then: Then::Compute, ..SERVES };
const CALLS: Work = Work { then: Then::Call, ..SERVES };
const ANSWERS: Work = Work { answers: true, ..COMPUTES };
const RECEIVES: Work = Work { frames: 1, ..SERVES };
/// Sleeps until something comes, then computes.
const COMPUTES_THEN: Work = Work { acts: &[Act::Sleep], frames: 1, ..COMPUTES };
const WAITS: Work = Work { deadline: true, ..SERVES };

const fn on(vcpus: u8, work: Work) -> Work {
    Work { vcpus, ..work }
}

const fn acts(acts: &'static [Act], work: Work) -> Work {
    Work { acts, ..work }
}

const fn later(work: Work) -> Work {
    Work { begins: false, ..work }
}

/// Machines, by what happens in them.
fn machines() -> Vec<(&'static str, Vec<Work>)> {
    use Act::{Ask, End, Move, Start, Unmap, Wake, Write};
    vec![
        ("wakes another, serves", vec![acts(&[Wake(1)], SERVES), on(SECOND, SERVES)]),
        ("wakes another, computes", vec![acts(&[Wake(1), Wake(1)], COMPUTES), on(SECOND, SERVES)]),
        ("wake each other", vec![acts(&[Wake(1)], SERVES), acts(&[Wake(0)], on(SECOND, SERVES))]),
        ("writes another's word", vec![acts(&[Write(1)], SERVES), on(SECOND, SERVES)]),
        ("one computes, one receives", vec![COMPUTES, on(SECOND, Work { frames: 2, ..SERVES })]),
        ("two receive anywhere", vec![on(BOTH, RECEIVES), on(BOTH, RECEIVES)]),
        ("receives where others compute", vec![on(BOTH, COMPUTES), on(BOTH, RECEIVES)]),
        ("computes where two receive", vec![COMPUTES, RECEIVES, on(SECOND, RECEIVES)]),
        (
            "two are woken at once",
            vec![on(BOTH, WAITS), acts(&[Wake(2)], on(BOTH, RECEIVES)), on(BOTH, COMPUTES)],
        ),
        (
            "three compute, two anywhere",
            vec![
                acts(&[Start(1), Start(2)], on(BOTH, COMPUTES)),
                later(on(BOTH, COMPUTES)),
                later(on(BOTH, SERVES)),
            ],
        ),
        ("starts one elsewhere", vec![acts(&[Start(1)], COMPUTES), later(on(SECOND, SERVES))]),
        (
            "starts one where another computes",
            vec![
                acts(&[Start(2)], COMPUTES),
                on(SECOND, Work { frames: 1, then: Then::Compute, ..SERVES }),
                later(on(SECOND, SERVES)),
            ],
        ),
        (
            "starts one where another receives",
            vec![acts(&[Start(2)], COMPUTES), on(SECOND, RECEIVES), later(on(SECOND, COMPUTES))],
        ),
        (
            "starts one where another computes when something came",
            vec![acts(&[Start(2)], COMPUTES), on(SECOND, COMPUTES_THEN), later(on(SECOND, SERVES))],
        ),
        ("two compute anywhere when something came", vec![on(BOTH, COMPUTES_THEN), on(BOTH, COMPUTES_THEN)]),
        ("two wait for deadlines", vec![WAITS, on(SECOND, WAITS)]),
        ("moves one that receives", vec![acts(&[Move(1, SECOND)], COMPUTES), RECEIVES]),
        ("moves one that waits", vec![acts(&[Move(1, SECOND)], COMPUTES), WAITS]),
        ("moves one that waits from there", vec![acts(&[Move(1, FIRST)], COMPUTES), on(SECOND, WAITS)]),
        ("moves one that computes", vec![acts(&[Move(1, FIRST)], SERVES), on(SECOND, COMPUTES)]),
        ("moves one to where it computes", vec![acts(&[Move(1, FIRST)], COMPUTES), on(SECOND, SERVES)]),
        (
            "moves one to where another computes",
            vec![acts(&[Move(1, SECOND)], SERVES), RECEIVES, on(SECOND, COMPUTES)],
        ),
        ("moves itself", vec![acts(&[Move(0, SECOND)], COMPUTES)]),
        ("moves itself, and waits", vec![acts(&[Move(0, SECOND)], WAITS)]),
        ("moves itself to another", vec![acts(&[Move(0, SECOND)], SERVES), on(SECOND, COMPUTES)]),
        ("asks one that sleeps", vec![acts(&[Ask(1)], COMPUTES), on(SECOND, SERVES)]),
        ("asks one that answers", vec![acts(&[Ask(1)], COMPUTES), on(SECOND, ANSWERS)]),
        ("asks one that computes", vec![acts(&[Ask(1)], COMPUTES), on(SECOND, COMPUTES)]),
        ("asks one that calls", vec![acts(&[Ask(1)], COMPUTES), on(SECOND, CALLS)]),
        ("asks one that calls, and sleeps", vec![acts(&[Ask(1)], SERVES), on(SECOND, CALLS)]),
        ("asks one beside another", vec![acts(&[Ask(1)], SERVES), on(SECOND, SERVES), on(SECOND, COMPUTES)]),
        ("ends one that computes", vec![acts(&[End(1)], SERVES), on(SECOND, COMPUTES)]),
        ("ends one that serves", vec![acts(&[End(1)], COMPUTES), on(SECOND, RECEIVES)]),
        ("ends one that acts", vec![acts(&[End(1)], SERVES), acts(&[Wake(0)], on(SECOND, SERVES))]),
        ("ends one that sleeps", vec![acts(&[End(1)], COMPUTES), SERVES]),
        ("ends one beside it", vec![acts(&[End(1)], COMPUTES), SERVES, on(SECOND, COMPUTES)]),
        ("takes a page of one that computes", vec![acts(&[Unmap(1)], SERVES), on(SECOND, COMPUTES)]),
        ("take pages of each other", vec![acts(&[Unmap(1)], SERVES), acts(&[Unmap(0)], on(SECOND, SERVES))]),
    ]
}

/// Those in which the user wants the end at any moment.
fn machines_to_be_stopped() -> Vec<(&'static str, Vec<Work>)> {
    vec![
        ("one computes, one sleeps", vec![COMPUTES, on(SECOND, SERVES)]),
        ("two sleep", vec![SERVES, on(SECOND, SERVES)]),
        ("two sleep anywhere", vec![on(BOTH, SERVES), on(BOTH, SERVES)]),
    ]
}

/// Those in which timers come early, or slices end anywhere.
fn machines_with_timers() -> Vec<(&'static str, Vec<Work>)> {
    vec![
        ("two compute", vec![COMPUTES, COMPUTES]),
        ("receives where others compute", vec![on(BOTH, COMPUTES), on(BOTH, RECEIVES)]),
        (
            "wakes one beside another",
            vec![acts(&[Act::Wake(1)], SERVES), on(SECOND, SERVES), on(SECOND, COMPUTES)],
        ),
    ]
}

fn setups() -> Vec<(String, Setup)> {
    let mut setups = Vec::new();
    for wake in [Wake::Silent, Wake::Vector] {
        let setup = Setup {
            wake,
            environments: Vec::new(),
            slice_ends: 0,
            early_timers: 0,
            ask_ends: false,
            stop: false,
        };
        let mut add = |what: &str, environments: &[Work], setup: &Setup| {
            let setup = Setup { environments: environments.to_vec(), ..setup.clone() };
            let Setup { slice_ends, early_timers, ask_ends, stop, .. } = setup;
            let more =
                format!("slices end {slice_ends}, early {early_timers}, ask ends {ask_ends}, stop {stop}");
            setups.push((format!("{what}, {wake:?}, {more}"), setup));
        };
        for (what, environments) in machines() {
            add(what, &environments, &setup);
            if what.starts_with("asks") {
                add(what, &environments, &Setup { ask_ends: true, ..setup.clone() });
            }
        }
        for (what, environments) in machines_to_be_stopped() {
            add(what, &environments, &Setup { stop: true, ..setup.clone() });
        }
        for (what, environments) in machines_with_timers() {
            add(what, &environments, &Setup { early_timers: 1, ..setup.clone() });
            add(what, &environments, &Setup { slice_ends: 1, ..setup.clone() });
        }
    }
    setups
}

#[test]
fn no_wake_up_is_lost_on_several_vcpus() {
    let setups = setups();
    let states = setups.iter().map(|(what, setup)| {
        let states = explore::<State>(setup, &Rules::ALL).all_is_well();
        let states = states.unwrap_or_else(|found| panic!("{what}: {found}"));
        if std::env::var_os("XOK_SLEEP_MODEL").is_some() {
            println!("{states} states: {what}");
        }
        states
    });
    let states: usize = states.sum();
    println!("{} machines, {states} states", setups.len());
    assert!(states > 100_000, "not everything was tried: {states} states");
}

/// In the very machines in which nothing is found with all of them.
#[test]
fn without_any_rule_of_several_vcpus_the_model_finds_a_lost_wake_up() {
    assert_none_can_be_left_out::<State>(&setups(), Rules::WITHOUT);
}
