//! Builds the index of an archive: entries, hash table, media types, strings. Knows the format and nothing of files
//! but their names, sizes and times.

use std::os::unix::ffi::OsStrExt;
use std::vec::Vec;

use exos_fs::mime;
use exos_fs::tree::TreeNode;

use super::PackError;
use crate::format::{
    self, Entry, HEADER_BYTES, Header, INDEX_FILE_NAME, Kind, MAX_MTIME_UNIX_SECONDS, MAX_PROBE_SLOTS,
    NO_ENTRY, Slot, StringRef, align_up, hash_tag, path_hash,
};

/// A finished index.
#[derive(Debug)]
pub(super) struct Index {
    /// Header to strings, without the padding behind them.
    pub(super) bytes: Vec<u8>,
    /// For each node, in sorted order; 0 for directories.
    pub(super) data_offsets: Vec<u64>,
    /// The length of the whole archive.
    pub(super) total_bytes: u64,
}

/// What collects while the nodes are gone through.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    types: Vec<StringRef>,
    type_names: Vec<&'static str>,
}

impl Strings {
    fn add(&mut self, string: &[u8]) -> Result<StringRef, PackError> {
        let offset = u32::try_from(self.bytes.len()).map_err(|_| PackError::TooLarge)?;
        let bytes = u32::try_from(string.len()).map_err(|_| PackError::TooLarge)?;
        self.bytes.extend_from_slice(string);
        Ok(StringRef { offset, bytes })
    }

    /// The number of a media type; there are fewer than a hundred, so a linear search will do.
    fn type_number(&mut self, name: &'static str) -> Result<u16, PackError> {
        let number = match self.type_names.iter().position(|known| *known == name) {
            Some(number) => number,
            None => {
                let string = self.add(name.as_bytes())?;
                self.types.push(string);
                self.type_names.push(name);
                self.types.len() - 1
            }
        };
        u16::try_from(number).map_err(|_| PackError::TooLarge)
    }
}

impl Index {
    /// Sorts the nodes and lays them out.
    pub(super) fn build(nodes: &mut [TreeNode]) -> Result<Index, PackError> {
        nodes.sort_unstable_by(|a, b| path_bytes(a).cmp(path_bytes(b)));
        let mut strings = Strings::default();
        let mut entries = Vec::with_capacity(nodes.len());
        for node in nodes.iter() {
            entries.push(entry(node, nodes, &mut strings)?);
        }
        let (hash_seed, slots) = hash_table(nodes)?;
        let mut header = Header {
            checksum: 0,
            total_bytes: 0,
            index_bytes: 0,
            entry_count: count(entries.len())?,
            file_count: count(nodes.iter().filter(|node| node.is_file).count())?,
            slot_count: count(slots.len())?,
            type_count: count(strings.types.len())?,
            string_bytes: strings.bytes.len() as u64,
            hash_seed,
        };
        header.index_bytes = header.expected_index_bytes().ok_or(PackError::TooLarge)?;
        header.total_bytes = place_data(&mut entries, header.index_bytes).ok_or(PackError::TooLarge)?;

        let mut bytes =
            Vec::with_capacity(usize::try_from(header.index_bytes).map_err(|_| PackError::TooLarge)?);
        bytes.extend_from_slice(&header.encode());
        entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.encode()));
        slots.iter().for_each(|slot| bytes.extend_from_slice(&slot.encode()));
        strings.types.iter().for_each(|string| bytes.extend_from_slice(&string.encode()));
        bytes.extend_from_slice(&strings.bytes);
        header.checksum = format::checksum(&bytes);
        bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        let data_offsets = entries.iter().map(|entry| entry.data_offset).collect();
        Ok(Index { bytes, data_offsets, total_bytes: header.total_bytes })
    }
}

fn path_bytes(node: &TreeNode) -> &[u8] {
    node.relative.as_os_str().as_bytes()
}

fn count(number: usize) -> Result<u32, PackError> {
    u32::try_from(number).map_err(|_| PackError::TooLarge)
}

/// The entry of a node, without the place of its data.
fn entry(node: &TreeNode, nodes: &[TreeNode], strings: &mut Strings) -> Result<Entry, PackError> {
    let path = path_bytes(node);
    let string = strings.add(path)?;
    let mut entry = Entry {
        path_offset: string.offset,
        path_bytes: string.bytes,
        kind: Kind::Directory,
        type_number: 0,
        index_entry: NO_ENTRY,
        size_bytes: 0,
        mtime_unix_seconds: 0,
        data_offset: 0,
    };
    match node.is_file {
        true => {
            entry.kind = Kind::File;
            entry.type_number = strings.type_number(mime::media_type(path))?;
            entry.size_bytes = node.stamp.size_bytes;
            // A time before 1970 or after 9999 is nothing that a client could be told.
            entry.mtime_unix_seconds =
                u64::try_from(node.stamp.mtime_unix_seconds).unwrap_or(0).min(MAX_MTIME_UNIX_SECONDS);
        }
        false => {
            let mut index_path = path.to_vec();
            if !path.is_empty() {
                index_path.push(b'/');
            }
            index_path.extend_from_slice(INDEX_FILE_NAME);
            let found = nodes.binary_search_by(|node| path_bytes(node).cmp(&index_path)).ok();
            if let Some(number) = found.filter(|&number| nodes[number].is_file) {
                entry.index_entry = count(number)?;
            }
        }
    }
    Ok(entry)
}

/// Gives each file its place and returns the end of the archive.
fn place_data(entries: &mut [Entry], index_bytes: u64) -> Option<u64> {
    let mut end = align_up(index_bytes)?;
    for entry in entries.iter_mut().filter(|entry| entry.kind == Kind::File) {
        entry.data_offset = end;
        end = align_up(end.checked_add(entry.size_bytes)?)?;
    }
    Some(end)
}

/// A seed and a table in which no path lies far from its first slot. Chance nearly always allows the first; names
/// that someone chose to collide do so for one seed only.
fn hash_table(nodes: &[TreeNode]) -> Result<(u64, Vec<Slot>), PackError> {
    const SEEDS_PER_SIZE: u64 = 4;
    let smallest = nodes.len().saturating_mul(2).next_power_of_two();
    for slot_count in [smallest, smallest * 2, smallest * 4] {
        for hash_seed in 0..SEEDS_PER_SIZE {
            if let Some(slots) = try_hash_table(nodes, slot_count, hash_seed) {
                return Ok((hash_seed, slots));
            }
        }
    }
    Err(PackError::NamesCollide)
}

fn try_hash_table(nodes: &[TreeNode], slot_count: usize, hash_seed: u64) -> Option<Vec<Slot>> {
    let mut slots = std::vec![Slot { entry_plus_one: 0, hash_tag: 0 }; slot_count];
    let mask = slot_count - 1;
    for (number, node) in nodes.iter().enumerate() {
        let hash = path_hash(path_bytes(node), hash_seed);
        let free = (0..MAX_PROBE_SLOTS as usize)
            .map(|step| (hash as usize).wrapping_add(step) & mask)
            .find(|&at| slots[at].entry_plus_one == 0)?;
        slots[free] = Slot { entry_plus_one: number as u32 + 1, hash_tag: hash_tag(hash) };
    }
    Some(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Archive, Lookup};
    use exos_fs::tree::Stamp;
    use std::format;
    use std::path::PathBuf;

    fn node(relative: &str, size_bytes: u64, mtime_unix_seconds: i64) -> TreeNode {
        let stamp = Stamp { size_bytes, mtime_unix_seconds, mtime_nanoseconds: 0 };
        TreeNode { relative: PathBuf::from(relative), parent: 0, is_file: true, stamp }
    }

    fn with_root(files: impl IntoIterator<Item = TreeNode>) -> Vec<TreeNode> {
        let root = TreeNode { is_file: false, ..node("", 0, 0) };
        core::iter::once(root).chain(files).collect()
    }

    #[test]
    fn build_times_that_no_date_can_express_are_clamped() {
        let mut nodes = with_root([node("early", 0, i64::MIN), node("late", 0, i64::MAX)]);
        let index = Index::build(&mut nodes).unwrap();
        let mut bytes = index.bytes;
        bytes.resize(index.total_bytes as usize, 0);
        let archive = Archive::parse(&bytes).unwrap();
        let times: Vec<_> = archive.files().map(|file| file.mtime_unix_seconds()).collect();
        assert_eq!(times, [0, MAX_MTIME_UNIX_SECONDS]);
    }

    #[test]
    fn build_sizes_beyond_the_format_return_too_large() {
        for sizes in [[u64::MAX, 0], [u64::MAX - 5000, 0], [1 << 63, 1 << 63]] {
            let mut nodes = with_root([node("a", sizes[0], 0), node("b", sizes[1], 0)]);
            assert!(matches!(Index::build(&mut nodes), Err(PackError::TooLarge)), "{sizes:?}");
        }
    }

    #[test]
    fn build_300_000_names_finds_a_table_that_the_reader_accepts() {
        let mut nodes = with_root((0..300_000).map(|number| node(&format!("{number}.html"), 0, 0)));
        let index = Index::build(&mut nodes).unwrap();
        let mut bytes = index.bytes;
        bytes.resize(index.total_bytes as usize, 0);
        let archive = Archive::parse(&bytes).unwrap();
        assert_eq!(archive.file_count(), 300_000);
        assert!(
            matches!(archive.lookup(b"/299999.html"), Lookup::File(file) if file.path() == b"299999.html")
        );
    }
}
