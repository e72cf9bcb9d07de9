//! The nested cargo: one run of it, with the compiler flags that all guest code needs. The only place with such flags.

use super::BuildError;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The only target: guest code is built with the host's, freestanding.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Where the linker script of ring 3 programs lies, under the folder that has `guest-libos`.
pub(super) const PROGRAM_LINK_SCRIPT: &str = "guest-libos/runtime/link.ld";

/// Flags of everything that runs in a guest.
const COMMON_FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,-z,noexecstack",
];

/// Flags of ring 3: frame pointers, so that whoever samples it can walk its stack. (Ring 0 has next to no stack to walk, and a call
/// is three instructions shorter without.)
pub(super) const PROGRAM_FLAGS: &[&str] = &["-Cforce-frame-pointers=yes"];

/// Flags of ring 0: no vector or floating-point registers (KVM's emulator does not know them, and they belong to the
/// environments), no red zone (exceptions and interrupts use the stack they interrupt), linked at the top of the
/// address space. The compiler warns about the feature flags; host tests disassemble the kernel to see that they work.
pub(super) const KERNEL_FLAGS: &[&str] =
    &["-Ccode-model=kernel", "-Cno-redzone=yes", "-Ctarget-feature=-sse,-sse2,-mmx,-x87,+soft-float"];

/// What becomes of cargo's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// Kept, for the error that says why a build failed.
    Kept,
    /// To standard error as they come: progress, warnings, errors, colours on a terminal.
    Shown,
}

/// One run.
pub(super) struct Nested<'a> {
    /// Where cargo runs: a folder of the workspace that it builds.
    pub(super) dir: &'a Path,
    /// Its own target directory.
    pub(super) target_dir: &'a Path,
    /// What to build.
    pub(super) packages: &'a [&'a str],
    /// Besides [`COMMON_FLAGS`].
    pub(super) flags: &'a [&'a str],
    /// The linker script.
    pub(super) link_script: &'a Path,
    /// Further arguments of `cargo build`.
    pub(super) arguments: &'a [&'a str],
    pub(super) messages: Messages,
}

impl Nested<'_> {
    /// Builds, and returns the folder with the binaries.
    pub(super) fn build(&self) -> Result<PathBuf, BuildError> {
        let mut flags: Vec<String> =
            COMMON_FLAGS.iter().chain(self.flags).map(|&flag| flag.to_owned()).collect();
        flags.push(format!("-Clink-arg=-T{}", self.link_script.display()));
        let mut command = cargo(self.dir);
        command
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .args(["build", "--profile", "guest", "--target", TARGET, "--target-dir"])
            .arg(self.target_dir)
            .args(self.arguments);
        for package in self.packages {
            command.args(["--package", package]);
        }
        run(command, self.messages).map_err(|failure| match failure {
            Failure::Start(error) => error,
            Failure::Status { output } => BuildError::Cargo { package: self.packages.join(", "), output },
        })?;
        Ok(self.target_dir.join(TARGET).join("guest"))
    }
}

/// How a run of cargo fails.
pub(super) enum Failure {
    /// It does not start.
    Start(BuildError),
    /// It said no.
    Status {
        /// What it printed, if that was kept.
        output: String,
    },
}

/// Runs cargo to its end; returns what it wrote to standard output.
pub(super) fn run(mut command: Command, messages: Messages) -> Result<String, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(match messages {
        Messages::Kept => Stdio::piped(),
        Messages::Shown => Stdio::inherit(),
    });
    let program = PathBuf::from(command.get_program());
    let start = |error: std::io::Error| {
        Failure::Start(match error.kind() {
            std::io::ErrorKind::NotFound => BuildError::NoCargo,
            _ => BuildError::Io { path: program.clone(), error },
        })
    };
    let output = match command.spawn() {
        Ok(child) => child.wait_with_output(),
        Err(error) => Err(error),
    }
    .map_err(start)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::Status { output: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}

/// Cargo in this folder, with a clean environment: what an outer cargo set for its own compilation, or a user for host
/// programs, must not reach the inner one.
pub(super) fn cargo(dir: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if belongs_to_the_outer_build(&name) {
            command.env_remove(&name);
        }
    }
    command.current_dir(dir);
    command
}

fn belongs_to_the_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 3] = ["CARGO", "CARGO_HOME", "CARGO_MAKEFLAGS"];
    const KEPT_PREFIXES: [&str; 5] =
        ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    const REMOVED: [&str; 7] =
        ["RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTDOC", "TARGET", "HOST"];
    let name = name.to_string_lossy();
    if name.starts_with("CARGO") {
        return !KEPT.contains(&name.as_ref())
            && !KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    }
    REMOVED.contains(&name.as_ref())
}
