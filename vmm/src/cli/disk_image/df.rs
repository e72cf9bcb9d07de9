//! `exovm df`: how large an image is, and how full.

use super::{human_bytes, open, time_text, uuid_text};
use crate::cli::Failure;
use crate::cli::style::print;
use exos_fs::BLOCK_BYTES;
use exos_fs::format::VERSION;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `df`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples
  exovm df site.img
  exovm df --json site.img | jq .free_bytes")]
pub(in crate::cli) struct DfArguments {
    /// The image.
    image: PathBuf,
    /// Print JSON (schema exovm-df/1).
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct DfJson {
    schema: &'static str,
    image: String,
    uuid: String,
    format_version: u32,
    generation: u64,
    made_unix_seconds: u64,
    total_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    files: u64,
    directories: u64,
}

pub(in crate::cli) fn df(arguments: &DfArguments) -> Result<ExitCode, Failure> {
    let image = open(&arguments.image)?;
    let volume = image.volume();
    let bytes = |blocks: u64| blocks.saturating_mul(BLOCK_BYTES as u64);
    let df = DfJson {
        schema: "exovm-df/1",
        image: arguments.image.display().to_string(),
        uuid: uuid_text(&volume.uuid()),
        format_version: VERSION,
        generation: volume.generation(),
        made_unix_seconds: volume.made_unix_seconds(),
        total_bytes: bytes(volume.total_blocks()),
        used_bytes: bytes(volume.total_blocks() - volume.free_blocks()),
        free_bytes: bytes(volume.free_blocks()),
        files: volume.file_count(),
        directories: volume.directory_count(),
    };
    print(&if arguments.json { serde_json::to_string_pretty(&df)? } else { text(&df) })?;
    Ok(ExitCode::SUCCESS)
}

fn text(df: &DfJson) -> String {
    let percent = 100.0 * df.used_bytes as f64 / df.total_bytes as f64;
    format!(
        "{}\n  size         {}\n  used         {} ({percent:.0} %)\n  free         {}\n  files        {}\n  \
         directories  {}\n  made         {} UTC\n  uuid         {}\n  format       version {}, generation {}",
        df.image,
        human_bytes(df.total_bytes),
        human_bytes(df.used_bytes),
        human_bytes(df.free_bytes),
        df.files,
        df.directories,
        time_text(df.made_unix_seconds),
        df.uuid,
        df.format_version,
        df.generation
    )
}
