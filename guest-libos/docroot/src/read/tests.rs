//! Archives that are not what the packer makes: each is refused with its reason, or read without harm.

use std::boxed::Box;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Archive, ArchiveError, Lookup};
use crate::format::{self, ENTRY_BYTES, HEADER_BYTES, SLOT_BYTES};
use crate::pack::Plan;

/// Entries: 0 root, 1 `a.txt` (3 bytes), 2 `d`, 3 `d/index.html` (5000 bytes), 4 `z` (empty).
fn archive() -> Vec<u8> {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("a.txt"), b"abc").unwrap();
    std::fs::create_dir(root.path().join("d")).unwrap();
    std::fs::write(root.path().join("d/index.html"), [b'x'; 5000]).unwrap();
    std::fs::write(root.path().join("z"), b"").unwrap();
    let mut bytes = Vec::new();
    Plan::scan(root.path()).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn index_bytes(bytes: &[u8]) -> usize {
    u64::from_le_bytes(bytes[32..40].try_into().unwrap()) as usize
}

fn correct_checksum(bytes: &mut [u8]) {
    let sum = format::checksum(&bytes[..index_bytes(bytes)]);
    bytes[16..24].copy_from_slice(&sum.to_le_bytes());
}

/// The error after `bytes` were put at `at` and the checksum was made right again.
fn error_with(at: usize, bytes: &[u8]) -> ArchiveError {
    let mut archive = archive();
    archive[at..at + bytes.len()].copy_from_slice(bytes);
    correct_checksum(&mut archive);
    Archive::parse(&archive).unwrap_err()
}

fn entry(number: usize) -> usize {
    HEADER_BYTES + number * ENTRY_BYTES
}

fn assert_wrong_entry(error: ArchiveError, expected_number: u32, expected_reason: &str) {
    assert!(
        matches!(error, ArchiveError::WrongEntry { number, reason }
            if number == expected_number && reason.contains(expected_reason)),
        "{error}"
    );
}

#[test]
fn parse_untouched_archive_succeeds() {
    let bytes = archive();
    let archive = Archive::parse(&bytes).unwrap();
    assert_eq!((archive.entry_count(), archive.file_count(), archive.total_bytes()), (5, 3, bytes.len()));
}

#[test]
fn parse_truncated_archive_returns_an_error_for_every_length() {
    let bytes = archive();
    for length in 0..bytes.len() {
        let error = Archive::parse(&bytes[..length]).unwrap_err();
        assert_eq!(matches!(error, ArchiveError::WrongMagic), length < 8, "{length}: {error}");
        assert_eq!(matches!(error, ArchiveError::Truncated { .. }), length >= 8, "{length}: {error}");
    }
}

#[test]
fn parse_invalid_first_bytes_return_wrong_magic_or_version() {
    let mut bytes = archive();
    bytes[8] = 2;
    assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::WrongVersion { found: 2 });
    bytes[0] = b'x';
    assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::WrongMagic);
    assert_eq!(Archive::parse(&[0; 100_000]).unwrap_err(), ArchiveError::WrongMagic);
}

#[test]
fn parse_any_flipped_bit_of_the_index_returns_an_error() {
    let mut bytes = archive();
    for at in 0..index_bytes(&bytes) {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            assert!(Archive::parse(&bytes).is_err(), "byte {at} bit {bit}");
            bytes[at] ^= 1 << bit;
        }
    }
}

#[test]
fn parse_invalid_header_field_returns_its_name() {
    let wrong = |at, bytes: &[u8]| match error_with(at, bytes) {
        ArchiveError::WrongHeader { field } => field,
        other => panic!("{other}"),
    };
    assert_eq!(wrong(12, &73u32.to_le_bytes()), "header_bytes");
    assert_eq!(wrong(40, &4u32.to_le_bytes()), "index_bytes");
    assert_eq!(wrong(44, &2u32.to_le_bytes()), "file_count");
    assert_eq!(wrong(56, &u64::MAX.to_le_bytes()), "index_bytes");
}

/// An archive of only these entries of [`archive`] with this many slots, all empty. Its data stay where they are.
fn with_counts(entry_count: u32, slot_count: u32) -> Vec<u8> {
    let bytes = archive();
    let tables_end = entry(5) + 16 * SLOT_BYTES;
    let mut changed = bytes[..entry(entry_count as usize)].to_vec();
    changed.extend(core::iter::repeat_n(0, slot_count as usize * SLOT_BYTES));
    changed.extend_from_slice(&bytes[tables_end..index_bytes(&bytes)]);
    let new_index_bytes = changed.len() as u64;
    changed.resize(4096, 0);
    changed.extend_from_slice(&bytes[4096..]);
    changed[32..40].copy_from_slice(&new_index_bytes.to_le_bytes());
    changed[40..44].copy_from_slice(&entry_count.to_le_bytes());
    changed[48..52].copy_from_slice(&slot_count.to_le_bytes());
    correct_checksum(&mut changed);
    changed
}

#[test]
fn parse_invalid_counts_return_wrong_header() {
    for (entry_count, slot_count, expected) in [
        (5, 0, "slot_count"),
        (5, 4, "slot_count"),
        (5, 8, "slot_count"),
        (5, 17, "slot_count"),
        (0, 2, "entry_count"),
    ] {
        let error = Archive::parse(&with_counts(entry_count, slot_count)).unwrap_err();
        assert_eq!(error, ArchiveError::WrongHeader { field: expected }, "{entry_count} {slot_count}");
    }
    // The archives are otherwise well-formed: with right counts only the hash table is left to object to.
    let error = Archive::parse(&with_counts(5, 32)).unwrap_err();
    assert!(matches!(error, ArchiveError::WrongHashTable { .. }), "{error}");
}

#[test]
fn parse_longer_total_than_the_files_need_returns_wrong_header() {
    let mut bytes = archive();
    bytes.extend_from_slice(&[0; 4096]);
    let total_bytes = bytes.len() as u64;
    bytes[24..32].copy_from_slice(&total_bytes.to_le_bytes());
    correct_checksum(&mut bytes);
    assert_eq!(Archive::parse(&bytes).unwrap_err(), ArchiveError::WrongHeader { field: "total_bytes" });
}

#[test]
fn parse_invalid_entry_returns_its_number_and_reason() {
    let max = u64::MAX.to_le_bytes();
    assert_wrong_entry(error_with(entry(1), &max[..4]), 1, "outside the strings");
    assert_wrong_entry(error_with(entry(1) + 4, &max[..4]), 1, "outside the strings");
    assert_wrong_entry(error_with(entry(1) + 8, &[2, 0]), 1, "kind");
    assert_wrong_entry(error_with(entry(1) + 10, &[9, 0]), 1, "media type");
    assert_wrong_entry(error_with(entry(1) + 12, &[1, 0, 0, 0]), 1, "has an index page");
    assert_wrong_entry(error_with(entry(1) + 16, &max), 1, "leaves the archive");
    assert_wrong_entry(error_with(entry(4) + 16, &[1]), 4, "leaves the archive");
    assert_wrong_entry(error_with(entry(1) + 24, &max), 1, "year 9999");
    assert_wrong_entry(error_with(entry(1) + 32, &[0; 8]), 1, "does not follow");
    assert_wrong_entry(error_with(entry(3) + 32, &4096u64.to_le_bytes()), 3, "does not follow");
    assert_wrong_entry(error_with(entry(2) + 16, &[1]), 2, "has data");
    assert_wrong_entry(error_with(entry(2) + 12, &[1, 0, 0, 0]), 2, "not its index.html");
    assert_wrong_entry(error_with(entry(0) + 12, &[3, 0, 0, 0]), 0, "not its index.html");
    assert_wrong_entry(error_with(entry(2) + 12, &[99, 0, 0, 0]), 2, "not a file");
    assert_wrong_entry(error_with(entry(1) + 4, &[0; 4]), 1, "out of order");
    assert_wrong_entry(error_with(entry(0) + 4, &[1, 0, 0, 0]), 0, "root must be");
}

#[test]
fn parse_invalid_media_type_returns_its_number() {
    let bytes = archive();
    let at = bytes.windows(10).position(|window| window == b"text/plain").unwrap();
    assert_eq!(error_with(at + 4, b"\r\n"), ArchiveError::WrongMediaType { number: 0 });
}

#[test]
fn parse_invalid_hash_table_returns_an_error() {
    let slots = entry(5);
    // 16 slots for 5 entries. Emptying them all, filling them all, and leading one to another entry.
    let empty = error_with(slots, &[0; 16 * 8]);
    assert!(matches!(empty, ArchiveError::WrongHashTable { .. }), "{empty}");
    let full = error_with(slots, &[1; 16 * 8]);
    assert!(matches!(full, ArchiveError::WrongHashTable { .. }), "{full}");
    let bytes = archive();
    let occupied = (0..16).map(|slot| slots + slot * 8).find(|&at| bytes[at] != 0).unwrap();
    let other = error_with(occupied, &[bytes[occupied] % 5 + 1]);
    assert!(matches!(other, ArchiveError::WrongHashTable { .. }), "{other}");
    // A second slot for an entry that is found already.
    let free = (0..16).map(|slot| slots + slot * 8).find(|&at| bytes[at] == 0).unwrap();
    let twice = error_with(free, &[1]);
    assert!(matches!(twice, ArchiveError::WrongHashTable { .. }), "{twice}");
}

#[test]
fn errors_say_what_to_do() {
    let errors: [Box<dyn core::error::Error>; 3] = [
        Box::new(Archive::parse(&[]).unwrap_err()),
        Box::new(Archive::parse(&archive()[..100]).unwrap_err()),
        Box::new(error_with(entry(1), &[0xff; 4])),
    ];
    let texts = errors.map(|error| std::string::ToString::to_string(&error));
    assert!(texts[0].contains("check where it was loaded"));
    assert!(texts[1].contains("has 100 bytes"));
    assert!(texts[2].contains("pack it again"));
}

/// Uses everything that an archive offers; must not panic, whatever the archive is.
fn use_archive(archive: &Archive<'_>) {
    for file in archive.files() {
        let path = [b"/", file.path()].concat();
        // Two paths may differ only by a slash at an end, which no host's file name has: then neither is found.
        if !file.path().ends_with(b"/") {
            assert!(matches!(archive.lookup(&path), Lookup::File(found) if found.number() == file.number()));
        }
        assert!(file.data().len() <= archive.total_bytes());
        assert!(!file.media_type().contains(&b'\n'));
    }
    for path in [&b""[..], b"/", b"/d", b"/d/", b"/a.txt/", b"//", b"/\0"] {
        let _ = archive.lookup(path);
    }
}

proptest! {
    #[test]
    fn parse_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Archive::parse(&bytes);
        let _ = Archive::parse(&[&format::MAGIC[..], &bytes].concat());
    }

    #[test]
    fn parse_changed_archive_with_right_checksum_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        in_header in any::<bool>(),
    ) {
        let mut bytes = archive();
        let range = if in_header { 24..HEADER_BYTES } else { HEADER_BYTES..index_bytes(&bytes) };
        for (at, value) in changes {
            bytes[range.start + at.index(range.len())] = value;
        }
        if index_bytes(&bytes) <= bytes.len() {
            correct_checksum(&mut bytes);
        }
        if let Ok(archive) = Archive::parse(&bytes) {
            use_archive(&archive);
        }
    }
}
