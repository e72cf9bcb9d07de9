//! `exovm stop`: ends machines as Ctrl-C does, and waits until their processes have gone; kills those that will not, if
//! asked to.

use super::Failure;
use super::style::print;
use crate::control::{Answer, ControlError, Ending, Request, Session, machines};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a killed process may take to go.
const AFTER_KILL: Duration = Duration::from_secs(10);
/// Waiting longer than this shows that it goes on.
const PROGRESS_AFTER: Duration = Duration::from_secs(1);

/// Arguments of `stop`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm stop hello
  exovm stop --all --timeout 3
  exovm stop --force hello       kill it if it does not end within the time

Exit codes
  0 all of them have ended, 1 one did not or there is no such machine")]
pub(super) struct StopArguments {
    /// Names of machines, as `exovm ps` prints them.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All machines of this user.
    #[arg(long)]
    all: bool,
    /// Seconds to wait for the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    timeout: u64,
    /// Kill what has not ended after that.
    #[arg(long)]
    force: bool,
}

/// A machine that was asked to end.
struct Asked {
    session: Session,
    /// Its process; `None` if it cannot be seen from here.
    process: Option<OwnedFd>,
}

pub(super) fn stop(arguments: &StopArguments) -> Result<ExitCode, Failure> {
    let names = if arguments.all { machines()?.alive } else { arguments.names.clone() };
    if names.is_empty() {
        complain!("exovm: no machine is running");
    }
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    // All are asked before any is waited for.
    let asked: Vec<_> = names.iter().map(|name| (name, ask(name))).collect();
    let mut failed = false;
    for (name, asked) in asked {
        match asked.and_then(|asked| end(asked, deadline, arguments)) {
            Ok(how) => {
                print(&format!("{name}: {how}"))?;
            }
            Err(error) => {
                complain!("exovm: {error}");
                failed = true;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn ask(name: &str) -> Result<Asked, Failure> {
    let mut session = Session::open(name)?;
    // While it is connected its process cannot have gone, so the number is still its own.
    let process =
        Pid::from_raw(session.pid() as i32).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    session.send(&Request::Stop)?;
    Ok(Asked { session, process })
}

/// Waits for a machine's end, and says how it was.
fn end(mut asked: Asked, deadline: Instant, arguments: &StopArguments) -> Result<String, Failure> {
    let not_ended = format!("it had not ended after {} s", arguments.timeout);
    let how = match ending(&mut asked.session, deadline) {
        Ok(ending) => ending,
        // It ended without saying how: what counts is that it did.
        Err(ControlError::Gone { .. }) => None,
        Err(ControlError::NoAnswer { .. }) => return kill(&asked, &not_ended, arguments),
        // It did not hear that it is to end, and will not.
        Err(ControlError::Busy { message, .. }) if arguments.force => {
            return kill(&asked, &message, arguments);
        }
        Err(error) => return Err(error.into()),
    };
    match &asked.process {
        Some(process) if !has_ended(process, deadline)? => return kill(&asked, &not_ended, arguments),
        _ => {}
    }
    Ok(match how {
        Some(Ending::Fault { report }) => {
            format!("ended with a fault: {}", report.lines().next().unwrap_or(""))
        }
        Some(Ending::PowerOff { status }) if status != 0 => format!("ended with status {status}"),
        _ => "stopped".to_owned(),
    })
}

/// What the machine says about its end.
fn ending(session: &mut Session, deadline: Instant) -> Result<Option<Ending>, ControlError> {
    let mut progress = Some(Instant::now() + PROGRESS_AFTER);
    loop {
        let until = progress.map_or(deadline, |at| at.min(deadline));
        session.set_patience(Some(until.saturating_duration_since(Instant::now())))?;
        match session.next_answer() {
            Err(ControlError::NoAnswer { .. }) if Instant::now() < deadline => {
                progress = None;
                let left = deadline.saturating_duration_since(Instant::now()).as_secs();
                complain!("exovm: waiting for {} to end, {left} s at most", session.name());
            }
            Err(error) => return Err(error),
            Ok(answer) => match answer {
                Answer::Stopping => {}
                Answer::End { machine } => return Ok(machine),
                other => return Err(session.unexpected(&other)),
            },
        }
    }
}

/// The time is over, or there is another reason not to wait.
fn kill(asked: &Asked, reason: &str, arguments: &StopArguments) -> Result<String, Failure> {
    let (name, pid) = (asked.session.name(), asked.session.pid());
    let seconds = arguments.timeout;
    if !arguments.force {
        return Err(
            format!("{name} has not ended after {seconds} s; `exovm stop --force {name}` kills it").into()
        );
    }
    let Some(process) = &asked.process else {
        return Err(format!(
            "{name} has not ended after {seconds} s, and its process is not visible from here"
        )
        .into());
    };
    pidfd_send_signal(process, Signal::KILL)
        .map_err(|error| format!("cannot kill process {pid}: {error}"))?;
    if !has_ended(process, Instant::now() + AFTER_KILL)? {
        return Err(format!("{name} (process {pid}) was killed and has not gone; look at it with ps").into());
    }
    // It had no chance to remove its socket.
    machines()?;
    Ok(format!("killed, because {reason}"))
}

/// Waits for a process to end.
fn has_ended(process: &OwnedFd, deadline: Instant) -> Result<bool, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(format!("waiting for a process: {error}").into()),
        }
    }
}
