//! `exovm ps`: the machines that run. What killed ones left behind is removed, and said.

use super::style::{columns, print};
use super::{Failure, say};
use crate::control::{Answer, ControlError, Info, Request, Session, directory, machines};
use serde::Serialize;
use std::process::ExitCode;
use std::time::Duration;

/// How long a machine may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// Arguments of `ps`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm ps                                      all machines of this user
  exovm ps --names                              nothing but names, one a line
  exovm ps --json | jq -r '.machines[].name'    for scripts")]
pub(super) struct PsArguments {
    /// Print JSON (schema exovm-ps/1).
    #[arg(long)]
    json: bool,
    /// Print only the names; asks no machine, and leaves what killed ones left.
    #[arg(long, conflicts_with = "json")]
    names: bool,
}

/// The JSON form.
#[derive(Serialize)]
struct Report {
    schema: &'static str,
    machines: Vec<Info>,
    silent: Vec<Silent>,
    removed: Vec<Removed>,
}

/// A machine that does not say what it is.
#[derive(Serialize)]
struct Silent {
    name: String,
    pid: Option<u32>,
    state: &'static str,
    why: String,
}

/// A machine that left its socket behind.
#[derive(Serialize)]
struct Removed {
    name: String,
    /// Where its log still lies.
    log: Option<String>,
}

pub(super) fn ps(arguments: &PsArguments) -> Result<ExitCode, Failure> {
    if arguments.names {
        directory::names()?.iter().for_each(|name| say(name));
        return Ok(ExitCode::SUCCESS);
    }
    let report = look()?;
    if arguments.json {
        print(&serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Removed { name, log } in &report.removed {
        let log = log.as_ref().map_or(String::new(), |_| format!("; its log is kept: exovm logs {name}"));
        complain!("exovm: {name} did not end by itself (killed?): removed the socket it left{log}");
    }
    if report.machines.is_empty() && report.silent.is_empty() {
        complain!("exovm: no machine is running");
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = report.machines.iter().map(row).chain(report.silent.iter().map(silent_row)).collect();
    print(&columns(["NAME", "PROCESS", "IMAGE", "UPTIME", "VCPUS", "MEMORY", "STATE", "ADDRESS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn look() -> Result<Report, ControlError> {
    let found = machines()?;
    let mut report =
        Report { schema: "exovm-ps/1", machines: Vec::new(), silent: Vec::new(), removed: Vec::new() };
    // At once: each of them may hang.
    let infos: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = found.alive.iter().map(|name| scope.spawn(|| info(name))).collect();
        asked.into_iter().map(|asked| asked.join()).collect()
    });
    for (name, info) in found.alive.into_iter().zip(infos) {
        match info.unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(info) => report.machines.push(info),
            // It has ended in the meantime.
            Err(ControlError::Gone { .. } | ControlError::NotRunning { .. }) => {}
            Err(error) => {
                let (pid, state) = match &error {
                    ControlError::NoAnswer { pid, .. } => (*pid, "does not answer"),
                    ControlError::Busy { pid, .. } => (*pid, "is busy"),
                    _ => (0, "not understood"),
                };
                let pid = Some(pid).filter(|&pid| pid != 0);
                report.silent.push(Silent { name, pid, state, why: error.to_string() });
            }
        }
    }
    for name in found.removed {
        let log = directory::log_path(&name)?;
        let log = log.exists().then(|| log.display().to_string());
        report.removed.push(Removed { name, log });
    }
    Ok(report)
}

fn info(name: &str) -> Result<Info, ControlError> {
    let mut session = Session::open(name)?;
    session.set_patience(Some(PATIENCE))?;
    match session.ask(&Request::Info)? {
        Answer::Info(info) => Ok(*info),
        other => Err(session.unexpected(&other)),
    }
}

fn row(info: &Info) -> [String; 8] {
    let address = match (info.addresses.as_slice(), info.port) {
        ([], _) if info.published.is_empty() => "-".to_owned(),
        ([], _) => info.published.join(", "),
        (addresses, Some(port)) => format!("{}:{port}", addresses.join(", ")),
        (addresses, None) => addresses.join(", "),
    };
    [
        info.name.clone(),
        info.pid.to_string(),
        info.image.clone(),
        humantime::format_duration(Duration::from_secs(info.uptime_ms / 1000)).to_string(),
        info.vcpus.to_string(),
        format!("{} MiB", info.memory_bytes >> 20),
        info.state.name().to_owned(),
        address,
    ]
}

fn silent_row(silent: &Silent) -> [String; 8] {
    let unknown = || "?".to_owned();
    let pid = silent.pid.map_or_else(unknown, |pid| pid.to_string());
    [silent.name.clone(), pid, unknown(), unknown(), unknown(), unknown(), silent.state.to_owned(), unknown()]
}
