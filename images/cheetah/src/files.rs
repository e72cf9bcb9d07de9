//! The files of the disk, as HTTP wants them.

use exos_cache::{Asked, Broken, CachedFile, Entry, Store, Ticket};
use exos_http::{Begin, Files, Lookup};
use exos_net::ConnId;

use crate::counters::{self, Counters};

/// The page of a directory.
const INDEX: &[u8] = b"index.html";

/// The files. Whoever waits for them is a connection.
pub(crate) struct DiskFiles {
    pub(crate) store: Store<ConnId>,
    pub(crate) counters: Counters,
}

/// One of them.
#[derive(Clone)]
pub(crate) struct File(pub(crate) CachedFile);

impl exos_http::File for File {
    #[inline]
    fn number(&self) -> u64 {
        self.0.node().id().0
    }

    #[inline]
    fn size_bytes(&self) -> u64 {
        self.0.node().size_bytes()
    }

    #[inline]
    fn mtime_unix_seconds(&self) -> u64 {
        self.0.node().mtime_unix_seconds()
    }

    #[inline]
    fn media_type(&self) -> &[u8] {
        self.0.media_type().as_bytes()
    }
}

impl DiskFiles {
    pub(crate) fn new(store: Store<ConnId>) -> Self {
        Self { store, counters: Counters::new() }
    }

    /// Says in the log what is broken.
    #[cold]
    pub(crate) fn report(&mut self, path: &[u8], broken: Broken) {
        self.counters.files_broken += 1;
        log::error!("{}: {broken}", path.escape_ascii());
    }
}

impl Files for DiskFiles {
    type File = File;

    #[inline]
    fn lookup(&mut self, path: &[u8]) -> Lookup<File> {
        match self.store.lookup(path, INDEX) {
            Asked::Done(Some(Entry::File(file))) => Lookup::File(File(file)),
            Asked::Done(Some(Entry::Directory { index })) => Lookup::Directory { index: index.map(File) },
            Asked::Done(None) if path == counters::PATH => Lookup::Generated {
                media_type: b"application/json",
                content: self.counters.page(self.store.counters()),
            },
            Asked::Done(None) => Lookup::NotFound,
            Asked::Wait(ticket) => Lookup::Pending(pending(ticket)),
            Asked::Broken(broken) => {
                self.report(path, broken);
                Lookup::Broken
            }
        }
    }

    #[inline]
    fn begin(&mut self, file: &File) -> Begin {
        match self.store.begin(&file.0) {
            Asked::Done(()) => Begin::Ready,
            Asked::Wait(ticket) => Begin::Pending(pending(ticket)),
            Asked::Broken(broken) => {
                self.report(file.0.path(), broken);
                Begin::Broken
            }
        }
    }
}

fn pending(ticket: Ticket) -> exos_http::Ticket {
    exos_http::Ticket(ticket.to_number())
}
