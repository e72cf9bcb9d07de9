//! `exovm ps`: machines that run, that were killed, that hang; and files that are not ours.

use crate::machines::{Detached, ps};
use crate::scene;
use exovm_ci::scene::Scene;
use exovm_netns::in_namespace;
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SPIN: [&str; 6] = ["run", "probe", "--net", "none", "--name", "spinner"];

/// What `ps` says within three seconds. Who is held up is so each time, and by a busy host not each time.
fn soon(scene: &Scene) -> serde_json::Value {
    let attempt = || {
        let started = Instant::now();
        let report = ps(scene);
        (started.elapsed() < Duration::from_secs(3)).then_some(report)
    };
    (0..5).find_map(|_| attempt()).expect("it is held up")
}

#[test]
fn ps_without_machines_says_so() {
    let scene = scene();
    let outcome = scene.play(&["ps"]);
    assert!(outcome.status.success() && outcome.stdout.is_empty(), "{outcome:?}");
    assert_eq!(outcome.stderr, "exovm: no machine is running\n");
    let report = ps(&scene);
    for list in ["machines", "silent", "removed"] {
        assert_eq!(report[list].as_array().map(Vec::len), Some(0), "{report}");
    }
    scene.assert_clean();
}

#[test]
fn ps_shows_what_machines_know_of_themselves() {
    in_namespace!(|| {
        let scene = scene();
        let first = scene.start(&["run", "hello", "--net", "tap=auto", "--memory", "48", "--io", "turn"]);
        let dir = scene.dir();
        let disk = dir.path().join("disk.img");
        std::fs::write(&disk, [0; 4096]).unwrap();
        let disk = format!("{},ro", disk.display());
        let second = scene.start(&["run", "hello", "--net", "tap=auto", "--name", "other", "--disk", &disk]);
        let report = ps(&scene);
        let machines = report["machines"].as_array().unwrap();
        assert_eq!(machines.len(), 2);
        let info = &machines[0];
        for (key, expected) in [
            ("name", "hello".into()),
            ("pid", first.pid().into()),
            ("image", "hello".into()),
            ("state", "ready".into()),
            ("memory_bytes", (48u64 << 20).into()),
            ("io", "turn".into()),
            ("addresses", serde_json::json!([first.address().ip().to_string()])),
            ("port", 80.into()),
            ("published", serde_json::json!([])),
            ("disks", serde_json::json!([])),
            ("detached", false.into()),
        ] {
            assert_eq!(info[key], expected, "{key}: {info}");
        }
        assert_eq!((&machines[1]["name"], &machines[1]["pid"]), (&"other".into(), &second.pid().into()));
        assert_eq!(machines[1]["disks"], serde_json::json!([disk]));
        let table = scene.play(&["ps"]);
        let lines: Vec<_> = table.stdout.lines().collect();
        assert_eq!(lines.len(), 3, "{table:?}");
        for part in ["NAME", "PROCESS", "IMAGE", "UPTIME", "MEMORY", "STATE", "ADDRESS"] {
            assert!(lines[0].contains(part), "{part}: {table:?}");
        }
        let address = format!("{}:80", first.address().ip());
        for part in ["hello ", &first.pid().to_string(), "48 MiB", "ready", &address] {
            assert!(lines[1].contains(part), "{part}: {table:?}");
        }
        assert!(!table.stdout.contains('\x1b'), "colours are for terminals: {table:?}");
        second.stop();
        first.stop();
        scene.assert_clean();
    });
}

#[test]
fn ps_removes_what_killed_machines_left_and_says_so() {
    in_namespace!(|| {
        let scene = scene();
        scene.start(&["run", "hello", "--net", "tap=auto"]).kill();
        assert_eq!(scene.sockets(), ["hello.sock"]);
        // Other commands leave it for `ps`, which says so.
        scene.play(&["account"]).assert_error(&["no machine is running"]);
        scene.play(&["logs", "hello"]).assert_error(&["nothing is running"]);
        let outcome = scene.play(&["ps"]);
        assert!(outcome.status.success(), "{outcome:?}");
        assert!(outcome.stderr.contains("hello did not end by itself"), "{outcome:?}");
        scene.assert_clean();
        assert_eq!(scene.play(&["ps"]).stderr, "exovm: no machine is running\n");
    });
}

#[test]
fn ps_shows_a_machine_that_hangs_and_is_not_held_up_by_it() {
    let scene = scene();
    let machine = Detached::start(&scene, &["probe", "--net", "none", "--", "chatter", "1000", "10"]);
    machine.signal(Signal::STOP);
    let report = soon(&scene);
    assert_eq!(report["silent"][0]["name"], machine.name.as_str());
    assert_eq!(report["silent"][0]["pid"], machine.pid);
    assert!(scene.play(&["ps"]).stdout.contains("does not answer"));
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(0), "it is alive: {report}");
    machine.signal(Signal::CONT);
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn ps_is_not_held_up_longer_by_several_machines_that_hang() {
    let scene = scene();
    let chatter = ["probe", "--net", "none", "--", "chatter", "1000", "10"];
    let machines: Vec<_> = (0..4).map(|_| Detached::start(&scene, &chatter)).collect();
    machines.iter().for_each(|machine| machine.signal(Signal::STOP));
    let report = soon(&scene);
    assert_eq!(report["silent"].as_array().map(Vec::len), Some(4), "{report}");
    machines.iter().for_each(|machine| machine.signal(Signal::CONT));
    assert!(scene.play(&["stop", "--all"]).status.success());
    scene.assert_clean();
}

#[test]
fn ps_leaves_files_alone_that_are_not_ours() {
    let scene = scene();
    scene.play(&["ps"]);
    let dir = scene.runtime_dir().join("exovm");
    for name in ["file.sock", "notes.txt", "bad name.sock", "x.log"] {
        std::fs::write(dir.join(name), "mine").unwrap();
    }
    let report = ps(&scene);
    assert_eq!(report["removed"].as_array().map(Vec::len), Some(0), "{report}");
    assert_eq!(scene.sockets(), ["bad name.sock", "file.sock", "notes.txt", "x.log"]);
    // Nor is such a name taken by a new machine.
    let mut arguments = SPIN.to_vec();
    arguments[5] = "file";
    arguments.extend(["--detach", "--quiet", "--", "exit", "0"]);
    assert!(scene.play(&arguments).status.success());
    assert_eq!(std::fs::read_to_string(dir.join("file.sock")).unwrap(), "mine");
}
