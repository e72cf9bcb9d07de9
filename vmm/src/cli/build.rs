//! `exovm build`: the image of a project that `exovm new` made.

use super::{Failure, say};
use crate::project::sources::Link;
use crate::project::{self, Dependencies, Messages, Packed};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const AFTER_HELP: &str = "\
How it builds
  By a cargo of its own, with the flags that guest code needs, in the project's
  target/guest; the kernel is the one in this exovm. Before, it makes or renews
  .exovm/sources, by which the project's Cargo.toml finds the library OS; a folder
  of your own there is left as it is. The result is checked and packed into
  NAME.image beside image.toml.

Examples:
  exovm build                       the project in this directory
  exovm build ./webby && exovm run ./webby/webby.image";

/// Arguments of `build`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = AFTER_HELP)]
pub(super) struct BuildArguments {
    /// The project: the folder with image.toml.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Fail if Cargo.lock would have to change.
    #[arg(long)]
    locked: bool,
}

pub(super) fn build(arguments: BuildArguments) -> Result<ExitCode, Failure> {
    let dependencies = if arguments.locked { Dependencies::Locked } else { Dependencies::AsNeeded };
    let packed = project::build(&arguments.dir, dependencies, Messages::Shown)?;
    say(&report(&packed));
    Ok(ExitCode::SUCCESS)
}

fn report(packed: &Packed) -> String {
    let sources = match packed.link {
        Link::Kept | Link::Made => "",
        Link::Renewed => "\n  against the sources of this exovm; before, it was built against another's",
        Link::OwnFolder => "\n  against the project's own .exovm/sources",
    };
    let path = runnable(&packed.path);
    format!(
        "built {path}: {} KiB{sources}\n\n  exovm run {path}",
        packed.image_bytes.div_ceil(1024),
        path = path.display()
    )
}

/// A path as `exovm run` takes it: with a slash, or it would be the name of a built-in image.
fn runnable(path: &Path) -> PathBuf {
    let plain = path.strip_prefix(".").unwrap_or(path);
    if plain.is_absolute() || plain.starts_with("..") { plain.to_owned() } else { Path::new(".").join(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runnable_path_has_a_slash_and_means_the_same() {
        for (path, expected) in [
            ("./a.image", "./a.image"),
            ("a.image", "./a.image"),
            ("../a.image", "../a.image"),
            ("/x/a.image", "/x/a.image"),
            ("b/a.image", "./b/a.image"),
        ] {
            assert_eq!(runnable(Path::new(path)), Path::new(expected));
            assert!(runnable(Path::new(path)).to_str().unwrap().contains('/'));
        }
    }
}
