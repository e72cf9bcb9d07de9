//! A raw image: block `n` lies at byte `4096 n` of a regular file. The file is locked while it is open, so that nobody else
//! of ours writes to what is attached, and closed on exec.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Access, DiskError, Store, Zeroing};
use crate::backend::SEGMENTS_MAX;
use crate::backend::iovec::{IoVec, IoVecMut};

/// Bytes of a block.
pub(super) const BLOCK_BYTES: u64 = abi::extent::BLOCK_BYTES;

/// An open, locked image.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    len_bytes: u64,
    access: Access,
    /// The file system does not say whether a read would block.
    always_waits: AtomicBool,
}

impl RawFile {
    /// Opens and locks an image: exclusively if it is to be written, shared if it is only read.
    pub fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        let named = || path.to_owned();
        // O_NONBLOCK: a FIFO must not be waited for. It means nothing to regular files.
        let opened = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path);
        let file = opened.map_err(|source| open_error(path, access, source))?;
        let failed = |what| move |source| DiskError::System { path: named(), what, source };
        let metadata = file.metadata().map_err(failed("fstat"))?;
        if let Some(what) = other_kind(&metadata) {
            return Err(DiskError::NotAFile { path: named(), what });
        }
        lock(&file, path, access)?;
        // After the lock: whoever had it may have changed the length.
        let len_bytes = file.metadata().map_err(failed("fstat"))?.len();
        if len_bytes == 0 {
            return Err(DiskError::Empty { path: named() });
        }
        if !len_bytes.is_multiple_of(BLOCK_BYTES) {
            return Err(DiskError::NotWholeBlocks { path: named(), len_bytes });
        }
        Ok(Self { file, len_bytes, access, always_waits: AtomicBool::new(false) })
    }

    /// An error if the file has become shorter than it was when it was opened: writing must not make it whole again with a
    /// hole.
    fn check_length(&self) -> io::Result<()> {
        let len_bytes = self.file.metadata()?.len();
        if len_bytes < self.len_bytes {
            let text = format!("the file was cut to {len_bytes} bytes while attached");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(())
    }

    /// `fallocate` with these flags.
    fn allocate(&self, mode: libc::c_int, offset: u64, len_bytes: u64) -> io::Result<()> {
        // SAFETY: no memory is passed.
        let result = unsafe {
            libc::fallocate(self.file.as_raw_fd(), mode, offset as libc::off_t, len_bytes as libc::off_t)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Store for RawFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn access(&self) -> Access {
        self.access
    }

    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>> {
        if self.always_waits.load(Ordering::Relaxed) {
            return Ok(None);
        }
        match read(&self.file, offset, pieces, libc::RWF_NOWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                self.always_waits.store(true, Ordering::Relaxed);
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize> {
        read(&self.file, offset, pieces, 0)
    }

    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        self.check_length()?;
        let raw = IoVec::as_raw(pieces);
        let count = raw.len().min(SEGMENTS_MAX) as libc::c_int;
        retry(|| {
            // SAFETY: the pieces are mapped for the time of the call, and only read.
            unsafe { libc::pwritev(self.file.as_raw_fd(), raw.as_ptr(), count, offset as libc::off_t) }
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()> {
        self.check_length()?;
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match self.allocate(mode, offset, len_bytes) {
            // Not every file system gives blocks back.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, zeroing: Zeroing) -> io::Result<()> {
        self.check_length()?;
        let mode = match zeroing {
            Zeroing::KeepAllocated => libc::FALLOC_FL_ZERO_RANGE,
            Zeroing::MayUnmap => libc::FALLOC_FL_PUNCH_HOLE,
        };
        match self.allocate(mode | libc::FALLOC_FL_KEEP_SIZE, offset, len_bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                write_zeros(&self.file, offset, len_bytes)
            }
            result => result,
        }
    }
}

/// For file systems without a faster way.
fn write_zeros(file: &File, offset: u64, len_bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut done = 0;
    while done < len_bytes {
        let len = (len_bytes - done).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..len as usize], offset + done)?;
        done += len;
    }
    Ok(())
}

fn read(file: &File, offset: u64, pieces: &[IoVecMut<'_>], flags: libc::c_int) -> io::Result<usize> {
    let raw = IoVecMut::as_raw(pieces);
    let count = raw.len().min(SEGMENTS_MAX) as libc::c_int;
    retry(|| {
        // SAFETY: the pieces are mapped for the time of the call, and theirs to be written.
        unsafe { libc::preadv2(file.as_raw_fd(), raw.as_ptr(), count, offset as libc::off_t, flags) }
    })
}

/// Calls again after a signal.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(len) => return Ok(len),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

fn open_error(path: &Path, access: Access, source: io::Error) -> DiskError {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => DiskError::NotFound { path },
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            let verb = if access == Access::ReadWrite { "read and write" } else { "read" };
            DiskError::Permission { path, verb }
        }
        Some(libc::EISDIR) => DiskError::NotAFile { path, what: "a directory" },
        // Opening a socket, or a device without a driver.
        Some(libc::ENXIO | libc::ENODEV) => DiskError::NotAFile { path, what: "a special file" },
        _ => DiskError::System { path, what: "open", source },
    }
}

/// What a file is that is not a regular one.
fn other_kind(metadata: &std::fs::Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a directory"),
        () if kind.is_block_device() => Some("a block device"),
        () => Some("a special file"),
    }
}

/// Locks the file. The lock belongs to the open file, and goes when that is closed, however the process ends.
fn lock(file: &File, path: &Path, access: Access) -> Result<(), DiskError> {
    let wanted_exclusively = access == Access::ReadWrite;
    let kind = if wanted_exclusively { libc::LOCK_EX } else { libc::LOCK_SH };
    // SAFETY: no memory is passed.
    if unsafe { libc::flock(file.as_raw_fd(), kind | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    let path: PathBuf = path.to_owned();
    if source.kind() != io::ErrorKind::WouldBlock {
        return Err(DiskError::System { path, what: "flock", source });
    }
    let holder = file.metadata().ok().and_then(|metadata| holder(&metadata));
    Err(DiskError::Locked { path, holder, wanted_exclusively })
}

/// Which process holds a lock on a file, as `/proc/locks` has it: `1: FLOCK ADVISORY WRITE 4711 fd:00:1234 0 EOF`.
fn holder(metadata: &std::fs::Metadata) -> Option<u32> {
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let pid = words.next()?.parse().ok().filter(|&pid| pid != 0)?;
        (words.next()? == file).then_some(pid)
    })
}

#[cfg(test)]
mod tests;
