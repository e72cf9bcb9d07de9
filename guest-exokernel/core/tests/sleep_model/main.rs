//! No wake-up is lost: every interleaving of environments, kernel, device work and world, for small machines.
//!
//! A machine of the model has one vCPU and an I/O thread; environments poll, ask for interrupts, take turns, halt and sleep
//! as exos does; the kernel looks at terms, gives the CPU away, takes turns and halts as xok does; the VMM takes, publishes,
//! interrupts and waits as the devices and the placement do. Every step names the code that it stands for. Stores are
//! buffered as on x86, so that a fence that is missing in the code is missing here.
//!
//! [`several`] has a model of several vCPUs beside it, in which the kernel's part is larger and the devices' smaller.
//!
//! Two things are looked for in all states that can be reached:
//! - a state from which nothing more happens by itself, though somebody should run: a used entry, a changed word, a call of
//!   `Wake`, a passed deadline, a request or a frame that nobody fetches. What happens after a time-out does not count, so a
//!   protocol that works only because somebody looks now and then fails here;
//! - a way of going round without end, that nothing from outside keeps going.
//!
//! That the model can find something is shown rule by rule: without any one of them it finds a lost wake-up.
//!
//! | module | what |
//! | --- | --- |
//! | [`rules`] | machines, and the rules of the protocol |
//! | [`state`] | memory, store buffers, the world |
//! | [`vcpu`] | environments and the kernel |
//! | [`device`] | device work, turns, the I/O thread |
//! | [`several`] | the same for several vCPUs |
//! | [`explore`] | visits every state |

#[macro_use]
mod explore;
mod device;
mod rules;
mod several;
mod state;
mod vcpu;

use explore::{assert_none_can_be_left_out, explore};
use rules::{Mode, Rules, Setup, Wake, Work};
use state::State;

const QUEUE: Work =
    Work { queue: true, frames: 0, requests: 0, deadline: false, slices: 0, wakes: None, writes: None };
const NOTHING: Work = Work { queue: false, ..QUEUE };
const RECEIVES: Work = Work { frames: 2, ..QUEUE };
const READS: Work = Work { requests: 2, ..QUEUE };
const WAITS: Work = Work { deadline: true, ..QUEUE };

fn modes() -> impl Iterator<Item = (Mode, Wake)> {
    [Mode::Turn, Mode::Thread, Mode::Auto]
        .into_iter()
        .flat_map(|mode| [Wake::Silent, Wake::Vector].map(|wake| (mode, wake)))
}

/// Machines, by who is in them.
fn machines() -> Vec<(&'static str, Vec<Work>)> {
    vec![
        ("one receives", vec![RECEIVES]),
        ("one reads", vec![READS]),
        ("one waits for a deadline and receives", vec![Work { frames: 1, ..WAITS }]),
        ("two receive", vec![Work { frames: 1, ..QUEUE }, Work { frames: 1, ..QUEUE }]),
        ("one reads, one receives", vec![Work { requests: 1, ..QUEUE }, Work { frames: 1, ..QUEUE }]),
        ("one computes, one receives", vec![Work { slices: 2, ..QUEUE }, Work { frames: 1, ..QUEUE }]),
        ("one wakes another", vec![Work { frames: 1, wakes: Some(1), ..QUEUE }, NOTHING]),
        ("one computes and wakes another", vec![Work { slices: 1, wakes: Some(1), ..QUEUE }, NOTHING]),
        ("one writes another's word", vec![Work { frames: 1, writes: Some(1), ..QUEUE }, NOTHING]),
        ("two wait for deadlines", vec![WAITS, WAITS]),
        ("the second has the only queue", vec![NOTHING, RECEIVES]),
    ]
}

/// Those in which a slice may end at any instruction of anybody; all with `XOK_SLEEP_MODEL=all`, which takes minutes.
fn machines_with_slice_ends() -> Vec<(&'static str, Vec<Work>)> {
    if std::env::var("XOK_SLEEP_MODEL").is_ok_and(|what| what == "all") {
        return machines();
    }
    vec![
        ("one computes and wakes another", vec![Work { slices: 1, wakes: Some(1), ..QUEUE }, NOTHING]),
        ("the second receives", vec![NOTHING, Work { frames: 1, ..QUEUE }]),
    ]
}

/// Those in which the user wants the end at any moment.
fn machines_to_be_stopped() -> Vec<(&'static str, Vec<Work>)> {
    vec![
        ("one receives", vec![Work { frames: 1, ..QUEUE }]),
        ("one reads", vec![Work { requests: 1, ..QUEUE }]),
        ("two wait", vec![QUEUE, NOTHING]),
    ]
}

/// Every machine with everything that can happen in it.
fn setups(machines: &[(&'static str, Vec<Work>)], stop: bool, slice_ends: u8) -> Vec<(String, Setup)> {
    let mut setups = Vec::new();
    for (what, environments) in machines {
        for (mode, wake) in modes() {
            let setup = Setup { stop, slice_ends, ..Setup::new(mode, wake, environments) };
            setups.push((format!("{what}, {mode:?}, {wake:?}, stop {stop}, slices end {slice_ends}"), setup));
        }
    }
    setups
}

/// Tries everything; how many states there were.
fn check(setups: &[(String, Setup)]) -> usize {
    let states = setups.iter().map(|(what, setup)| {
        let states = explore::<State>(setup, &Rules::ALL).all_is_well();
        states.unwrap_or_else(|found| panic!("{what}: {found}"))
    });
    let states = states.sum();
    println!("{} machines, {states} states", setups.len());
    states
}

#[test]
fn no_wake_up_is_lost() {
    let states = check(&setups(&machines(), false, 0));
    assert!(states > 100_000, "not everything was tried: {states} states");
}

#[test]
fn no_wake_up_is_lost_wherever_a_slice_ends() {
    check(&setups(&machines_with_slice_ends(), false, 1));
}

#[test]
fn no_wake_up_is_lost_when_the_user_wants_the_end() {
    check(&setups(&machines_to_be_stopped(), true, 0));
}

/// In the very machines in which nothing is found with all of them.
#[test]
fn without_any_rule_the_model_finds_a_lost_wake_up() {
    let mut all = setups(&machines(), false, 0);
    all.extend(setups(&machines_to_be_stopped(), true, 0));
    all.extend(setups(&machines_with_slice_ends(), false, 1));
    assert_none_can_be_left_out::<State>(&all, Rules::WITHOUT);
}
