//! The one pass that turns bytes into an [`Archive`]. Each check says what later code relies on.

use super::{Archive, ArchiveError};
use exos_fs::mime;

use crate::format::{
    self, ENTRY_BYTES, Entry, HEADER_BYTES, Header, Kind, MAGIC, MAX_MTIME_UNIX_SECONDS, MAX_PROBE_SLOTS,
    NO_ENTRY, SLOT_BYTES, Slot, TYPE_BYTES, VERSION, align_up, hash_tag, path_hash,
};

pub(super) fn parse(bytes: &[u8]) -> Result<Archive<'_>, ArchiveError> {
    let (header, bytes) = header(bytes)?;
    let index_bytes = in_memory(header.index_bytes, "index_bytes")?;
    let Some(index) = bytes.get(..index_bytes) else {
        return Err(ArchiveError::WrongHeader { field: "index_bytes" });
    };
    if format::checksum(index) != header.checksum {
        return Err(ArchiveError::WrongChecksum);
    }
    let archive = sections(&header, bytes, index)?;
    check_types(&archive)?;
    check_entries(&archive, &header)?;
    check_slots(&archive)?;
    Ok(archive)
}

/// A length from the header as a length of memory.
fn in_memory(bytes: u64, field: &'static str) -> Result<usize, ArchiveError> {
    usize::try_from(bytes).map_err(|_| ArchiveError::WrongHeader { field })
}

/// The header, and the bytes cut to the archive's length.
fn header(bytes: &[u8]) -> Result<(Header, &[u8]), ArchiveError> {
    let found_bytes = bytes.len() as u64;
    let Some(raw) = bytes.first_chunk::<HEADER_BYTES>() else {
        // Less than a header can still be something else altogether: say so first.
        if !bytes.starts_with(&MAGIC) {
            return Err(ArchiveError::WrongMagic);
        }
        return Err(ArchiveError::Truncated { needed_bytes: HEADER_BYTES as u64, found_bytes });
    };
    if !raw.starts_with(&MAGIC) {
        return Err(ArchiveError::WrongMagic);
    }
    let version = u32::from_le_bytes([raw[8], raw[9], raw[10], raw[11]]);
    if version != VERSION {
        return Err(ArchiveError::WrongVersion { found: version });
    }
    if raw[12..16] != (HEADER_BYTES as u32).to_le_bytes() {
        return Err(ArchiveError::WrongHeader { field: "header_bytes" });
    }
    let header = Header::decode(raw);
    let total_bytes = in_memory(header.total_bytes, "total_bytes")?;
    let Some(bytes) = bytes.get(..total_bytes) else {
        return Err(ArchiveError::Truncated { needed_bytes: header.total_bytes, found_bytes });
    };
    if header.expected_index_bytes() != Some(header.index_bytes) {
        return Err(ArchiveError::WrongHeader { field: "index_bytes" });
    }
    // The first bounds the work of a look-up; with it, the table has an empty slot to stop at.
    if !header.slot_count.is_power_of_two()
        || u64::from(header.slot_count) < 2 * u64::from(header.entry_count)
    {
        return Err(ArchiveError::WrongHeader { field: "slot_count" });
    }
    if header.entry_count == 0 {
        return Err(ArchiveError::WrongHeader { field: "entry_count" });
    }
    Ok((header, bytes))
}

/// Cuts the index into its tables. `index` has the length that the counts ask for, so none of this can fail for an
/// archive that came this far; it is still written without an assumption.
fn sections<'a>(header: &Header, bytes: &'a [u8], index: &'a [u8]) -> Result<Archive<'a>, ArchiveError> {
    let short = ArchiveError::WrongHeader { field: "index_bytes" };
    let rest = index.get(HEADER_BYTES..).ok_or(short)?;
    let (entries, rest) = rest.split_at_checked(header.entry_count as usize * ENTRY_BYTES).ok_or(short)?;
    let (slots, rest) = rest.split_at_checked(header.slot_count as usize * SLOT_BYTES).ok_or(short)?;
    let (types, strings) = rest.split_at_checked(header.type_count as usize * TYPE_BYTES).ok_or(short)?;
    Ok(Archive {
        bytes,
        entries: entries.as_chunks().0,
        slots: slots.as_chunks().0,
        types: types.as_chunks().0,
        strings,
        hash_seed: header.hash_seed,
        file_count: header.file_count,
    })
}

/// Media types go into header fields as they are: nothing in them may end the field.
fn check_types(archive: &Archive<'_>) -> Result<(), ArchiveError> {
    for number in 0..archive.types.len() as u32 {
        let media_type = u16::try_from(number).ok().and_then(|number| archive.media_type(number));
        if !media_type.is_some_and(mime::is_field_value) {
            return Err(ArchiveError::WrongMediaType { number });
        }
    }
    Ok(())
}

/// Paths are in bounds and strictly ascending, so no two entries are the same; the files' data follow each other
/// without gap or overlap, so no byte belongs to two files or to a file and the index.
fn check_entries(archive: &Archive<'_>, header: &Header) -> Result<(), ArchiveError> {
    let mut previous_path: Option<&[u8]> = None;
    let mut file_count = 0;
    let mut data_end =
        align_up(header.index_bytes).ok_or(ArchiveError::WrongHeader { field: "index_bytes" })?;
    for number in 0..archive.entry_count() {
        let wrong = |reason| ArchiveError::WrongEntry { number, reason };
        let entry = archive.entry(number).ok_or(wrong("its kind is unknown"))?;
        let path = archive.path_of(&entry).ok_or(wrong("its path lies outside the strings"))?;
        if previous_path.is_some_and(|previous| previous >= path) {
            return Err(wrong("its path is out of order"));
        }
        if path.is_empty() != (number == 0) || (number == 0 && entry.kind != Kind::Directory) {
            return Err(wrong("the root must be the first entry and a directory"));
        }
        previous_path = Some(path);
        match entry.kind {
            Kind::File => {
                if archive.media_type(entry.type_number).is_none() {
                    return Err(wrong("its media type does not exist"));
                }
                if entry.mtime_unix_seconds > MAX_MTIME_UNIX_SECONDS {
                    return Err(wrong("its time of modification is after the year 9999"));
                }
                if entry.data_offset != data_end {
                    return Err(wrong("its data does not follow that of the file before"));
                }
                data_end = data_end
                    .checked_add(entry.size_bytes)
                    .and_then(align_up)
                    .filter(|&end| end <= header.total_bytes)
                    .ok_or(wrong("its data leaves the archive"))?;
                if entry.index_entry != NO_ENTRY {
                    return Err(wrong("it is a file and has an index page"));
                }
                file_count += 1;
            }
            Kind::Directory => check_directory(archive, &entry, path).map_err(wrong)?,
        }
    }
    if data_end != header.total_bytes {
        return Err(ArchiveError::WrongHeader { field: "total_bytes" });
    }
    if file_count != header.file_count {
        return Err(ArchiveError::WrongHeader { field: "file_count" });
    }
    Ok(())
}

fn check_directory(archive: &Archive<'_>, directory: &Entry, path: &[u8]) -> Result<(), &'static str> {
    if (directory.size_bytes, directory.data_offset, directory.type_number) != (0, 0, 0) {
        return Err("it is a directory and has data");
    }
    if directory.index_entry == NO_ENTRY {
        return Ok(());
    }
    let index = archive.entry(directory.index_entry).filter(|entry| entry.kind == Kind::File);
    let Some(index_path) = index.and_then(|entry| archive.path_of(&entry)) else {
        return Err("its index page is not a file");
    };
    let expected = index_path.strip_prefix(path).map(|rest| match path.is_empty() {
        true => rest,
        false => rest.strip_prefix(b"/").unwrap_or_default(),
    });
    match expected == Some(format::INDEX_FILE_NAME) {
        true => Ok(()),
        false => Err("its index page is not its index.html"),
    }
}

/// Every entry is found by its path within [`MAX_PROBE_SLOTS`], and no slot holds anything else.
fn check_slots(archive: &Archive<'_>) -> Result<(), ArchiveError> {
    let occupied = archive.slots.iter().filter(|slot| Slot::decode(slot).entry_plus_one != 0).count();
    if occupied != archive.entries.len() {
        return Err(ArchiveError::WrongHashTable {
            number: occupied as u32,
            reason: "there are not as many occupied slots as entries",
        });
    }
    let mask = archive.slots.len() - 1;
    for number in 0..archive.entry_count() {
        let wrong = |reason| ArchiveError::WrongHashTable { number, reason };
        let entry = archive.entry(number).ok_or(wrong("there is no such entry"))?;
        let path = archive.path_of(&entry).ok_or(wrong("the entry has no path"))?;
        let hash = path_hash(path, archive.hash_seed);
        let found = (0..MAX_PROBE_SLOTS as usize)
            .map(|step| Slot::decode(&archive.slots[(hash as usize).wrapping_add(step) & mask]))
            .take_while(|slot| slot.entry_plus_one != 0)
            .any(|slot| slot == Slot { entry_plus_one: number + 1, hash_tag: hash_tag(hash) });
        if !found {
            return Err(wrong("the entry is not where its hash says"));
        }
    }
    Ok(())
}
