//! The log file of a detached machine, `NAME.log` beside its socket: what the guest logged and what the VMM had to say.
//! Bounded: of a file that grows beyond [`FILE_BYTES_MAX`] the older half goes. It is also the process's standard
//! error, so that not even a panic is lost.

use crate::control::{ControlError, directory};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Largest size of the file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file. It stays when the process ends without [`LogFile::remove`].
#[derive(Debug)]
pub(super) struct LogFile {
    file: Mutex<File>,
    path: PathBuf,
}

impl LogFile {
    /// A new one; that of an earlier machine of the same name goes.
    pub(super) fn create(name: &str) -> Result<Self, ControlError> {
        let path = directory::log_path(name)?;
        let open = || {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            OpenOptions::new().create_new(true).read(true).append(true).mode(0o600).open(&path)
        };
        match open() {
            Ok(file) => Ok(Self { file: Mutex::new(file), path }),
            Err(error) => Err(ControlError::Socket { path, error }),
        }
    }

    /// Has standard error go to the file as well.
    pub(super) fn take_stderr(&self) -> io::Result<()> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rustix::stdio::dup2_stderr(&*file)?)
    }

    /// Adds text, a line or more.
    pub(super) fn append(&self, text: &str) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(text.as_bytes())?;
        if file.metadata()?.len() > FILE_BYTES_MAX { halve(&mut file) } else { Ok(()) }
    }

    /// The machine ended well: nobody needs the file. One of the same name may have been started in the meantime; its file
    /// stays.
    pub(super) fn remove(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let own = file.metadata().map(|metadata| metadata.ino()).ok();
        if own.is_some() && own == std::fs::symlink_metadata(&self.path).map(|metadata| metadata.ino()).ok() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Drops the older half of the lines.
fn halve(file: &mut File) -> io::Result<()> {
    file.seek(SeekFrom::End(-(FILE_BYTES_MAX as i64 / 2)))?;
    let mut kept = Vec::new();
    file.read_to_end(&mut kept)?;
    let line = kept.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    // Appending writers go on at the new end.
    file.set_len(0)?;
    file.write_all(b"[earlier lines are not kept]\n")?;
    file.write_all(&kept[line..])
}

/// The log file of this process, if it is a detached machine.
static OF_THIS_PROCESS: OnceLock<LogFile> = OnceLock::new();

/// From now on the VMM's own messages go to this file.
pub(super) fn install(file: LogFile) -> &'static LogFile {
    OF_THIS_PROCESS.get_or_init(|| file)
}

/// The file that [`install`] was given.
pub(super) fn installed() -> Option<&'static LogFile> {
    OF_THIS_PROCESS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_keeps_the_newer_lines_and_its_bound() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.log");
        let file = OpenOptions::new().create_new(true).read(true).append(true).open(&path).expect("new");
        let log = LogFile { file: Mutex::new(file), path: path.clone() };
        for number in 0..60_000 {
            log.append(&format!("line {number} {}\n", "x".repeat(30))).expect("room");
            let len = path.metadata().expect("there").len();
            assert!(len <= FILE_BYTES_MAX, "{len}");
        }
        let text = std::fs::read_to_string(&path).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "[earlier lines are not kept]");
        assert!(lines[1].starts_with("line "), "{}", lines[1]);
        assert!(lines.last().expect("many").starts_with("line 59999 "));
        log.remove();
        assert!(!path.exists());
        std::fs::write(&path, "of another machine").expect("room");
        log.remove();
        assert!(path.exists(), "it is not ours");
    }
}
