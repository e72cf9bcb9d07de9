//! `exovm bench attack`: a guest's TCP/IP under attack. The measuring is in `exovm-bench`; here are its flags.

use super::{Failure, say};
use exovm_bench::attack::{Attack, AttackOptions};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `bench attack`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Each attack meets a Cheetah of its own, in a private network, with frames made by hand. Beside it honest clients ask: on one connection
200 times a second, and 50 times a second on a connection each. Printed are what they got before, during and after it, what the attacker
sent and drew, memory, and the statistics of `exovm stat` that name the attack. Fails if a connection that stood was harmed, somebody
was not served at all, or no statistic noticed.

Examples
  exovm bench attack --quick
  exovm bench attack --attacks optimistic-acks,ack-splitting --seconds 20
  exovm bench attack --json result.json && jq '.attacks[] | {attack, drawn_bytes_per_s, noticed}' result.json")]
pub(super) struct AttackArguments {
    /// The short form: a second and a half of each.
    #[arg(long)]
    quick: bool,
    /// Which: syn-flood, blind, zero-window, tiny-segments, slow-read, ack-splitting, optimistic-acks, overlapping-fragments, path-mtu.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    attacks: Vec<Attack>,
    /// Seconds of each, and of the time without it before.
    #[arg(long, value_name = "N", conflicts_with = "quick")]
    seconds: Option<u32>,
    /// Also write the result as JSON (schema in ci/bench/README.md).
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn attack(arguments: AttackArguments) -> Result<ExitCode, Failure> {
    let mut options = if arguments.quick { AttackOptions::quick() } else { AttackOptions::default() };
    if !arguments.attacks.is_empty() {
        options.attacks = arguments.attacks;
    }
    if let Some(seconds) = arguments.seconds {
        options.milliseconds = seconds.saturating_mul(1_000);
    }
    options.json_path = arguments.json;
    let report = exovm_bench::run_attack(options, &std::env::current_exe()?)?;
    say(report.to_string().trim_end());
    Ok(if report.survived() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
