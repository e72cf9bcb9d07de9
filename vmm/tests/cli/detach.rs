//! `exovm run --detach`: it returns when the machine is ready or has failed, and the machine goes on by itself.

use crate::machines::{Detached, PATIENCE, ps, wait_for};
use crate::scene;
use exovm_ci::Client;
use exovm_ci::scene::Scene;
use exovm_netns::in_namespace;
use rustix::process::Signal;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

const CHATTER: [&str; 7] = ["probe", "--net", "none", "--", "chatter", "1000", "10"];

#[test]
fn detached_machine_serves_when_the_command_returns_and_until_it_is_stopped() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["run", "--detach", "hello", "--net", "tap=auto"]);
        assert!(outcome.status.success(), "{outcome:?}");
        for part in ["serving http://10.80.0.2/", "exovm logs -f hello", "exovm stop hello"] {
            assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
        }
        assert_eq!(ps(&scene)["machines"][0]["detached"], true);
        let address: std::net::SocketAddr = "10.80.0.2:80".parse().unwrap();
        assert_eq!(Client::connect(address).unwrap().get("/").unwrap().status(), 200);
        assert!(scene.play(&["stop", "hello"]).status.success());
        scene.assert_clean();
    });
}

#[test]
fn detached_machine_has_a_session_of_its_own_and_no_terminal() {
    let scene = scene();
    let machine = Detached::start(&scene, &CHATTER);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", machine.pid)).unwrap();
    // proc(5): pid (comm) state ppid pgrp session tty_nr
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let pid = machine.pid.to_string();
    assert_eq!((fields[2], fields[3], fields[4]), (pid.as_str(), pid.as_str(), "0"), "{stat}");
    let target = |fd| std::fs::read_link(format!("/proc/{}/fd/{fd}", machine.pid)).unwrap();
    assert_eq!(target(0).to_str(), Some("/dev/null"));
    assert_eq!(target(1).to_str(), Some("/dev/null"));
    assert_eq!(target(2), scene.runtime_dir().join("exovm/probe.log"));
    machine.signal(Signal::TERM);
    machine.assert_ends();
    scene.assert_clean();
}

#[test]
fn detached_machine_keeps_no_descriptor_of_who_started_it() {
    let scene = scene();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = scene.command(&[&["run", "-d", "-q"][..], &CHATTER].concat());
    let inherited = writer.as_raw_fd();
    // SAFETY: one system call, with numbers.
    unsafe {
        command.pre_exec(move || match libc::fcntl(inherited, libc::F_SETFD, 0) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let outcome = exovm_ci::scene::finish(&mut command);
    assert!(outcome.status.success(), "{outcome:?}");
    drop((command, writer));
    // Whoever waits for the end of a pipe that it gave the command must not wait for the machine.
    let (say, heard) = std::sync::mpsc::channel();
    std::thread::spawn(move || say.send(reader.read(&mut [0]).unwrap()));
    assert_eq!(heard.recv_timeout(PATIENCE), Ok(0), "the machine holds the pipe");
    assert!(scene.play(&["stop", "--all"]).status.success());
}

/// What `run --detach` with these arguments ends with.
fn assert_fails(scene: &Scene, arguments: &[&str], status: i32, parts: &[&str]) {
    let outcome = scene.play(&[&["run", "--detach"], arguments].concat());
    assert_eq!(outcome.status.code(), Some(status), "{outcome:?}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{part}: {outcome:?}");
    }
    scene.assert_clean();
}

#[test]
fn detached_machine_that_fails_gives_the_exit_code_and_message_of_one_that_is_not() {
    let scene = scene();
    assert_fails(&scene, &["nonsense"], 1, &["exovm: there is no image called \"nonsense\""]);
    assert_fails(&scene, &["hello", "--net", "none"], 1, &["no network interface"]);
    assert_fails(&scene, &["probe", "--net", "none", "--", "exit", "7"], 7, &[]);
    assert_fails(&scene, &["probe", "--net", "none", "--", "exit", "0"], 0, &[]);
    let fault = ["exovm: environment 0: invalid opcode", "rip"];
    assert_fails(&scene, &["probe", "--net", "none", "--", "invalid-opcode"], 3, &fault);
    assert_fails(&scene, &["hello", "--io", "fast"], 2, &["turn, thread, poll, auto"]);
}

#[test]
fn detached_machine_that_nobody_waits_for_any_more_ends() {
    let scene = scene();
    // It is never ready, so the command waits.
    let arguments = ["run", "--detach", "probe", "--net", "none", "--", "halt-forever"];
    let mut command = scene.command(&arguments).spawn().unwrap();
    wait_for("the start", || scene.sockets().first().cloned());
    command.kill().unwrap();
    command.wait().unwrap();
    wait_for("the end", || scene.sockets().is_empty().then_some(()));
}

#[test]
fn detached_machine_that_was_killed_leaves_its_log_until_the_next_of_its_name() {
    let scene = scene();
    let machine = Detached::start(&scene, &CHATTER);
    let log = || std::fs::read_to_string(scene.runtime_dir().join("exovm/probe.log")).unwrap();
    wait_for("a line in the log file", || log().contains("probe: 5 ").then_some(()));
    machine.signal(Signal::KILL);
    machine.assert_ends();
    let outcome = scene.play(&["ps"]);
    assert!(outcome.stderr.contains("its log is kept: exovm logs probe"), "{outcome:?}");
    let logs = scene.play(&["logs", "probe", "-n", "3"]);
    assert!(logs.status.success() && logs.stdout.lines().count() == 3, "{logs:?}");
    assert!(logs.stdout.contains(" INFO  probe: ") && logs.stderr.contains("not running"), "{logs:?}");
    let next = Detached::start(&scene, &CHATTER);
    assert_eq!(next.name, "probe");
    wait_for("a new log file", || log().contains("probe: 0 ").then_some(()));
    assert!(scene.play(&["stop", "probe"]).status.success());
    scene.assert_clean();
}

#[test]
fn detached_machines_of_one_name_started_at_once_get_names_of_their_own() {
    let scene = scene();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| scene.play(&[&["run", "-d", "-q"][..], &CHATTER].concat())))
            .collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let mut names: Vec<_> = outcomes.iter().map(|outcome| outcome.stdout.trim_end()).collect();
    names.sort_unstable();
    assert_eq!(names, ["probe", "probe-2", "probe-3", "probe-4"], "{outcomes:?}");
    assert!(scene.play(&["stop", "--all"]).status.success());
    scene.assert_clean();
}

#[test]
fn machines_with_taps_of_their_own_started_at_once_get_one_each() {
    in_namespace!(|| {
        let scene = scene();
        let arguments = [&["run", "-d", "-q"][..], &CHATTER].concat();
        let arguments: Vec<_> =
            arguments.iter().map(|&word| if word == "none" { "tap=auto" } else { word }).collect();
        for _ in 0..3 {
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..6).map(|_| scope.spawn(|| scene.play(&arguments))).collect();
                starts.into_iter().map(|start| start.join().unwrap()).collect()
            });
            assert!(outcomes.iter().all(|outcome| outcome.status.success()), "{outcomes:#?}");
            assert!(scene.play(&["stop", "--all"]).status.success());
            scene.assert_clean();
        }
    });
}

#[test]
fn log_file_stays_bounded_whatever_the_guest_logs() {
    let scene = scene();
    // 3,000 bytes every 3 ms are the ring's 60 KiB in 60 ms.
    let machine = Detached::start(&scene, &["probe", "--net", "none", "--", "chatter", "3000", "3000"]);
    let path = scene.runtime_dir().join("exovm/probe.log");
    let (mut largest, mut last, mut shrank) = (0, 0, false);
    wait_for("the file's older half to go", || {
        let len = path.metadata().unwrap().len();
        (largest, shrank, last) = (largest.max(len), shrank || len < last, len);
        shrank.then_some(())
    });
    assert!(largest <= (1 << 20) + 4096, "{largest}");
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}
