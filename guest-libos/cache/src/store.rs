//! Files by path, on a volume, through the cache: every block is checked when it is first looked at after it arrived, as
//! what it should be, and once. A question has one of three answers: it, a ticket to wait for, or what is broken.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;

use exos_fs::{BLOCK_BYTES, Block, Blocks, FsError, Need, Node, Step, Volume, check_data};

use crate::cache::{Cache, CheckedAs, Count, Residence, Ticket, Wanted};
use crate::counters::Counters;
use crate::frame::{FRAME_BLOCKS, Slice};
use crate::names::Names;

/// So much of a file is there and checked before its header goes out: what is broken in it becomes an error status.
pub const BEGIN_BYTES: u64 = 64 << 10;

/// How large a store is.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Frames at most.
    pub max_frames: usize,
    /// Paths that are remembered, about.
    pub names: usize,
    /// A secret.
    pub seed: u64,
    /// Blocks of the disk.
    pub device_blocks: u64,
}

/// The answer to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Asked<T> {
    /// The answer.
    Done(T),
    /// Not yet; ask again when the ticket has completed.
    Wait(Ticket),
    /// There is none.
    Broken(Broken),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A block is not what it should be.
    Corrupt(FsError),
    /// The disk cannot read a block.
    Unreadable {
        /// Its number.
        block: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Corrupt(error) => error.fmt(f),
            Broken::Unreadable { block } => {
                write!(f, "block {block} cannot be read: the disk reports an error")
            }
        }
    }
}

/// What a path names.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A file, and the path had no slash at its end.
    File(CachedFile),
    /// A directory; its index page was looked for if the path had a slash at its end.
    Directory {
        /// The file that is served for the directory.
        index: Option<CachedFile>,
    },
}

/// A file that was looked up. A clone is the same file.
#[derive(Clone, Debug)]
pub struct CachedFile(Rc<FileState>);

#[derive(Debug)]
struct FileState {
    node: Node,
    path: Box<[u8]>,
    media_type: &'static str,
    /// Where the whole of a small file lay when it was last looked for, checked.
    whole: Cell<Option<Whole>>,
}

#[derive(Clone, Copy, Debug)]
struct Whole {
    at: Residence,
    block: u64,
}

impl CachedFile {
    fn new(node: Node, path: &[u8]) -> CachedFile {
        CachedFile(Rc::new(FileState {
            node,
            path: path.into(),
            media_type: node.media_type(),
            whole: Cell::new(None),
        }))
    }

    /// The file as the volume has it.
    #[inline]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    /// The value for a `Content-Type` field.
    #[inline]
    pub fn media_type(&self) -> &'static str {
        self.0.media_type
    }

    /// The path by which it was looked up, for messages.
    pub fn path(&self) -> &[u8] {
        &self.0.path
    }
}

/// A volume, and what of it is in memory.
#[derive(Debug)]
pub struct Store<W> {
    volume: Volume,
    cache: Cache<W>,
    names: Names<Entry>,
}

/// The cache as the volume's reader sees it.
struct View<'c, W>(&'c Cache<W>, Count);

impl<W> Blocks for View<'_, W> {
    fn block(&self, number: u64) -> Option<&Block> {
        self.0.metadata(number, self.1)
    }
}

impl<W> Store<W> {
    /// A store with nothing in memory.
    pub fn new(volume: Volume, config: &Config) -> Store<W> {
        Store {
            volume,
            cache: Cache::new(config.max_frames, config.device_blocks),
            names: Names::new(config.names, config.seed),
        }
    }

    /// The volume.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The frames: reads to be done, and who waits.
    pub fn cache(&mut self) -> &mut Cache<W> {
        &mut self.cache
    }

    /// What has been done so far.
    pub fn counters(&self) -> &Counters {
        self.cache.counters()
    }

    /// What `path` names. It is absolute and normalised. Where `index` is a name, a directory's path with a slash at its
    /// end is answered with the file of that name in it.
    #[inline]
    pub fn lookup(&mut self, path: &[u8], index: &[u8]) -> Asked<Option<Entry>> {
        if let Some(entry) = self.names.get(path) {
            self.cache.counters.name_hits += 1;
            return Asked::Done(Some(entry.clone()));
        }
        self.lookup_in_directories(path, index)
    }

    fn lookup_in_directories(&mut self, path: &[u8], index: &[u8]) -> Asked<Option<Entry>> {
        let found = self.ask(Count::AsUse, |volume, blocks| volume.lookup(blocks, path));
        let node = match found {
            Asked::Done(Some(node)) => node,
            Asked::Done(None) => {
                self.cache.counters.name_misses += 1;
                return Asked::Done(None);
            }
            Asked::Wait(ticket) => return Asked::Wait(ticket),
            Asked::Broken(broken) => return Asked::Broken(broken),
        };
        let entry = if node.is_file() {
            Entry::File(CachedFile::new(node, path))
        } else if path.ends_with(b"/") {
            let found = self.ask(Count::AsUse, |volume, blocks| volume.lookup_in(blocks, &node, index));
            match found {
                Asked::Done(page) => Entry::Directory {
                    index: page.filter(Node::is_file).map(|page| CachedFile::new(page, path)),
                },
                Asked::Wait(ticket) => return Asked::Wait(ticket),
                Asked::Broken(broken) => return Asked::Broken(broken),
            }
        } else {
            Entry::Directory { index: None }
        };
        self.cache.counters.name_misses += 1;
        self.names.insert(path, entry.clone());
        Asked::Done(Some(entry))
    }

    /// Asks the volume until it has an answer or something is missing that is not in memory.
    fn ask<T>(
        &mut self,
        count: Count,
        question: impl Fn(&Volume, &View<'_, W>) -> Result<Step<T>, FsError>,
    ) -> Asked<T> {
        loop {
            let need = match question(&self.volume, &View(&self.cache, count)) {
                Ok(Step::Done(answer)) => return Asked::Done(answer),
                Ok(Step::Need(need)) => need,
                Err(error) => return Asked::Broken(Broken::Corrupt(error)),
            };
            // Each time round, blocks are there that were not before: the question comes to an end.
            match self.fetch(need) {
                Asked::Done(()) => {}
                Asked::Wait(ticket) => return Asked::Wait(ticket),
                Asked::Broken(broken) => return Asked::Broken(broken),
            }
        }
    }

    /// Has blocks of metadata in memory, checked.
    fn fetch(&mut self, need: Need) -> Asked<()> {
        for block in need.metadata_blocks() {
            let at = match self.cache.want(block) {
                Wanted::Resident(at) => at,
                Wanted::Pending(ticket) => return Asked::Wait(ticket),
                Wanted::Failed => return Asked::Broken(Broken::Unreadable { block }),
            };
            let Some(content) = self.cache.content(at, block) else {
                return Asked::Broken(Broken::Unreadable { block });
            };
            if let Err(error) = self.volume.check(need.kind, block, content) {
                self.cache.counters.bad_blocks += 1;
                self.cache.distrust(at);
                return Asked::Broken(Broken::Corrupt(error));
            }
            self.cache.set_checked(at, block, CheckedAs::Metadata);
        }
        Asked::Done(())
    }

    /// Whether the beginning of a file is there and checked: its first [`BEGIN_BYTES`], so that a small file is whole.
    #[inline]
    pub fn begin(&mut self, file: &CachedFile) -> Asked<()> {
        if self.whole(file).is_some() {
            return Asked::Done(());
        }
        let end = file.node().size_bytes().min(BEGIN_BYTES);
        let mut offset = 0;
        while offset < end {
            match self.find(file, offset) {
                Asked::Done(found) => offset += found.len as u64,
                Asked::Wait(ticket) => return Asked::Wait(ticket),
                Asked::Broken(broken) => return Asked::Broken(broken),
            }
        }
        Asked::Done(())
    }

    /// A reference to bytes of a file from `offset` on: as many as lie together in one frame, at least one. The offset is
    /// before the file's end.
    #[inline]
    pub fn slice(&mut self, file: &CachedFile, offset: u64) -> Asked<Slice> {
        if offset == 0
            && let Some(whole) = self.whole(file)
            && let Some(slice) = self.cache.slice(whole.at, whole.block, 0, file.node().size_bytes() as usize)
        {
            return Asked::Done(slice);
        }
        match self.find(file, offset) {
            Asked::Done(found) => match self.cache.slice(found.at, found.block, found.start, found.len) {
                Some(slice) => Asked::Done(slice),
                None => Asked::Broken(Broken::Unreadable { block: found.block }),
            },
            Asked::Wait(ticket) => Asked::Wait(ticket),
            Asked::Broken(broken) => Asked::Broken(broken),
        }
    }

    #[inline]
    fn whole(&self, file: &CachedFile) -> Option<Whole> {
        file.0.whole.get().filter(|whole| self.cache.content(whole.at, whole.block).is_some())
    }

    /// Where bytes of a file lie in the cache, checked.
    fn find(&mut self, file: &CachedFile, offset: u64) -> Asked<Found> {
        let node = file.node();
        let file_block = offset / BLOCK_BYTES as u64;
        let start = (offset % BLOCK_BYTES as u64) as usize;
        loop {
            let view = View(&self.cache, Count::No);
            let run = match self.volume.data_run(&view, node, file_block) {
                Ok(Step::Done(run)) => run,
                Ok(Step::Need(need)) => match self.fetch(need) {
                    Asked::Done(()) => continue,
                    Asked::Wait(ticket) => return Asked::Wait(ticket),
                    Asked::Broken(broken) => return Asked::Broken(broken),
                },
                Err(error) => return Asked::Broken(Broken::Corrupt(error)),
            };
            let block = run.first_block;
            let Some(at) = self.cache.residence(block) else {
                match self.cache.want(block) {
                    Wanted::Pending(ticket) => return Asked::Wait(ticket),
                    Wanted::Failed | Wanted::Resident(_) => {
                        return Asked::Broken(Broken::Unreadable { block });
                    }
                }
            };
            let blocks = u64::from(run.blocks).min(FRAME_BLOCKS - block % FRAME_BLOCKS);
            for index in 0..blocks {
                let number = block + index;
                if self.cache.is_checked(at, number, CheckedAs::Data) {
                    continue;
                }
                let checksum = run.checksum(index as u32);
                let checked = match (checksum, self.cache.content(at, number)) {
                    (Some(checksum), Some(content)) => check_data(checksum, number, content),
                    _ => return Asked::Broken(Broken::Unreadable { block: number }),
                };
                match checked {
                    Ok(()) => self.cache.set_checked(at, number, CheckedAs::Data),
                    Err(error) => {
                        self.cache.counters.bad_blocks += 1;
                        self.cache.distrust(at);
                        return Asked::Broken(Broken::Corrupt(error));
                    }
                }
            }
            let left = node.size_bytes() - offset;
            let together = blocks * BLOCK_BYTES as u64 - start as u64;
            let len = together.min(left) as usize;
            if offset == 0 && len as u64 == node.size_bytes() {
                file.0.whole.set(Some(Whole { at, block }));
            }
            return Asked::Done(Found { at, block, start, len });
        }
    }

    /// Has reads begun for data of a file, from `offset` on, that nobody has asked for yet. Returns up to where.
    pub(crate) fn read_ahead(&mut self, file: &CachedFile, offset: u64, bytes: u64) -> u64 {
        let node = file.node();
        let end = offset.saturating_add(bytes).min(node.size_bytes());
        let mut file_block = offset / BLOCK_BYTES as u64;
        let end_block = end.div_ceil(BLOCK_BYTES as u64);
        while file_block < end_block {
            let (first, blocks) = match self.volume.data_run(&View(&self.cache, Count::No), node, file_block)
            {
                Ok(Step::Done(run)) => (run.first_block, u64::from(run.blocks)),
                // The checksums come first, the data lies directly behind.
                Ok(Step::Need(need)) => (need.first_block, u64::from(need.blocks + need.data_blocks_behind)),
                Err(_) => break,
            };
            let blocks = blocks.min(end_block - file_block).max(1);
            let mut block = first;
            while block < first + blocks {
                if !self.cache.want_ahead(block) {
                    return (file_block + (block - first)) * BLOCK_BYTES as u64;
                }
                block = (block / FRAME_BLOCKS + 1) * FRAME_BLOCKS;
            }
            file_block += blocks;
        }
        end
    }
}

struct Found {
    at: Residence,
    block: u64,
    start: usize,
    len: usize,
}
