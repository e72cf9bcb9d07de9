//! Where an archive goes while it is packed: a slice, a stream, or what a caller brings.

use std::fs::File;
use std::io::{self, Read, Write};

use exos_fs::tree::read_up_to;

/// Takes the bytes of an archive. Calls come in the order of their offsets, without gap or overlap.
pub trait Sink {
    /// Stores `bytes` at `offset`.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads `size_bytes` from `file` to `offset`, and returns how many came before the file ended.
    fn put_file(&mut self, offset: u64, file: &mut File, size_bytes: u64) -> io::Result<u64>;
}

/// Memory of exactly the archive's length.
pub(super) struct SliceSink<'a>(pub(super) &'a mut [u8]);

impl SliceSink<'_> {
    fn place(&mut self, offset: u64, bytes: u64) -> io::Result<&mut [u8]> {
        let from = usize::try_from(offset).ok();
        let to = offset.checked_add(bytes).and_then(|to| usize::try_from(to).ok());
        from.zip(to)
            .and_then(|(from, to)| self.0.get_mut(from..to))
            .ok_or(io::Error::from(io::ErrorKind::StorageFull))
    }
}

impl Sink for SliceSink<'_> {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.place(offset, bytes.len() as u64)?.copy_from_slice(bytes);
        Ok(())
    }

    fn put_file(&mut self, offset: u64, file: &mut File, size_bytes: u64) -> io::Result<u64> {
        read_up_to(file, self.place(offset, size_bytes)?).map(|bytes| bytes as u64)
    }
}

/// A stream, written from its beginning.
pub(super) struct WriteSink<'a, W>(pub(super) &'a mut W);

impl<W: Write> Sink for WriteSink<'_, W> {
    fn put(&mut self, _offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn put_file(&mut self, _offset: u64, file: &mut File, size_bytes: u64) -> io::Result<u64> {
        io::copy(&mut file.take(size_bytes), self.0)
    }
}
