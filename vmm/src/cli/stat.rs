//! `exovm stat`: what every layer of a running machine has counted.

use super::Failure;
use super::style::{Reader, print};
use crate::control::{Answer, ControlError, Request, Session, StatRequest, resolve};
use crate::stat::table::{self, Shape};
use crate::stat::{LAYERS, StatSnapshot};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `stat`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = after_help())]
pub(super) struct StatArguments {
    /// Name of the machine, as `exovm run` printed it; not needed if only one runs.
    machine: Option<String>,
    /// How long to look: 1s, 500ms, 2m; a number alone is seconds. --total is everything since the start.
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = super::duration::parse)]
    time: Duration,
    /// Everything since the start, instead of what happens while we look.
    #[arg(long, conflicts_with_all = ["time", "watch"])]
    total: bool,
    /// Go on until Ctrl-C or the machine's end.
    #[arg(long)]
    watch: bool,
    /// Only these layers, separated by commas; see below.
    #[arg(long, value_name = "LAYERS", value_delimiter = ',', value_parser = layer_names())]
    layer: Vec<String>,
    /// Also what is zero.
    #[arg(long)]
    all: bool,
    /// Say of each what it counts.
    #[arg(long)]
    explain: bool,
    /// Print JSON (schema exovm-stat/1), with --watch a line each time.
    #[arg(long, conflicts_with_all = ["all", "explain"])]
    json: bool,
}

fn after_help() -> String {
    let layers: Vec<_> = LAYERS.iter().map(|(name, what)| format!("  {name:<9} {what}")).collect();
    format!(
        "Examples:
  exovm stat                              the only machine that runs, over one second
  exovm stat cheetah --layer tcp,http     two layers of the machine called cheetah
  exovm stat --total --all --explain      everything, with what it counts
  exovm stat --watch --for 5s             every five seconds
  exovm stat --json | jq .                for scripts
  curl --unix-socket $XDG_RUNTIME_DIR/exovm/cheetah.sock http://localhost/metrics
                                          the same for Prometheus

Layers:
{}",
        layers.join("\n")
    )
}

fn layer_names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(LAYERS.map(|(name, _)| name))
}

pub(super) fn stat(arguments: &StatArguments) -> Result<ExitCode, Failure> {
    let mut session = Session::open(&resolve(arguments.machine.as_deref())?)?;
    let request = Request::Stat(StatRequest { layers: arguments.layer.clone() });
    let mut before = ask(&mut session, &request)?;
    if arguments.total {
        say(arguments, &before)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.watch && arguments.time > Duration::from_secs(1) && std::io::stderr().is_terminal() {
        complain!("exovm: looking at {} for {:?}", session.name(), arguments.time);
    }
    loop {
        std::thread::sleep(arguments.time);
        let now = match ask(&mut session, &request) {
            Err(ControlError::Gone { name }) if arguments.watch => {
                complain!("exovm: machine {name} ended");
                return Ok(ExitCode::SUCCESS);
            }
            now => now?,
        };
        let reader = say(arguments, &now.since(&before))?;
        if !arguments.watch || reader == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
        before = now;
    }
}

fn ask(session: &mut Session, request: &Request) -> Result<StatSnapshot, ControlError> {
    match session.ask(request)? {
        Answer::Stat(snapshot) => Ok(*snapshot),
        other => Err(session.unexpected(&other)),
    }
}

fn say(arguments: &StatArguments, snapshot: &StatSnapshot) -> Result<Reader, Failure> {
    if arguments.json {
        let text = if arguments.watch {
            serde_json::to_string(snapshot)?
        } else {
            serde_json::to_string_pretty(snapshot)?
        };
        return print(&text);
    }
    let shape = Shape { rates: !arguments.total, zeros: arguments.all, explain: arguments.explain };
    let text = table::print(snapshot, shape);
    // Each time in the place of the last, if it is a terminal.
    let clear = if arguments.watch && std::io::stdout().is_terminal() { "\u{1b}[H\u{1b}[J" } else { "" };
    print(&format!("{clear}{}", text.trim_end()))
}
