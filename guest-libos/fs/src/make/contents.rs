//! Carries out a plan: copies the files into the image, with their checksums, and writes the metadata around them.

use std::io;
use std::iter::repeat_n;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::vec::Vec;

use super::error::bytes_of;
use super::plan::{PlannedDirectory, PlannedFile, file_blocks, is_striped, mtime};
use super::source::Source;
use super::target::Target;
use super::writer::Writer;
use super::{Made, MakeError, Options, Plan, Progress, Stage};
use crate::format::superblock::{FREE_MAP_BITS, Superblock};
use crate::format::{
    self, BLOCK_BYTES, Block, Kind, MAX_ENTRY_CHECKSUMS, MAX_EXTENTS, NameHash, STRIPE_DATA_BLOCKS,
    blocks_for, directory, entry,
};
use crate::mime;
use crate::node::{Extent, FileKind, Node, Striped};
use crate::tree::{ScanError, Stamp};

impl Plan {
    /// Makes the image `target`, which is replaced if it exists. Calls `progress` a few times for each megabyte.
    pub fn write(
        &self,
        target: impl AsRef<Path>,
        options: &Options,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Made, MakeError> {
        let path = target.as_ref();
        let shape = self.shape(options.size_bytes)?;
        let image_bytes = bytes_of(shape.total_blocks);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                MakeError::NoRoom { path: path.to_path_buf(), image_bytes, source }
            }
            io::ErrorKind::FileTooLarge => {
                MakeError::TooLargeForHost { path: path.to_path_buf(), image_bytes, source }
            }
            _ => MakeError::Unwritable { path: path.to_path_buf(), source },
        };
        let target = Target::create(path)
            .map_err(failed)?
            .ok_or_else(|| MakeError::NotAFile { path: path.to_path_buf() })?;
        target.file().set_len(image_bytes).map_err(failed)?;
        let uuid = match options.uuid {
            Some(uuid) => uuid,
            None => random_uuid().map_err(failed)?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let made_unix_seconds = options.made_unix_seconds.unwrap_or(now);
        let mut work = Work {
            plan: self,
            shape,
            key: format::key_of(&uuid),
            hole_checksum: format::data_checksum(&[0; BLOCK_BYTES]),
            writer: Writer::new(target.file(), shape.first_content_block()),
            done_bytes: 0,
            progress,
        };
        for number in 0..self.directories.len() {
            work.directory(number).map_err(|error| match error {
                WorkError::Image(source) => failed(source),
                WorkError::Source(error) => error,
            })?;
        }
        work.free_map().and_then(|()| work.superblocks(uuid, made_unix_seconds)).map_err(failed)?;
        work.report(Stage::Syncing);
        target.commit().map_err(failed)?;
        Ok(Made {
            files: self.file_count(),
            directories: self.directory_count(),
            file_bytes: self.file_bytes(),
            image_bytes,
            uuid,
        })
    }

    /// The size of the image that [`write`](Plan::write) makes when none is asked for.
    pub fn image_bytes(&self) -> u64 {
        bytes_of(self.least_blocks())
    }

    fn least_blocks(&self) -> u64 {
        // The superblocks and the contents, then a free map for those and itself.
        let others = 2 + self.content_blocks;
        let mut map_blocks = 1;
        while (others + map_blocks).div_ceil(FREE_MAP_BITS) > map_blocks {
            map_blocks += 1;
        }
        others + map_blocks
    }

    fn shape(&self, size_bytes: Option<u64>) -> Result<Shape, MakeError> {
        let least = self.least_blocks();
        let Some(given_bytes) = size_bytes else {
            return Ok(Shape { total_blocks: least, ..Shape::of(least) });
        };
        let shape = Shape::of(given_bytes / BLOCK_BYTES as u64);
        let needed = 2 + self.content_blocks + shape.free_map_blocks;
        match shape.total_blocks >= needed && given_bytes < 1 << 62 {
            true => Ok(shape),
            false => Err(MakeError::TooSmall { needed_bytes: bytes_of(least), given_bytes }),
        }
    }
}

/// A random UUID, version 4 (RFC 9562 5.4).
fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid[..], rustix::rand::GetRandomFlags::empty())?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

/// How the volume is divided.
#[derive(Clone, Copy)]
struct Shape {
    total_blocks: u64,
    free_map_blocks: u64,
}

impl Shape {
    fn of(total_blocks: u64) -> Shape {
        Shape { total_blocks, free_map_blocks: total_blocks.div_ceil(FREE_MAP_BITS) }
    }

    fn first_content_block(&self) -> u64 {
        1 + self.free_map_blocks
    }
}

/// Where an error comes from.
enum WorkError {
    Image(io::Error),
    Source(MakeError),
}

impl From<io::Error> for WorkError {
    fn from(error: io::Error) -> WorkError {
        WorkError::Image(error)
    }
}

struct Work<'a> {
    plan: &'a Plan,
    shape: Shape,
    key: u64,
    /// Of a block of zeros.
    hole_checksum: u64,
    writer: Writer<'a>,
    done_bytes: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl Work<'_> {
    /// Writes a directory and the files in it. The buckets come first and are written last: they hold checksums.
    fn directory(&mut self, number: usize) -> Result<(), WorkError> {
        let plan = self.plan;
        let planned = &plan.directories[number];
        let mut buckets = Buckets::new(planned);
        self.writer.leave(planned.table.bucket_count)?;
        for file in &planned.files {
            let node = self.file(planned, file)?;
            buckets.add(file.name.as_bytes(), &node);
        }
        for &number in &planned.directories {
            let directory = &plan.directories[number];
            let name = directory.relative.file_name().unwrap_or_default();
            buckets.add(name.as_bytes(), &self.directory_node(directory));
        }
        for (place, mut block) in (self.block_at(planned.place)..).zip(buckets.finish(planned)) {
            seal(self.key, Kind::Directory, place, &mut block);
            self.writer.put(place, &block)?;
        }
        Ok(())
    }

    /// Copies a file, and returns what its directory has to say about it.
    fn file(&mut self, directory: &PlannedDirectory, planned: &PlannedFile) -> Result<Node, WorkError> {
        let path = || self.plan.root.join(&directory.relative).join(&planned.name);
        let unreadable = |source| WorkError::Source(ScanError::Unreadable { path: path(), source }.into());
        let mut source = Source::open(&path()).map_err(unreadable)?;
        let size_bytes = planned.stamp.size_bytes;
        let mut node = self.node(planned.id, FileKind::File, &planned.stamp);
        node.media_type = mime::number_of(planned.name.as_bytes());
        node.size_bytes = size_bytes;
        let data_blocks = blocks_for(size_bytes);
        self.set_extent(&mut node, planned.place, file_blocks(size_bytes));
        let done_before = self.done_bytes;
        if is_striped(data_blocks) {
            node.striped = Striped::Yes;
            let mut left = data_blocks;
            let mut stripe_block = self.block_at(planned.place);
            while left > 0 {
                let blocks = left.min(STRIPE_DATA_BLOCKS);
                let bytes = bytes_of(blocks).min(size_bytes - source.at_bytes());
                if source.skip_hole(bytes) {
                    let checksums = self.writer.next(1)?;
                    let zeros = repeat_n(self.hole_checksum, blocks as usize);
                    seal_checksums(self.key, stripe_block, checksums, zeros);
                    self.writer.skip(blocks)?;
                } else {
                    let stripe = self.writer.next(blocks as usize + 1)?;
                    let (checksums, data) = stripe.split_at_mut(BLOCK_BYTES);
                    source.read(&mut data[..bytes as usize]).map_err(unreadable)?;
                    seal_checksums(self.key, stripe_block, checksums, checksums_of(data));
                }
                self.done_bytes = done_before + source.at_bytes();
                self.report(Stage::Copying);
                left -= blocks;
                stripe_block += blocks + 1;
            }
        } else {
            node.checksum_count = data_blocks as u8;
            let data = self.writer.next(data_blocks as usize)?;
            source.read(&mut data[..size_bytes as usize]).map_err(unreadable)?;
            node.checksums.iter_mut().zip(checksums_of(data)).for_each(|(to, from)| *to = from);
            self.done_bytes = done_before + source.at_bytes();
            self.report(Stage::Copying);
        }
        // The stamp is taken after reading: a change while the file was read shows, too.
        let now = source.stamp().map_err(unreadable)?;
        let read_bytes = source.at_bytes();
        if read_bytes != size_bytes || now != planned.stamp {
            let found_bytes = if now.size_bytes == size_bytes { read_bytes } else { now.size_bytes };
            let error = MakeError::FileChanged { path: path(), scanned_bytes: size_bytes, found_bytes };
            return Err(WorkError::Source(error));
        }
        Ok(node)
    }

    fn free_map(&mut self) -> io::Result<()> {
        self.writer.flush()?;
        let total_blocks = self.shape.total_blocks;
        let content_end = self.block_at(self.plan.content_blocks);
        let is_used = |block: u64| block < content_end || block == total_blocks - 1;
        for number in 0..self.shape.free_map_blocks {
            let mut block = [0; BLOCK_BYTES];
            let first = number * FREE_MAP_BITS;
            block[8..16].copy_from_slice(&first.to_le_bytes());
            for (byte, bits) in (first..).step_by(8).zip(&mut block[16..]) {
                *bits = (0..8).filter(|bit| is_used(byte + bit)).fold(0, |bits, bit| bits | 1 << bit);
            }
            seal(self.key, Kind::FreeMap, 1 + number, &mut block);
            self.writer.put(1 + number, &block)?;
        }
        Ok(())
    }

    fn superblocks(&mut self, uuid: [u8; 16], made_unix_seconds: u64) -> io::Result<()> {
        let superblock = Superblock {
            incompatible: 0,
            read_only_compatible: 0,
            compatible: 0,
            uuid,
            total_blocks: self.shape.total_blocks,
            generation: 1,
            made_unix_seconds,
            free_map_first_block: 1,
            free_map_blocks: self.shape.free_map_blocks,
            free_blocks: self.shape.total_blocks - 1 - self.block_at(self.plan.content_blocks),
            files: self.plan.file_count(),
            directories: self.plan.directory_count(),
            next_id: self.plan.next_id,
            root: self.directory_node(&self.plan.directories[0]),
        };
        for number in [self.shape.total_blocks - 1, 0] {
            self.writer.put(number, &superblock.encode(number))?;
        }
        Ok(())
    }

    fn directory_node(&self, planned: &PlannedDirectory) -> Node {
        let mut node = self.node(planned.id, FileKind::Directory, &planned.stamp);
        node.hash_seed = planned.table.hash_seed;
        node.size_bytes = bytes_of(planned.table.bucket_count.into());
        self.set_extent(&mut node, planned.place, planned.table.bucket_count.into());
        node
    }

    fn node(&self, id: u64, kind: FileKind, stamp: &Stamp) -> Node {
        let (mtime_unix_seconds, mtime_nanoseconds) = mtime(stamp);
        Node {
            id,
            kind,
            striped: Striped::No,
            media_type: 0,
            mtime_nanoseconds,
            mtime_unix_seconds,
            size_bytes: 0,
            hash_seed: 0,
            extent_count: 0,
            checksum_count: 0,
            extents: [Extent::default(); MAX_EXTENTS],
            checksums: [0; MAX_ENTRY_CHECKSUMS],
        }
    }

    /// Gives a node its blocks; none, where it has no content. The plan holds that they fit.
    fn set_extent(&self, node: &mut Node, place: u64, blocks: u64) {
        if blocks > 0 {
            node.extent_count = 1;
            node.extents[0] = Extent { first_block: self.block_at(place), blocks: blocks as u32 };
        }
    }

    /// The number of the block at a place of the plan.
    fn block_at(&self, place: u64) -> u64 {
        self.shape.first_content_block() + place
    }

    fn report(&mut self, stage: Stage) {
        (self.progress)(Progress { done_bytes: self.done_bytes, total_bytes: self.plan.file_bytes(), stage });
    }
}

/// The buckets of a directory while its entries come.
struct Buckets {
    table: super::buckets::Table,
    entries: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Buckets {
    fn new(planned: &PlannedDirectory) -> Buckets {
        let mut entries = Vec::new();
        entries.resize_with(planned.table.bucket_count as usize, Vec::new);
        Buckets { table: planned.table, entries }
    }

    fn add(&mut self, name: &[u8], node: &Node) {
        let hash = NameHash::of(name, self.table.hash_seed);
        let mut bytes = Vec::new();
        entry::encode(node, name, hash.tag(), &mut bytes);
        self.entries[hash.bucket(self.table.bucket_count) as usize].push((name.to_vec(), bytes));
    }

    /// The blocks, but for their checksums.
    fn finish(self, planned: &PlannedDirectory) -> impl Iterator<Item = Block> {
        let (id, table) = (planned.id, planned.table);
        self.entries.into_iter().enumerate().map(move |(number, mut entries)| {
            entries.sort_unstable();
            let mut block = [0; BLOCK_BYTES];
            let mut used = directory::HEADER_BYTES;
            for (_, bytes) in &entries {
                // The table was chosen so that they fit.
                block[used..used + bytes.len()].copy_from_slice(bytes);
                used += bytes.len();
            }
            let (count, used) = (entries.len() as u16, used as u16);
            directory::encode_header(&mut block, id, number as u32, table.bucket_count, count, used);
            block
        })
    }
}

fn checksums_of(data: &[u8]) -> impl Iterator<Item = u64> {
    data.as_chunks().0.iter().map(format::data_checksum)
}

/// Writes the block of checksums that a stripe begins with.
fn seal_checksums(key: u64, number: u64, block: &mut [u8], checksums: impl Iterator<Item = u64>) {
    for (place, checksum) in block[8..].chunks_exact_mut(8).zip(checksums) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    if let Some(block) = block.first_chunk_mut() {
        seal(key, Kind::Checksums, number, block);
    }
}

/// Writes the checksum of a metadata block into it.
fn seal(key: u64, kind: Kind, number: u64, block: &mut Block) {
    let checksum = format::metadata_checksum(key, kind, number, block);
    block[..8].copy_from_slice(&checksum.to_le_bytes());
}
