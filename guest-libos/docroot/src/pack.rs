//! The packer: a directory of the host becomes an archive, without a second copy of the data. [`Plan::scan`] looks at
//! every file and fixes where it will lie, so the size is known before memory is set aside; [`Plan::pack_into`] then
//! reads the files straight into their places. Runs in the VMM, touches nothing but the directory and the sink.

mod error;
mod index;
mod scan;
mod sink;

pub use error::{PackError, Warning};
pub use sink::Sink;

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use crate::format::DATA_ALIGN_BYTES;
use index::Index;
use sink::{SliceSink, WriteSink};

/// More entries than this are taken for a tree of symbolic links that lead around, which multiplies what it holds.
pub const MAX_ENTRIES: usize = 1 << 22;

/// What will be packed, and where: the result of looking through a directory.
#[derive(Debug)]
pub struct Plan {
    root: PathBuf,
    files: Vec<PlannedFile>,
    index: Index,
    warnings: Vec<Warning>,
}

/// A file as it was when the directory was scanned.
#[derive(Debug)]
struct PlannedFile {
    relative: PathBuf,
    stamp: Stamp,
    data_offset: u64,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    size_bytes: u64,
    mtime_unix_seconds: i64,
    mtime_nanoseconds: i64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Stamp {
        Stamp {
            size_bytes: metadata.len(),
            mtime_unix_seconds: metadata.mtime(),
            mtime_nanoseconds: metadata.mtime_nsec(),
        }
    }
}

impl Plan {
    /// Looks through `root` and everything below it. Symbolic links are followed, also out of the tree, as other
    /// servers do; those that lead back to a directory above them, or nowhere, are left out with a warning, and so is
    /// what is neither file nor directory. A file or directory that cannot be read is an error.
    pub fn scan(root: impl AsRef<Path>) -> Result<Plan, PackError> {
        let root = root.as_ref();
        let mut tree = scan::scan(root)?;
        let index = Index::build(&mut tree.nodes)?;
        let files = tree
            .nodes
            .into_iter()
            .zip(&index.data_offsets)
            .filter_map(|(node, &data_offset)| {
                Some(PlannedFile { stamp: node.file?, relative: node.relative, data_offset })
            })
            .collect();
        Ok(Plan { root: root.to_path_buf(), files, index, warnings: tree.warnings })
    }

    /// The exact size of the archive: always a multiple of [`DATA_ALIGN_BYTES`].
    pub fn packed_bytes(&self) -> u64 {
        self.index.total_bytes
    }

    /// How many files there are.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// What was left out, and why. A caller shows this to its user.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Packs into the first [`packed_bytes`](Plan::packed_bytes) bytes of `memory`, which should begin at a page.
    /// Every byte of the archive is written, so the memory need not be clear.
    pub fn pack_into(&self, memory: &mut [u8]) -> Result<(), PackError> {
        let found_bytes = memory.len() as u64;
        let needed_bytes = self.packed_bytes();
        match usize::try_from(needed_bytes).ok().and_then(|bytes| memory.get_mut(..bytes)) {
            Some(memory) => self.pack(&mut SliceSink(memory)),
            None => Err(PackError::TooLittleMemory { needed_bytes, found_bytes }),
        }
    }

    /// Packs into a file or another stream.
    pub fn write_to(&self, writer: &mut impl io::Write) -> Result<(), PackError> {
        self.pack(&mut WriteSink(writer))
    }

    /// Packs into any [`Sink`], for instance guest memory that is not a slice.
    pub fn pack(&self, sink: &mut impl Sink) -> Result<(), PackError> {
        let put = |sink: &mut dyn Sink, offset, bytes: &[u8]| {
            sink.put(offset, bytes).map_err(|source| PackError::Sink { source })
        };
        put(sink, 0, &self.index.bytes)?;
        let index_bytes = self.index.bytes.len() as u64;
        put(sink, index_bytes, padding_behind(index_bytes))?;
        for file in &self.files {
            self.pack_file(file, sink)?;
            let end = file.data_offset + file.stamp.size_bytes;
            put(sink, end, padding_behind(end))?;
        }
        Ok(())
    }

    fn pack_file(&self, planned: &PlannedFile, sink: &mut impl Sink) -> Result<(), PackError> {
        let path = || self.root.join(&planned.relative);
        let unreadable = |source| PackError::Unreadable { path: path(), source };
        let mut file = scan::open(&path()).map_err(unreadable)?;
        let size_bytes = planned.stamp.size_bytes;
        let read_bytes = sink.put_file(planned.data_offset, &mut file, size_bytes).map_err(unreadable)?;
        // The stamp is taken after reading: a change while the file was read shows, too.
        let now = Stamp::of(&file.metadata().map_err(unreadable)?);
        if read_bytes != size_bytes || now != planned.stamp {
            let found_bytes = if now.size_bytes == size_bytes { read_bytes } else { now.size_bytes };
            return Err(PackError::FileChanged { path: path(), scanned_bytes: size_bytes, found_bytes });
        }
        Ok(())
    }
}

/// Zeros from `offset` to the next place where data may begin.
fn padding_behind(offset: u64) -> &'static [u8] {
    static ZEROS: [u8; DATA_ALIGN_BYTES as usize] = [0; DATA_ALIGN_BYTES as usize];
    let used = (offset % DATA_ALIGN_BYTES) as usize;
    if used == 0 { &[] } else { &ZEROS[used..] }
}

/// Reads `size_bytes` from `file` into the beginning of `memory`; fewer if the file ends before.
fn read_up_to(file: &mut File, memory: &mut [u8]) -> io::Result<u64> {
    let mut read_bytes = 0;
    while read_bytes < memory.len() {
        match io::Read::read(file, &mut memory[read_bytes..]) {
            Ok(0) => break,
            Ok(bytes) => read_bytes += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read_bytes as u64)
}
