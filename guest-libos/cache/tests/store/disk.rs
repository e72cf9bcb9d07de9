//! A volume in memory, a disk that does what a test wants, and readers of files that wait like connections do.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::path::Path;

use exos_cache::{
    Asked, Broken, CachedFile, Config, Entry, FRAME_BYTES, Next, Read, ReadError, Slice, Store, Stream,
};
use exos_fs::{BLOCK_BYTES, Volume};

/// A volume's bytes.
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
}

impl Image {
    /// A volume with these files.
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Image {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        std::fs::create_dir(&root).unwrap();
        for (name, content) in files {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Image::of(&root, &directory.path().join("image"))
    }

    fn of(root: &Path, image: &Path) -> Image {
        let plan = exos_fs::make::Plan::scan(root).unwrap();
        plan.write(image, &exos_fs::make::Options::default(), &mut |_| {}).unwrap();
        Image { bytes: std::fs::read(image).unwrap() }
    }

    pub(crate) fn blocks(&self) -> u64 {
        (self.bytes.len() / BLOCK_BYTES) as u64
    }

    /// A store of it. Whoever waits is a number.
    pub(crate) fn store(&self, max_frames: usize) -> Store<usize> {
        let volume = Volume::open(self.bytes.first_chunk().unwrap(), 0, self.blocks()).unwrap();
        Store::new(volume, &Config { max_frames, names: 64, seed: 1, device_blocks: self.blocks() })
    }

    /// The block where these bytes begin, which are there once.
    pub(crate) fn block_of(&self, bytes: &[u8]) -> u64 {
        let found: Vec<_> = self
            .bytes
            .chunks(BLOCK_BYTES)
            .enumerate()
            .filter(|(_, block)| block.starts_with(bytes))
            .collect();
        assert_eq!(found.len(), 1, "the content is there once");
        found[0].0 as u64
    }

    /// Changes a byte of a block.
    pub(crate) fn damage(&mut self, block: u64) {
        self.bytes[block as usize * BLOCK_BYTES + 1_000] ^= 0x10;
    }
}

/// Bytes that tell where they belong.
pub(crate) fn content(seed: u8, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64)
        .map(|word| (word << 8 | u64::from(seed)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes: Vec<u8> = words.flat_map(|word| (word ^ word >> 29).to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// Reads on their way, and what is wrong with the disk.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) on_their_way: Vec<Read>,
    pub(crate) bad_blocks: BTreeSet<u64>,
    /// How often each block was read.
    pub(crate) times_read: HashMap<u64, usize>,
}

impl Disk {
    /// Takes what the store wants to be read.
    pub(crate) fn take(&mut self, store: &mut Store<usize>, max_frames: usize) {
        while let Some(read) = store.cache().next_read(max_frames) {
            self.on_their_way.push(read);
        }
    }

    /// Completes a read; gives who is to be woken.
    pub(crate) fn complete(&mut self, image: &Image, store: &mut Store<usize>, which: usize) -> Vec<usize> {
        let mut read = self.on_their_way.swap_remove(which);
        let mut block = read.first_block;
        let mut result = Ok(());
        for memory in &mut read.memory {
            assert!(memory.len() <= FRAME_BYTES && memory.len().is_multiple_of(BLOCK_BYTES));
            for part in memory.chunks_mut(BLOCK_BYTES) {
                if self.bad_blocks.contains(&block) {
                    result = Err(ReadError);
                }
                let at = block as usize * BLOCK_BYTES;
                part.copy_from_slice(&image.bytes[at..at + BLOCK_BYTES]);
                *self.times_read.entry(block).or_default() += 1;
                block += 1;
            }
        }
        let mut woken = Vec::new();
        store.cache().complete(read.id, read.memory, result, |waiter| woken.push(waiter));
        woken
    }
}

/// Somebody who wants a file.
pub(crate) struct Reader {
    pub(crate) path: String,
    stage: Stage,
    pub(crate) got: Vec<u8>,
    /// What is still in use.
    pub(crate) held: Vec<Slice>,
    pub(crate) waits: bool,
}

enum Stage {
    Lookup,
    Begin(CachedFile),
    Stream(Stream),
    Over(End),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    NotFound,
    All,
    Broken(Broken),
}

impl Reader {
    pub(crate) fn new(path: &str) -> Reader {
        Reader { path: path.into(), stage: Stage::Lookup, got: Vec::new(), held: Vec::new(), waits: false }
    }

    pub(crate) fn end(&self) -> Option<&End> {
        match &self.stage {
            Stage::Over(end) => Some(end),
            _ => None,
        }
    }

    /// Goes on until it has to wait, holds `max_held` slices, or is at the end.
    pub(crate) fn go_on(&mut self, number: usize, store: &mut Store<usize>, max_held: usize) {
        while !self.waits && self.end().is_none() && self.held.len() < max_held {
            let ticket = match &mut self.stage {
                Stage::Lookup => match store.lookup(self.path.as_bytes(), b"index.html") {
                    Asked::Done(Some(Entry::File(file) | Entry::Directory { index: Some(file) })) => {
                        self.stage = Stage::Begin(file);
                        continue;
                    }
                    Asked::Done(_) => {
                        self.stage = Stage::Over(End::NotFound);
                        continue;
                    }
                    Asked::Wait(ticket) => ticket,
                    Asked::Broken(broken) => {
                        self.stage = Stage::Over(End::Broken(broken));
                        continue;
                    }
                },
                Stage::Begin(file) => match store.begin(file) {
                    Asked::Done(()) => {
                        self.stage = Stage::Stream(Stream::new(file.clone()));
                        continue;
                    }
                    Asked::Wait(ticket) => ticket,
                    Asked::Broken(broken) => {
                        self.stage = Stage::Over(End::Broken(broken));
                        continue;
                    }
                },
                Stage::Stream(stream) => match stream.next(store) {
                    Next::Slice(slice) => {
                        self.got.extend_from_slice(slice.bytes());
                        self.held.push(slice);
                        continue;
                    }
                    Next::End => {
                        self.stage = Stage::Over(End::All);
                        continue;
                    }
                    Next::Wait(ticket) => ticket,
                    Next::Broken(broken) => {
                        self.stage = Stage::Over(End::Broken(broken));
                        continue;
                    }
                },
                Stage::Over(_) => return,
            };
            self.waits = store.cache().wait(ticket, number).is_ok();
        }
    }
}

/// Runs readers to their ends, with a disk that completes reads first come, first served.
pub(crate) fn run(image: &Image, disk: &mut Disk, store: &mut Store<usize>, readers: &mut [Reader]) {
    while readers.iter().any(|reader| reader.end().is_none()) {
        for (number, reader) in readers.iter_mut().enumerate() {
            reader.held.clear();
            reader.go_on(number, store, 16);
        }
        store.cache().forget_failures();
        disk.take(store, 16);
        let mut woken = Vec::new();
        while !disk.on_their_way.is_empty() {
            woken.extend(disk.complete(image, store, 0));
        }
        store.cache().tell_room_waiters(|waiter| woken.push(waiter));
        for number in woken {
            readers[number].waits = false;
        }
    }
}

/// Reads one file.
pub(crate) fn read(image: &Image, disk: &mut Disk, store: &mut Store<usize>, path: &str) -> (End, Vec<u8>) {
    let mut readers = [Reader::new(path)];
    run(image, disk, store, &mut readers);
    let [reader] = readers;
    (reader.end().unwrap().clone(), reader.got)
}
