//! Prepared disk images of document roots: `run --docroot DIR` makes the image of a directory once, keeps it in the user's
//! cache directory, and makes it again when files changed. Touches nothing but that cache and, reading, the directory.
//!
//! An image is found by the directory's canonical path; beside it lies the fingerprint of the tree that it was made from
//! (names, sizes, times, numbers of files, and the format's version). Two runs on one directory at once wait for each other; a machine that
//! still runs on an older image keeps it, because a new one takes its place without touching it.

mod keep;

use exos_fs::make::{MakeError, Options, Plan, Progress};
use exos_fs::tree::Warning;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The second part of a fingerprint; images of other programs' versions are made again.
const FORMAT: u32 = exos_fs::format::VERSION;
/// Images that are kept besides the one in use, the ones used last.
const KEPT_IMAGES: usize = 8;

/// An image that is ready.
#[derive(Debug)]
pub struct Prepared {
    /// Where it is.
    pub path: PathBuf,
    /// The image, open for reading: it stays what it is, also if another run replaces or removes the file.
    pub file: File,
    /// Whether it was there already.
    pub origin: Origin,
    /// How long all of it took.
    pub took: Duration,
    /// How many files are in it.
    pub files: u64,
    /// Its size.
    pub image_bytes: u64,
    /// What of the directory is not in it, and why. A caller shows this to its user.
    pub warnings: Vec<Warning>,
}

/// Where an image comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was there, and nothing changed since.
    Reused,
    /// There was none for this directory.
    Made,
    /// There was one, and files changed since.
    Remade,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It cannot be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// There is nothing to serve.
    #[error("document root {root:?} holds no file{}: put at least an index.html there", also_left_out(.left_out))]
    Empty {
        /// The root as it was given.
        root: PathBuf,
        /// How many things were left out.
        left_out: usize,
    },
    /// There is no place for it.
    #[error("there is no cache directory for disk images: set XDG_CACHE_HOME or HOME")]
    NoCache,
    /// The place for it cannot be used.
    #[error("cannot keep disk images in {path:?}: {source}; XDG_CACHE_HOME names another place")]
    Cache {
        /// The place.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

fn also_left_out(count: &usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" that can be served ({count} left out)"),
    }
}

/// What a caller is told while an image is being made.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Another run is making an image of the same directory; this one waits for it.
    Waiting,
    /// The image is being made.
    Making(Progress),
}

/// Where images are kept: `images` below [`cache_dir`](crate::cache_dir::cache_dir).
pub fn cache_dir() -> Result<PathBuf, PrepareError> {
    Ok(crate::cache_dir::cache_dir().ok_or(PrepareError::NoCache)?.join("images"))
}

/// Returns the image of the directory `root`, kept in `cache`; makes it if there is none or files changed.
pub fn prepare(root: &Path, cache: &Path, event: &mut dyn FnMut(Event)) -> Result<Prepared, PrepareError> {
    let started = Instant::now();
    let plan = Plan::scan(root)?;
    if plan.file_count() == 0 {
        return Err(PrepareError::Empty { root: root.to_path_buf(), left_out: plan.warnings().len() });
    }
    let failed = |source| PrepareError::Cache { path: cache.to_path_buf(), source };
    keep::make_private(cache).map_err(failed)?;
    let canonical = fs::canonicalize(root).map_err(failed)?;
    let place = keep::Place::of(cache, &canonical);
    let fingerprint = format!("{FORMAT} {:016x}\n{}\n", plan.fingerprint(), canonical.display());
    let _lock = place.lock(&mut || event(Event::Waiting)).map_err(failed)?;
    let origin = match place.open() {
        Some(_) if place.fingerprint().as_deref() == Some(&fingerprint) => Origin::Reused,
        Some(_) => Origin::Remade,
        None => Origin::Made,
    };
    if origin != Origin::Reused {
        // Gone before the image is another one: an interrupted run must not leave the old fingerprint beside the new image.
        place.forget_fingerprint().map_err(failed)?;
        plan.write(place.image(), &Options::default(), &mut |progress| event(Event::Making(progress)))?;
        place.set_fingerprint(&fingerprint).map_err(failed)?;
    }
    let file = File::open(place.image()).map_err(failed)?;
    let image_bytes = file.metadata().map_err(failed)?.len();
    place.touch();
    keep::clean(cache, &place, KEPT_IMAGES);
    Ok(Prepared {
        path: place.image().to_path_buf(),
        file,
        origin,
        took: started.elapsed(),
        files: plan.file_count(),
        image_bytes,
        warnings: plan.warnings().to_vec(),
    })
}

#[cfg(test)]
mod tests;
