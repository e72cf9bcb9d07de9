//! The packer: a directory of the host becomes an archive, without a second copy of the data. [`Plan::scan`] looks at
//! every file and fixes where it will lie, so the size is known before memory is set aside; [`Plan::pack_into`] then
//! reads the files straight into their places. Runs in the VMM, touches nothing but the directory and the sink.

mod error;
mod index;
mod sink;

pub use error::PackError;
pub use exos_fs::tree::{MAX_ENTRIES, ScanError, Warning};
pub use sink::Sink;

use std::io;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use exos_fs::tree::{self, Stamp};

use crate::format::DATA_ALIGN_BYTES;
use index::Index;
use sink::{SliceSink, WriteSink};

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

impl Plan {
    /// Looks through `root` and everything below it. Symbolic links are followed, also out of the tree, as other
    /// servers do; those that lead back to a directory above them, or nowhere, are left out with a warning, and so is
    /// what is neither file nor directory. A file or directory that cannot be read is an error.
    pub fn scan(root: impl AsRef<Path>) -> Result<Plan, PackError> {
        let root = root.as_ref();
        let mut tree = tree::scan(root)?;
        if tree.file_count() == 0 {
            return Err(PackError::Empty { root: root.to_path_buf(), left_out: tree.warnings.len() });
        }
        let index = Index::build(&mut tree.nodes)?;
        let files = tree
            .nodes
            .into_iter()
            .zip(&index.data_offsets)
            .filter(|(node, _)| node.is_file)
            .map(|(node, &data_offset)| PlannedFile {
                stamp: node.stamp,
                relative: node.relative,
                data_offset,
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
        let unreadable = |source| PackError::Scan(ScanError::Unreadable { path: path(), source });
        let mut file = tree::open(&path()).map_err(unreadable)?;
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
