//! `exovm profile`: what it prints and writes, read back by others' eyes, and everything that can come in between.

use crate::machines::{Detached, RawClient, wait_for};
use crate::scene;
use exovm::control::{Answer, RefusalKind, Request};
use exovm::profile::ProfileRequest;
use exovm_ci::scene::{Scene, finish};
use flate2::read::GzDecoder;
use quick_xml::events::Event;
use rustix::process::Signal;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// A machine in which half of the time goes to one function, three tenths and two tenths to two others.
fn machine(scene: &Scene) -> Detached {
    Detached::start(scene, &["probe", "--net", "none", "--", "profile-shares"])
}

fn stop(scene: &Scene, machine: &Detached) {
    assert!(scene.play(&["stop", &machine.name]).status.success());
    scene.assert_clean();
}

fn path(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().expect("plain").to_owned()
}

#[test]
fn table_has_the_functions_and_what_the_samples_cost() {
    let scene = scene();
    let machine = machine(&scene);
    let outcome = scene.play(&["profile", "--for", "1.5"]);
    assert!(outcome.status.success(), "{outcome:?}");
    for part in ["probe::profile::outer", "SELF", "vcpu", "cost:", "cycles a look", "1000 Hz"] {
        assert!(outcome.stdout.contains(part), "{part}: {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains('\u{1b}'), "colours are for terminals");
    let first = outcome.stdout.lines().find(|line| line.contains("probe::")).expect("a function");
    assert!(first.ends_with("probe::profile::outer"), "most is in it: {}", outcome.stdout);

    let json = scene.play(&["profile", "probe", "--for", "1", "--hz", "500", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&report["schema"], &report["machine"]), (&"exovm-profile/1".into(), &"probe".into()));
    let functions = report["functions"].as_array().expect("a list");
    let of = |name: &str| functions.iter().find(|row| row["function"] == name).expect("it ran").clone();
    let inner = of("probe::profile::inner");
    assert!(inner["self"].as_u64() > Some(20) && inner["ring"] == 3 && inner["environment"] == 0, "{inner}");
    assert!(of("probe::main")["total"].as_u64() > inner["total"].as_u64());
    stop(&scene, &machine);
}

#[test]
fn rings_and_environments_are_told_apart() {
    let scene = scene();
    let machine = Detached::start(&scene, &["probe", "--net", "none", "--", "profile-calls"]);
    let functions = |arguments: &[&str]| {
        let outcome = scene.play(&[&["profile", "--for", "1", "--format", "folded"], arguments].concat());
        assert!(outcome.status.success(), "{outcome:?}");
        outcome.stdout
    };
    let kernel = functions(&["--ring", "0"]);
    assert!(kernel.lines().count() > 0 && kernel.lines().all(|line| line.contains("_[k]")), "{kernel}");
    let program = functions(&["--ring", "3"]);
    assert!(program.contains("call_much") && !program.contains("_[k]"), "{program}");
    assert!(functions(&["--environment", "0"]).contains("environment 0"));
    assert_eq!(functions(&["--environment", "7"]).trim(), "");
    stop(&scene, &machine);
}

#[test]
fn flame_graph_is_well_formed_and_has_the_functions() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = path(&dir, "a.svg");
    let outcome = scene.play(&["profile", "--for", "1", "-o", &file]);
    assert!(outcome.status.success() && outcome.stdout.is_empty(), "{outcome:?}");
    for part in ["samples", "cost:", "wrote"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    let svg = std::fs::read_to_string(&file).expect("written");
    let mut reader = quick_xml::Reader::from_str(&svg);
    let (mut open, mut elements, mut root) = (0, 0, None);
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("{error}")) {
            Event::Start(element) => {
                root.get_or_insert_with(|| element.name().as_ref().to_vec());
                (open, elements) = (open + 1, elements + 1);
            }
            Event::Empty(_) => elements += 1,
            Event::End(_) => open -= 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!((open, root.as_deref()), (0, Some(&b"svg"[..])));
    assert!(
        elements > 20 && svg.contains("probe::profile::outer (") && svg.contains("probe::profile::inner (")
    );
    stop(&scene, &machine);
}

/// A message of protocol buffers as its encoding says, whatever it means: fields by number.
fn fields(bytes: &[u8]) -> HashMap<u64, Vec<Field<'_>>> {
    let (mut at, mut fields) = (0, HashMap::<u64, Vec<Field<'_>>>::new());
    while at < bytes.len() {
        let key = varint(bytes, &mut at);
        let field = match key & 7 {
            0 => Field::Number(varint(bytes, &mut at)),
            2 => {
                let len = varint(bytes, &mut at) as usize;
                at += len;
                Field::Bytes(&bytes[at - len..at])
            }
            other => panic!("wire type {other}"),
        };
        fields.entry(key >> 3).or_default().push(field);
    }
    fields
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Field<'_> {
    fn number(&self) -> u64 {
        if let Self::Number(number) = self { *number } else { panic!("bytes") }
    }

    fn bytes(&self) -> &[u8] {
        if let Self::Bytes(bytes) = self { bytes } else { panic!("a number") }
    }

    fn packed(&self) -> Vec<u64> {
        let (bytes, mut at, mut numbers) = (self.bytes(), 0, Vec::new());
        while at < bytes.len() {
            numbers.push(varint(bytes, &mut at));
        }
        numbers
    }
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Read without the code that wrote it: by the encoding, and the numbers of google/pprof's profile.proto.
#[test]
fn pprof_file_is_read_by_others() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = path(&dir, "a.pb.gz");
    let outcome = scene.play(&["profile", "--for", "2", "-o", &file]);
    assert!(outcome.status.success(), "{outcome:?}");
    let mut bytes = Vec::new();
    GzDecoder::new(std::fs::File::open(&file).expect("written")).read_to_end(&mut bytes).expect("gzip");
    let profile = fields(&bytes);
    let strings: Vec<_> =
        profile[&6].iter().map(|text| std::str::from_utf8(text.bytes()).expect("text")).collect();
    assert_eq!(strings[0], "");
    let text = |field: Option<&Vec<Field<'_>>>| strings[field.map_or(0, |field| field[0].number()) as usize];
    let types: Vec<_> = profile[&1]
        .iter()
        .map(|of| fields(of.bytes()))
        .map(|of| (text(of.get(&1)), text(of.get(&2))))
        .collect();
    assert_eq!(types, [("samples", "count"), ("time", "nanoseconds")]);
    assert_eq!(profile[&12][0].number(), 1_000_000);
    let functions: HashMap<u64, &str> = profile[&5]
        .iter()
        .map(|of| fields(of.bytes()))
        .map(|of| (of[&1][0].number(), text(of.get(&2))))
        .collect();
    let mappings: Vec<u64> = profile[&3].iter().map(|of| fields(of.bytes())[&1][0].number()).collect();
    let locations: HashMap<u64, &str> = profile[&4]
        .iter()
        .map(|of| {
            let location = fields(of.bytes());
            assert!(mappings.contains(&location[&2][0].number()));
            let line = fields(location[&4][0].bytes());
            (location[&1][0].number(), functions[&line[&1][0].number()])
        })
        .collect();
    let mut own = HashMap::<&str, u64>::new();
    let mut all = 0;
    for sample in profile[&2].iter().map(|of| of.bytes()) {
        let sample = fields(sample);
        let stack: Vec<_> = sample[&1][0].packed().iter().map(|id| locations[id]).collect();
        let values = sample[&2][0].packed();
        assert_eq!(values[1], values[0] * 1_000_000);
        let labels: Vec<_> = sample[&3].iter().map(|of| fields(of.bytes())).collect();
        let labels: Vec<_> = labels.iter().map(|of| (text(of.get(&1)), text(of.get(&2)))).collect();
        assert_eq!(labels[0], ("thread", "vcpu"));
        all += values[0];
        *own.entry(stack[0]).or_default() += values[0];
        if stack[0] == "probe::profile::inner" {
            assert_eq!(stack[1..3], ["probe::profile::middle", "probe::profile::outer"]);
            assert_eq!(labels[1..], [("environment", "0"), ("ring", "3")]);
        }
    }
    for (function, percent) in [("outer", 50), ("middle", 30), ("inner", 20)] {
        let found = own[format!("probe::profile::{function}").as_str()] * 100 / all;
        assert!(found.abs_diff(percent) <= 6, "{function}: {found} %");
    }
    stop(&scene, &machine);
}

#[test]
fn ends_of_the_machine_and_of_its_process_leave_what_was_until_then() {
    for (how, says, status) in
        [(Signal::TERM, "ended after", 0), (Signal::KILL, "has gone without a word", 1)]
    {
        let scene = scene();
        let machine = machine(&scene);
        let dir = scene.dir();
        let file = path(&dir, "a.folded");
        let profile = scene.command(&["profile", "--for", "1h", "-o", &file]).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs(2));
        machine.signal(how);
        let output = profile.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(says) && stderr.contains("until then"), "{stderr}");
        let stacks = std::fs::read_to_string(&file).expect("written");
        assert!(stacks.contains("probe::profile::outer"), "{stacks}");
        machine.assert_ends();
        if how == Signal::TERM {
            scene.assert_clean();
        }
    }
}

#[test]
fn interrupt_ends_it_with_what_there_is() {
    let scene = scene();
    let machine = machine(&scene);
    let mut command = scene.command(&["profile", "--for", "1h"]);
    let profile = command.spawn().expect("it starts");
    std::thread::sleep(Duration::from_secs(2));
    let pid = rustix::process::Pid::from_raw(profile.id() as i32).expect("not 0");
    rustix::process::kill_process(pid, Signal::INT).expect("it runs");
    let output = profile.wait_with_output().expect("it ends");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("probe::profile::outer"), "{output:?}");
    stop(&scene, &machine);
}

#[test]
fn file_that_cannot_be_written_is_an_error_and_is_not_there() {
    let scene = scene();
    let machine = machine(&scene);
    let dir = scene.dir();
    let file = path(&dir, "a.svg");
    let profile = ["profile", "--for", "0.5", "-o", &file];
    // As on a full disk: a few bytes, then no more.
    let exovm = scene.command(&profile).get_program().to_owned();
    let mut limited = scene.command_of(Path::new("sh"), &["-c", "ulimit -f 1; exec \"$0\" \"$@\""]);
    limited.arg(exovm).args(profile);
    finish(&mut limited).assert_error(&["a.svg", "File too large"]);
    assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "nothing is left");
    scene
        .play(&["profile", "--for", "0.1", "--format", "svg", "-o", "/dev/full"])
        .assert_error(&["No space left"]);
    // That there is no such place is known before anything is looked at, and what is there stays.
    let begun = Instant::now();
    scene
        .play(&["profile", "--for", "1m", "-o", &path(&dir, "no/a.svg")])
        .assert_error(&["no/a.svg", "No such file"]);
    scene
        .play(&["profile", "--for", "1m", "--format", "svg", "-o", dir.path().to_str().expect("plain")])
        .assert_error(&["directory"]);
    assert!(begun.elapsed() < Duration::from_secs(30), "it waited for its samples");
    std::fs::write(&file, "an earlier one").expect("room");
    scene.play(&["profile", "ghost", "-o", &file]).assert_error(&["ghost"]);
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "an earlier one");
    stop(&scene, &machine);
}

#[test]
fn wrong_wishes_are_refused_with_what_to_do() {
    let scene = scene();
    scene.assert_refused(&["profile"], &["no machine is running", "exovm run"]);
    scene.assert_refused(&["profile", "ghost"], &["no machine called \"ghost\""]);
    for (arguments, says) in [
        (&["--hz", "0"][..], "1..=10000"),
        (&["--hz", "10001"], "1..=10000"),
        (&["--for", "0"], "between 1ms and 24h"),
        (&["--for", "soon"], "5s, 1m"),
        (&["--ring", "1"], "possible values: 0, 3"),
        (&["-o", "a.out"], "--format"),
    ] {
        let outcome = scene.play(&[&["profile"], arguments].concat());
        assert!(!outcome.status.success() && outcome.stderr.contains(says), "{arguments:?}: {outcome:?}");
    }
    let machine = machine(&scene);
    let mut client = RawClient::connect(&scene, "probe");
    for hz in [0, 10_001, u32::MAX] {
        match client.ask(&Request::Profile(ProfileRequest { hz })) {
            Answer::Refused(refusal) => assert_eq!(refusal.kind, RefusalKind::Unable, "{refusal:?}"),
            other => panic!("{other:?}"),
        }
    }
    stop(&scene, &machine);
}

#[test]
fn profilers_at_once_are_served_and_one_too_many_hears_why() {
    let scene = scene();
    let machine = machine(&scene);
    let start = || {
        scene.command(&["profile", "--for", "12", "--json"]).stdin(Stdio::null()).spawn().expect("it starts")
    };
    let mut profilers: Vec<_> = (0..4).map(|_| start()).collect();
    let refused = wait_for("a refusal", || {
        // The one too many may have been before one of the four, which was refused in its place.
        for profiler in &mut profilers {
            if profiler.try_wait().expect("a child").is_some_and(|status| !status.success()) {
                *profiler = start();
            }
        }
        let outcome = scene.play(&["profile", "--for", "0.05"]);
        (!outcome.status.success()).then_some(outcome)
    });
    refused.assert_error(&["4 profilers", "try again"]);
    for profiler in profilers {
        let output = profiler.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(report["samples"].as_u64() > Some(200), "{report}");
    }
    assert!(scene.play(&["profile", "--for", "0.1"]).status.success(), "there is room again");
    stop(&scene, &machine);
}
