//! A file from its first byte to its last, a slice at a time. As long as all of it is in memory nothing else happens; at
//! the first slice that is missing it begins to read ahead, so that the disk is busy while what came before is sent.

use crate::cache::Ticket;
use crate::frame::{FRAME_BYTES, Slice};
use crate::store::{Asked, Broken, CachedFile, Store};

/// Bytes to be read ahead when something is missing for the first time.
const FIRST_AHEAD_BYTES: u64 = 256 << 10;
/// Bytes to be read ahead after that.
const AHEAD_BYTES: u64 = 1 << 20;
/// The share of all frames that one stream may fill ahead of itself.
const AHEAD_SHARE: usize = 8;

/// Where a reader of a file is.
#[derive(Clone, Debug)]
pub struct Stream {
    file: CachedFile,
    offset: u64,
    /// Where reading ahead has got to; 0 as long as nothing was missing.
    ahead_until: u64,
}

/// What comes next.
#[derive(Debug)]
pub enum Next {
    /// These bytes.
    Slice(Slice),
    /// Nothing yet.
    Wait(Ticket),
    /// Nothing more: that was the end.
    End,
    /// Nothing more, though this was not the end.
    Broken(Broken),
}

impl Stream {
    /// At the beginning of a file.
    pub fn new(file: CachedFile) -> Stream {
        Stream { file, offset: 0, ahead_until: 0 }
    }

    /// The file.
    pub fn file(&self) -> &CachedFile {
        &self.file
    }

    /// Whether everything has been handed out.
    #[inline]
    pub fn is_at_end(&self) -> bool {
        self.offset >= self.file.node().size_bytes()
    }

    /// The next bytes.
    #[inline]
    pub fn next<W>(&mut self, store: &mut Store<W>) -> Next {
        if self.is_at_end() {
            return Next::End;
        }
        match store.slice(&self.file, self.offset) {
            Asked::Done(slice) => {
                self.offset += slice.len() as u64;
                if self.ahead_until != 0 {
                    self.keep_ahead(store);
                }
                Next::Slice(slice)
            }
            Asked::Wait(ticket) => {
                self.keep_ahead(store);
                Next::Wait(ticket)
            }
            Asked::Broken(broken) => Next::Broken(broken),
        }
    }

    #[cold]
    fn keep_ahead<W>(&mut self, store: &mut Store<W>) {
        let limit = (store.cache().max_frames() / AHEAD_SHARE).max(1) * FRAME_BYTES;
        let wanted = if self.ahead_until == 0 { FIRST_AHEAD_BYTES } else { AHEAD_BYTES }.min(limit as u64);
        if self.ahead_until < self.offset + wanted / 2 + 1 {
            let from = self.ahead_until.max(self.offset);
            let bytes = (self.offset + wanted).saturating_sub(from);
            self.ahead_until = store.read_ahead(&self.file, from, bytes).max(1);
        }
    }
}
