//! `exovm new`: a project for an image of one's own.

use super::{Failure, say};
use crate::project;
use std::path::PathBuf;
use std::process::ExitCode;

const AFTER_HELP: &str = "\
What it makes
  A Rust crate that builds without exovm's repository: its program is the image
  `hello`, its library OS comes with this exovm (unpacked once a version into
  $XDG_CACHE_HOME/exovm or ~/.cache/exovm), its Cargo.lock has the versions that
  this exovm was tested with.

  exovm new webby && cd webby
  exovm build                       (needs Rust: https://rustup.rs)
  exovm run ./webby.image";

/// Arguments of `new`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct NewArguments {
    /// Name of the project, its image and its machine: letters, digits, '-' and '_'.
    name: String,
    /// Where to make it; must not exist or be empty [default: ./NAME].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn new(arguments: NewArguments) -> Result<ExitCode, Failure> {
    let name = project::name(&arguments.name)?;
    let dir = arguments.dir.unwrap_or_else(|| PathBuf::from(name.as_str()));
    project::create(&name, &dir)?;
    say(&format!(
        "made {dir}: an image that answers every request with one page\n\n  \
         cd {dir}\n  exovm build\n  exovm run ./{name}.image",
        dir = dir.display(),
        name = name.as_str()
    ));
    Ok(ExitCode::SUCCESS)
}
