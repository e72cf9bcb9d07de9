//! The reader: bytes become an [`Archive`] once, after which look-ups cannot fail or reach outside. The bytes come
//! from another protection domain and are not trusted; [`check`] reads every byte of the index before anything is
//! handed out. Allocates nothing.

mod check;
mod error;

pub use error::ArchiveError;

use crate::format::{ENTRY_BYTES, Entry, Kind, SLOT_BYTES, Slot, StringRef, TYPE_BYTES, hash_tag, path_hash};

/// A packed document root that has been checked.
///
/// It is a handful of slices: copy it freely. With a `'static` archive, as in the guest, everything that it hands
/// out is `'static`, too.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
    entries: &'a [[u8; ENTRY_BYTES]],
    slots: &'a [[u8; SLOT_BYTES]],
    types: &'a [[u8; TYPE_BYTES]],
    strings: &'a [u8],
    hash_seed: u64,
    file_count: u32,
}

/// A file of an archive.
#[derive(Clone, Copy, Debug)]
pub struct FileRef<'a> {
    number: u32,
    path: &'a [u8],
    media_type: &'a [u8],
    mtime_unix_seconds: u64,
    data: &'a [u8],
}

/// A directory of an archive.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryRef<'a> {
    path: &'a [u8],
    index: Option<FileRef<'a>>,
}

/// What a path names.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// A file, and the path did not end in a slash.
    File(FileRef<'a>),
    /// A directory, whether or not the path ended in a slash.
    Directory(DirectoryRef<'a>),
    /// Nothing, or a file with a slash behind its name.
    NotFound,
}

impl<'a> Archive<'a> {
    /// Checks the archive at the beginning of `bytes`; there may be other bytes behind it. Costs one pass over the
    /// index, some tens of nanoseconds a file, and does not touch the files' data.
    pub fn parse(bytes: &'a [u8]) -> Result<Archive<'a>, ArchiveError> {
        check::parse(bytes)
    }

    /// What `path` names. It is absolute and normalised: it begins with `/` and has no dot segments, doubled
    /// slashes or percent-encoding. A path that is not so is simply not found.
    #[inline]
    pub fn lookup(&self, path: &[u8]) -> Lookup<'a> {
        let Some(relative) = path.strip_prefix(b"/") else { return Lookup::NotFound };
        let (relative, slash_at_end) = match relative {
            [] => (relative, true),
            [directory @ .., b'/'] if !directory.is_empty() => (directory, true),
            _ => (relative, false),
        };
        let Some((number, entry, path)) = self.find(relative) else { return Lookup::NotFound };
        match entry.kind {
            Kind::File if slash_at_end => Lookup::NotFound,
            Kind::File => self.file(number, &entry, path).map_or(Lookup::NotFound, Lookup::File),
            Kind::Directory => {
                Lookup::Directory(DirectoryRef { path, index: self.file_by_number(entry.index_entry) })
            }
        }
    }

    /// The file with this [`number`](FileRef::number); `None` if there is no such entry or it is a directory.
    pub fn file_by_number(&self, number: u32) -> Option<FileRef<'a>> {
        let entry = self.entry(number)?;
        let path = self.path_of(&entry)?;
        self.file(number, &entry, path)
    }

    /// All files, sorted by path.
    pub fn files(&self) -> impl Iterator<Item = FileRef<'a>> + use<'a> {
        let archive = *self;
        (0..self.entry_count()).filter_map(move |number| archive.file_by_number(number))
    }

    /// How many files there are.
    pub fn file_count(&self) -> u32 {
        self.file_count
    }

    /// How many entries there are, files and directories. Numbers of files are below this.
    pub fn entry_count(&self) -> u32 {
        // `check` has seen that the count fits: it was a u32 in the header.
        self.entries.len() as u32
    }

    /// The length of the archive in bytes.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn find(&self, relative: &[u8]) -> Option<(u32, Entry, &'a [u8])> {
        let hash = path_hash(relative, self.hash_seed);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        // Ends at an empty slot at the latest; `check` has seen that at least half of them are.
        loop {
            let slot = Slot::decode(self.slots.get(at)?);
            let number = slot.entry_plus_one.checked_sub(1)?;
            if slot.hash_tag == hash_tag(hash) {
                let entry = self.entry(number)?;
                let path = self.path_of(&entry)?;
                if path == relative {
                    return Some((number, entry, path));
                }
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn entry(&self, number: u32) -> Option<Entry> {
        Entry::decode(self.entries.get(number as usize)?)
    }

    #[inline]
    fn path_of(&self, entry: &Entry) -> Option<&'a [u8]> {
        StringRef { offset: entry.path_offset, bytes: entry.path_bytes }.within(self.strings)
    }

    #[inline]
    fn media_type(&self, number: u16) -> Option<&'a [u8]> {
        StringRef::decode(self.types.get(usize::from(number))?).within(self.strings)
    }

    #[inline]
    fn file(&self, number: u32, entry: &Entry, path: &'a [u8]) -> Option<FileRef<'a>> {
        if entry.kind != Kind::File {
            return None;
        }
        let from = usize::try_from(entry.data_offset).ok()?;
        let size_bytes = usize::try_from(entry.size_bytes).ok()?;
        Some(FileRef {
            number,
            path,
            media_type: self.media_type(entry.type_number)?,
            mtime_unix_seconds: entry.mtime_unix_seconds,
            data: self.bytes.get(from..from.checked_add(size_bytes)?)?,
        })
    }
}

impl<'a> FileRef<'a> {
    /// The number of the file's entry: below [`Archive::entry_count`], the same for every look-up of the file, so a
    /// table beside the archive can be indexed with it.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The path relative to the root, without a slash at its beginning, as the host's bytes.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.data.len() as u64
    }

    /// When the file was last modified, in seconds since 1970 UTC; at most
    /// [`MAX_MTIME_UNIX_SECONDS`](crate::format::MAX_MTIME_UNIX_SECONDS).
    pub fn mtime_unix_seconds(&self) -> u64 {
        self.mtime_unix_seconds
    }

    /// The value for a `Content-Type` field: visible ASCII and spaces only.
    pub fn media_type(&self) -> &'a [u8] {
        self.media_type
    }

    /// The content. It begins at a multiple of 4096 bytes from the archive's first byte.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }
}

impl<'a> DirectoryRef<'a> {
    /// The path relative to the root, without slashes at its ends; empty for the root itself.
    pub fn path(&self) -> &'a [u8] {
        self.path
    }

    /// The directory's `index.html`.
    pub fn index(&self) -> Option<FileRef<'a>> {
        self.index
    }
}

#[cfg(all(test, feature = "std"))]
mod tests;
