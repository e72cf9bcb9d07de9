//! `exovm attack`: tries on this host what environments must not be able to do, and prints what each attack got.

use super::style::{BAD, FAINT, GOOD, Reader, print, styled};
use super::{Failure, exit, say};
use crate::attacks::{self, Outcome, Trial, Without};
use abi::boot::VCPUS_MAX;
use std::process::ExitCode;

/// Arguments of `attack`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
The image probe holds the attacks. Each machine that is booted tries one of them, or several one after the other, against
memory, the kernel, devices, other environments and the VMM; the list says what each must get. What the image tries beyond the
list counts as an attack that got through. The last column of --list says what was removed from kernel or VMM to see whether
the attack means anything, and what it got then; or that the processor refuses it alone, or that it is none but must work, or that
nobody has tried. What the VMM refuses it says on standard error, as always.

Examples
  exovm attack
  exovm attack --only flows
  exovm attack --vcpus 2 --only environments
  exovm attack --list
  exovm attack --json | jq '.attacks[] | select(.refused | not)'

Exit codes
  0 every attack was refused as it should, 1 at least one was not")]
pub(super) struct AttackArguments {
    /// Only those whose name, case or target has this in it.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// vCPUs of each machine. With more than one, device work is done on a thread; most children stay on their parent's vCPU.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=VCPUS_MAX as i64))]
    vcpus: u32,
    /// Print the list, and try nothing.
    #[arg(long)]
    list: bool,
    /// Print JSON (schema exovm-attack/1).
    #[arg(long)]
    json: bool,
}

/// Widths of the columns for what is tried and what it got.
const WHAT: usize = 52;
const GOT: usize = 44;

pub(super) fn attack(arguments: &AttackArguments) -> Result<ExitCode, Failure> {
    let chosen = chosen(arguments.only.as_deref());
    if chosen.is_empty() {
        let only = arguments.only.as_deref().unwrap_or_default();
        return Err(format!("no attack has {only:?} in its name; exovm attack --list prints all").into());
    }
    if arguments.list {
        list(&chosen, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut against = "";
    for trial in &chosen {
        if let Some(why) = trial.why_not(arguments.vcpus) {
            complain!(
                "exovm: warning: {} is not tried with {} vCPUs: {why}",
                trial.arguments[0],
                arguments.vcpus
            );
            continue;
        }
        if trial.against != against && !arguments.json {
            against = trial.against;
            say(&format!("\nagainst {against}"));
        }
        for outcome in attacks::run(trial, arguments.vcpus)? {
            if !arguments.json {
                line(&outcome)?;
            }
            outcomes.push(outcome);
        }
    }
    let through = outcomes.iter().filter(|outcome| !outcome.is_refused()).count();
    if arguments.json {
        say(&json(outcomes.iter().map(|it| {
            serde_json::json!({
                "against": it.against,
                "case": it.arguments,
                "attack": it.what,
                "got": it.got,
                "expected": it.expected.split('|').collect::<Vec<_>>(),
                "refused": it.is_refused(),
                "without": said(it.without),
                "without_kind": it.without.name(),
            })
        })));
    } else if through == 0 {
        say(&format!("\n{} attacks, all refused", outcomes.len()));
    } else {
        say(&format!("\n{} attacks, {through} not refused as they should", outcomes.len()));
    }
    Ok(if through == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::ERROR) })
}

/// The machines whose attacks, or some of them, are meant.
fn chosen(only: Option<&str>) -> Vec<Trial> {
    let is_meant = |trial: &Trial| {
        only.is_none_or(|text| {
            trial.against.contains(text)
                || trial.arguments[0].contains(text)
                || trial.attacks.iter().any(|attack| attack.what.contains(text))
        })
    };
    attacks::trials().into_iter().filter(is_meant).collect()
}

fn line(outcome: &Outcome) -> Result<Reader, Failure> {
    let (style, verdict) = if outcome.is_refused() { (GOOD, "ok") } else { (BAD, "NOT REFUSED") };
    let wanted = if outcome.is_refused() { String::new() } else { format!(", not {:?}", outcome.expected) };
    print(&format!("  {:<WHAT$} {:<GOT$} {}{wanted}", outcome.what, outcome.got, styled(verdict, style)))
}

fn list(trials: &[Trial], as_json: bool) -> Result<(), Failure> {
    let rows = || trials.iter().flat_map(|trial| trial.attacks.iter().map(move |attack| (trial, attack)));
    if as_json {
        say(&json(rows().map(|(trial, attack)| {
            serde_json::json!({
                "against": trial.against,
                "case": trial.arguments.join(" "),
                "attack": attack.what,
                "expected": attack.refused.split('|').collect::<Vec<_>>(),
                "without": said(attack.without),
                "without_kind": attack.without.name(),
            })
        })));
        return Ok(());
    }
    let mut against = "";
    for (trial, attack) in rows() {
        if trial.against != against {
            against = trial.against;
            say(&format!("\nagainst {against}"));
        }
        let without = attack.without.to_string();
        print(&format!("  {:<WHAT$} {:<GOT$} {}", attack.what, attack.refused, styled(&without, FAINT)))?;
    }
    let count = |name: &str| rows().filter(|(_, attack)| attack.without.name() == name).count();
    say(&format!(
        "\n{} rows: of {} it was seen what they get without what stands against them, {} the processor refuses alone, {} must \
         work, {} were not tried",
        rows().count(),
        count("seen"),
        count("processor"),
        count("works"),
        count("not tried")
    ));
    Ok(())
}

/// What was removed and what that got, or why the processor refuses it alone.
fn said(without: Without) -> Option<String> {
    matches!(without, Without::Seen { .. } | Without::Processor(_)).then(|| without.to_string())
}

fn json(attacks: impl Iterator<Item = serde_json::Value>) -> String {
    let attacks: Vec<_> = attacks.collect();
    serde_json::json!({ "schema": "exovm-attack/1", "attacks": attacks }).to_string()
}
