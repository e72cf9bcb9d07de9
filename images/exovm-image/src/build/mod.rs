//! Building guests: a cargo of its own, because the kernel and the images have no `std`, other flags, and features that
//! must not be unified with the host's.

mod nested;
mod project;

pub use nested::Messages;
pub use project::{Project, project_lock};

use crate::container;
use crate::manifest::Manifest;
use nested::{KERNEL_FLAGS, Nested, PROGRAM_FLAGS, PROGRAM_LINK_SCRIPT};
use std::path::{Path, PathBuf};

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
    /// There is no cargo.
    #[error("there is no `cargo` in PATH; images are built with Rust: see https://rustup.rs")]
    NoCargo,
    /// Cargo does not run here.
    #[error(
        "`cargo --version` failed in {dir}; is the toolchain of its rust-toolchain.toml installed?\n{output}"
    )]
    BrokenCargo {
        /// Where.
        dir: PathBuf,
        /// What it printed.
        output: String,
    },
    /// Too old.
    #[error(
        "cargo is of version {found}, images need {wanted} or newer; with rustup: `rustup toolchain install {wanted}`, \
         and keep the project's rust-toolchain.toml"
    )]
    OldToolchain {
        /// Its version.
        found: String,
        /// The first that will do.
        wanted: &'static str,
    },
    /// Not a project.
    #[error("{dir} has no image.toml; is it a project? `exovm new NAME` makes one")]
    NotAProject {
        /// What was given.
        dir: PathBuf,
    },
    /// Cargo said no.
    #[error("building {package} failed{}", said(.output))]
    Cargo {
        /// The package.
        package: String,
        /// What cargo printed, if that was kept.
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

/// Cargo's own words, if they were kept; else they have been seen.
fn said(output: &str) -> String {
    match output.trim_end() {
        "" => "; cargo says why above".to_owned(),
        words => format!(":\n{words}"),
    }
}

/// Where the kernel's linker script lies.
const KERNEL_LINK_SCRIPT: &str = "guest-exokernel/xok/link.ld";

/// What lies under the workspace root and decides what guests, and the sources packed for projects, are made of.
pub const SOURCES: &[&str] = &[
    "guest-exokernel",
    "guest-libos",
    "images",
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "rust-toolchain.toml",
];

/// Set: images are built without spans and events, so that it can be measured what those cost while nobody looks.
pub const WITHOUT_SPANS: &str = "EXOVM_WITHOUT_SPANS";

/// Builds and packs every image of a workspace. `target_dir` is the nested cargo's own.
pub fn workspace_images(root: &Path, target_dir: &Path) -> Result<Vec<Built>, BuildError> {
    let mut manifests = Vec::new();
    let images = root.join("images");
    for entry in read_dir(&images)? {
        let path = entry.join("image.toml");
        if path.exists() {
            manifests.push(read_manifest(path)?);
        }
    }
    let build = |target: &str, packages: &[&str], flags: &[&str], link_script: &str| {
        Nested {
            dir: root,
            target_dir: &target_dir.join(target),
            packages,
            flags,
            link_script: &root.join(link_script),
            arguments: &["--locked", "--quiet"],
            messages: Messages::Kept,
        }
        .build()
    };
    let kernel = build("kernel", &["xok"], KERNEL_FLAGS, KERNEL_LINK_SCRIPT)?;
    let kernel = read(&kernel.join("xok"))?;
    let programs: Vec<&str> = manifests.iter().map(|(_, manifest)| manifest.program.as_str()).collect();
    let mut flags = PROGRAM_FLAGS.to_vec();
    if std::env::var_os(WITHOUT_SPANS).is_some() {
        flags.push("--cfg=exovm_without_spans");
    }
    let programs_dir = build("images", &programs, &flags, PROGRAM_LINK_SCRIPT)?;
    let mut built = Vec::new();
    for (text, manifest) in manifests {
        let program = read(&programs_dir.join(&manifest.program))?;
        let file = container::pack(&text, &kernel, &program)
            .map_err(|error| BuildError::Image { name: manifest.name.clone(), error })?;
        built.push(Built { name: manifest.name, file });
    }
    Ok(built)
}

/// A manifest, as text and as what it means.
fn read_manifest(path: PathBuf) -> Result<(String, Manifest), BuildError> {
    let text = read(&path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    match Manifest::parse(&text) {
        Ok(manifest) => Ok((text, manifest)),
        Err(error) => Err(BuildError::Manifest { path, error }),
    }
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
