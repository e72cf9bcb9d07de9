//! Building somebody's own image, outside this repository: a project that `exovm new` made, against the sources that came
//! with the `exovm` that builds it.
//!
//! The kernel is not built again: the one embedded in `exovm` is the one that was tested.

use super::nested::{Failure, Messages, Nested, PROGRAM_FLAGS, PROGRAM_LINK_SCRIPT, cargo, run};
use super::{BuildError, Built, read, read_manifest};
use crate::container;
use std::path::Path;

/// The oldest toolchain that builds a guest.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// A project to build.
#[derive(Clone, Copy, Debug)]
pub struct Project<'a> {
    /// Its folder, which has image.toml.
    pub dir: &'a Path,
    /// The folder that has `guest-libos`, as the project's Cargo.toml names it.
    pub sources: &'a Path,
    /// The kernel's ELF file.
    pub kernel: &'a [u8],
    /// Further arguments of `cargo build`, such as `--locked`.
    pub cargo_arguments: &'a [&'a str],
    /// What becomes of cargo's messages.
    pub messages: Messages,
}

impl Project<'_> {
    /// Builds and packs the image.
    pub fn build(&self) -> Result<Built, BuildError> {
        let manifest_path = self.dir.join("image.toml");
        if !manifest_path.exists() {
            return Err(BuildError::NotAProject { dir: self.dir.to_owned() });
        }
        let (text, manifest) = read_manifest(manifest_path)?;
        check_toolchain(self.dir)?;
        let target_dir = absolute(self.dir)?.join("target/guest");
        let binaries = Nested {
            dir: self.dir,
            target_dir: &target_dir,
            packages: &[&manifest.program],
            flags: PROGRAM_FLAGS,
            // Through all links: another version of the sources is another path, and so another compilation.
            link_script: &absolute(&self.sources.join(PROGRAM_LINK_SCRIPT))?,
            arguments: self.cargo_arguments,
            messages: self.messages,
        }
        .build()?;
        let program = read(&binaries.join(&manifest.program))?;
        let file = container::pack(&text, self.kernel, &program)
            .map_err(|error| BuildError::Image { name: manifest.name.clone(), error })?;
        Ok(Built { name: manifest.name, file })
    }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, BuildError> {
    path.canonicalize().map_err(|error| BuildError::Io { path: path.to_owned(), error })
}

/// Whether the cargo that runs in this folder can build a guest; the errors that cargo itself would give speak of editions.
fn check_toolchain(dir: &Path) -> Result<(), BuildError> {
    let mut command = cargo(dir);
    command.arg("--version");
    let text = run(command, Messages::Kept).map_err(|failure| match failure {
        Failure::Start(error) => error,
        Failure::Status { output } => BuildError::BrokenCargo { dir: dir.to_owned(), output },
    })?;
    let found = text.split_whitespace().nth(1).unwrap_or("unknown");
    let release = |version: &str| -> Option<(u32, u32)> {
        let mut numbers = version.split('.').map(|number| number.parse().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    if release(found) < release(RUST_VERSION) {
        return Err(BuildError::OldToolchain { found: found.to_owned(), wanted: RUST_VERSION });
    }
    Ok(())
}

/// Makes the Cargo.lock of the project in `dir` out of that of a workspace which has all its packages: the same versions,
/// and nothing else.
pub fn project_lock(dir: &Path, workspace_lock: &str) -> Result<String, BuildError> {
    let path = dir.join("Cargo.lock");
    std::fs::write(&path, workspace_lock).map_err(|error| BuildError::Io { path: path.clone(), error })?;
    // What the lock names has just been fetched for the workspace itself, unless that was never built on this machine.
    for offline in [&["--offline"][..], &[]] {
        let mut command = cargo(dir);
        command.args(["update", "--quiet", "--workspace"]).args(offline);
        match run(command, Messages::Kept) {
            Ok(_) => break,
            Err(Failure::Start(error)) => return Err(error),
            Err(Failure::Status { .. }) if !offline.is_empty() => {}
            Err(Failure::Status { output }) => {
                return Err(BuildError::Cargo { package: "the template".to_owned(), output });
            }
        }
    }
    Ok(String::from_utf8_lossy(&read(&path)?).into_owned())
}
