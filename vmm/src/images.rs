//! The images embedded in this binary by its build script, and image files on disk.

use exovm_image::container::{self, Image, ImageError};
use exovm_image::manifest::Manifest;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Name and content of each.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No embedded image of that name.
    #[error(
        "there is no image called {name:?}; built in are {known}; a file needs a '/' in its name{question}",
        question = crate::closest::question(.name, names())
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It can be read but not booted.
    #[error("image {name}: {error}")]
    Refused {
        /// Which.
        name: String,
        /// Why.
        error: ImageError,
    },
}

/// Names of the embedded images.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// Size of the image called `name`, or of the image file if `name` has a `/` in it.
pub fn file_bytes(name: &str) -> Result<u64, LoadError> {
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) => Err(LoadError::Unreadable { path, error }),
        };
    }
    embedded(name).map(|file| file.len() as u64)
}

fn embedded(name: &str) -> Result<&'static [u8], LoadError> {
    let found = EMBEDDED.iter().find(|(known, _)| *known == name);
    found.map(|(_, file)| *file).ok_or_else(|| LoadError::Unknown {
        name: name.to_owned(),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// The ELF file of the kernel that all embedded images have.
pub fn kernel_file() -> Result<&'static [u8], ImageError> {
    let (_, file) = EMBEDDED.first().ok_or(ImageError::NotAnImage)?;
    container::kernel_file(file)
}

/// The image called `name`, or the image file if `name` has a `/` in it.
pub fn load(name: &str) -> Result<Image, LoadError> {
    let refuse = |error| LoadError::Refused { name: name.to_owned(), error };
    if name.contains('/') {
        let path = PathBuf::from(name);
        let file = read(&path).map_err(|error| LoadError::Unreadable { path, error })?;
        return Image::parse(&file).map_err(refuse);
    }
    Image::parse(embedded(name)?).map_err(refuse)
}

/// The manifest of the image called `name`, or of the image file if `name` has a `/` in it; its programs are not looked at.
pub fn manifest(name: &str) -> Result<Manifest, LoadError> {
    let refuse = |error| LoadError::Refused { name: name.to_owned(), error };
    if name.contains('/') {
        let path = PathBuf::from(name);
        let file = read(&path).map_err(|error| LoadError::Unreadable { path, error })?;
        return container::manifest(&file).map_err(refuse);
    }
    container::manifest(embedded(name)?).map_err(refuse)
}

/// The whole file if it begins as an image does, or else its beginning: what is no image may have no end.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    const BEGINNING_BYTES: u64 = 4096;
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(BEGINNING_BYTES).read_to_end(&mut bytes)?;
    if !matches!(container::manifest(&bytes), Err(ImageError::NotAnImage)) {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
