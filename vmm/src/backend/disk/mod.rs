//! Backends of disks: where blocks lie. A [`Store`] moves whole runs of bytes straight out of and into the pieces of memory
//! that it is given. All of it may be called from several threads at once; only [`Store::read_at_once`] never blocks.

use std::io;

use super::iovec::{IoVec, IoVecMut};

mod error;
mod file;
pub mod pieces;

#[cfg(test)]
pub(crate) mod fake;

pub use error::DiskError;
pub use file::RawFile;
pub use pieces::{Input, Output, StatusByte};

/// What may be done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading, by any number of machines at once.
    ReadOnly,
    /// Reading and writing, by one machine alone.
    ReadWrite,
}

/// What a range that is to read as zeros may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeroing {
    /// It stays allocated.
    KeepAllocated,
    /// It may be given back to the file system.
    MayUnmap,
}

/// Blocks, by byte offset. Reads and writes may do less than all, as the system calls do; 0 bytes read is the end.
pub trait Store: Send + Sync {
    /// Bytes that there are.
    fn len_bytes(&self) -> u64;

    /// What may be done.
    fn access(&self) -> Access;

    /// Reads what can be had without waiting. `None`: nothing can.
    fn read_at_once(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<Option<usize>>;

    /// Reads, waiting if need be.
    fn read(&self, offset: u64, pieces: &[IoVecMut<'_>]) -> io::Result<usize>;

    /// Writes.
    fn write(&self, offset: u64, pieces: &[IoVec<'_>]) -> io::Result<usize>;

    /// Makes all writes that returned before durable.
    fn flush(&self) -> io::Result<()>;

    /// The content of a range is not needed any more. Doing nothing is allowed.
    fn discard(&self, offset: u64, len_bytes: u64) -> io::Result<()>;

    /// Makes a range read as zeros.
    fn write_zeroes(&self, offset: u64, len_bytes: u64, zeroing: Zeroing) -> io::Result<()>;
}
