//! `exovm profile`: where a running machine's time goes, by samples of its call stacks.

use super::Failure;
use super::ended::Ended;
use super::style::{self, counted, print, styled};
use super::supervise::Signals;
use crate::control::{Answer, Heard, Lines, Request, Session, resolve};
use crate::output::{check_whole, write_whole};
use crate::profile::collect::{Ending, Filter, Profile};
use crate::profile::table::{percent, rows};
use crate::profile::{HZ_MAX, ProfileRequest, flame_graph, folded, pprof, table};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Arguments of `profile`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
A vCPU in the guest is stopped for some microseconds at each sample, and its
call stack read; a thread of the VMM (a vCPU's in a turn or an exit, the I/O
thread, a disk's) is told by what its account says it does, as \"[vmm] net
receive\". Moments at which a thread waits or a vCPU is halted are counted and
left out, unless --idle. What the samples cost is printed with them.

Formats: table (functions by what they took), folded (stacks, for other flame
graph tools), svg (a flame graph; open it in a browser), pprof (for go tool
pprof). Without --format the name of the file decides: .svg, .pb.gz, .folded,
.txt; without a file it is the table.

Examples:
  exovm profile                                  the only machine, five seconds
  exovm profile cheetah -o cheetah.svg           a flame graph
  exovm profile cheetah --for 1m --hz 99 -o a.pb.gz && go tool pprof -top a.pb.gz
  exovm profile --ring 0 --top 10                where the kernel's time goes
  exovm profile --json | jq '.functions[:5]'     for scripts

Exit codes
  0 samples were taken as long as wanted, until Ctrl-C, or until the machine
  ended, and a line says so; 1 there is no such machine, it is gone without a
  word or does not answer, or the file cannot be written")]
pub(super) struct ProfileArguments {
    /// Name of the machine, as `exovm run` printed it; not needed if only one runs.
    machine: Option<String>,
    /// Samples a second, of each thread.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=i64::from(HZ_MAX)))]
    hz: u32,
    /// For how long: 5s, 1m, or a number of seconds. Ctrl-C ends it earlier.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = super::duration::parse)]
    time: Duration,
    /// Writes to this file, all of it or nothing.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What to make of the samples.
    #[arg(long)]
    format: Option<Format>,
    /// Only samples in this environment.
    #[arg(long, value_name = "N")]
    environment: Option<u32>,
    /// Only samples in this ring: 0, the kernel, or 3, its environments.
    #[arg(long, value_parser = ["0", "3"])]
    ring: Option<String>,
    /// Moments at which a thread waits are samples, too.
    #[arg(long)]
    idle: bool,
    /// Functions in the table.
    #[arg(long, value_name = "N", default_value_t = 30)]
    top: usize,
    /// Print JSON (schema exovm-profile/1).
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// What becomes of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Functions by what they took.
    Table,
    /// Folded stacks.
    Folded,
    /// A flame graph.
    Svg,
    /// For pprof.
    Pprof,
}

pub(super) fn profile(arguments: &ProfileArguments) -> Result<ExitCode, Failure> {
    let format = format(arguments)?;
    let name = resolve(arguments.machine.as_deref())?;
    if let Some(path) = &arguments.output {
        check_whole(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let signals = Signals::block()?;
    let mut session = Session::open(&name)?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match session.ask(&Request::Profile(ProfileRequest { hz: arguments.hz }))? {
        Answer::Profiling => {}
        other => return Err(session.unexpected(&other).into()),
    }
    if arguments.time > Duration::from_secs(1) && std::io::stderr().is_terminal() {
        let time = humantime::format_duration(arguments.time);
        complain!("exovm: looking at {name} for {time}; Ctrl-C ends it earlier");
    }
    let (socket, first) = session.into_stream();
    let mut profile = Profile::default();
    let ended = receive(Lines::new(socket, first), &signals, arguments.time, &mut profile);
    ended.say(&name, Duration::from_micros(profile.counts.elapsed_us));
    warn(&profile);
    if arguments.idle {
        profile.add_idle();
    }
    let ring = arguments.ring.as_deref().and_then(|ring| ring.parse().ok());
    profile.keep(Filter { environment: arguments.environment, ring });
    if profile.samples() == 0 && matches!(ended, Ended::Gone | Ended::Silent | Ended::Garbled) {
        return Err(format!("machine {name} has said nothing of what it does").into());
    }
    let content = match format {
        None => format!("{:#}\n", table::json(&profile, &name)).into_bytes(),
        Some(Format::Table) => format!("{}\n", text(&profile, &name, arguments.top)).into_bytes(),
        Some(Format::Folded) => folded::print(&profile).into_bytes(),
        Some(Format::Pprof) => pprof::encode(&profile, began.as_nanos() as u64)?,
        Some(Format::Svg) if profile.samples() == 0 => {
            return Err(format!("{}; there is nothing to draw", nothing(&profile)).into());
        }
        Some(Format::Svg) => {
            let seconds = profile.counts.elapsed_us as f64 / 1e6;
            flame_graph::draw(&profile, &format!("{name}: {seconds:.1} s at {} Hz", profile.begin.hz))?
        }
    };
    match &arguments.output {
        Some(path) => {
            write_whole(path, &content).map_err(|error| format!("{}: {error}", path.display()))?;
            complain!("exovm: {}", summary(&profile));
            complain!("exovm: {}", cost(&profile));
            complain!("exovm: wrote {}", path.display());
        }
        None => match String::from_utf8(content) {
            Ok(text) => drop(print(text.trim_end())?),
            Err(bytes) => std::io::stdout().lock().write_all(bytes.as_bytes())?,
        },
    }
    Ok(ended.code())
}

/// Takes what the machine says for so long, or until a signal, or the machine's end.
fn receive(mut lines: Lines, signals: &Signals, time: Duration, profile: &mut Profile) -> Ended {
    let until = Instant::now().checked_add(time);
    loop {
        match lines.next(until, Some(signals.fd())) {
            Ok(Heard::Line(line)) => profile.take_line(line),
            Ok(Heard::Enough) => {}
            Err(error) => return error.into(),
        }
        match profile.ending {
            Ending::Open => {}
            Ending::Wanted => return Ended::Asked,
            Ending::MachineEnded => return Ended::Machine,
        }
    }
}

/// What is wanted; `None`: JSON.
fn format(arguments: &ProfileArguments) -> Result<Option<Format>, Failure> {
    if arguments.json {
        return Ok(None);
    }
    let by_name = |path: &Path| match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
        name if name.ends_with(".svg") => Some(Format::Svg),
        name if name.ends_with(".pb.gz") || name.ends_with(".pprof") => Some(Format::Pprof),
        name if name.ends_with(".folded") => Some(Format::Folded),
        name if name.ends_with(".txt") => Some(Format::Table),
        _ => None,
    };
    let format = match (arguments.format, &arguments.output) {
        (Some(format), _) => format,
        (None, None) => Format::Table,
        (None, Some(path)) => by_name(path).ok_or_else(|| {
            format!("{}: give --format table, folded, svg or pprof; the name does not say", path.display())
        })?,
    };
    if format == Format::Pprof && arguments.output.is_none() && std::io::stdout().is_terminal() {
        return Err("pprof's format is not for terminals; give a file: -o profile.pb.gz".into());
    }
    Ok(Some(format))
}

/// What the user must know of the samples.
fn warn(profile: &Profile) {
    if !profile.begin.has_symbols && !profile.begin.threads.is_empty() {
        complain!("exovm: the image has no names of functions (it was stripped): addresses are printed");
    }
    if profile.counts.unsent > 0 {
        complain!(
            "exovm: {} missing, which this command was too slow for",
            counted(profile.counts.unsent, "sample is", "samples are")
        );
    }
    if profile.left_out > 0 {
        complain!(
            "exovm: {} left out: more places or stacks than this command tells apart, or a machine of another version",
            counted(profile.left_out, "sample is", "samples are")
        );
    }
}

/// One line on how much there is.
fn summary(profile: &Profile) -> String {
    let totals = profile.totals();
    format!(
        "{} in {:.1} s at {} Hz; {} of the moments idle, {} missed",
        counted(profile.samples(), "sample", "samples"),
        profile.counts.elapsed_us as f64 / 1e6,
        profile.begin.hz,
        percent(totals.idle, totals.moments),
        percent(totals.missed, totals.moments),
    )
}

/// One line on what that cost.
fn cost(profile: &Profile) -> String {
    let counts = &profile.counts;
    let elapsed_cycles = counts.elapsed_us as f64 * profile.begin.tsc_khz as f64 / 1000.0;
    let vcpus = profile.begin.threads.iter().filter(|name| name.starts_with("vcpu")).count().max(1) as f64;
    let looks = counts.looks.max(1);
    format!(
        "cost: {} cycles a look, {:.2} % of the vCPUs' time (besides leaving the guest and entering it); {:.0} us from asking \
         to looking; {:.1} % of a core for taking samples",
        counts.looking_cycles / looks,
        100.0 * counts.looking_cycles as f64 / (elapsed_cycles * vcpus).max(1.0),
        1000.0 * (counts.asking_cycles / looks) as f64 / profile.begin.tsc_khz.max(1) as f64,
        counts.sampler_ns as f64 / (counts.elapsed_us.max(1) * 10) as f64,
    )
}

/// Why there is no sample.
fn nothing(profile: &Profile) -> String {
    let totals = profile.totals();
    match totals.samples {
        0 => format!("nothing but idle moments ({} of them); --idle shows those", totals.idle),
        samples => format!("{samples} samples, but none as --environment and --ring want them"),
    }
}

/// The table.
fn text(profile: &Profile, name: &str, top: usize) -> String {
    let mut lines = vec![styled(&format!("{name}: {}", summary(profile)), style::HEADING)];
    let threads: Vec<_> = profile
        .begin
        .threads
        .iter()
        .zip(&profile.counts.threads)
        .filter(|(_, counts)| counts.moments > 0)
        .map(|(thread, counts)| {
            let share = |part| percent(part, counts.moments);
            [thread.clone(), counts.samples.to_string(), share(counts.idle), share(counts.missed)]
        })
        .collect();
    lines.push(style::columns(["THREAD", "SAMPLES", "IDLE", "MISSED"], &threads));
    lines.push(String::new());
    let rows = rows(profile);
    let all = profile.samples();
    if rows.is_empty() {
        lines.push(nothing(profile));
    } else {
        let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        let cells: Vec<_> = rows
            .iter()
            .take(top)
            .map(|row| {
                [
                    percent(row.own, all),
                    percent(row.total, all),
                    row.thread.clone(),
                    or_none(row.environment.map(|number| number.to_string())),
                    or_none(row.ring.map(|ring| ring.to_string())),
                    row.function.clone(),
                ]
            })
            .collect();
        lines.push(style::columns(["SELF", "TOTAL", "THREAD", "ENV", "RING", "FUNCTION"], &cells));
        if rows.len() > top {
            let more = counted((rows.len() - top) as u64, "more function", "more functions");
            lines.push(styled(&format!("{more}; --top {} shows all", rows.len()), style::FAINT));
        }
    }
    lines.push(String::new());
    lines.push(styled(&cost(profile), style::FAINT));
    lines.join("\n")
}
