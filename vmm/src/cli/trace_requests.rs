//! `exovm trace --requests`, `--slowest` and `--html`: where the time of requests goes.

use super::style::{counted, print};
use super::trace::{TraceArguments, cut, not_a_file};
use super::{Failure, exit};
use crate::trace::perfetto::{Exporter, Only};
use crate::trace::requests::{Keep, Report, Requests};
use crate::trace::stream::{Header, Piece, StreamError};
use serde::Serialize;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

/// Most of the slowest that are kept.
const SLOWEST_MAX: usize = 1000;
/// Those that a page has if nobody says how many.
const SLOWEST_OF_PAGE: usize = 5;

/// Files that are written when the recording is over: a place that cannot be written is known before.
pub(super) struct Files {
    records: Option<File>,
    page: Option<File>,
}

/// The JSON form.
#[derive(Serialize)]
struct Said<'a> {
    #[serde(flatten)]
    figures: crate::trace::requests::report::Figures,
    slowest: Vec<crate::trace::requests::report::SlowFigures>,
    end: &'a str,
}

impl TraceArguments {
    /// Whether requests are wanted, and not the trace of everything.
    pub(super) fn wants_requests(&self) -> bool {
        self.requests || self.slowest.is_some() || self.html.is_some()
    }
}

/// Opens what will be written.
pub(super) fn open(arguments: &TraceArguments) -> Result<Files, Failure> {
    if arguments.slowest.is_some_and(|slowest| slowest == 0 || slowest > SLOWEST_MAX) {
        return Err(format!("--slowest takes a number between 1 and {SLOWEST_MAX}").into());
    }
    if arguments.output.is_some() && arguments.slowest.is_none() {
        return Err("-o takes the records of the slowest requests: say --slowest N, or leave --requests and --html out \
                    for a trace of everything"
            .into());
    }
    Ok(Files {
        records: arguments.output.as_deref().map(create).transpose()?,
        page: arguments.html.as_deref().map(create).transpose()?,
    })
}

/// Opens a file to write to, and leaves what is in it until there is something to write.
pub(super) fn create(path: &Path) -> Result<File, Failure> {
    let file = File::options().write(true).create(true).truncate(false).open(path);
    file.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Follows requests until the machine says that it was all, and says what became of them.
pub(super) fn follow(
    arguments: &TraceArguments,
    files: Files,
    header: &Header,
    socket: &UnixStream,
    behind: &[u8],
) -> Result<ExitCode, Failure> {
    let page = arguments.html.is_some();
    let slowest = arguments.slowest.unwrap_or(if page { SLOWEST_OF_PAGE } else { 0 });
    let mut requests = Requests::new(header, Keep { slowest, typical: page });
    socket.set_read_timeout(None)?;
    let mut stream = BufReader::with_capacity(1 << 20, behind.chain(socket));
    let end = loop {
        match Piece::read(&mut stream) {
            Ok(Some(Piece::End(why))) => break why,
            Ok(Some(piece)) => requests.feed(&piece),
            Ok(None) | Err(StreamError::Io(_)) => break "the machine is gone".to_owned(),
            Err(error @ StreamError::Garbled) => break error.to_string(),
        }
    };
    let report = requests.finish();
    if let Some(file) = &files.records {
        write_slowest(file, &report).map_err(|error| said_of(arguments.output.as_deref(), &error))?;
    }
    if let Some(file) = &files.page {
        write_page(file, &report).map_err(|error| said_of(arguments.html.as_deref(), &error.into()))?;
    }
    say(arguments, &report, &end)?;
    if end == "as asked" {
        return Ok(ExitCode::SUCCESS);
    }
    complain!("exovm: {}: {end}; the requests are those up to that", header.machine);
    Ok(ExitCode::from(exit::ERROR))
}

fn said_of(path: Option<&Path>, error: &Failure) -> Failure {
    format!("{}: {error}", path.unwrap_or(Path::new("-")).display()).into()
}

/// A trace of nothing but the slowest requests and their time.
fn write_slowest(file: &File, report: &Report) -> Result<(), Failure> {
    file.set_len(0).or_else(not_a_file)?;
    let mut exporter = Exporter::new(file, &report.header, Only::default())?;
    for piece in report.slowest_pieces() {
        exporter.push(&piece).map_err(|error| cut(file, exporter.whole_bytes(), &error))?;
    }
    let (exported, whole_bytes) = exporter.finish();
    exported.map(drop).map_err(|error| cut(file, whole_bytes, &error))
}

/// All of a page or nothing: half of one draws nothing.
fn write_page(mut file: &File, report: &Report) -> std::io::Result<()> {
    file.set_len(0).or_else(not_a_file)?;
    file.write_all(report.html().as_bytes()).inspect_err(|_| drop(file.set_len(0)))
}

fn say(arguments: &TraceArguments, report: &Report, end: &str) -> Result<(), Failure> {
    if arguments.json {
        let said = Said { figures: report.figures(), slowest: report.slowest_figures(), end };
        print(&serde_json::to_string_pretty(&said)?)?;
        return Ok(());
    }
    print(&report.table())?;
    if arguments.slowest.is_some() && !report.slowest.is_empty() {
        let slowest = counted(report.slowest.len() as u64, "request", "requests");
        print(&format!("\nthe {slowest} that took longest\n{}", report.slowest_table()))?;
    }
    if let Some(path) = &arguments.output {
        print(&format!("{}: their records; open it at https://ui.perfetto.dev", path.display()))?;
    }
    if let Some(path) = &arguments.html {
        print(&format!("{}: a page for your browser", path.display()))?;
    }
    Ok(())
}
