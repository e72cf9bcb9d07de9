//! `exovm account`: where the cycles of a running machine go.

use super::{Failure, say};
use crate::account::{AccountSnapshot, table};
use crate::control::{self, Request, Response};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `account`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm account                     the only machine that runs, over one second
  exovm account cheetah --for 5     five seconds of the machine called cheetah
  exovm account --json | jq .       for scripts")]
pub(super) struct AccountArguments {
    /// Name of the machine, as `exovm run` printed it; not needed if only one runs.
    machine: Option<String>,
    /// How many seconds to look at; 0: everything since the start.
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 1.0)]
    seconds: f64,
    /// Print JSON (schema exovm-account/1).
    #[arg(long)]
    json: bool,
}

pub(super) fn account(arguments: &AccountArguments) -> Result<ExitCode, Failure> {
    if !(0.0..=86_400.0).contains(&arguments.seconds) {
        return Err("--for takes seconds between 0 and 86400".into());
    }
    let machine = arguments.machine.as_deref();
    let account = if arguments.seconds > 0.0 {
        let before = snapshot(machine)?;
        std::thread::sleep(Duration::from_secs_f64(arguments.seconds));
        snapshot(machine)?.since(&before)
    } else {
        snapshot(machine)?.since_start()
    };
    if arguments.json {
        say(&serde_json::to_string_pretty(&account)?);
    } else {
        say(table::print(&account).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn snapshot(machine: Option<&str>) -> Result<AccountSnapshot, Failure> {
    match control::ask(machine, &Request::Account)? {
        Response::Account(snapshot) => Ok(snapshot),
        Response::Error { message } => Err(message.into()),
    }
}
