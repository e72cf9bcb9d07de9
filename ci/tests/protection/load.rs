//! How environments end, and what the VMM does with what they write: log, spans, status.

use crate::fixture::{Probe, run, said};
use exovm::machine::End;
use std::time::Duration;

#[test]
fn core_exit_status_is_the_machines() {
    for status in [0u32, 1, 7, 255, 256, u32::MAX] {
        let end = run(&["exit", &status.to_string()]).end;
        assert_eq!(end, End::PowerOff { status });
    }
}

#[test]
fn core_panic_returns_101_and_is_in_the_log() {
    let outcome = run(&["panic"]);
    assert_eq!(outcome.end, End::PowerOff { status: 101 });
    let text = outcome.log.join("\n");
    assert!(text.contains("ERROR") && text.contains("as requested") && text.contains("load.rs"), "{text}");
}

#[test]
fn core_unknown_case_returns_2() {
    assert_eq!(run(&["nothing-of-the-kind"]).end, End::PowerOff { status: 2 });
    assert_eq!(run(&[]).end, End::PowerOff { status: 2 });
}

/// All memory that the manifest promises is there, but for what allocator and rounding take, and is whole again after
/// being given back.
#[test]
fn core_heap_is_usable_to_its_end() {
    let log = run(&["heap"]).held();
    let line = said(&log).next().unwrap_or_default();
    let numbers: Vec<f64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    let &[owned, first, second, large, wrong] = numbers.as_slice() else { panic!("{line}") };
    assert!(owned >= 24.0 * 1024.0 * 1024.0, "{line}");
    for usable in [first, second, large] {
        assert!(usable / owned > 0.99 && usable <= owned, "{line}");
    }
    assert_eq!(wrong, 0.0, "{line}");
}

/// The guest writes the ring several times over, never waits, and the reader says what it missed.
#[test]
fn core_log_faster_than_its_reader_is_said_to_be_lost() {
    let log = run(&["log-flood", "200000"]).held();
    assert!(log.iter().any(|line| line.starts_with('[') && line.ends_with("bytes of log lost]")), "{log:?}");
    assert_eq!(said(&log).last(), Some("that was all"));
}

#[test]
fn core_short_log_is_complete() {
    let log = run(&["log-flood", "500"]).held();
    let expected: Vec<String> = (0..500).map(|line| format!("line {line} of 500")).collect();
    assert_eq!(said(&log).take(500).collect::<Vec<_>>(), expected);
    assert_eq!(log.len(), 501);
}

/// What a span is charged is no more than what the guest saw pass, and with what the host took no less than what it wanted to burn.
#[test]
fn core_cycles_are_charged_to_the_span_that_burnt_them() {
    let probe = Probe::start(&["burn", "a", "20000000", "none", "5000000", "b", "40000000"], |_| {});
    let accounts = probe.machine.accounts();
    probe.wait();
    let account = probe.machine.account();
    drop(accounts);
    let log = probe.finish().held();
    let passed = |span: &str| -> u64 {
        let line = said(&log).find(|line| line.ends_with(&format!(" cycles in {span}")));
        line.and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a number of cycles")
    };
    let taken = |name| account.site(name).map_or(0, |sum| sum.total);
    let taken = taken("off CPU") + taken("in the VMM");
    for (span, wanted) in [("a", 20_000_000), ("b", 40_000_000)] {
        let sum = account.site(&format!("burn {span}")).expect("the span is known");
        assert_eq!((sum.count, sum.kind.as_str()), (1, "span"));
        assert!(sum.total <= passed(span), "{span}: {} of {}", sum.total, passed(span));
        assert!(sum.total + taken >= wanted, "{span}: {} and {taken} taken of {wanted}", sum.total);
    }
    let burnt = account.site("burnt").expect("the counter is known");
    assert_eq!((burnt.count, burnt.total, burnt.kind.as_str()), (3, 65_000_000, "counter"));
    assert!(account.site("no span").expect("always there").total + taken >= 5_000_000);
}

/// The guest fills status, account, trace ring and log ring with nonsense while the VMM reads them.
#[test]
fn core_nonsense_in_the_shared_pages_harms_nobody() {
    let probe = Probe::start(&["scribble", "400000000"], |_| {});
    while probe.machine.wait(Some(Duration::from_millis(1))).is_none() {
        let account = probe.machine.account();
        assert!(!account.since(&account).sites.is_empty());
        assert!(probe.machine.phases().len() >= 2);
        let _ = probe.machine.wait_ready(Duration::ZERO);
    }
    assert_eq!(probe.finish().end, End::PowerOff { status: 0 });
}

#[test]
fn core_environment_that_never_yields_can_be_stopped() {
    for case in ["spin", "halt-forever"] {
        let mut probe = Probe::start(&[case], |_| {});
        std::thread::sleep(Duration::from_millis(100));
        assert!(probe.machine.wait(Some(Duration::ZERO)).is_none(), "{case} has ended");
        assert_eq!(probe.stop(Duration::from_millis(10)).end, End::Stopped, "{case}");
    }
}

#[test]
fn core_environment_that_takes_turns_is_asked_to_stop_and_does() {
    let mut probe = Probe::start(&["turns"], |_| {});
    std::thread::sleep(Duration::from_millis(50));
    let outcome = probe.stop(Duration::from_secs(30));
    assert_eq!(outcome.end, End::PowerOff { status: 0 }, "{:?}", outcome.log);
}
