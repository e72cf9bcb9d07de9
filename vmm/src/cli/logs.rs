//! `exovm logs`: what a guest has logged, and, with `--follow`, what it goes on to log.

use super::style::{BAD, FAINT, ODD, Reader, counted, print, styled};
use super::{Failure, exit};
use crate::control::{Answer, ControlError, Ending, LogRequest, Request, Session, directory, resolve};
use crate::guest_log::{Level, Line, Source, rfc_3339};
use rustix::event::{PollFd, PollFlags};
use serde::Serialize;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `logs`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
A machine keeps the last 256 KiB of its log, with what the VMM had to say
(lines that begin with \"exovm: \"; EXOVM_LOG of `exovm run` chooses how much). Times are UTC, when the VMM read
the line: up to 50 ms after the guest wrote it. Lines that are not kept any
more, or come faster than they are read, are counted and said to be lost.

Of a detached machine that ended with a fault or was killed, the last lines
are still printed (they lie in its log file until one of its name starts).

Examples:
  exovm logs                       of the only machine that runs
  exovm logs -f -n 20 cheetah      the last 20 lines, and all to come
  exovm logs --since 5m cheetah
  exovm logs --since 2026-11-25T22:50:00Z cheetah
  exovm logs --json | jq -r 'select(.level == \"error\") | .text'")]
pub(super) struct LogsArguments {
    /// Name of the machine; not needed if only one runs.
    machine: Option<String>,
    /// Go on until the machine ends.
    #[arg(long, short)]
    follow: bool,
    /// Only the last so many lines.
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u64>,
    /// Only lines since then: how long ago (90s, 5m, 2h) or a moment (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<u64>,
    /// Print a line of JSON for each (schema exovm-log/1).
    #[arg(long)]
    json: bool,
}

/// A moment, in microseconds since the epoch.
fn parse_since(text: &str) -> Result<u64, String> {
    let moment = match (humantime::parse_duration(text), humantime::parse_rfc3339_weak(text)) {
        (Ok(ago), _) => SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH),
        (_, Ok(moment)) => moment,
        _ => {
            return Err(
                "neither a length of time such as 90s or 5m, nor a moment such as 2026-11-25T22:50:00Z"
                    .to_owned(),
            );
        }
    };
    Ok(moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64)
}

/// The JSON form of a line.
#[derive(Serialize)]
struct JsonLine<'a> {
    schema: &'static str,
    seq: u64,
    time: String,
    source: Source,
    level: Option<Level>,
    text: &'a str,
}

/// The JSON form of missing lines.
#[derive(Serialize)]
struct JsonLost {
    schema: &'static str,
    lost: u64,
}

const SCHEMA: &str = "exovm-log/1";

pub(super) fn logs(arguments: &LogsArguments) -> Result<ExitCode, Failure> {
    let name = resolve(arguments.machine.as_deref())?;
    let mut session = match Session::open(&name) {
        Err(error @ ControlError::NotRunning { .. }) => return left_behind(&name, arguments, error),
        session => session?,
    };
    let request =
        LogRequest { last: arguments.lines, since_utc_us: arguments.since, follow: arguments.follow };
    session.send(&Request::Logs(request))?;
    if arguments.follow {
        session.set_patience(None)?;
        end_with_the_reader()?;
    }
    loop {
        let text = match session.next_answer()? {
            Answer::Log(line) if arguments.json => {
                let Line { seq, utc_us, source, level, text } = &line;
                let time = rfc_3339(*utc_us);
                serde_json::to_string(&JsonLine {
                    schema: SCHEMA,
                    seq: *seq,
                    time,
                    source: *source,
                    level: *level,
                    text,
                })?
            }
            Answer::Log(line) => as_styled_text(&line),
            Answer::Lost { lines: lost } if arguments.json => {
                serde_json::to_string(&JsonLost { schema: SCHEMA, lost })?
            }
            Answer::Lost { lines } => {
                let lost = counted(lines, "line", "lines");
                styled(&format!("[{lost} lost: they are not kept any more]"), ODD)
            }
            Answer::End { machine } => {
                if let Some(Ending::Fault { report }) = machine {
                    complain!("exovm: {name} ended with a fault: {report}");
                }
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(session.unexpected(&other).into()),
        };
        if print(&text)? == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Ends this process when nobody can read its output any more, as in `exovm logs -f | head -n 1`: the next line, which would
/// tell, may never come.
fn end_with_the_reader() -> std::io::Result<()> {
    let watch = || {
        let stdout = rustix::stdio::stdout();
        // A pipe without a reader is in error; a file never is.
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match rustix::event::poll(&mut polled, None) {
                Ok(_) => std::process::exit(exit::SUCCESS.into()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    };
    std::thread::Builder::new().name("exovm-reader".to_owned()).spawn(watch).map(drop)
}

/// A line for people and for the log file.
pub(super) fn as_text(line: &Line) -> String {
    let level = line.level.map_or("", Level::word);
    format!("{} {level:<5} {}{}", rfc_3339(line.utc_us), source(line), line.text)
}

/// Who wrote it, where that is not the guest.
fn source(line: &Line) -> &'static str {
    match line.source {
        Source::Guest => "",
        Source::Vmm => "exovm: ",
    }
}

fn as_styled_text(line: &Line) -> String {
    let level = format!("{:<5}", line.level.map_or("", Level::word));
    let level = match line.level {
        Some(Level::Error) => styled(&level, BAD),
        Some(Level::Warn) => styled(&level, ODD),
        _ => level,
    };
    format!("{} {level} {}{}", styled(&rfc_3339(line.utc_us), FAINT), source(line), line.text)
}

/// The log file of a machine that did not end well, if it left one.
fn left_behind(name: &str, arguments: &LogsArguments, error: ControlError) -> Result<ExitCode, Failure> {
    let Ok(text) = std::fs::read(directory::log_path(name)?) else { return Err(error.into()) };
    if arguments.json || arguments.since.is_some() {
        return Err(format!(
            "{name} is not running; of its log only the text is left, without --json and --since"
        )
        .into());
    }
    complain!("exovm: {name} is not running; this is the log that it left");
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let from = arguments.lines.map_or(0, |last| lines.len().saturating_sub(last as usize));
    if !lines[from..].is_empty() {
        print(&lines[from..].join("\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_length_of_time_or_a_moment() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as u64;
        let minute_ago = parse_since("1m").expect("a length");
        assert!((now - 60_500_000..=now - 59_000_000).contains(&minute_ago), "{minute_ago} {now}");
        assert_eq!(parse_since("1970-01-01T00:00:02Z"), Ok(2_000_000));
        assert_eq!(parse_since("1970-01-01 00:00:02"), Ok(2_000_000));
        for nonsense in ["", "yesterday", "5", "1969-13-01"] {
            assert!(parse_since(nonsense).is_err(), "{nonsense}");
        }
    }
}
