//! The walk over all directories and files, and what is compared when it is over: counts and the free map.

use std::collections::HashSet;
use std::format;
use std::io;
use std::vec::Vec;

use super::blocks::{Claims, runs};
use super::{Depth, Disk, Report};
use crate::error::FsError;
use crate::format::directory::{Bucket, HEADER_BYTES};
use crate::format::superblock::{FREE_MAP_BITS, Superblock};
use crate::format::{
    self, BLOCK_BYTES, Block, Kind, NameHash, STRIPE_BLOCKS, STRIPE_DATA_BLOCKS, block_u64, entry, u16_at,
    u32_at, u64_at,
};
use crate::node::{Node, Striped};

/// Data is read in pieces of this.
const PIECE_BLOCKS: u64 = STRIPE_BLOCKS;

pub(super) struct Walk<'a> {
    disk: Disk<'a>,
    superblock: Superblock,
    key: u64,
    depth: Depth,
    claims: Claims,
    ids: HashSet<u64>,
    report: &'a mut Report,
    progress: &'a mut dyn FnMut(u64, u64),
    piece: Vec<u8>,
    /// Whether every directory could be read, so that blocks without an owner have none.
    complete: bool,
}

/// A directory that is still to be read.
struct Directory {
    node: Node,
    path: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        disk: Disk<'a>,
        superblock: Superblock,
        depth: Depth,
        claims: Claims,
        report: &'a mut Report,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Walk<'a> {
        Walk {
            disk,
            key: format::key_of(&superblock.uuid),
            superblock,
            depth,
            claims,
            ids: HashSet::new(),
            report,
            progress,
            piece: std::vec![0; PIECE_BLOCKS as usize * BLOCK_BYTES],
            complete: true,
        }
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let superblock = self.superblock;
        for number in [0, superblock.total_blocks - 1] {
            self.claims.claim(number, 1);
        }
        self.count(2);
        if let Some(block) = self.claims.claim(superblock.free_map_first_block, superblock.free_map_blocks) {
            self.report.add(Some(block), None, "the free map lies where something else is");
        }
        let root = superblock.root;
        self.claim(&root, b"/");
        self.ids.insert(root.id);
        self.report.directories = 1;
        let mut waiting = Vec::from([Directory { node: root, path: b"/".to_vec() }]);
        while let Some(directory) = waiting.pop() {
            self.directory(&directory, &mut waiting)?;
        }
        self.counts();
        self.free_map()
    }

    /// Reads a directory, checks the files in it, and puts the directories in it on `waiting`.
    fn directory(&mut self, directory: &Directory, waiting: &mut Vec<Directory>) -> io::Result<()> {
        // A bucket a block: the entry was checked to be so.
        let bucket_count = directory.node.data_blocks() as u32;
        let mut entries = Vec::new();
        for number in 0..bucket_count {
            let Some(place) = directory.node.place(number.into()) else { continue };
            if let Err(error) = self.bucket(directory, place.block, number, bucket_count, &mut entries)? {
                self.complete = false;
                self.report.add_error(Some(&directory.path), error);
            }
        }
        // As they lie on disk.
        entries.sort_unstable_by_key(|(node, _): &(Node, _)| node.extents[0].first_block);
        for (node, path) in entries {
            let is_free = self.claim(&node, &path);
            match node.is_directory() {
                true => {
                    self.report.directories += 1;
                    // One whose blocks are somebody else's has been reported; following it could go round in circles.
                    match is_free {
                        true => waiting.push(Directory { node, path }),
                        false => self.complete = false,
                    }
                }
                false => {
                    self.report.files += 1;
                    self.file(&node, &path)?;
                }
            }
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        directory: &Directory,
        place: u64,
        number: u32,
        bucket_count: u32,
        entries: &mut Vec<(Node, Vec<u8>)>,
    ) -> io::Result<Result<(), FsError>> {
        let block = match self.metadata(Kind::Directory, place)? {
            Ok(block) => block,
            Err(error) => return Ok(Err(error)),
        };
        Ok(self
            .bucket_entries(directory, place, &block, number, bucket_count, entries)
            .map_err(|what| FsError::Corrupt { block: place, what }))
    }

    fn bucket_entries(
        &mut self,
        directory: &Directory,
        place: u64,
        block: &Block,
        number: u32,
        bucket_count: u32,
        entries: &mut Vec<(Node, Vec<u8>)>,
    ) -> Result<(), &'static str> {
        let bucket = Bucket::parse(block, directory.node.id, number, bucket_count)?;
        let mut last_name: Option<&[u8]> = None;
        let mut used = HEADER_BYTES;
        for entry in bucket.entries() {
            let entry = entry?;
            let path = join(&directory.path, entry.name);
            let mut complain = |what| self.report.add(Some(place), Some(&path), what);
            used += usize::from(u16_at(block, used).unwrap_or_default());
            if !is_name(entry.name) {
                complain("no file can have this name");
            }
            let hash = NameHash::of(entry.name, directory.node.hash_seed);
            if hash.bucket(bucket_count) != number || hash.tag() != entry.tag {
                complain("a look-up of this name does not find it");
            }
            if last_name.is_some_and(|last| last >= entry.name) {
                complain("the names in its block are not in order, or one is there twice");
            }
            last_name = Some(entry.name);
            let node = match entry.node(self.superblock.total_blocks) {
                Ok(node) => node,
                Err(what) => {
                    complain(what);
                    self.complete = false;
                    continue;
                }
            };
            let mut again = Vec::new();
            entry::encode(&node, entry.name, entry.tag, &mut again);
            if self.superblock.compatible == 0
                && self.superblock.read_only_compatible == 0
                && again != entry.bytes
            {
                complain("reserved bytes of its entry are not zero");
            }
            if node.id >= self.superblock.next_id {
                complain("its id is one that has not been given yet");
            }
            if !self.ids.insert(node.id) {
                complain("its id is that of another file");
            }
            entries.push((node, path));
        }
        let rest = block.get(used..).unwrap_or_default();
        if u32_at(block, 28) != Some(0) || rest.iter().any(|&byte| byte != 0) {
            return Err("its reserved or unused bytes are not zero");
        }
        Ok(())
    }

    /// Takes the blocks of a node into the account; whether nobody else had them.
    fn claim(&mut self, node: &Node, path: &[u8]) -> bool {
        let mut is_free = true;
        for extent in node.extents() {
            if let Some(block) = self.claims.claim(extent.first_block, extent.blocks.into()) {
                self.report.add(Some(block), Some(path), "it belongs to something else, too");
                is_free = false;
            }
        }
        is_free
    }

    /// Checks the checksum blocks and the data of a file.
    fn file(&mut self, node: &Node, path: &[u8]) -> io::Result<()> {
        let mut file_block = 0;
        while let Some(place) = node.place(file_block) {
            let checksums = match place.checksum_block {
                None => node.checksums().get(file_block as usize..).unwrap_or_default().to_vec(),
                Some(number) => match self.metadata(Kind::Checksums, number)? {
                    Ok(block) => self.stripe_checksums(&block, number, place.blocks, path),
                    Err(error) => {
                        self.report.add_error(Some(path), error);
                        file_block += place.blocks;
                        continue;
                    }
                },
            };
            if self.depth == Depth::Full {
                self.data(node, path, file_block, place.block, &checksums)?;
            }
            file_block += place.blocks;
        }
        debug_assert!(node.striped == Striped::Yes || file_block == node.data_blocks());
        Ok(())
    }

    fn stripe_checksums(&mut self, block: &Block, number: u64, data_blocks: u64, path: &[u8]) -> Vec<u64> {
        let all = (1..=STRIPE_DATA_BLOCKS as usize).map(|at| u64_at(block, 8 * at).unwrap_or_default());
        let mut checksums: Vec<u64> = all.collect();
        if checksums.drain(data_blocks as usize..).any(|checksum| checksum != 0) {
            self.report.add(Some(number), Some(path), "it has checksums for blocks that are not there");
        }
        checksums
    }

    /// Checks a run of data: the blocks from `file_block` on, which begin at `first_block`.
    fn data(
        &mut self,
        node: &Node,
        path: &[u8],
        file_block: u64,
        first_block: u64,
        checksums: &[u64],
    ) -> io::Result<()> {
        let bytes = checksums.len() * BLOCK_BYTES;
        let there = self.disk.read(first_block, &mut self.piece[..bytes])?;
        let mut missing = there..checksums.len();
        if let Some(at) = missing.next() {
            let (block, device_blocks) = (first_block + at as u64, self.disk.device_blocks);
            self.report.add_error(Some(path), FsError::Missing { block, device_blocks });
        }
        let blocks = self.piece[..there * BLOCK_BYTES].as_chunks().0;
        for (at, (block, checksum)) in blocks.iter().zip(checksums).enumerate() {
            let number = first_block + at as u64;
            if format::data_checksum(block) != *checksum {
                self.report.add_error(Some(path), FsError::BadData { block: number });
                continue;
            }
            let end_bytes = node.size_bytes - (file_block + at as u64) * BLOCK_BYTES as u64;
            let tail = usize::try_from(end_bytes).ok().and_then(|end| block.get(end..)).unwrap_or_default();
            if tail.iter().any(|&byte| byte != 0) {
                self.report.add(
                    Some(number),
                    Some(path),
                    "behind the end of the file are bytes that are not zero",
                );
            }
        }
        self.count(there as u64);
        Ok(())
    }

    /// Reads a block of metadata and checks its checksum.
    fn metadata(&mut self, kind: Kind, number: u64) -> io::Result<Result<Block, FsError>> {
        self.count(1);
        let block = match self.disk.block(number)? {
            Ok(block) => block,
            Err(error) => return Ok(Err(error)),
        };
        let is_good = block_u64::<0>(&block) == format::metadata_checksum(self.key, kind, number, &block);
        Ok(is_good.then_some(block).ok_or(FsError::BadMetadata { block: number, kind }))
    }

    fn counts(&mut self) {
        if !self.complete {
            return;
        }
        let (superblock, report) = (&self.superblock, &mut *self.report);
        let found = [
            ("files", superblock.files, report.files),
            ("directories", superblock.directories, report.directories),
            ("free blocks", superblock.free_blocks, self.claims.free_blocks()),
        ];
        for (what, said, found) in found.into_iter().filter(|(_, said, found)| said != found) {
            report.add(Some(0), None, format!("the superblock says {said} {what} and there are {found}"));
        }
    }

    fn free_map(&mut self) -> io::Result<()> {
        for number in 0..self.superblock.free_map_blocks {
            let place = self.superblock.free_map_first_block + number;
            let block = match self.metadata(Kind::FreeMap, place)? {
                Ok(block) => block,
                Err(error) => {
                    self.report.add_error(None, error);
                    continue;
                }
            };
            let first_block = number * FREE_MAP_BITS;
            if block_u64::<8>(&block) != first_block {
                self.report.add(Some(place), None, "it is another part of the free map");
                continue;
            }
            let (said, found) = (&block[16..], self.claims.map_block(number));
            let used_and_free = runs(found.iter().zip(said).map(|(found, said)| found & !said), first_block);
            let mut unowned = runs(said.iter().zip(found).map(|(said, found)| said & !found), first_block);
            if !self.complete {
                unowned.clear();
            }
            for (from, to) in used_and_free {
                let what =
                    format!("the free map says that blocks {from} to {} are free, and they are used", to - 1);
                self.report.add(Some(place), None, what);
            }
            for (from, to) in unowned {
                let what = format!(
                    "the free map says that blocks {from} to {} are used, and nothing is there",
                    to - 1
                );
                self.report.add(Some(place), None, what);
            }
        }
        Ok(())
    }

    fn count(&mut self, blocks: u64) {
        const EVERY_BLOCKS: u64 = 256;
        let before = self.report.checked_blocks;
        self.report.checked_blocks += blocks;
        if before / EVERY_BLOCKS != self.report.checked_blocks / EVERY_BLOCKS {
            let used_blocks = self.superblock.total_blocks - self.superblock.free_blocks;
            (self.progress)(self.report.checked_blocks, used_blocks);
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        b"/" => [b"/", name].concat(),
        _ => [directory, b"/", name].concat(),
    }
}
