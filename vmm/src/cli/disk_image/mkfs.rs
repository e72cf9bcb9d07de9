//! `exovm mkfs`: an image from a directory.

use super::{files_and_directories, human_bytes};
use crate::cli::progress::ProgressLine;
use crate::cli::{Failure, say};
use exos_fs::make::{Options, Plan, Progress, Stage};
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `mkfs`.
#[derive(clap::Args, Debug)]
#[command(
    after_long_help = "The image is complete when it gets its name: an interrupted mkfs, or one on a full disk, leaves
nothing, and an image that was there stays as it was. A machine that runs on it goes on with the old one.

Examples
  exovm mkfs ./site -o site.img
  exovm mkfs ./site -o site.img --size 4G     with free space
  exovm fsck site.img && exovm ls -R site.img"
)]
pub(in crate::cli) struct MkfsArguments {
    /// Directory whose files go into the image.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The image to make; replaced if it exists.
    #[arg(long, short, value_name = "IMAGE")]
    output: PathBuf,
    /// Size of the image: bytes, or with K, M, G or T; as large as needed if not given.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Print only warnings and errors.
    #[arg(long, short)]
    quiet: bool,
}

pub(in crate::cli) fn mkfs(arguments: &MkfsArguments) -> Result<ExitCode, Failure> {
    let mut line = ProgressLine::new();
    let plan = Plan::scan(&arguments.dir)?;
    for warning in plan.warnings() {
        complain!("exovm: {warning}");
    }
    let options = Options { size_bytes: arguments.size, ..Options::default() };
    let made = plan.write(&arguments.output, &options, &mut |progress| {
        if !arguments.quiet {
            show(&mut line, progress);
        }
    })?;
    let seconds = line.elapsed().as_secs_f64();
    drop(line);
    if !arguments.quiet {
        say(&format!(
            "{}: {}, image of {}, in {seconds:.1} s ({:.0} MB/s)",
            arguments.output.display(),
            files_and_directories(made.files, made.directories),
            human_bytes(made.image_bytes),
            made.file_bytes as f64 / seconds.max(0.001) / 1e6
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how far the making of an image is.
pub(in crate::cli) fn show(line: &mut ProgressLine, progress: Progress) {
    match progress.stage {
        Stage::Copying => line.bytes("copying", progress.done_bytes, progress.total_bytes),
        Stage::Syncing => line.stage("bringing the image to the disk"),
    }
}

/// A size as people write it.
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| "not a size: give bytes, or a number with K, M, G or T".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "larger than any disk".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_size_takes_units() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64k"), Ok(65_536));
        assert_eq!(parse_size("2G"), Ok(2 << 30));
    }

    #[test]
    fn parse_size_refuses_what_is_none() {
        for text in ["", "G", "-1", "1.5G", "4GiB", "99999999999T"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
