//! The packed document root, as HTTP wants its files.

use exos_docroot::{Archive, FileRef};
use exos_http::{Begin, Files, Lookup};

/// The files of the archive that came with the image.
pub(crate) struct Docroot(pub(crate) Archive<'static>);

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct File(pub(crate) FileRef<'static>);

impl exos_http::File for File {
    fn number(&self) -> u64 {
        u64::from(self.0.number())
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn mtime_unix_seconds(&self) -> u64 {
        self.0.mtime_unix_seconds()
    }

    fn media_type(&self) -> &[u8] {
        self.0.media_type()
    }
}

impl Files for Docroot {
    type File = File;

    #[inline]
    fn lookup(&mut self, path: &[u8]) -> Lookup<File> {
        match self.0.lookup(path) {
            exos_docroot::Lookup::File(file) => Lookup::File(File(file)),
            exos_docroot::Lookup::Directory(directory) => {
                Lookup::Directory { index: directory.index().map(File) }
            }
            exos_docroot::Lookup::NotFound => Lookup::NotFound,
        }
    }

    #[inline]
    fn begin(&mut self, _: &File) -> Begin {
        Begin::Ready
    }
}
