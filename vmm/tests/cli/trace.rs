//! `exovm trace`: what it writes and says, and everything that can come in between.

use crate::machines::{Detached, wait_for};
use crate::scene;
use exovm_ci::scene::Scene;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Stdio};

fn machine(scene: &Scene) -> Detached {
    Detached::start(scene, &["hello"])
}

/// A trace that goes on until something ends it.
fn recording(scene: &Scene, file: &str) -> Child {
    let mut command = scene.command(&["trace", "--for", "1h", "--json", "-o", file]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the command starts");
    wait_until_it_records(&child);
    child
}

/// Until the machine has said that it records: the command has a thread then that ends it.
fn wait_until_it_records(child: &Child) {
    let tasks = format!("/proc/{}/task", child.id());
    let names = || {
        let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
    };
    wait_for("the trace to begin", || names().any(|name| name.trim() == "exovm-end").then_some(()));
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it runs");
}

#[test]
fn trace_of_the_only_machine_needs_no_name_and_says_what_became_of_the_records() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = dir.path().join("a.pftrace");
    let outcome = scene.play(&["trace", "--for", "1.2", "--json", "-o", file.to_str().unwrap()]);
    assert!(outcome.status.success(), "{outcome:?}");
    let traced: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!((&traced["schema"], &traced["end"]), (&"exovm-traced/1".into(), &"asked".into()));
    assert!(traced["records"].as_u64() > Some(0) && traced["garbage"] == 0, "{traced}");
    assert!(std::fs::metadata(&file).unwrap().len() > 100);
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn bad_input_says_what_to_do() {
    let scene = scene();
    scene.play(&["trace"]).assert_error(&["no machine is running", "exovm run"]);
    let machine = machine(&scene);
    scene.play(&["trace", "hullo"]).assert_error(&["hullo", "did you mean hello?"]);
    for place in [
        &["-o", "no/such/place"][..],
        &["--html", "no/such/place"],
        &["--slowest", "3", "-o", "no/such/place"],
    ] {
        let begun = std::time::Instant::now();
        scene.play(&[&["trace", "--for", "1m"], place].concat()).assert_error(&["no/such/place"]);
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{place:?}");
    }
    scene.play(&["trace", "--slowest", "0"]).assert_error(&["between 1 and"]);
    for wrong in [["--sample", "64"], ["--sample", "1/0"], ["--for", "never"]] {
        assert_eq!(scene.play(&["trace", wrong[0], wrong[1]]).status.code(), Some(2), "{wrong:?}");
    }
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn ctrl_c_ends_the_trace_and_not_the_machine() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = dir.path().join("a.pftrace");
    let trace = recording(&scene, file.to_str().unwrap());
    signal(&trace, Signal::INT);
    let ended = trace.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stdout).contains("\"end\": \"asked\""), "{ended:?}");
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn machine_that_ends_leaves_a_whole_trace_and_that_is_a_success_and_said() {
    for requests in [false, true] {
        let scene = scene();
        let machine = machine(&scene);
        let dir = scene.dir();
        let file = dir.path().join("a.pftrace");
        let path = file.to_str().unwrap();
        let trace = if requests {
            let arguments = ["trace", "--for", "1h", "--json", "--slowest", "2", "-o", path];
            let mut command = scene.command(&arguments);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            wait_until_it_records(&child);
            child
        } else {
            recording(&scene, path)
        };
        assert!(scene.play(&["stop", &machine.name]).status.success());
        let ended = trace.wait_with_output().unwrap();
        let (stdout, stderr) =
            (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(stderr.contains("machine hello ended after") && stderr.contains("until then"), "{stderr}");
        let said: serde_json::Value = serde_json::from_str(&stdout).expect("JSON");
        assert_eq!(said["end"], "machine-ended");
        assert!(std::fs::metadata(&file).unwrap().len() > if requests { 0 } else { 100 });
        scene.assert_clean();
    }
}

#[test]
fn machine_that_is_killed_leaves_a_trace_up_to_that() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = dir.path().join("a.pftrace");
    let trace = recording(&scene, file.to_str().unwrap());
    machine.signal(Signal::KILL);
    let ended = trace.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    assert!(String::from_utf8_lossy(&ended.stderr).contains("has gone without a word"), "{ended:?}");
    assert!(std::fs::metadata(&file).unwrap().len() > 100);
}

#[test]
fn machine_that_stands_still_is_left_by_a_second_ctrl_c() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = dir.path().join("a.pftrace");
    let mut trace = recording(&scene, file.to_str().unwrap());
    machine.signal(Signal::STOP);
    let begun = std::time::Instant::now();
    // Two that come before it looks are one to it.
    while trace.try_wait().unwrap().is_none() {
        signal(&trace, Signal::INT);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let ended = trace.wait_with_output().unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "it did not wait for its patience");
    assert_eq!(ended.status.code(), Some(1), "{ended:?}");
    machine.signal(Signal::CONT);
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn fifth_at_once_is_refused_and_the_machine_goes_on() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = |number: usize| dir.path().join(format!("{number}.pftrace"));
    let traces: Vec<_> = (0..4).map(|number| recording(&scene, file(number).to_str().unwrap())).collect();
    std::fs::write(file(4), "an earlier one").unwrap();
    scene
        .play(&["trace", "-o", file(4).to_str().unwrap()])
        .assert_error(&["4 others record it", "try again"]);
    assert_eq!(std::fs::read_to_string(file(4)).unwrap(), "an earlier one", "nothing was written over it");
    for trace in traces {
        signal(&trace, Signal::INT);
        assert!(trace.wait_with_output().unwrap().status.success());
    }
    assert!(scene.play(&["trace", "--for", "0.1", "-o", file(4).to_str().unwrap()]).status.success());
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

#[test]
fn requests_are_a_table_a_page_and_a_trace_of_the_slowest() {
    in_namespace!(|| {
        let scene = scene();
        let site = Site::new().file("index.html", "home");
        let docroot = site.path().to_str().unwrap();
        let running = scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto"]);
        let (dir, address) = (scene.dir(), running.address());
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let done = std::sync::atomic::AtomicBool::new(false);
        let (json, table) = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::connect(address).unwrap();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(client.get("/").unwrap().status(), 200);
                }
            });
            let (page, slow) = (path("page.html"), path("slow.pftrace"));
            let all = ["trace", "--for", "1", "--slowest", "3", "--html", &page, "-o", &slow, "--json"];
            let outcomes = (scene.play(&all), scene.play(&["trace", "--for", "1", "--requests"]));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            outcomes
        });
        assert!(json.status.success() && table.status.success(), "{json:?} {table:?}");
        let said: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
        assert_eq!((&said["schema"], &said["end"]), (&"exovm-requests/1".into(), &"asked".into()));
        assert_eq!(said["slowest"].as_array().map(Vec::len), Some(3), "{said}");
        for part in ["tcp input", "service", "p99"] {
            assert!(table.stdout.contains(part), "{part}: {}", table.stdout);
        }
        let page = std::fs::read_to_string(path("page.html")).unwrap();
        assert!(
            page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"),
            "{}",
            page.len()
        );
        assert!(std::fs::metadata(path("slow.pftrace")).unwrap().len() > 500);
        running.stop();
        scene.assert_clean();
    });
}
