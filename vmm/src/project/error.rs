//! Why a project cannot be made or built.

use exovm_image::build::BuildError;
use exovm_image::container::ImageError;
use exovm_image::template::NameError;
use std::path::{Path, PathBuf};

/// Why a project cannot be made or built.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is something where it should be made.
    #[error("{} exists and is not an empty folder; choose another name or --dir", .dir.display())]
    Occupied {
        /// Where.
        dir: PathBuf,
    },
    /// A file or folder.
    #[error("{}: {error}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Nowhere to unpack the sources.
    #[error("there is no folder for caches; set HOME, or XDG_CACHE_HOME to an absolute path")]
    NoCache,
    /// The unpacked sources are not what was unpacked.
    #[error(
        "{} is not as it was unpacked, and all projects share it; remove {} to have it unpacked again (to change the \
         library OS, copy it into the project instead: see the project's README)",
        .dir.join(.file).display(), .dir.display()
    )]
    SourcesChanged {
        /// The unpacked sources.
        dir: PathBuf,
        /// The first file that differs.
        file: PathBuf,
    },
    /// The archive in this binary.
    #[error("the sources embedded in this exovm are damaged ({0}); install it again")]
    Archive(std::io::Error),
    /// The kernel in this binary.
    #[error("the kernel embedded in this exovm is damaged ({0}); install it again")]
    NoKernel(ImageError),
    /// The build.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl ProjectError {
    /// For a failure that has to do with this path.
    pub(super) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Io { path: path.to_owned(), error }
    }
}
