//! `exovm trace --requests`, `--slowest` and `--html`: where the time of requests goes.

use super::Failure;
use super::ended::Ended;
use super::style::{counted, print};
use super::trace::{TraceArguments, export, receive};
use crate::output::{Growing, check_whole, write_whole};
use crate::trace::perfetto::Only;
use crate::trace::requests::{Keep, Report, Requests};
use crate::trace::stream::Header;
use serde::Serialize;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Most of the slowest that are kept.
const SLOWEST_MAX: usize = 1000;
/// Those that a page has if nobody says how many.
const SLOWEST_OF_PAGE: usize = 5;

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

/// Opens what will be written when the recording is over: a place that cannot be written is known before. The records' file.
pub(super) fn open(arguments: &TraceArguments) -> Result<Option<Growing>, Failure> {
    if arguments.slowest.is_some_and(|slowest| slowest == 0 || slowest > SLOWEST_MAX) {
        return Err(format!("--slowest takes a number between 1 and {SLOWEST_MAX}").into());
    }
    if arguments.output.is_some() && arguments.slowest.is_none() {
        return Err("-o takes the records of the slowest requests: say --slowest N, or leave --requests and --html out \
                    for a trace of everything"
            .into());
    }
    if let Some(page) = &arguments.html {
        check_whole(page).map_err(|error| said_of(page, &error))?;
    }
    let records = arguments.output.as_deref();
    records.map(|path| Growing::open(path).map_err(|error| said_of(path, &error))).transpose()
}

/// Follows requests until the machine says that it was all, and says what became of them.
pub(super) fn follow(
    arguments: &TraceArguments,
    records: Option<Growing>,
    header: &Header,
    socket: &UnixStream,
    behind: &[u8],
) -> Result<ExitCode, Failure> {
    let page = arguments.html.is_some();
    let slowest = arguments.slowest.unwrap_or(if page { SLOWEST_OF_PAGE } else { 0 });
    let mut requests = Requests::new(header, Keep { slowest, typical: page });
    let begun = Instant::now();
    let ended = receive(socket, behind, |piece| {
        requests.feed(piece);
        Ok(())
    })?;
    let after = begun.elapsed();
    let report = requests.finish();
    if let (Some(mut file), Some(path)) = (records, &arguments.output) {
        // A trace of nothing but the slowest requests and their time.
        let pieces = report.slowest_pieces();
        let written =
            export(&mut file, &report.header, Only::default(), |push| pieces.iter().try_for_each(push));
        written.map_err(|error| said_of(path, &error))?;
    }
    if let Some(path) = &arguments.html {
        // All of a page or nothing: half of one draws nothing.
        write_whole(path, report.html().as_bytes()).map_err(|error| said_of(path, &error))?;
    }
    say(arguments, &report, ended)?;
    ended.say(&header.machine, after);
    Ok(ended.code())
}

fn said_of(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    format!("{}: {error}", path.display()).into()
}

fn say(arguments: &TraceArguments, report: &Report, ended: Ended) -> Result<(), Failure> {
    if arguments.json {
        let said = Said { figures: report.figures(), slowest: report.slowest_figures(), end: ended.name() };
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
