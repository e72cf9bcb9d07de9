//! The files that a site serves, as this crate sees them: something that can be asked for a path. Where they lie, in
//! memory or on a disk that takes its time, is the business of whoever implements [`Files`].

use alloc::rc::Rc;

/// Files by path.
pub trait Files {
    /// A file that was found.
    type File: File;

    /// What `path` names. It is absolute and normalised: it begins with `/` and has no dot segments, doubled slashes or
    /// percent-encoding. With a slash at its end it can only name a directory.
    fn lookup(&mut self, path: &[u8]) -> Lookup<Self::File>;

    /// Whether the content of `file` could begin to go out now. Asked before the header that promises it is sent, because
    /// until then there can still be another answer.
    fn begin(&mut self, file: &Self::File) -> Begin;
}

/// A file: what its header says. `Clone` is cheap.
pub trait File: Clone {
    /// Tells files apart. Below 2^62; numbers that lie close together make the best use of the prepared headers.
    fn number(&self) -> u64;

    /// The size in bytes.
    fn size_bytes(&self) -> u64;

    /// When the file was last modified, in seconds since 1970 UTC.
    fn mtime_unix_seconds(&self) -> u64;

    /// The value for a `Content-Type` field: visible ASCII and spaces only.
    fn media_type(&self) -> &[u8];
}

/// What a path names.
#[derive(Clone, Debug)]
pub enum Lookup<F> {
    /// A file, and the path did not end in a slash.
    File(F),
    /// A directory, whether or not the path ended in a slash, with its `index.html`, which need not be looked for if it
    /// did not.
    Directory {
        /// The page to be served for it.
        index: Option<F>,
    },
    /// Content that is made anew for each request and not to be stored by anybody.
    Generated {
        /// The value for a `Content-Type` field.
        media_type: &'static [u8],
        /// The content.
        content: Rc<[u8]>,
    },
    /// Nothing, or a file with a slash behind its name.
    NotFound,
    /// It is not known yet; when the ticket completes, the same question may be asked again.
    Pending(Ticket),
    /// It cannot be known: what says so is unreadable or corrupt.
    Broken,
}

/// Whether content can begin to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It can.
    Ready,
    /// It is being fetched; when the ticket completes, the same question may be asked again.
    Pending(Ticket),
    /// It cannot be read, or is not what was stored.
    Broken,
}

/// What a connection waits for, by a number that means something to whoever implements [`Files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);
