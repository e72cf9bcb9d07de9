//! Building guests: a cargo of its own, because the kernel and the images have no `std`, other flags, and features that
//! must not be unified with the host's.

use crate::container;
use crate::manifest::Manifest;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only target: guest code is built with the host's, freestanding.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Flags of everything that runs in a guest.
const COMMON_FLAGS: &[&str] = &[
    "-Crelocation-model=static",
    "-Cforce-frame-pointers=yes",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,-z,max-page-size=4096",
    "-Clink-arg=-Wl,-z,noexecstack",
];

/// Flags of ring 0: no vector or floating-point registers (KVM's emulator does not know them, and they belong to the
/// environments), no red zone (exceptions and interrupts use the stack they interrupt), linked at the top of the
/// address space. The compiler warns about the feature flags; host tests disassemble the kernel to see that they work.
const KERNEL_FLAGS: &[&str] =
    &["-Ccode-model=kernel", "-Cno-redzone=yes", "-Ctarget-feature=-sse,-sse2,-mmx,-x87,+soft-float"];

/// A packed image and its name.
#[derive(Clone, Debug)]
pub struct Built {
    /// Name from the manifest.
    pub name: String,
    /// The image file's content.
    pub file: Vec<u8>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file is missing or unreadable.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Cargo said no.
    #[error("building {package} failed:\n{output}")]
    Cargo {
        /// The package.
        package: String,
        /// What cargo printed.
        output: String,
    },
    /// A built image is not what it should be.
    #[error("image {name}: {error}")]
    Image {
        /// Which.
        name: String,
        /// Why.
        error: container::ImageError,
    },
    /// A manifest is not what it should be.
    #[error("{path}: {error}")]
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why.
        error: crate::manifest::ManifestError,
    },
}

/// Folders under the workspace root whose content decides what a guest is made of.
pub const SOURCES: &[&str] = &["guest-exokernel", "guest-libos", "images", "Cargo.toml", "Cargo.lock"];

/// Builds and packs every image of a workspace. `target_dir` is the nested cargo's own.
pub fn workspace_images(root: &Path, target_dir: &Path) -> Result<Vec<Built>, BuildError> {
    let mut manifests = Vec::new();
    let images = root.join("images");
    for entry in read_dir(&images)? {
        let path = entry.join("image.toml");
        if path.exists() {
            let text = read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
            let manifest = Manifest::parse(&text).map_err(|error| BuildError::Manifest { path, error })?;
            manifests.push((text, manifest));
        }
    }
    let kernel =
        cargo(root, &target_dir.join("kernel"), &["xok"], KERNEL_FLAGS, "guest-exokernel/xok/link.ld")?;
    let kernel = read(&kernel.join("xok"))?;
    let programs: Vec<&str> = manifests.iter().map(|(_, manifest)| manifest.program.as_str()).collect();
    let programs_dir =
        cargo(root, &target_dir.join("images"), &programs, &[], "guest-libos/runtime/link.ld")?;
    let mut built = Vec::new();
    for (text, manifest) in manifests {
        let program = read(&programs_dir.join(&manifest.program))?;
        let file = container::pack(&text, &kernel, &program)
            .map_err(|error| BuildError::Image { name: manifest.name.clone(), error })?;
        built.push(Built { name: manifest.name, file });
    }
    Ok(built)
}

/// Runs the nested cargo and returns the folder with the binaries.
fn cargo(
    root: &Path,
    target_dir: &Path,
    packages: &[&str],
    flags: &[&str],
    link_script: &str,
) -> Result<PathBuf, BuildError> {
    let mut all_flags: Vec<String> = COMMON_FLAGS.iter().chain(flags).map(|&flag| flag.to_owned()).collect();
    all_flags.push(format!("-Clink-arg=-T{}", root.join(link_script).display()));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the outer cargo set for its own compilation must not reach the inner one.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let keep = ["CARGO", "CARGO_HOME", "CARGO_MAKEFLAGS"].contains(&name_text.as_ref())
            || name_text.starts_with("CARGO_NET_")
            || name_text.starts_with("CARGO_HTTP_")
            || name_text.starts_with("CARGO_REGISTR")
            || name_text.starts_with("CARGO_SOURCE_");
        let outer = name_text.starts_with("CARGO")
            || [
                "RUSTFLAGS",
                "RUSTC",
                "RUSTC_WRAPPER",
                "RUSTC_WORKSPACE_WRAPPER",
                "RUSTDOC",
                "TARGET",
                "HOST",
            ]
            .contains(&name_text.as_ref());
        if outer && !keep {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", all_flags.join("\x1f"))
        .args(["build", "--quiet", "--locked", "--profile", "guest", "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    for package in packages {
        command.args(["--package", package]);
    }
    let output =
        command.output().map_err(|error| BuildError::Io { path: command.get_program().into(), error })?;
    if !output.status.success() {
        return Err(BuildError::Cargo {
            package: packages.join(", "),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        });
    }
    Ok(target_dir.join(TARGET).join("guest"))
}

fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|error| BuildError::Io { path: path.to_owned(), error })
}

fn read_dir(path: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let wrap = |error| BuildError::Io { path: path.to_owned(), error };
    let mut entries = std::fs::read_dir(path)
        .map_err(wrap)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrap)?;
    entries.sort();
    Ok(entries)
}
