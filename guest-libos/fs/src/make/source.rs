//! A file of the host while it is copied, from its beginning to its end. What its file system says is a hole is not read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::tree::{self, Stamp};

pub(super) struct Source {
    file: File,
    at_bytes: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> io::Result<Source> {
        Ok(Source { file: tree::open(path)?, at_bytes: 0 })
    }

    /// How far it has been copied.
    pub(super) fn at_bytes(&self) -> u64 {
        self.at_bytes
    }

    /// Fills `memory` with what comes next; less, if the file ends.
    pub(super) fn read(&mut self, memory: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < memory.len() {
            // At a place of its own: looking for holes moves the file's.
            match self.file.read_at(&mut memory[done..], self.at_bytes) {
                Ok(0) => break,
                Ok(bytes) => {
                    done += bytes;
                    self.at_bytes += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the next `bytes` are nothing but a hole (lseek(2), SEEK_DATA); then they are passed over.
    pub(super) fn skip_hole(&mut self, bytes: u64) -> bool {
        let end = self.at_bytes + bytes;
        let is_hole = match rustix::fs::seek(&self.file, SeekFrom::Data(self.at_bytes)) {
            Ok(data) => data >= end,
            // No data up to the file's end, which is where it was when the directory was looked through, or the stamp shows.
            Err(Errno::NXIO) => true,
            // A file system that does not know about holes.
            Err(_) => false,
        };
        if is_hole {
            self.at_bytes = end;
        }
        is_hole
    }

    /// Size and time as they are now.
    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        Ok(Stamp::of(&self.file.metadata()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn file_system_without_holes_has_none() {
        // seq_lseek() of the kernel knows SEEK_SET and SEEK_CUR.
        let mut source = Source::open(Path::new("/proc/self/maps")).unwrap();
        assert!(!source.skip_hole(4096));
        let mut memory = [0; 10];
        source.read(&mut memory).unwrap();
        assert_ne!(memory, [0; 10]);
        assert_eq!(source.at_bytes(), 10);
    }

    #[test]
    fn hole_with_data_in_its_last_byte_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = fs::File::create(&path).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(b"x", (2 << 20) - 1).unwrap();
        let mut source = Source::open(&path).unwrap();
        assert!(source.skip_hole(1 << 20));
        assert!(!source.skip_hole(1 << 20));
        let mut memory = std::vec![0; 1 << 20];
        source.read(&mut memory).unwrap();
        assert_eq!(memory.iter().rposition(|&byte| byte != 0), Some((1 << 20) - 1));
        assert!(source.skip_hole(1 << 20));
        assert_eq!(source.at_bytes(), 3 << 20);
    }
}
