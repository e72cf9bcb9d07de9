//! What a volume will hold, and where: directories before their files, the files of one directory one behind the other,
//! so that what belongs together lies together.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::vec::Vec;

use xxhash_rust::xxh3::Xxh3Default;

use super::MakeError;
use super::buckets::{self, Table};
use crate::format::entry::entry_bytes;
use crate::format::{MAX_ENTRY_CHECKSUMS, MAX_MTIME_UNIX_SECONDS, ROOT_ID, STRIPE_DATA_BLOCKS, blocks_for};
use crate::tree::{self, Stamp, Tree, Warning};

/// What will be in a volume: the result of looking through a directory.
#[derive(Debug)]
pub struct Plan {
    pub(super) root: PathBuf,
    /// In the order in which they lie in the volume; the root is the first.
    pub(super) directories: Vec<PlannedDirectory>,
    /// Blocks of directories and files together.
    pub(super) content_blocks: u64,
    pub(super) next_id: u64,
    file_count: u64,
    file_bytes: u64,
    warnings: Vec<Warning>,
}

/// Places count from the first block behind the free map.
#[derive(Debug)]
pub(super) struct PlannedDirectory {
    pub(super) relative: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) id: u64,
    pub(super) place: u64,
    pub(super) table: Table,
    /// Sorted by name.
    pub(super) files: Vec<PlannedFile>,
    /// Numbers in [`Plan::directories`].
    pub(super) directories: Vec<usize>,
}

#[derive(Debug)]
pub(super) struct PlannedFile {
    pub(super) name: OsString,
    pub(super) stamp: Stamp,
    pub(super) id: u64,
    pub(super) place: u64,
}

/// The blocks that a file takes, with those for checksums.
pub(super) fn file_blocks(size_bytes: u64) -> u64 {
    let data_blocks = blocks_for(size_bytes);
    match is_striped(data_blocks) {
        true => data_blocks + data_blocks.div_ceil(STRIPE_DATA_BLOCKS),
        false => data_blocks,
    }
}

pub(super) fn is_striped(data_blocks: u64) -> bool {
    data_blocks > MAX_ENTRY_CHECKSUMS as u64
}

/// A time as the format can say it: one before 1970 or after 9999 is nothing that a client could be told.
pub(super) fn mtime(stamp: &Stamp) -> (u64, u32) {
    match u64::try_from(stamp.mtime_unix_seconds) {
        Ok(seconds) if seconds <= MAX_MTIME_UNIX_SECONDS => {
            (seconds, u32::try_from(stamp.mtime_nanoseconds).unwrap_or(0).min(999_999_999))
        }
        Ok(_) => (MAX_MTIME_UNIX_SECONDS, 0),
        Err(_) => (0, 0),
    }
}

impl Plan {
    /// Looks through `root` and everything below it, as [`tree::scan`] does.
    pub fn scan(root: impl AsRef<Path>) -> Result<Plan, MakeError> {
        let root = root.as_ref();
        Plan::lay_out(root, tree::scan(root)?)
    }

    /// How many files there are.
    pub fn file_count(&self) -> u64 {
        self.file_count
    }

    /// How many directories there are, with the root.
    pub fn directory_count(&self) -> u64 {
        self.directories.len() as u64
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// A number that changes when a file gets another name, size or time, or is another file, and when a file or directory
    /// comes or goes. The same files always give the same number, whatever their order on the host's disk.
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Xxh3Default::new();
        for directory in &self.directories {
            hash.update(&[DIRECTORY]);
            update_text(&mut hash, directory.relative.as_os_str());
            for PlannedFile { name, stamp, .. } in &directory.files {
                hash.update(&[FILE]);
                update_text(&mut hash, name);
                hash.update(&stamp.size_bytes.to_le_bytes());
                hash.update(&stamp.mtime_unix_seconds.to_le_bytes());
                hash.update(&stamp.mtime_nanoseconds.to_le_bytes());
                hash.update(&stamp.ctime_unix_seconds.to_le_bytes());
                hash.update(&stamp.ctime_nanoseconds.to_le_bytes());
                hash.update(&stamp.inode.to_le_bytes());
            }
        }
        hash.digest()
    }

    /// What was left out, and why. A caller shows this to its user.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    fn lay_out(root: &Path, tree: Tree) -> Result<Plan, MakeError> {
        let mut contents: Vec<Vec<usize>> = Vec::new();
        contents.resize_with(tree.nodes.len(), Vec::new);
        for (number, node) in tree.nodes.iter().enumerate().skip(1) {
            contents[node.parent].push(number);
        }
        let mut layout =
            Layout { root, tree: &tree, contents, place: 0, next_id: ROOT_ID, directories: Vec::new() };
        // Directories to be laid out, with the number of their parent in `directories`; the next is the last.
        let mut waiting = Vec::from([(0, None)]);
        while let Some((number, parent)) = waiting.pop() {
            let subdirectories = layout.add(number, parent)?;
            let parent = Some(layout.directories.len() - 1);
            waiting.extend(subdirectories.into_iter().rev().map(|number| (number, parent)));
        }
        let Layout { place: content_blocks, next_id, directories, .. } = layout;
        let files = directories.iter().flat_map(|directory| &directory.files);
        Ok(Plan {
            root: root.to_path_buf(),
            content_blocks,
            next_id,
            file_count: tree.file_count() as u64,
            file_bytes: files.map(|file| file.stamp.size_bytes).sum(),
            directories,
            warnings: tree.warnings,
        })
    }
}

/// What follows in the text that a fingerprint is of.
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;

/// The length goes first, so that the end of a name is not taken for what follows it.
fn update_text(hash: &mut Xxh3Default, text: &OsStr) {
    hash.update(&(text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

struct Layout<'a> {
    root: &'a Path,
    tree: &'a Tree,
    /// What is in each directory of the tree.
    contents: Vec<Vec<usize>>,
    place: u64,
    next_id: u64,
    directories: Vec<PlannedDirectory>,
}

impl Layout<'_> {
    /// Gives a directory and its files their places, and returns the directories in it, sorted by name.
    fn add(&mut self, number: usize, parent: Option<usize>) -> Result<Vec<usize>, MakeError> {
        let node = &self.tree.nodes[number];
        let mut contents = std::mem::take(&mut self.contents[number]);
        contents.sort_unstable_by(|a, b| self.name(*a).cmp(self.name(*b)));
        let entries = contents.iter().map(|&number| (self.name(number), self.entry_bytes(number)));
        let path = || self.root.join(&node.relative);
        let table = buckets::choose(entries).ok_or_else(|| MakeError::NamesCollide { path: path() })?;
        let mut directory = PlannedDirectory {
            relative: node.relative.clone(),
            stamp: node.stamp,
            id: self.next_id,
            place: self.place,
            table,
            files: Vec::new(),
            directories: Vec::new(),
        };
        self.next_id += 1;
        self.place += u64::from(table.bucket_count);
        let mut subdirectories = Vec::new();
        for number in contents {
            let node = &self.tree.nodes[number];
            if !node.is_file {
                subdirectories.push(number);
                continue;
            }
            let size_bytes = node.stamp.size_bytes;
            let blocks = file_blocks(size_bytes);
            // An extent counts its blocks in 32 bits; places stay far from the end of u64.
            let end =
                self.place.checked_add(blocks).filter(|&end| u32::try_from(blocks).is_ok() && end < 1 << 50);
            let Some(end) = end else {
                return Err(MakeError::TooLarge { path: self.root.join(&node.relative), size_bytes });
            };
            let name = node.relative.file_name().unwrap_or_default().to_os_string();
            directory.files.push(PlannedFile {
                name,
                stamp: node.stamp,
                id: self.next_id,
                place: self.place,
            });
            self.next_id += 1;
            self.place = end;
        }
        let own_number = self.directories.len();
        if let Some(parent) = parent {
            self.directories[parent].directories.push(own_number);
        }
        self.directories.push(directory);
        Ok(subdirectories)
    }

    fn name(&self, number: usize) -> &[u8] {
        self.tree.nodes[number].relative.file_name().unwrap_or_default().as_bytes()
    }

    fn entry_bytes(&self, number: usize) -> usize {
        let node = &self.tree.nodes[number];
        let data_blocks = blocks_for(node.stamp.size_bytes);
        let name_bytes = self.name(number).len();
        match node.is_file {
            true if data_blocks == 0 => entry_bytes(name_bytes, 0, 0),
            true if is_striped(data_blocks) => entry_bytes(name_bytes, 1, 0),
            true => entry_bytes(name_bytes, 1, data_blocks as usize),
            // Whether it is empty is not known yet.
            false => entry_bytes(name_bytes, 1, 0),
        }
    }
}
