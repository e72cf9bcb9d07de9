//! `exovm doctor`: on this host, and on hosts that lack something.

use crate::host::{Change, change, forbidden, respect_permissions};
use crate::scene;
use exovm_ci::scene::{Outcome, finish, interfaces};
use exovm_netns::in_namespace;
use serde_json::Value;
use std::os::unix::process::CommandExt;

/// What the JSON says about a topic.
fn finding<'a>(report: &'a Value, topic: &str) -> &'a Value {
    let findings = report["findings"].as_array().expect("a list");
    findings.iter().find(|finding| finding["topic"] == topic).unwrap_or_else(|| panic!("{topic}: {report:#}"))
}

fn report(outcome: &Outcome) -> Value {
    let report: Value =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    assert_eq!(report["schema"], "exovm-doctor/1");
    report
}

#[test]
fn doctor_finds_out_about_every_topic_by_trying() {
    in_namespace!(|| {
        let scene = scene();
        let before = interfaces();
        let outcome = scene.play(&["doctor", "--json"]);
        assert_eq!((outcome.status.code(), outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
        let report = report(&outcome);
        assert_eq!(report["can_run"], true);
        for topic in [
            "kvm",
            "boot",
            "ring-0",
            "exit",
            "turn",
            "wake",
            "clock",
            "cpus",
            "memory",
            "huge-pages",
            "tap",
            "own-taps",
            "namespaces",
            "pmu",
            "tracepoints",
            "statistics",
        ] {
            let finding = finding(&report, topic);
            for key in ["found", "means"] {
                assert!(finding[key].as_str().is_some_and(|text| text.len() > 3), "{finding}");
            }
        }
        let number = |topic, key| finding(&report, topic)["values"][key].as_f64().expect("a number");
        // Whatever the host: a thousand instructions take time, a kernel call takes more than a few instructions, and
        // an exit to another process's address space more than a thousand cycles.
        let thousand = number("ring-0", "ring_3_cycles_per_1000_instructions");
        let (call, exit) = (number("ring-0", "kernel_call_cycles"), number("exit", "exit_cycles"));
        println!("1000 instructions {thousand}, kernel call {call}, exit {exit} cycles");
        assert!((50.0..100_000.0).contains(&thousand) && call > 50.0 && exit > 500.0, "{report:#}");
        // Where ring 0 does not raise the privilege by SYSCALL, it is interpreted, and the other way round.
        let ring_0 = &finding(&report, "ring-0")["values"];
        assert_eq!(ring_0["native"] == true, ring_0["gate"] == "syscall", "{ring_0}");
        // In this namespace the test is root.
        assert_eq!(finding(&report, "tap")["values"]["make"], true);
        assert_eq!(interfaces(), before, "the tap that was tried has gone");
        scene.assert_clean();
    });
}

#[test]
fn doctor_says_in_words_what_is_slow_and_what_to_do() {
    in_namespace!(|| {
        let scene = scene();
        let outcome = scene.play(&["doctor"]);
        assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
        assert!(outcome.stdout.trim_end().ends_with("Machines run here."), "{outcome:?}");
        assert!(!outcome.stdout.contains('\x1b'), "colours are for terminals: {outcome:?}");
        let odd = outcome.stdout.lines().any(|line| line.starts_with("note  ring-0"));
        assert_eq!(odd, outcome.stdout.contains("kernel calls, page faults and interrupts:"), "{outcome:?}");
        scene.assert_clean();
    });
}

#[test]
fn doctor_of_one_topic_finds_out_only_that() {
    let scene = scene();
    let outcome = scene.play(&["doctor", "--only", "cpus", "--json"]);
    let report = report(&outcome);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["can_run"], Value::Null);
    let unknown = scene.play(&["doctor", "--only", "tab"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("a similar value exists: 'tap'"), "{unknown:?}");
}

/// What `doctor --json` says on a host with these changes; machines cannot run there.
fn report_where(changes: Vec<Change>) -> Value {
    let scene = scene();
    let mut command = scene.command(&["doctor", "--json"]);
    change(&mut command, changes);
    respect_permissions(&mut command);
    let outcome = finish(&mut command);
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let report = report(&outcome);
    assert_eq!(report["can_run"], false);
    scene.assert_clean();
    report
}

fn assert_found(report: &Value, topic: &str, grade: &str, parts: &[&str]) {
    let finding = finding(report, topic);
    assert_eq!(finding["grade"], grade, "{finding}");
    for part in parts {
        assert!(finding.to_string().contains(part), "{part:?} is not said: {finding}");
    }
}

#[test]
fn doctor_without_kvm_says_how_to_get_it_and_looks_at_the_rest() {
    in_namespace!(|| {
        let report = report_where(vec![Change::Empty("/dev")]);
        assert_found(&report, "kvm", "bad", &["there is no /dev/kvm", "modprobe"]);
        assert_found(&report, "boot", "bad", &["a machine does not run"]);
        assert_found(&report, "tap", "odd", &["/dev/net/tun", "modprobe tun"]);
        assert_found(&report, "clock", "odd", &["no KVM"]);
        assert_found(&report, "huge-pages", "good", &["100"]);
        assert_found(&report, "cpus", finding(&report, "cpus")["grade"].as_str().unwrap(), &["CPU"]);
    });
}

#[test]
fn doctor_asked_about_one_topic_says_also_why_machines_do_not_run() {
    in_namespace!(|| {
        let scene = scene();
        let mut command = scene.command(&["doctor", "--json", "--only", "exit"]);
        change(&mut command, vec![Change::Empty("/dev")]);
        let outcome = finish(&mut command);
        assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
        let report = report(&outcome);
        assert_eq!(report["can_run"], false);
        assert_found(&report, "boot", "bad", &["a machine does not run"]);
    });
}

#[test]
fn doctor_without_permission_for_kvm_names_the_group() {
    in_namespace!(|| {
        let dir = tempfile::tempdir().unwrap();
        let report = report_where(vec![Change::Replace(forbidden(dir.path()), "/dev/kvm")]);
        assert_found(&report, "kvm", "bad", &["no permission to use /dev/kvm", "kvm group"]);
    });
}

#[test]
fn doctor_with_another_device_as_kvm_does_not_fall_over_it() {
    in_namespace!(|| {
        let report = report_where(vec![Change::Replace("/dev/null".to_owned(), "/dev/kvm")]);
        assert_found(&report, "kvm", "bad", &["API version"]);
    });
}

#[test]
fn doctor_without_the_right_to_make_taps_says_what_to_do() {
    in_namespace!(|| {
        const CAP_NET_ADMIN: libc::c_ulong = 12;
        let scene = scene();
        let mut command = scene.command(&["doctor", "--json", "--only", "tap"]);
        // SAFETY: the closure makes one system call, whose argument goes by value.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        let outcome = finish(&mut command);
        assert_eq!(outcome.status.code(), Some(0), "machines run without a tap: {outcome:?}");
        assert_found(&report(&outcome), "tap", "odd", &["ip tuntap add dev tap0", "unshare -rn"]);
    });
}
