//! Images of one's own, outside this repository: [`create`] makes a project, [`build`] makes its image. All they need is in
//! this binary: the template, the sources (see [`sources`]), the kernel.

mod error;
pub mod sources;

pub use error::ProjectError;
pub use exovm_image::build::Messages;
pub use exovm_image::template::ProjectName;

use crate::output::write_whole;
use exovm_image::{build, template};
use sources::Link;
use std::fs;
use std::path::{Path, PathBuf};

/// The versions that a new project is built with.
const LOCK: &str = include_str!(concat!(env!("OUT_DIR"), "/project.lock"));

/// How cargo gets what a project depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dependencies {
    /// From the registry where needed; Cargo.lock is brought up to date.
    #[default]
    AsNeeded,
    /// Exactly as Cargo.lock says, or not at all.
    Locked,
}

/// A packed image.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The image's name.
    pub name: String,
    /// Where the file lies.
    pub path: PathBuf,
    /// Its length.
    pub image_bytes: u64,
    /// What became of the link to the sources.
    pub link: Link,
}

/// A name for a project, checked.
pub fn name(name: &str) -> Result<ProjectName, ProjectError> {
    Ok(ProjectName::parse(name, LOCK)?)
}

/// Makes a project in `dir`, which must not exist or be empty. What fails leaves nothing behind.
pub fn create(name: &ProjectName, dir: &Path) -> Result<(), ProjectError> {
    let occupied = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(ProjectError::Occupied { dir: dir.to_owned() });
    }
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(ProjectError::at(parent))?;
    let work = tempfile::Builder::new().prefix(".exovm-new-").tempdir_in(parent);
    let work = work.map_err(ProjectError::at(parent))?;
    let project = work.path().join("project");
    for (path, text) in template::files(name, LOCK) {
        let path = project.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ProjectError::at(folder))?;
        }
        fs::write(&path, text).map_err(ProjectError::at(&path))?;
    }
    sources::attach(&project)?;
    fs::rename(&project, dir).map_err(ProjectError::at(dir))
}

/// Builds the image of the project in `dir` and puts it there as `NAME.image`.
pub fn build(dir: &Path, dependencies: Dependencies, messages: Messages) -> Result<Packed, ProjectError> {
    if !dir.join("image.toml").exists() {
        return Err(build::BuildError::NotAProject { dir: dir.to_owned() }.into());
    }
    let link = sources::attach(dir)?;
    let kernel = crate::images::kernel_file().map_err(ProjectError::NoKernel)?;
    let built = build::Project {
        dir,
        sources: &dir.join(template::SOURCES),
        kernel,
        cargo_arguments: match dependencies {
            Dependencies::AsNeeded => &[],
            Dependencies::Locked => &["--locked"],
        },
        messages,
    }
    .build()?;
    let path = dir.join(format!("{}.image", built.name));
    write_whole(&path, &built.file).map_err(ProjectError::at(&path))?;
    Ok(Packed { name: built.name, path, image_bytes: built.file.len() as u64, link })
}
