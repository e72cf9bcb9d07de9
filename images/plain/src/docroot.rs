//! The files of the disk, as the server wants them.

use exos_cache::{Broken, Entry, Slice};
use exos_files::{Reader, Shared};
use exos_plain::{File, Files, Unreadable};

/// The page of a directory.
const INDEX: &[u8] = b"index.html";

/// The files.
pub(crate) struct Docroot(pub(crate) Shared);

/// One that is being read.
pub(crate) struct Open(Reader);

/// A part of a file, where it lies in the cache.
pub(crate) struct Chunk(Slice);

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

#[cold]
fn report(path: &[u8], broken: Broken) -> Unreadable {
    log::error!("{}: {broken}", path.escape_ascii());
    Unreadable
}

impl Files for Docroot {
    type File = Open;

    async fn open(&self, path: &str) -> Result<Option<Open>, Unreadable> {
        let entry = self.0.lookup(path.as_bytes(), INDEX).await;
        let file = match entry.map_err(|broken| report(path.as_bytes(), broken))? {
            Some(Entry::File(file) | Entry::Directory { index: Some(file) }) => file,
            Some(Entry::Directory { index: None }) | None => return Ok(None),
        };
        let reader = self.0.read(file).await.map_err(|broken| report(path.as_bytes(), broken))?;
        Ok(Some(Open(reader)))
    }
}

impl File for Open {
    type Chunk = Chunk;

    fn size_bytes(&self) -> u64 {
        self.0.file().node().size_bytes()
    }

    fn media_type(&self) -> &str {
        self.0.file().media_type()
    }

    async fn next(&mut self) -> Result<Option<Chunk>, Unreadable> {
        let next = self.0.next().await;
        Ok(next.map_err(|broken| report(self.0.file().path(), broken))?.map(Chunk))
    }
}
