//! The HTTP server of the image `plain` on Linux's sockets: the same program, with the host's implementation of the traits. What is
//! measured beside the guest is the sockets, so both have the documents in memory and neither waits for small segments.

use crate::BenchError;
use edge_nal::{TcpAccept, TcpBind};
use edge_nal_std::{Stack, TcpAcceptor, TcpSocket};
use exos_plain::{Counters, File, Files, Unreadable, serve};
use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// Connections at a time; as many as may wait in the kernel besides.
const CONNECTIONS: usize = 10_000;

/// Serves the files of `docroot` at `address` until the process ends.
pub(crate) fn run_plain(docroot: &Path, address: SocketAddr) -> Result<Infallible, BenchError> {
    let files = Docroot { folder: docroot.to_owned(), read: RefCell::default() };
    let counters = Counters::default();
    async_io::block_on(serve(&NoDelay(Stack::new()), address, &files, &counters, CONNECTIONS))
        .map_err(|source| BenchError::system(format!("serve {address}"), source))
}

/// Files that are read once.
struct Docroot {
    folder: PathBuf,
    read: RefCell<HashMap<PathBuf, Rc<[u8]>>>,
}

impl Docroot {
    fn content(&self, path: &Path) -> Result<Option<Rc<[u8]>>, Unreadable> {
        if let Some(content) = self.read.borrow().get(path) {
            return Ok(Some(content.clone()));
        }
        match std::fs::read(self.folder.join(path)) {
            Ok(content) => {
                let content: Rc<[u8]> = content.into();
                self.read.borrow_mut().insert(path.to_owned(), content.clone());
                Ok(Some(content))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(_) => Err(Unreadable),
        }
    }
}

/// A file, all of which is one chunk.
struct Whole {
    size_bytes: u64,
    rest: Option<Rc<[u8]>>,
}

impl Files for Docroot {
    type File = Whole;

    async fn open(&self, path: &str) -> Result<Option<Whole>, Unreadable> {
        let path = Path::new(path.trim_start_matches('/'));
        if !path.components().all(|component| matches!(component, Component::Normal(_))) {
            return Ok(None);
        }
        let content = self.content(path)?;
        Ok(content.map(|content| Whole {
            size_bytes: content.len() as u64,
            rest: Some(content).filter(|content| !content.is_empty()),
        }))
    }
}

impl File for Whole {
    type Chunk = Rc<[u8]>;

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn media_type(&self) -> &str {
        "application/octet-stream"
    }

    async fn next(&mut self) -> Result<Option<Rc<[u8]>>, Unreadable> {
        Ok(self.rest.take())
    }
}

/// The host's sockets with TCP_NODELAY, as the guest's server has it.
struct NoDelay<T>(T);

impl TcpBind for NoDelay<Stack> {
    type Error = io::Error;
    type Accept<'a> = NoDelay<TcpAcceptor>;

    async fn bind(&self, local: SocketAddr) -> io::Result<NoDelay<TcpAcceptor>> {
        self.0.bind(local).await.map(NoDelay)
    }
}

impl TcpAccept for NoDelay<TcpAcceptor> {
    type Error = io::Error;
    type Socket<'a> = TcpSocket;

    async fn accept(&self) -> io::Result<(SocketAddr, TcpSocket)> {
        let (peer, socket) = self.0.accept().await?;
        socket.get_ref().set_nodelay(true)?;
        Ok((peer, socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_finds_files_of_the_folder_and_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("docroot")).unwrap();
        std::fs::write(folder.path().join("docroot/a"), "a text").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let files = Docroot { folder: folder.path().join("docroot"), read: RefCell::default() };
        let open = |path: &str| async_io::block_on(files.open(path)).unwrap().map(|file| file.size_bytes);
        assert_eq!(open("/a"), Some(6));
        assert_eq!(open("/b"), None);
        assert_eq!(open("/../secret"), None);
        // The second time it comes from memory.
        std::fs::remove_file(folder.path().join("docroot/a")).unwrap();
        assert_eq!(open("/a"), Some(6));
    }
}
