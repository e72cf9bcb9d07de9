//! Several environments from the start: each runs the image's program, and the VMM tells apart what they do.

use crate::fixture::{Outcome, Probe};
use exovm::machine::End;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const ENVIRONMENTS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

fn start(arguments: &[&str]) -> Probe {
    Probe::start(arguments, |config| {
        config.environments = Some(ENVIRONMENTS);
        config.memory_bytes = Some(64 << 20);
    })
}

/// What an environment has logged, without level and prefix.
fn said_by(outcome: &Outcome, environment: u32) -> Vec<&str> {
    let prefix = format!("[{environment}] ");
    outcome.log.iter().filter_map(|line| line.split_once(&prefix).map(|(_, text)| text)).collect()
}

/// Also the last lines before an environment ends, whose pages are cleared at once.
#[test]
fn core_log_of_each_environment_is_complete_and_says_whose_it_is() {
    let outcome = start(&["log-flood", "200"]).finish();
    assert_eq!(outcome.end, End::PowerOff { status: 0 });
    let mut expected: Vec<String> = (0..200).map(|line| format!("probe: line {line} of 200")).collect();
    expected.push("probe: that was all".to_owned());
    for environment in 0..ENVIRONMENTS {
        assert_eq!(said_by(&outcome, environment), expected, "{environment}");
    }
    assert_eq!(outcome.log.len(), 201 * ENVIRONMENTS as usize);
}

#[test]
fn core_fault_of_each_environment_is_reported_and_the_last_ends_the_machine() {
    let outcome = start(&["read-kernel"]).finish();
    // Whoever is last is reported by the machine's end.
    let is_last = |environment: &u32| match &outcome.end {
        End::Fault { report } => {
            report.starts_with(&format!("environment {environment}: page fault reading "))
        }
        _ => false,
    };
    assert_eq!((0..ENVIRONMENTS).filter(is_last).count(), 1, "{outcome:#?}");
    for environment in (0..ENVIRONMENTS).filter(|environment| !is_last(environment)) {
        let said = said_by(&outcome, environment);
        let report = format!("environment {environment}: page fault reading ");
        let at = said.iter().position(|line| line.starts_with(&report));
        let at = at.unwrap_or_else(|| panic!("{environment}: {:#?}", outcome.log));
        assert!(said[at + 1].contains("probe_read"), "{said:#?}");
        assert!(
            said[at..].iter().any(|line| line.contains("from ") && line.contains("probe::main")),
            "{said:#?}"
        );
    }
}

#[test]
fn core_machine_is_ready_and_accounts_for_each_of_its_environments() {
    let mut probe = start(&["chatter", "5000", "10"]);
    assert!(probe.machine.is_ready(PATIENCE));
    for environment in 0..ENVIRONMENTS as usize {
        let pages = probe.machine.environment_pages(environment).expect("a place");
        let ready = &pages.status.phases[abi::boot::phase::READY];
        assert_ne!(ready.load(std::sync::atomic::Ordering::Relaxed), 0, "{environment}");
    }
    // One that is ready may have begun no span yet, where the host is busy.
    let until = Instant::now() + PATIENCE;
    let wanted: BTreeSet<_> = (0..ENVIRONMENTS).map(Some).collect();
    let accounted =
        || -> BTreeSet<_> { probe.machine.account().sites.iter().map(|site| site.environment).collect() };
    while accounted() != wanted {
        assert!(Instant::now() < until, "{:?}", accounted());
        std::thread::sleep(Duration::from_millis(10));
    }
    let outcome = probe.stop(PATIENCE);
    assert_eq!(outcome.end, End::PowerOff { status: 0 });
    for environment in 0..ENVIRONMENTS {
        assert!(said_by(&outcome, environment).iter().any(|line| line.ends_with(" lines")), "{environment}");
    }
}
