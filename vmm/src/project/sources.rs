//! The sources embedded in this binary, unpacked once a version into the user's cache, and the link by which a project
//! finds them.

use super::ProjectError;
use crate::cache_dir::cache_dir;
use exovm_image::sources::{files, first_difference, unpack};
use exovm_image::template::SOURCES;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

static ARCHIVE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sources.tar.gz"));

/// What became of the link in a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It leads where it should.
    Kept,
    /// It was not there.
    Made,
    /// It led to other sources: those of another version of exovm.
    Renewed,
    /// There is a folder instead, which is the project's own business.
    OwnFolder,
}

/// The folder with the unpacked sources; unpacked if it is not there yet, compared with the archive if it is.
///
/// Its name has version and hash of the archive, so versions live side by side.
pub fn unpacked() -> Result<PathBuf, ProjectError> {
    let cache = cache_dir().ok_or(ProjectError::NoCache)?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&cache).map_err(ProjectError::at(&cache))?;
    let name = format!("sources-{}-{:016x}", env!("CARGO_PKG_VERSION"), xxh3_64(ARCHIVE));
    let dir = cache.join(name);
    let files = files(ARCHIVE).map_err(ProjectError::Archive)?;
    if !dir.exists() {
        let work = tempfile::Builder::new().prefix(".sources-").tempdir_in(&cache);
        let work = work.map_err(ProjectError::at(&cache))?;
        let whole = work.path().join("whole");
        unpack(&files, &whole).map_err(ProjectError::at(&whole))?;
        match fs::rename(&whole, &dir) {
            // Somebody else was faster; what they unpacked is checked below.
            Err(_) if dir.exists() => {}
            result => result.map_err(ProjectError::at(&dir))?,
        }
    }
    match first_difference(&files, &dir) {
        None => Ok(dir),
        Some(file) => Err(ProjectError::SourcesChanged { dir, file }),
    }
}

/// Has `.exovm/sources` of the project in `dir` lead to the unpacked sources.
pub fn attach(dir: &Path) -> Result<Link, ProjectError> {
    let own = fs::symlink_metadata(dir.join(SOURCES)).is_ok_and(|metadata| !metadata.is_symlink());
    if own { Ok(Link::OwnFolder) } else { link(dir, &unpacked()?) }
}

/// Has the link lead to `sources`.
fn link(dir: &Path, sources: &Path) -> Result<Link, ProjectError> {
    let link = dir.join(SOURCES);
    let state = match fs::read_link(&link) {
        Ok(to) if to == sources => return Ok(Link::Kept),
        Ok(_) => Link::Renewed,
        Err(error) if error.kind() == ErrorKind::NotFound => Link::Made,
        Err(error) => return Err(ProjectError::at(&link)(error)),
    };
    let folder = link.parent().unwrap_or(dir);
    fs::create_dir_all(folder).map_err(ProjectError::at(folder))?;
    // Put in place in one step, so that a cargo that runs meanwhile finds the old one or the new one.
    let work = tempfile::tempdir_in(folder).map_err(ProjectError::at(folder))?;
    let new = work.path().join("link");
    symlink(sources, &new).and_then(|()| fs::rename(&new, &link)).map_err(ProjectError::at(&link))?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_is_made_kept_renewed_and_never_replaces_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        assert_eq!(link(dir.path(), &old).unwrap(), Link::Made);
        assert_eq!(link(dir.path(), &old).unwrap(), Link::Kept);
        assert_eq!(link(dir.path(), &new).unwrap(), Link::Renewed);
        assert_eq!(fs::read_link(dir.path().join(SOURCES)).unwrap(), new);
        assert_eq!(fs::read_dir(dir.path().join(".exovm")).unwrap().count(), 1, "nothing beside the link");

        fs::remove_file(dir.path().join(SOURCES)).unwrap();
        fs::create_dir(dir.path().join(SOURCES)).unwrap();
        assert_eq!(attach(dir.path()).unwrap(), Link::OwnFolder);
        assert!(dir.path().join(SOURCES).is_dir());
    }
}
