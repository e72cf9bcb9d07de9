//! `exovm fsck`: what is wrong with an image, and which files it is in.

use super::{files_and_directories, shown};
use crate::cli::Failure;
use crate::cli::progress::ProgressLine;
use crate::cli::style::{counted, print};
use exos_fs::BLOCK_BYTES;
use exos_fs::fsck::{Depth, Report};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `fsck`.
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = "Reads every block and compares it with its checksum, with what the other blocks say about it, and
with the format. Changes nothing: a damaged image is made again with `exovm mkfs`.

Exit codes
  0 clean; 1 problems found, or the image cannot be checked; 2 wrong usage

Examples
  exovm fsck site.img
  exovm fsck --quick site.img                         metadata only, not the files' data
  exovm fsck --json site.img | jq -r '.problems[].path'"
)]
pub(in crate::cli) struct FsckArguments {
    /// The image.
    image: PathBuf,
    /// Check metadata only, and not the data of files.
    #[arg(long)]
    quick: bool,
    /// Print JSON (schema exovm-fsck/1).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    schema: &'static str,
    image: String,
    clean: bool,
    files: u64,
    directories: u64,
    checked_blocks: u64,
    total_blocks: u64,
    block_bytes: usize,
    problem_count: u64,
    problems: Vec<ProblemJson<'a>>,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    block: Option<u64>,
    path: Option<String>,
    what: &'a str,
}

pub(in crate::cli) fn fsck(arguments: &FsckArguments) -> Result<ExitCode, Failure> {
    let depth = if arguments.quick { Depth::Quick } else { Depth::Full };
    let mut line = ProgressLine::new();
    let report = exos_fs::fsck::fsck(&arguments.image, depth, &mut |checked, total| {
        let bytes = |blocks: u64| blocks * BLOCK_BYTES as u64;
        line.bytes("checking", bytes(checked), bytes(total));
    })?;
    drop(line);
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&json(arguments, &report))?,
        false => text(arguments, &report),
    };
    print(&text)?;
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(arguments: &FsckArguments, report: &Report) -> String {
    let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let not_shown = report.problem_count - report.problems.len() as u64;
    if not_shown > 0 {
        lines.push(format!("... and {not_shown} more"));
    }
    let found = match report.problem_count {
        0 => "clean".to_owned(),
        count => counted(count, "problem", "problems"),
    };
    lines.push(format!(
        "{}: {found}; {}, {} checked",
        arguments.image.display(),
        files_and_directories(report.files, report.directories),
        counted(report.checked_blocks, "block", "blocks")
    ));
    lines.join("\n")
}

fn json<'a>(arguments: &FsckArguments, report: &'a Report) -> ReportJson<'a> {
    let problem = |problem: &'a exos_fs::fsck::Problem| ProblemJson {
        block: problem.block,
        path: problem.path.as_deref().map(shown),
        what: &problem.what,
    };
    ReportJson {
        schema: "exovm-fsck/1",
        image: arguments.image.display().to_string(),
        clean: report.is_clean(),
        files: report.files,
        directories: report.directories,
        checked_blocks: report.checked_blocks,
        total_blocks: report.total_blocks,
        block_bytes: BLOCK_BYTES,
        problem_count: report.problem_count,
        problems: report.problems.iter().map(problem).collect(),
    }
}
