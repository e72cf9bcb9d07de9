//! `exovm trace`: records of everything that guest and VMM do, as a file for ui.perfetto.dev.

use super::ended::Ended;
use super::style::{counted, print};
use super::supervise::Signals;
use super::{Failure, duration, exit, trace_requests};
use crate::control::{Answer, Request, Session, resolve};
use crate::output::Growing;
use crate::trace::TraceRequest;
use crate::trace::perfetto::{Exported, Exporter, Only};
use crate::trace::stream::{End, Header, Missing, Piece, StreamError};
use rustix::event::{PollFd, PollFlags, Timespec};
use serde::Serialize;
use std::io::{BufReader, IsTerminal, Read};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long a machine may take for its last words.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `trace`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
Open the file at https://ui.perfetto.dev (it is read in the browser and not uploaded) or with any tool that reads
Perfetto traces. Nothing is rebuilt or restarted, and when the trace ends, or this command is killed, the machine goes on as
before. Everything at full load is much: --sample 1/64 records one received frame in 64 with all that follows from it, at a
small part of the cost. What could not be kept is counted, and shown as a gap. Where the host lets the machine's process have KVM's
tracepoints, they are in the file, too (not with --sample); else one line says what is missing.

Examples:
  exovm trace                                      one second of the only machine that runs
  exovm trace cheetah --for 5s -o five.pftrace
  exovm trace cheetah --sample 1/64 --for 10s      under full load
  exovm trace cheetah --only tcp,http,frame        spans, events and frames whose names have these words
  exovm trace --json | jq .lost                    what became of the records, for scripts
  exovm trace --requests --for 5s                  where the time of requests goes: percentiles of each layer
  exovm trace --slowest 20 -o slow.pftrace         the requests that took longest, and a trace of just these
  exovm trace --html requests.html                 a page that draws typical and slow requests

Exit codes
  0 it was recorded as long as wanted, until Ctrl-C, or until the machine ended,
  and a line says so; 1 there is no such machine, it is gone without a word or
  does not answer, or the file cannot be written. What is written is valid")]
pub(super) struct TraceArguments {
    /// Name of the machine; not needed if only one runs.
    machine: Option<String>,
    /// How long.
    #[arg(long = "for", value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    length: Duration,
    /// Instead of a file: where the time of requests went, p50 to p99.9 of each layer.
    #[arg(long)]
    pub(super) requests: bool,
    /// The same, and the N requests that took longest; with -o their records as a file.
    #[arg(long, value_name = "N")]
    pub(super) slowest: Option<usize>,
    /// The same, and a page that draws typical and slow requests, for a browser without a network.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Only what has one of these words in its name.
    #[arg(long, value_name = "WORD,...", value_delimiter = ',', conflicts_with_all = ["requests", "slowest", "html"])]
    only: Vec<String>,
    /// Record one received frame in N, and what follows from it.
    #[arg(long, value_name = "1/N", value_parser = parse_sample)]
    sample: Option<u32>,
    /// Where to write; not given: NAME.pftrace here.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Print what became of it as JSON (schema exovm-traced/1; of requests exovm-requests/1).
    #[arg(long)]
    pub(super) json: bool,
}

/// The JSON form of the result.
#[derive(Serialize)]
struct Traced<'a> {
    schema: &'static str,
    machine: &'a str,
    file: &'a Path,
    one_in: u32,
    records: u64,
    lost: u64,
    garbage: u64,
    /// Of the records, those that KVM's tracepoints gave.
    kvm: u64,
    /// They were wanted, and this is why there are none.
    kvm_missing: &'a Option<Missing>,
    end: &'a str,
}

fn parse_sample(text: &str) -> Result<u32, String> {
    let many = text.strip_prefix("1/").and_then(|many| many.parse().ok());
    many.filter(|&many| many > 0).ok_or_else(|| "a sample is one in so many, such as 1/64".to_owned())
}

pub(super) fn trace(arguments: &TraceArguments) -> Result<ExitCode, Failure> {
    let name = resolve(arguments.machine.as_deref())?;
    let signals = Signals::block()?;
    let session = Session::open(&name)?;
    if arguments.wants_requests() {
        let files = trace_requests::open(arguments)?;
        let (header, socket, behind) = begin(arguments, &name, session, signals)?;
        return trace_requests::follow(arguments, files, &header, &socket, &behind);
    }
    let path = arguments.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.pftrace")));
    let of_file = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    // Before anything is recorded: a place that cannot be written is known at once.
    let mut file = Growing::open(&path).map_err(|error| of_file(&error))?;
    let (header, socket, behind) = begin(arguments, &name, session, signals)?;
    let begun = Instant::now();
    let written = write(&mut file, &header, Only::new(&arguments.only), &socket, &behind);
    let (exported, ended) = written.map_err(|error| of_file(&error))?;
    report(arguments, &name, &path, &header, exported, ended)?;
    ended.say(&name, begun.elapsed());
    Ok(ended.code())
}

/// Has the machine record for as long as is asked for. What it sends comes from the socket, behind what has come already.
fn begin(
    arguments: &TraceArguments,
    name: &str,
    mut session: Session,
    signals: Signals,
) -> Result<(Header, UnixStream, Vec<u8>), Failure> {
    let one_in = arguments.sample.unwrap_or(1);
    // A sample is for full load, and of requests KVM knows nothing.
    let kvm = one_in == 1 && !arguments.wants_requests();
    let request = TraceRequest { one_in, kvm };
    let header = match session.ask(&Request::Trace(request))? {
        Answer::Tracing(header) => *header,
        other => return Err(session.unexpected(&other).into()),
    };
    if header.one_in < request.one_in {
        complain!(
            "exovm: somebody else records one frame in {}, so this trace has those, too",
            header.one_in
        );
    }
    if let Some(missing) = &header.kvm.missing {
        complain!("exovm: without KVM's own events: {}", missing.line());
    }
    let (socket, behind) = session.into_stream();
    if arguments.length > Duration::from_secs(1) && std::io::stderr().is_terminal() {
        let time = humantime::format_duration(arguments.length);
        complain!("exovm: recording {name} for {time}; Ctrl-C ends it earlier");
    }
    end_after(arguments.length, signals, socket.try_clone()?)?;
    Ok((header, socket, behind))
}

/// Has the machine end the recording when the time is over, or Ctrl-C is typed. One that does not answer to that, or a second
/// Ctrl-C, ends it as it is.
fn end_after(length: Duration, signals: Signals, socket: UnixStream) -> std::io::Result<()> {
    let wait = move || {
        for (length, what) in [(length, Shutdown::Write), (PATIENCE, Shutdown::Both)] {
            let mut polled = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
            let (seconds, nanoseconds) = (length.as_secs() as i64, i64::from(length.subsec_nanos()));
            let timeout = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
            let _ = rustix::event::poll(&mut polled, Some(&timeout));
            signals.take();
            let _ = socket.shutdown(what);
        }
        // Whatever takes this command so long now, who types Ctrl-C once more does not want to wait for it.
        let mut polled = [PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN)];
        let _ = rustix::event::poll(&mut polled, None);
        std::process::exit(exit::ERROR.into());
    };
    std::thread::Builder::new().name("exovm-end".to_owned()).spawn(wait).map(drop)
}

/// Hands on what comes, until the machine says that it was all, or says nothing more.
pub(super) fn receive(
    socket: &UnixStream,
    behind: &[u8],
    mut each: impl FnMut(&Piece) -> Result<(), Failure>,
) -> Result<Ended, Failure> {
    socket.set_read_timeout(None)?;
    let mut stream = BufReader::with_capacity(1 << 20, behind.chain(socket));
    loop {
        match Piece::read(&mut stream) {
            Ok(Some(Piece::End(End::Asked))) => return Ok(Ended::Asked),
            Ok(Some(Piece::End(End::MachineEnded))) => return Ok(Ended::Machine),
            Ok(Some(piece)) => each(&piece)?,
            Ok(None) | Err(StreamError::Io(_)) => return Ok(Ended::Gone),
            Err(StreamError::Garbled) => return Ok(Ended::Garbled),
        }
    }
}

/// Writes a trace of what `feed` feeds. Where that fails, what was written up to then stays, and is valid.
pub(super) fn export<T>(
    file: &mut Growing,
    header: &Header,
    only: Only,
    feed: impl FnOnce(&mut dyn FnMut(&Piece) -> Result<(), Failure>) -> Result<T, Failure>,
) -> Result<(Exported, T), Failure> {
    let mut exporter = Exporter::new(file.begin()?, header, only)?;
    let fed = feed(&mut |piece| exporter.push(piece).map_err(Failure::from));
    let (written, whole_bytes) = match fed {
        Ok(fed) => {
            let (exported, whole_bytes) = exporter.finish();
            (exported.map(|exported| (exported, fed)).map_err(Failure::from), whole_bytes)
        }
        // Nothing more behind half of a packet.
        Err(error) => (Err(error), exporter.whole_bytes()),
    };
    written.map_err(|error| {
        file.cut(whole_bytes);
        format!("{error}; the first {whole_bytes} bytes are a valid trace and are kept").into()
    })
}

/// Writes what comes, until it ends.
fn write(
    file: &mut Growing,
    header: &Header,
    only: Only,
    socket: &UnixStream,
    behind: &[u8],
) -> Result<(Exported, Ended), Failure> {
    export(file, header, only, |push| receive(socket, behind, push))
}

fn report(
    arguments: &TraceArguments,
    name: &str,
    path: &Path,
    header: &Header,
    exported: Exported,
    ended: Ended,
) -> Result<(), Failure> {
    let Exported { records, lost, garbage, kvm, kvm_exits } = exported;
    if arguments.json {
        let traced = Traced {
            schema: "exovm-traced/1",
            machine: name,
            file: path,
            one_in: header.one_in,
            records,
            lost,
            garbage,
            kvm,
            kvm_missing: &header.kvm.missing,
            end: ended.name(),
        };
        print(&serde_json::to_string_pretty(&traced)?)?;
    } else {
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let records = counted(records, "record", "records");
        print(&format!(
            "{}: {records}, {}; open it at https://ui.perfetto.dev",
            path.display(),
            super::disk_image::human_bytes(bytes)
        ))?;
        if lost > 0 {
            complain!(
                "exovm: {} lost, shown as gaps; --sample 1/64 records less, and a shorter --for loses less",
                counted(lost, "record was", "records were")
            );
        }
        if garbage > 0 {
            complain!(
                "exovm: {} of the guest made no sense and were left out",
                counted(garbage, "record", "records")
            );
        }
    }
    if kvm > 0 && kvm_exits == 0 {
        complain!(
            "exovm: KVM on this host does not tell why the guest was left (kvm_exit), only what it emulated and when it \
             returned to the VMM"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_one_in_so_many() {
        assert_eq!(parse_sample("1/64"), Ok(64));
        for nonsense in ["", "64", "1/0", "2/64", "1/x", "1/-1"] {
            assert!(parse_sample(nonsense).is_err(), "{nonsense}");
        }
    }
}
