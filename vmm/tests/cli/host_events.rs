//! What the host's kernel gives besides, in `exovm stat`, `exovm trace` and `exovm doctor`: there where the host has it, and else a line
//! that says why not and what to do.

use crate::scene;
use exovm::stat::StatSnapshot;
use exovm_ci::scene::{Outcome, Running, Scene};
use exovm_ci::{Client, tracefs};
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the processor's counters are there for this user, found out without exovm.
fn has_pmu() -> bool {
    let sources = Path::new("/sys/bus/event_source/devices");
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let paranoid: i32 = paranoid.trim().parse().unwrap_or(3);
    // SAFETY: no arguments, no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    ["cpu", "cpu_core"].iter().any(|name| sources.join(name).exists()) && (is_root || paranoid <= 2)
}

/// A machine on a port of the loopback interface, so that the test stays where root is root.
fn serve(scene: &Scene) -> Running {
    scene.start(&["run", "hello", "--publish", "127.0.0.1:0:80"])
}

/// Plays a command while the machine is asked for its page.
fn play_under_load(scene: &Scene, running: &Running, arguments: &[&str]) -> Outcome {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = Client::connect(running.address()).and_then(|mut client| client.get("/"));
                assert_eq!(answer.expect("it serves").status(), 200);
            }
        });
        let outcome = scene.play(arguments);
        over.store(true, Ordering::Relaxed);
        outcome
    })
}

fn json(outcome: &Outcome) -> Value {
    assert!(outcome.status.success(), "{outcome:?}");
    serde_json::from_str(&outcome.stdout).expect("JSON")
}

/// What `doctor` says of a topic.
fn finding(scene: &Scene, topic: &str) -> Value {
    json(&scene.play(&["doctor", "--only", topic, "--json"]))["findings"][0].clone()
}

fn end(running: Running, scene: &Scene) {
    assert!(running.end_by(libc::SIGTERM).0.success());
    scene.assert_clean();
}

#[test]
fn stat_counts_the_guest_by_the_pmu_or_says_in_a_line_why_not() {
    let scene = scene();
    let running = serve(&scene);
    let outcome = play_under_load(&scene, &running, &["stat", "--for", "500ms", "--json"]);
    let looked: StatSnapshot = serde_json::from_str(&outcome.stdout).expect("JSON");
    let text = scene.play(&["stat", "--for", "100ms"]).stdout;
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("no pmu:")).collect();
    let doctor = finding(&scene, "pmu");
    assert_eq!(doctor["values"]["works"], has_pmu(), "{doctor}");
    if has_pmu() {
        assert!(looked.absent.is_empty() && lines.is_empty(), "{:?} {lines:?}", looked.absent);
        for event in ["cycles", "instructions"] {
            assert!(looked.value("pmu", event) > Some(10_000), "{event}: {:?}", looked.value("pmu", event));
        }
        // What the guest did in that time and no more: the counters are of the guest alone.
        assert!(looked.value("pmu", "counted") <= looked.value("pmu", "wanted"));
    } else {
        assert!(looked.families.iter().all(|family| family.layer != "pmu"), "nothing is made up");
        let [absent] = &looked.absent[..] else { panic!("{:?}", looked.absent) };
        assert_eq!((absent.layer.as_str(), absent.why.as_str()), ("pmu", doctor["found"].as_str().unwrap()));
        assert!(!absent.todo.is_empty());
        let [line] = lines[..] else { panic!("{text}") };
        assert!(line.contains(&absent.why) && line.ends_with(&absent.todo), "{line}");
    }
    // Who does not ask for it hears nothing of it.
    let other = scene.play(&["stat", "--for", "10ms", "--layer", "machine", "--json"]);
    let other: StatSnapshot = serde_json::from_str(&other.stdout).expect("JSON");
    assert!(other.absent.is_empty() && other.family("pmu", "cycles").is_none());
    end(running, &scene);
}

/// A trace under load, as JSON, and what was said besides.
fn trace(scene: &Scene, more: &[&str]) -> (Value, Vec<String>) {
    let running = serve(scene);
    let dir = scene.dir();
    let file = dir.path().join("a.pftrace");
    let arguments = [&["trace", "--for", "500ms", "--json", "-o", file.to_str().unwrap()], more].concat();
    let outcome = play_under_load(scene, &running, &arguments);
    end(running, scene);
    (json(&outcome), outcome.stderr.lines().map(str::to_owned).collect())
}

#[test]
fn trace_has_kvms_events_where_the_host_lets_it_have_them() {
    tracefs::mounted(|| {
        let scene = scene();
        let (traced, said) = trace(&scene, &[]);
        let kvm = traced["kvm"].as_u64().expect("a number");
        let missing = said.iter().filter(|line| line.contains("without KVM's own events")).count();
        assert_eq!(kvm > 50, tracefs::is_ours(), "{traced} {said:?}");
        assert_eq!(traced["kvm_missing"].is_null(), tracefs::is_ours(), "{traced}");
        assert_eq!(missing, usize::from(!tracefs::is_ours()), "{said:?}");
        assert_eq!(finding(&scene, "tracepoints")["values"]["works"], tracefs::is_ours());
        // A sample is for full load, and requests have nothing of it.
        let (sampled, said) = trace(&scene, &["--sample", "1/2"]);
        assert_eq!(
            (sampled["kvm"].as_u64(), sampled["kvm_missing"].is_null(), said.len()),
            (Some(0), true, 0)
        );
    });
}

#[test]
fn trace_without_tracefs_says_so_in_a_line_and_is_there() {
    tracefs::hidden(|| {
        let scene = scene();
        let (traced, said) = trace(&scene, &[]);
        assert!(traced["records"].as_u64() > Some(100) && traced["kvm"] == 0, "{traced}");
        assert_eq!(traced["end"], "asked");
        let [line] = &said[..] else { panic!("{said:?}") };
        let [why, todo] = ["why", "todo"].map(|part| traced["kvm_missing"][part].as_str().expect("said"));
        assert!(line.contains(why) && line.ends_with(todo) && !todo.is_empty(), "{line}");
        assert_eq!(finding(&scene, "tracepoints")["found"], why);
    });
}
