//! `exovm probe`: how often a function of a running machine is called, how long it takes, and with what.

use super::Failure;
use super::ended::Ended;
use super::style::{self, Reader, columns, print, styled};
use super::supervise::Signals;
use crate::control::resolve;
use crate::probe::client::{Client, ClientError, Heard};
use crate::probe::table::Seen;
use crate::probe::{Function, Item, ProbeRequest, Ring};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Arguments of `probe`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
The function's entry is replaced by a jump to code that counts, for as long as
this command runs; nothing is built or started anew. However the command ends
(Ctrl-C, kill -9), the text is restored. A call costs some ten cycles more,
with --ret about a hundred; in the kernel, where a host interprets ring 0, each
costs some thousands (docs/probe.md has the numbers).

FUNCTION is a name, as much of its end as no other has, any part that no other
has, or an address. `image:` or `kernel:` before it says whose. What the
compiler has inlined everywhere is no function any more; --list prints those
that are.

Examples:
  exovm probe --list service                     functions with that in their names
  exovm probe cheetah 'Service>::input'          how often is it called
  exovm probe 'Service>::input' --ret --for 10s  and how long does it take
  exovm probe memcpy --args                      with which arguments
  exovm probe kernel:slice_end --ret             in the kernel
  exovm probe memcpy --ret --json | jq '.by[].p99_cycles'

Exit codes
  0 the function was probed as long as wanted, until Ctrl-C, or until the machine
  ended, and a line says so; 1 there is no such machine or function, it cannot be
  probed, or the machine is gone without a word or does not answer")]
pub(super) struct ProbeArguments {
    /// Name of the machine, which is not needed if only one runs; and the function.
    #[arg(value_names = ["VM", "FUNCTION"], num_args = 0..=2)]
    what: Vec<String>,
    /// Measure the time from entry to return.
    #[arg(long)]
    ret: bool,
    /// Look at the arguments: the registers that carry them, in the last calls.
    #[arg(long)]
    args: bool,
    /// For how long: 5s, 1m, or a number of seconds. Ctrl-C ends it earlier.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = super::duration::parse)]
    time: Duration,
    /// Only calls in this environment.
    #[arg(long, value_name = "N")]
    environment: Option<u32>,
    /// Print the functions that have this in their names, and probe none.
    #[arg(long, value_name = "PATTERN", conflicts_with_all = ["ret", "args", "environment", "time"])]
    list: Option<String>,
    /// Print JSON (schema exovm-probe/1).
    #[arg(long)]
    json: bool,
}

pub(super) fn probe(arguments: &ProbeArguments) -> Result<ExitCode, Failure> {
    if let Some(pattern) = &arguments.list {
        let machine = match &arguments.what[..] {
            [] => None,
            [machine] => Some(machine.as_str()),
            _ => return Err("--list takes a machine and no function".into()),
        };
        return list(&resolve(machine)?, pattern, arguments.json);
    }
    let (machine, function) = match &arguments.what[..] {
        [function] => (None, function),
        [machine, function] => (Some(machine.as_str()), function),
        _ => return Err("which function? `exovm probe --list PATTERN` prints those that there are".into()),
    };
    let machine = resolve(machine)?;
    let signals = Signals::block()?;
    let request = ProbeRequest::Attach {
        function: function.clone(),
        returns: arguments.ret,
        arguments: arguments.args,
    };
    let mut client = Client::open(&machine, request)?;
    let mut seen = match client.next(None, None)? {
        Heard::Item(Item::Attached { function, reads, tsc_khz, tsc }) => (
            tsc,
            Seen {
                machine: machine.clone(),
                function,
                reads,
                returns: arguments.ret,
                tsc_khz,
                cycles: 0,
                by: Vec::new(),
                arguments: None,
                complete: false,
            },
        ),
        Heard::Item(Item::Refused { message }) => return Err(format!("machine {machine}: {message}").into()),
        _ => return Err(format!("machine {machine} answered something else").into()),
    };
    if arguments.time > Duration::from_secs(1) && std::io::stderr().is_terminal() {
        let time = humantime::format_duration(arguments.time);
        complain!("exovm: probing {} for {time}; Ctrl-C ends it earlier", seen.1.function.name);
    }
    let watched = watch(&mut client, &mut seen, &signals, arguments);
    let seen = seen.1;
    let ended = match watched {
        Ok(ended) => ended,
        Err(error) if seen.by.is_empty() => return Err(error.into()),
        Err(ClientError::Gone(_)) => Ended::Gone,
        Err(ClientError::Silent(_)) => Ended::Silent,
        Err(ClientError::Misunderstood(_)) => Ended::Garbled,
    };
    let seconds = seen.cycles as f64 / 1000.0 / seen.tsc_khz.max(1) as f64;
    ended.say(&machine, Duration::try_from_secs_f64(seconds).unwrap_or_default());
    if let Some(number) = arguments.environment
        && seen.by.is_empty()
    {
        return Err(no_environment(&seen, number).into());
    }
    match arguments.json {
        true => print(&serde_json::to_string_pretty(&seen.json())?)?,
        false => print(seen.text().trim_end())?,
    };
    Ok(ended.code())
}

/// Takes the numbers until the time is over, a signal comes, or the machine ends.
fn watch(
    client: &mut Client,
    (begun_tsc, seen): &mut (u64, Seen),
    signals: &Signals,
    arguments: &ProbeArguments,
) -> Result<Ended, ClientError> {
    let until = Instant::now().checked_add(arguments.time);
    loop {
        match client.next(until, Some(signals.fd()))? {
            Heard::Item(Item::Numbers { tsc, mut by, arguments: values }) => {
                if let Some(number) = arguments.environment {
                    by.retain(|numbers| numbers.environment == Some(number));
                }
                seen.cycles = tsc.saturating_sub(*begun_tsc);
                seen.by = by;
                seen.arguments = values;
            }
            Heard::Item(Item::End { machine_ended }) => {
                seen.complete = !machine_ended;
                return Ok(if machine_ended { Ended::Machine } else { Ended::Asked });
            }
            Heard::Item(_) | Heard::Enough => {}
        }
    }
}

fn no_environment(seen: &Seen, number: u32) -> String {
    match seen.function.ring {
        Ring::Kernel => {
            "--environment: what the kernel does is counted for all environments together".to_owned()
        }
        Ring::Image => format!("no environment {number} runs the image's program from the start"),
    }
}

fn list(machine: &str, pattern: &str, json: bool) -> Result<ExitCode, Failure> {
    let mut client = Client::open(machine, ProbeRequest::List { pattern: pattern.to_owned() })?;
    let functions: Vec<Function> = match client.next(None, None)? {
        Heard::Item(Item::Functions(functions)) => functions,
        _ => return Err(format!("machine {machine} answered something else").into()),
    };
    if json {
        print(&serde_json::to_string_pretty(&functions)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if functions.is_empty() {
        return Err(format!(
            "no function of {machine} has {pattern:?} in its name; what the compiler has inlined everywhere is none any more"
        )
        .into());
    }
    let rows: Vec<[String; 4]> = functions
        .into_iter()
        .map(|Function { name, ring, va, bytes }| {
            [format!("{va:#x}"), bytes.to_string(), ring.name().to_owned(), name]
        })
        .collect();
    let text = columns(["ADDRESS", "BYTES", "WHOSE", "NAME"], &rows);
    if print(&text)? == Reader::Listens && rows.len() > 20 && std::io::stdout().is_terminal() {
        print(&styled(&format!("{} functions", rows.len()), style::FAINT))?;
    }
    Ok(ExitCode::SUCCESS)
}
