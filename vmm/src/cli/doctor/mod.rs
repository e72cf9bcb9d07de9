//! `exovm doctor`: what this host can do for machines, found by trying it: what works, what will be slow, what to do.
//!
//! | module | looks at |
//! | --- | --- |
//! | [`finding`] | (what a finding is) |
//! | [`kvm`] | the device, the clock that guests share |
//! | [`guest`] | a machine that is booted and measures itself |
//! | [`host`] | CPUs, memory, huge pages |
//! | [`network`] | taps and namespaces |
//! | [`tracing`] | what KVM and the processor tell about a guest |

mod finding;
mod guest;
mod host;
mod kvm;
mod network;
mod tracing;

use super::style::{BAD, FAINT, GOOD, ODD, print, styled};
use super::{Failure, exit};
use finding::{Finding, Grade};
use serde::Serialize;
use std::process::ExitCode;

/// Arguments of `doctor`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Everything is tried and nothing is looked up by a model name: a small machine is
booted, memory is touched, a tap is made and removed again.

Examples:
  exovm doctor
  exovm doctor --only tap
  exovm doctor --json | jq '.findings[] | select(.grade != \"good\")'

Exit codes
  0 machines can run here, 1 they cannot")]
pub(super) struct DoctorArguments {
    /// Only findings of this topic.
    #[arg(long, value_name = "TOPIC", value_parser = TOPICS)]
    only: Option<String>,
    /// Print JSON (schema exovm-doctor/1).
    #[arg(long)]
    json: bool,
}

/// All topics, in the order in which they are printed.
const TOPICS: [&str; 16] = [
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
    "namespaces",
    "own-taps",
    "pmu",
    "tracepoints",
    "statistics",
];

/// Looks at one or several topics that are found out together.
type Check = fn() -> Vec<Finding>;

/// Which check finds out about which topics.
const CHECKS: [(&[&str], Check); 10] = [
    (&["kvm"], kvm::device),
    (&["boot", "ring-0", "exit", "turn", "wake"], guest::measure),
    (&["clock"], kvm::clock),
    (&["cpus"], host::cpus),
    (&["memory"], host::memory),
    (&["huge-pages"], host::huge_pages),
    (&["tap", "own-taps"], network::taps),
    (&["namespaces"], network::namespaces),
    (&["pmu"], tracing::pmu),
    (&["tracepoints", "statistics"], tracing::kvm_events),
];

/// The JSON form.
#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    /// Whether machines can run; absent if that was not looked at.
    can_run: Option<bool>,
    findings: &'a [Finding],
}

pub(super) fn doctor(arguments: &DoctorArguments) -> Result<ExitCode, Failure> {
    let wanted = |topic: &str| arguments.only.as_deref().is_none_or(|only| only == topic);
    let checks = CHECKS.iter().filter(|(topics, _)| topics.iter().any(|topic| wanted(topic)));
    let mut findings: Vec<Finding> = checks.flat_map(|(_, check)| check()).collect();
    // What is bad is said in any case: it may be why there is nothing else to say.
    let is_bad = |finding: &Finding| finding.grade == Grade::Bad;
    let booted = findings.iter().any(|finding| finding.topic == "boot");
    let can_run = if findings.iter().any(is_bad) { Some(false) } else { booted.then_some(true) };
    findings.retain(|finding| wanted(finding.topic) || is_bad(finding));
    findings.sort_by_key(|finding| TOPICS.iter().position(|topic| *topic == finding.topic));
    if arguments.json {
        let report = Report { schema: "exovm-doctor/1", can_run, findings: &findings };
        print(&serde_json::to_string_pretty(&report)?)?;
    } else {
        findings.iter().try_for_each(|finding| print(&text(finding)).map(|_| ()))?;
        match can_run {
            Some(true) => print(&styled("\nMachines run here.", GOOD))?,
            Some(false) => print(&styled("\nMachines cannot run here.", BAD))?,
            None => super::style::Reader::Listens,
        };
    }
    Ok(ExitCode::from(if can_run == Some(false) { exit::ERROR } else { exit::SUCCESS }))
}

fn text(finding: &Finding) -> String {
    let (mark, style) = match finding.grade {
        Grade::Good => ("good", GOOD),
        Grade::Odd => ("note", ODD),
        Grade::Bad => ("bad ", BAD),
    };
    let mut text = format!("{}  {:<12} {}", styled(mark, style), finding.topic, finding.found);
    let mut more = |what: &str, line: &str| {
        for (number, line) in line.lines().enumerate() {
            let what = if number == 0 { what } else { "" };
            text.push_str(&format!("\n      {} {line}", styled(&format!("{what:>12}"), FAINT)));
        }
    };
    more("", &finding.means);
    if let Some(slow) = &finding.slow {
        more("slow:", slow);
    }
    if let Some(todo) = &finding.todo {
        more("to do:", todo);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_check() {
        let mut checked: Vec<_> = CHECKS.iter().flat_map(|(topics, _)| topics.iter().copied()).collect();
        let mut topics = TOPICS.to_vec();
        checked.sort_unstable();
        topics.sort_unstable();
        assert_eq!(checked, topics);
    }
}
