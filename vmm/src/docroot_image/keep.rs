//! The files of the cache: an image, its fingerprint and its lock for each directory, and the removal of old ones.

use super::*;
use std::collections::hash_map::DefaultHasher;
use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::hash::Hasher;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::time::SystemTime;

const IMAGE: &str = "img";
const FINGERPRINT: &str = "fingerprint";
const LOCK: &str = "lock";

/// Where the files for one directory are.
pub(super) struct Place {
    image: PathBuf,
}

/// Held while an image is looked at or made. Released when dropped, and by the host when the process ends.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file is open")] File);

/// Makes the cache directory. What is in it are copies of the user's files, so nobody else may look at them.
pub(super) fn make_private(cache: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(cache)
}

impl Place {
    /// The name has something for a person and something that tells paths with one end apart.
    pub(super) fn of(cache: &Path, canonical: &Path) -> Place {
        let mut hasher = DefaultHasher::new();
        hasher.write(canonical.as_os_str().as_bytes());
        let name = canonical.file_name().unwrap_or_default().to_string_lossy();
        let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        let name: String = name.chars().filter(plain).take(40).collect();
        Place { image: cache.join(format!("{name}-{:016x}.{IMAGE}", hasher.finish())) }
    }

    pub(super) fn image(&self) -> &Path {
        &self.image
    }

    /// The image, if there is one.
    pub(super) fn open(&self) -> Option<File> {
        File::open(&self.image).ok()
    }

    /// Waits for another run that has the lock, after telling so.
    pub(super) fn lock(&self, waiting: &mut dyn FnMut()) -> io::Result<Lock> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.image.with_extension(LOCK))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(Lock(file))
    }

    pub(super) fn fingerprint(&self) -> Option<String> {
        let mut text = String::new();
        File::open(self.image.with_extension(FINGERPRINT)).ok()?.read_to_string(&mut text).ok()?;
        Some(text)
    }

    pub(super) fn set_fingerprint(&self, text: &str) -> io::Result<()> {
        fs::write(self.image.with_extension(FINGERPRINT), text)
    }

    pub(super) fn forget_fingerprint(&self) -> io::Result<()> {
        match fs::remove_file(self.image.with_extension(FINGERPRINT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Notes that the image is used now. The lock's file carries the time: the image's own is when it was made.
    pub(super) fn touch(&self) {
        if let Ok(file) = OpenOptions::new().write(true).open(self.image.with_extension(LOCK)) {
            let _ = file.set_modified(SystemTime::now());
        }
    }
}

/// Removes all but the `kept` images used last, besides `own`. What is in use by another run that is making it is left alone;
/// a machine that runs on a removed image has it open and keeps it. Failing here harms nobody, so nothing is said.
pub(super) fn clean(cache: &Path, own: &Place, kept: usize) {
    let Ok(entries) = fs::read_dir(cache) else { return };
    let mut locks: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == LOCK))
        .filter(|path| *path != own.image.with_extension(LOCK))
        .filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path)))
        .collect();
    locks.sort_unstable_by(|a, b| b.cmp(a));
    for (_, path) in locks.into_iter().skip(kept) {
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() {
            // The fingerprint goes first, as when an image is made. The lock's file stays while it can be waited for: removing
            // it under a run that has just opened it would let two runs have it. It is empty.
            let _ = fs::remove_file(path.with_extension(FINGERPRINT));
            let _ = fs::remove_file(path.with_extension(IMAGE));
        }
    }
}
