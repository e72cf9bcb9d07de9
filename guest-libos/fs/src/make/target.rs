//! The file that becomes the image. Until it is complete it has no name, so that nothing is left of it when the disk is
//! full, the program is interrupted, or the power fails; then it takes its name in one step.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// An image that is being written.
pub(super) struct Target {
    /// Where it shall be; not a symbolic link.
    path: PathBuf,
    file: File,
    /// Its name until then, on host file systems that know no files without one.
    temporary: Option<Temporary>,
}

/// Removes the file when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Target {
    /// `None` where there is something else than a file.
    pub(super) fn create(path: &Path) -> io::Result<Option<Target>> {
        // Through a link, the image is made where that leads.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_file() => return Ok(None),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ if path.file_name().is_none() => return Ok(None),
            _ => {}
        }
        let mode = Mode::from_raw_mode(0o666);
        match rustix::fs::open(folder(&path), OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(descriptor) => Ok(Some(Target { path, file: File::from(descriptor), temporary: None })),
            // The answers of file systems and kernels that do not know it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let name = temporary_name(&path);
                let file = File::options().read(true).write(true).create_new(true).open(&name)?;
                Ok(Some(Target { path, file, temporary: Some(Temporary(name)) }))
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the image its name. What was written is on the host's disk by then.
    pub(super) fn commit(self) -> io::Result<()> {
        self.file.sync_all()?;
        let temporary = match self.temporary {
            Some(temporary) => temporary,
            None => {
                let name = temporary_name(&self.path);
                let own = std::format!("/proc/self/fd/{}", self.file.as_raw_fd());
                rustix::fs::linkat(CWD, own, CWD, &name, AtFlags::SYMLINK_FOLLOW)?;
                Temporary(name)
            }
        };
        fs::rename(&temporary.0, &self.path)?;
        // There is nothing to remove any more; were there, it would be somebody else's.
        std::mem::forget(temporary);
        File::open(folder(&self.path))?.sync_all()
    }
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Beside the target, hidden, and different for each process and each call.
fn temporary_name(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    // At most 255 bytes, which the target's own name may already have.
    let name = OsString::from(std::format!(".exovm-mkfs-{}-{call}", std::process::id()));
    folder(path).join(name)
}
