//! `exovm account`: where the cycles of a running machine go.

use super::Failure;
use super::style::print;
use crate::account::{AccountSnapshot, table};
use crate::control::{Answer, Request, Session, resolve};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `account`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm account                     the only machine that runs, over one second
  exovm account cheetah --for 5s    five seconds of the machine called cheetah
  exovm account --json | jq .       for scripts")]
pub(super) struct AccountArguments {
    /// Name of the machine, as `exovm run` printed it; not needed if only one runs.
    machine: Option<String>,
    /// How long to look; 0: everything since the start.
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = parse_window)]
    window: Duration,
    /// Print JSON (schema exovm-account/1).
    #[arg(long)]
    json: bool,
}

fn parse_window(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { super::duration::parse(text) }
}

pub(super) fn account(arguments: &AccountArguments) -> Result<ExitCode, Failure> {
    let window = arguments.window;
    let mut session = Session::open(&resolve(arguments.machine.as_deref())?)?;
    let account = if !window.is_zero() {
        let before = snapshot(&mut session)?;
        if window > Duration::from_secs(1) && std::io::stderr().is_terminal() {
            complain!("exovm: looking at {} for {window:?}", session.name());
        }
        std::thread::sleep(window);
        snapshot(&mut session)?.since(&before)
    } else {
        let account = snapshot(&mut session)?.since_start();
        if account.accounted_tsc < account.tsc / 100 * 99 {
            let seconds = account.accounted_tsc as f64 / (account.tsc_khz.max(1) as f64 * 1000.0);
            complain!("exovm: the guest's spans hold {seconds:.1} s, those in which somebody looked");
        }
        account
    };
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&account)?,
        false => table::print(&account),
    };
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

fn snapshot(session: &mut Session) -> Result<AccountSnapshot, Failure> {
    match session.ask(&Request::Account)? {
        Answer::Account(snapshot) => Ok(*snapshot),
        other => Err(session.unexpected(&other).into()),
    }
}
