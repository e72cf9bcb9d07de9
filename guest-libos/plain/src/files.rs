//! Where files come from.

/// A file cannot be read: its storage is broken, and the log of whoever provides it says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Files by path.
#[expect(async_fn_in_trait, reason = "tasks stay on one thread")]
pub trait Files {
    /// One of them, from its beginning on.
    type File: File;

    /// The file that a path names, which begins with a slash and is as the client wrote it; `None`: there is none.
    async fn open(&self, path: &str) -> Result<Option<Self::File>, Unreadable>;
}

/// A file that is being read.
#[expect(async_fn_in_trait, reason = "tasks stay on one thread")]
pub trait File {
    /// Bytes of it that lie together in memory.
    type Chunk: AsRef<[u8]>;

    /// How long it is.
    fn size_bytes(&self) -> u64;

    /// The value for a `Content-Type` field.
    fn media_type(&self) -> &str;

    /// What follows, at least a byte; `None` at the end.
    async fn next(&mut self) -> Result<Option<Self::Chunk>, Unreadable>;
}
