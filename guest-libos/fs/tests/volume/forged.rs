//! Volumes that somebody made on purpose: their checksums are right, and what they say is wrong. The reader and `fsck`
//! neither panic nor run in circles, and what makes no sense is named.
//!
//! The checksums are computed here from the description of the format alone, which so is tested, too.

use std::collections::BTreeSet;
use std::fs;

use exos_fs::fsck::{Depth, Report, fsck};
use exos_fs::image::Image;
use exos_fs::{Block, FsError, Kind, Volume};
use proptest::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::common::{Site, content, varied_site, walk};

struct Forger {
    site: Site,
    bytes: Vec<u8>,
    /// Blocks of metadata.
    metadata: Vec<(usize, Kind)>,
}

impl Forger {
    fn new() -> Forger {
        let site = varied_site();
        let mut image = site.make();
        let bytes = fs::read(site.image()).unwrap();
        let last = bytes.len() / 4096 - 1;
        let mut metadata = vec![(0, Kind::Superblock), (1, Kind::FreeMap), (last, Kind::Superblock)];
        let mut nodes = vec![image.volume().root()];
        nodes.extend(walk(&mut image).into_iter().map(|(_, node)| node.unwrap()));
        for node in nodes {
            let Some(extent) = node.extents().first() else { continue };
            if node.is_directory() {
                let blocks = extent.first_block as usize..;
                metadata.extend(blocks.take(extent.blocks as usize).map(|number| (number, Kind::Directory)));
            } else if node.data_blocks() < u64::from(extent.blocks) {
                metadata.push((extent.first_block as usize, Kind::Checksums));
            }
        }
        Forger { site, bytes, metadata }
    }

    /// Changes a block, makes its checksum right, and puts the image in its place.
    fn forge(&self, number: usize, kind: Kind, change: impl FnOnce(&mut [u8])) {
        let mut bytes = self.bytes.clone();
        let key = if kind == Kind::Superblock { 0 } else { xxh3_64(&bytes[48..64]) };
        let block = &mut bytes[number * 4096..][..4096];
        change(block);
        let seed = key ^ number as u64 ^ (kind as u64) << 56;
        let checksum = xxh3_64_with_seed(&block[8..], seed);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
        fs::write(self.site.image(), bytes).unwrap();
    }

    fn fsck(&self) -> Report {
        fsck(self.site.image(), Depth::Full, &mut |_, _| {}).unwrap()
    }

    /// Reads whatever can be read, and checks the image.
    fn read_all(&self) {
        let _ = fsck(self.site.image(), Depth::Full, &mut |_, _| {});
        let Ok(mut image) = Image::open(self.site.image()) else { return };
        for path in
            [&b"/index.html"[..], b"/sub/deeper/exact.bin", b"/many/7-with-a-longer-name.txt", b"/", b"/sub/"]
        {
            let _ = image.lookup(path);
        }
        let directory = image.volume().root();
        for (_, node) in image.entries(&directory).unwrap_or_default() {
            if node.is_file() {
                let _ = content(&mut image, &node);
            }
            let _ = image.entries(&node);
        }
    }

    /// The first directory block that belongs to `path`, and where in it the entry called `name` begins.
    fn entry(&self, name: &[u8]) -> (usize, usize) {
        let blocks = self.metadata.iter().filter(|(_, kind)| *kind == Kind::Directory);
        for &(number, _) in blocks {
            let block = &self.bytes[number * 4096..][..4096];
            let mut at = 32;
            while let length @ 1.. = usize::from(u16::from_le_bytes([block[at], block[at + 1]])) {
                let name_at = at + 64 + usize::from(block[at + 4]) * 16 + usize::from(block[at + 5]) * 8;
                if &block[name_at..name_at + usize::from(block[at + 2])] == name {
                    return (number, at);
                }
                at += length;
            }
        }
        panic!("no entry {}", name.escape_ascii());
    }
}

#[test]
fn forge_without_change_is_clean() {
    let forger = Forger::new();
    for &(number, kind) in &forger.metadata {
        forger.forge(number, kind, |_| {});
        assert!(forger.fsck().is_clean(), "block {number}: {:#?}", forger.fsck());
    }
}

#[test]
fn version_of_another_program_is_refused_with_both_versions() {
    let forger = Forger::new();
    forger.forge(0, Kind::Superblock, |block| block[16] = 9);
    for error in [
        Image::open(forger.site.image()).err().unwrap().to_string(),
        fsck(forger.site.image(), Depth::Full, &mut |_, _| {}).unwrap_err().to_string(),
    ] {
        assert!(error.contains("version 9") && error.contains("reads 1"), "{error}");
    }
}

#[test]
fn unknown_features_are_refused_as_far_as_they_matter() {
    let forger = Forger::new();
    forger.forge(0, Kind::Superblock, |block| block[24] = 4);
    let error = Image::open(forger.site.image()).err().unwrap().to_string();
    assert!(error.contains("0x4"), "{error}");
    forger.forge(0, Kind::Superblock, |block| block[32] = 2);
    let mut image = Image::open(forger.site.image()).unwrap();
    assert!(image.lookup(b"/index.html").unwrap().is_some());
    assert_eq!(image.volume().check_writable(), Err(FsError::ReadOnly { read_only_compatible: 2 }));
    forger.forge(0, Kind::Superblock, |block| block[40] = 1);
    let image = Image::open(forger.site.image()).unwrap();
    assert_eq!(image.volume().check_writable(), Ok(()));
}

/// Each lie about an entry, and what `fsck` says about it at that block and path.
#[test]
fn fsck_names_each_lie_about_a_file() {
    type Lie = (&'static str, fn(&mut [u8]));
    let lies: [Lie; 10] = [
        ("unknown kind", |entry| entry[3] = 3),
        ("unknown flags", |entry| entry[60] = 2),
        ("no id", |entry| entry[32..40].fill(0)),
        ("its id is that of another file", |entry| entry[32..40].copy_from_slice(&1u64.to_le_bytes())),
        ("not been given yet", |entry| entry[39] = 1),
        ("impossible time", |entry| entry[23] = 1),
        ("do not hold its size", |entry| entry[25] ^= 0x40),
        ("leaves the volume", |entry| entry[70] = 1),
        ("reserved bytes", |entry| entry[57] = 1),
        ("a look-up of this name does not find it", |entry| entry[8] ^= 1),
    ];
    let forger = Forger::new();
    let (number, at) = forger.entry(b"two-blocks.css");
    for (expected, lie) in lies {
        forger.forge(number, Kind::Directory, |block| lie(&mut block[at..]));
        let report = forger.fsck();
        let problem = report.problems.iter().find(|problem| problem.what.contains(expected));
        let problem = problem.unwrap_or_else(|| panic!("{expected}: {report:#?}"));
        assert_eq!(problem.block, Some(number as u64));
        assert_eq!(problem.path.as_deref(), Some(&b"/two-blocks.css"[..]));
        forger.read_all();
    }
}

#[test]
fn fsck_finds_names_that_no_file_can_have() {
    let forger = Forger::new();
    // It has neither extents nor checksums, and any name up to 8 bytes makes it as long.
    let (number, at) = forger.entry(b"empty");
    for name in [&b"."[..], b"..", b"a/b", b"a\0b", b"/"] {
        forger.forge(number, Kind::Directory, |block| {
            block[at + 2] = name.len() as u8;
            block[at + 64..at + 72].fill(0);
            block[at + 64..at + 64 + name.len()].copy_from_slice(name);
        });
        let said = said(&forger);
        assert!(said.contains("no file can have this name"), "{}: {said}", name.escape_ascii());
    }
}

/// All that `fsck` says.
fn said(forger: &Forger) -> String {
    forger.fsck().problems.iter().map(|problem| problem.what.to_string() + "\n").collect()
}

/// Each lie about an entry of a kind of its own, and what `fsck` says.
#[test]
fn fsck_names_each_lie_about_extents_and_checksums() {
    type Lie = (&'static str, &'static [u8], fn(&mut [u8]));
    let lies: [Lie; 10] = [
        ("too many extents", b"two-blocks.css", |entry| entry[4] = 5),
        ("too many checksums", b"two-blocks.css", |entry| entry[5] = 9),
        ("length of an entry", b"two-blocks.css", |entry| entry[5] = 1),
        ("leaves the volume", b"two-blocks.css", |entry| entry[64..72].fill(0)),
        ("leaves the volume", b"two-blocks.css", |entry| entry[72..76].fill(0)),
        ("impossible time", b"two-blocks.css", |entry| entry[12..16].fill(0xFF)),
        // One checksum less, and a name that is as much longer.
        ("not have a checksum for each", b"two-blocks.css", |entry| (entry[5], entry[2]) = (1, entry[2] + 8)),
        ("a stripe has no data", b"striped.png", |entry| entry[72] = 1),
        ("a directory is striped", b"deeper", |entry| (entry[60], entry[72]) = (1, 2)),
        ("impossible size", b"deeper", |entry| entry[24..26].copy_from_slice(&4095u16.to_le_bytes())),
    ];
    let forger = Forger::new();
    for (expected, name, lie) in lies {
        let (number, at) = forger.entry(name);
        forger.forge(number, Kind::Directory, |block| lie(&mut block[at..]));
        let said = said(&forger);
        assert!(said.contains(expected), "{expected}: {said}");
        forger.read_all();
    }
}

#[test]
fn directory_block_that_is_not_what_it_should_be_is_corrupt_for_reader_and_fsck() {
    type Lie = (&'static str, fn(&mut [u8]));
    let lies: [Lie; 6] = [
        ("another directory", |block| block[8] ^= 1),
        ("another bucket", |block| block[16] ^= 1),
        ("another bucket", |block| block[20] ^= 1),
        ("more bytes than it has", |block| block[26..28].copy_from_slice(&4097u16.to_le_bytes())),
        ("more bytes than it has", |block| block[26..28].copy_from_slice(&31u16.to_le_bytes())),
        ("more entries than it counts", |block| block[24] -= 1),
    ];
    let forger = Forger::new();
    let (number, _) = forger.entry(b"two-blocks.css");
    for (expected, lie) in lies {
        forger.forge(number, Kind::Directory, lie);
        assert!(said(&forger).contains(expected), "{expected}: {}", said(&forger));
        let mut image = Image::open(forger.site.image()).unwrap();
        let root = image.volume().root();
        let error = image.entries(&root).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&format!("{number}")), "{expected}: {error}");
    }
    for at in [28, 4095] {
        forger.forge(number, Kind::Directory, |block| block[at] = 1);
        assert!(said(&forger).contains("unused bytes are not zero"), "{at}");
    }
}

#[test]
fn name_with_the_tag_of_another_is_not_that_one() {
    let forger = Forger::new();
    let (number, at) = forger.entry(b"index.html");
    let seed = u64::from_le_bytes(forger.bytes[256 + 40..][..8].try_into().unwrap());
    let tag = xxh3_64_with_seed(b"other", seed) as u32;
    forger.forge(number, Kind::Directory, |block| block[at + 8..at + 12].copy_from_slice(&tag.to_le_bytes()));
    let mut image = Image::open(forger.site.image()).unwrap();
    assert!(image.lookup(b"/other").unwrap().is_none());
}

#[test]
fn fsck_finds_names_in_the_wrong_bucket() {
    let forger = Forger::new();
    let blocks: BTreeSet<_> = (10..60)
        .map(|number| forger.entry(format!("{number}-with-a-longer-name.txt").as_bytes()).0)
        .collect();
    let (first, last) = (*blocks.first().unwrap(), *blocks.last().unwrap());
    assert_ne!(first, last);
    forger.forge(first, Kind::Directory, |block| {
        block[24..].copy_from_slice(&forger.bytes[last * 4096 + 24..][..4096 - 24]);
    });
    assert!(said(&forger).contains("a look-up of this name does not find it"), "{}", said(&forger));
}

#[test]
fn fsck_finds_names_out_of_order() {
    let forger = Forger::new();
    // Two neighbours whose entries are equally long.
    let pair = (10..59).find_map(|first| {
        let at = |number| forger.entry(format!("{number}-with-a-longer-name.txt").as_bytes());
        let (block, one) = at(first);
        let len =
            u16::from_le_bytes([forger.bytes[block * 4096 + one], forger.bytes[block * 4096 + one + 1]]);
        (10..60)
            .map(at)
            .find(|other| *other == (block, one + usize::from(len)))
            .map(|_| (block, one, usize::from(len)))
    });
    let (number, at, len) = pair.unwrap();
    forger.forge(number, Kind::Directory, |block| {
        let (first, second) = block[at..at + 2 * len].split_at_mut(len);
        first.swap_with_slice(second);
    });
    assert!(said(&forger).contains("not in order"), "{}", said(&forger));
}

#[test]
fn fsck_finds_bytes_and_checksums_of_what_is_not_there() {
    let mut forger = Forger::new();
    let (number, at) = forger.entry(b"striped.png");
    let first = |forger: &Forger, number: usize, at: usize| {
        u64::from_le_bytes(forger.bytes[number * 4096 + at + 64..][..8].try_into().unwrap()) as usize
    };
    let stripe = first(&forger, number, at);
    forger.forge(stripe, Kind::Checksums, |block| block[8 * 13] = 1);
    assert!(said(&forger).contains("checksums for blocks that are not there"), "{}", said(&forger));
    // Data behind the end of a file, whose checksum is right.
    let (number, at) = forger.entry(b"index.html");
    let data = first(&forger, number, at);
    forger.bytes[data * 4096 + 4095] = 1;
    let checksum = xxh3_64(&forger.bytes[data * 4096..][..4096]);
    forger.forge(number, Kind::Directory, |block| {
        block[at + 80..at + 88].copy_from_slice(&checksum.to_le_bytes())
    });
    assert!(said(&forger).contains("behind the end of the file"), "{}", said(&forger));
}

#[test]
fn fsck_finds_a_free_map_that_is_another_or_elsewhere() {
    let forger = Forger::new();
    forger.forge(1, Kind::FreeMap, |block| block[8] = 1);
    assert!(said(&forger).contains("another part of the free map"), "{}", said(&forger));
    let (directory, _) = forger.entry(b"index.html");
    forger
        .forge(0, Kind::Superblock, |block| block[88..96].copy_from_slice(&(directory as u64).to_le_bytes()));
    assert!(said(&forger).contains("belongs to something else"), "{}", said(&forger));
}

#[test]
fn fsck_finds_blocks_that_belong_to_two_files() {
    let forger = Forger::new();
    let (number, at) = forger.entry(b"two-blocks.css");
    let first_block = u64::from_le_bytes(forger.bytes[number * 4096 + at + 64..][..8].try_into().unwrap());
    forger.forge(number, Kind::Directory, |block| {
        block[at + 64..at + 72].copy_from_slice(&(first_block - 1).to_le_bytes())
    });
    let report = forger.fsck();
    let problem = report.problems.iter().find(|problem| problem.what.contains("belongs to something else"));
    assert_eq!(problem.unwrap().block, Some(first_block - 1), "{report:#?}");
    // The block that nobody has any more.
    let unowned = format!("blocks {0} to {0} are used, and nothing is there", first_block + 1);
    assert!(report.problems.iter().any(|problem| problem.what.contains(&unowned)), "{report:#?}");
}

/// A directory that holds the root again: whoever follows it blindly never comes back.
#[test]
fn directory_that_leads_back_to_the_root_is_found() {
    let forger = Forger::new();
    let (number, at) = forger.entry(b"deeper");
    let root = &forger.bytes[256..256 + 80];
    forger.forge(number, Kind::Directory, |block| {
        block[at + 24..at + 48].copy_from_slice(&root[24..48]);
        block[at + 64..at + 80].copy_from_slice(&root[64..80]);
    });
    let report = forger.fsck();
    assert!(report.problems.iter().any(|problem| problem.what.contains("something else")), "{report:#?}");
    // Finite, because a path is.
    let mut image = Image::open(forger.site.image()).unwrap();
    assert!(image.lookup(b"/sub/deeper/sub/deeper/sub/deeper/index.html").unwrap().is_some());
}

#[test]
fn fsck_finds_counts_and_maps_that_are_wrong() {
    let forger = Forger::new();
    for (at, expected) in [(112, "files"), (120, "directories"), (104, "free blocks")] {
        forger.forge(0, Kind::Superblock, |block| block[at] ^= 1);
        let report = forger.fsck();
        assert!(report.problems.iter().any(|problem| problem.what.contains(expected)), "{report:#?}");
        assert!(report.problems.iter().any(|problem| problem.what.contains("differs from")), "{report:#?}");
    }
    forger.forge(1, Kind::FreeMap, |block| block[16] &= 0b1110_1111);
    let report = forger.fsck();
    assert!(report.problems[0].what.contains("blocks 4 to 4 are free, and they are used"), "{report:#?}");
    assert_eq!(report.problems[0].block, Some(1));
}

#[test]
fn superblock_that_contradicts_itself_is_corrupt() {
    let forger = Forger::new();
    type Lie = (&'static str, fn(&mut [u8]));
    let lies: [Lie; 8] = [
        ("4096 bytes", |block| block[20..24].copy_from_slice(&512u32.to_le_bytes())),
        ("no room", |block| {
            block[64..72].copy_from_slice(&2u64.to_le_bytes());
            block[256 + 4] = 0;
            block[256 + 24..256 + 32].fill(0);
            block[256] = 64;
        }),
        ("free map leaves", |block| block[95] = 1),
        ("free map leaves", |block| block[88..96].fill(0)),
        ("bit for each block", |block| block[96] = 2),
        ("more blocks are free", |block| block[111] = 1),
        ("root is no directory", |block| block[256 + 32] = 2),
        ("leaves the volume", |block| block[256 + 71] = 1),
    ];
    for (expected, lie) in lies {
        forger.forge(0, Kind::Superblock, lie);
        let bytes = fs::read(forger.site.image()).unwrap();
        let block: &Block = bytes.first_chunk().unwrap();
        let error = Volume::open(block, 0, 1000).unwrap_err();
        assert!(
            matches!(error, FsError::Corrupt { block: 0, what } if what.contains(expected)),
            "{expected}: {error}"
        );
    }
}

/// The two ends of numbers and what lies around the limits of the format, besides arbitrary ones.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(1), Just(4), Just(8), Just(255), Just(0x7f), any::<u8>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn forged_volume_neither_panics_nor_hangs(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(
            (prop_oneof![8..160usize, 256..340usize, 0..4096usize], byte()), 1..6),
    ) {
        thread_local!(static FORGER: Forger = Forger::new());
        FORGER.with(|forger| {
            let (number, kind) = forger.metadata[which.index(forger.metadata.len())];
            forger.forge(number, kind, |block| {
                for (at, byte) in changes {
                    block[at] = byte;
                }
            });
            forger.read_all();
        });
    }
}
