//! `exovm stop`: one, several, all; those that are not there, and those that will not end.

use crate::machines::{Detached, ps};
use crate::scene;
use exovm_ci::scene::interfaces;
use exovm_netns::in_namespace;
use rustix::process::Signal;

/// A machine that goes on until it is asked to end.
const CHATTER: [&str; 7] = ["probe", "--net", "none", "--", "chatter", "10000", "10"];
/// One that does not listen to anybody.
const DEAF: [&str; 5] = ["probe", "--net", "none", "--", "spin"];

fn named<'a>(name: &'a str, machine: &[&'a str]) -> Vec<&'a str> {
    [&[machine[0], "--name", name], &machine[1..]].concat()
}

#[test]
fn stop_ends_a_machine_as_ctrl_c_does() {
    in_namespace!(|| {
        let scene = scene();
        let before = interfaces();
        let mut running = scene.start(&["run", "hello", "--net", "tap=auto"]);
        let outcome = scene.play(&["stop", "hello"]);
        assert!(outcome.status.success(), "{outcome:?}");
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("hello: stopped\n", ""));
        // When `stop` returns, all of it has gone.
        assert_eq!(interfaces(), before);
        scene.assert_clean();
        assert_eq!(running.wait().code(), Some(0));
    });
}

#[test]
fn stop_ends_several_and_all() {
    let scene = scene();
    let start = |name| Detached::start(&scene, &named(name, &CHATTER));
    let machines = [start("a"), start("b"), start("c"), start("d")];
    let outcome = scene.play(&["stop", "a", "c"]);
    assert!(outcome.status.success() && outcome.stdout == "a: stopped\nc: stopped\n", "{outcome:?}");
    let left: Vec<_> = ps(&scene)["machines"].as_array().unwrap().iter().map(|m| m["name"].clone()).collect();
    assert_eq!(left, ["b", "d"]);
    let outcome = scene.play(&["stop", "--all"]);
    assert!(outcome.status.success() && outcome.stdout == "b: stopped\nd: stopped\n", "{outcome:?}");
    machines.iter().for_each(Detached::assert_ends);
    scene.assert_clean();
    let nothing = scene.play(&["stop", "--all"]);
    assert!(nothing.status.success() && nothing.stderr.contains("no machine is running"), "{nothing:?}");
}

#[test]
fn stop_of_an_unknown_machine_names_the_likely_one_and_stops_the_others() {
    let scene = scene();
    scene.play(&["stop", "ghost"]).assert_error(&["\"ghost\"", "nothing is running"]);
    let _cheetah = Detached::start(&scene, &named("cheetah", &CHATTER));
    let _hello = Detached::start(&scene, &named("hello", &CHATTER));
    scene.play(&["stop", "chetah"]).assert_error(&["running: cheetah, hello", "did you mean cheetah?"]);
    let outcome = scene.play(&["stop", "chetah", "hello"]);
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert_eq!(outcome.stdout, "hello: stopped\n");
    assert!(scene.play(&["stop", "cheetah"]).status.success());
    scene.assert_clean();
}

#[test]
fn stop_without_a_name_is_wrong_usage() {
    let scene = scene();
    for arguments in [&["stop"][..], &["stop", "--all", "hello"], &["stop", "hello", "--timeout", "x"]] {
        let outcome = scene.play(arguments);
        assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    }
    scene.assert_refused(&["stop", "../x"], &["../x", "letters"]);
}

#[test]
fn stop_ends_a_guest_that_does_not_listen() {
    let scene = scene();
    // Without --detach, which would wait for it to be ready.
    let mut child = scene.command(&[&["run", "--quiet"][..], &DEAF].concat()).spawn().unwrap();
    crate::machines::wait_for("the start", || scene.sockets().first().cloned());
    // It does not wait for longer than it says.
    let outcome = scene.play(&["stop", "probe"]);
    assert!(outcome.status.success() && outcome.stdout == "probe: stopped\n", "{outcome:?}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    scene.assert_clean();
}

#[test]
fn stop_of_a_process_that_hangs_needs_force() {
    let scene = scene();
    let machine = Detached::start(&scene, &CHATTER);
    machine.signal(Signal::STOP);
    let outcome = scene.play(&["stop", &machine.name, "--timeout", "1"]);
    outcome.assert_error(&["has not ended after 1 s", "--force"]);
    let outcome = scene.play(&["stop", &machine.name, "--timeout", "0", "--force"]);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.stdout.contains("probe: killed"), "{outcome:?}");
    machine.assert_ends();
    // What it could not remove itself is removed, but for its log, which may say why it hung.
    assert_eq!(scene.sockets(), ["probe.log"]);
}

#[test]
fn stop_says_how_a_guest_ended_that_did_not_end_well() {
    let scene = scene();
    // Its last act is a fault, and that comes when it is asked to stop.
    let machine = Detached::start(&scene, &["probe", "--net", "none", "--", "fault-at-stop"]);
    let outcome = scene.play(&["stop", &machine.name]);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.stdout.starts_with("probe: ended with a fault: environment 0: "), "{outcome:?}");
    machine.assert_ends();
    let log = scene.play(&["logs", "probe"]);
    assert!(log.stdout.contains("invalid opcode") && log.stdout.contains("rip"), "{log:?}");
}
