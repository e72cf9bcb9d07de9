//! Files that somebody wants to have when something is over. That a place cannot be written is known before it begins, and what
//! is there stays until there is something to put in its place.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Whether [`write_whole`] will find a place to write to. Nothing is left behind, and what is there is not touched.
pub(crate) fn check_whole(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Error::from(ErrorKind::IsADirectory)),
        // A pipe's reader may come later: opening it would wait.
        Ok(found) if !found.is_file() => Ok(()),
        _ => beside(path).map(drop),
    }
}

/// Writes a file as a whole or not at all; a pipe or a device gets the bytes as they are.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(path)?.write_all(content);
    }
    let mut file = beside(path)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A file that becomes another one.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".exovm-")
        .permissions(std::fs::Permissions::from_mode(0o666)) // less what the user's umask takes
        .tempfile_in(dir)
}

/// A file that is written by and by, and is worth something wherever that ends.
pub(crate) struct Growing {
    path: PathBuf,
    file: File,
    /// It was not there before, and nothing has been written.
    is_new: bool,
}

impl Growing {
    /// Opens it, and leaves what is in it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (file, is_new) = match File::options().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                (File::options().write(true).create(true).truncate(false).open(path)?, false)
            }
            made => (made?, true),
        };
        Ok(Self { path: path.to_owned(), file, is_new })
    }

    /// There is something to write: what was in it goes.
    pub(crate) fn begin(&mut self) -> Result<&File> {
        self.is_new = false;
        match self.file.set_len(0) {
            // A device or a pipe has no length to set.
            Err(error) if error.kind() != ErrorKind::InvalidInput => Err(error),
            _ => Ok(&self.file),
        }
    }

    /// Nothing behind so many bytes is worth anything.
    pub(crate) fn cut(&self, bytes: u64) {
        let _ = self.file.set_len(bytes);
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        if self.is_new {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_cannot_be_written_is_not_there_at_all_and_that_is_known_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.svg");
        check_whole(&path).expect("room");
        assert!(!path.exists(), "nothing is left of the question");
        write_whole(&path, b"first").expect("room");
        check_whole(&path).expect("room");
        assert_eq!(std::fs::read(&path).expect("there"), b"first");
        write_whole(&path, b"second").expect("room");
        assert_eq!(std::fs::read(&path).expect("there"), b"second");
        assert!(
            check_whole(Path::new("/dev/full")).is_ok() && write_whole(Path::new("/dev/full"), b"x").is_err()
        );
        for nowhere in [dir.path().join("no/such/dir.svg"), dir.path().to_owned(), path.join("x")] {
            assert!(check_whole(&nowhere).is_err() && write_whole(&nowhere, b"x").is_err(), "{nowhere:?}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
    }

    #[test]
    fn growing_file_keeps_what_it_had_until_there_is_something_to_write() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pftrace");
        drop(Growing::open(&path).expect("room"));
        assert!(!path.exists(), "nothing was written");
        std::fs::write(&path, "earlier").expect("room");
        let mut growing = Growing::open(&path).expect("room");
        assert_eq!(std::fs::read(&path).expect("there"), b"earlier");
        growing.begin().expect("a file").write_all(b"now and later").expect("room");
        growing.cut(3);
        drop(growing);
        assert_eq!(std::fs::read(&path).expect("there"), b"now");
        assert!(Growing::open(&dir.path().join("no/file")).is_err());
        Growing::open(Path::new("/dev/null")).and_then(|mut null| null.begin().map(drop)).expect("a device");
    }
}
