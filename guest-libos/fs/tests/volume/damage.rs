//! Accidents: flipped bits, images that were cut off. `fsck` finds each at its block, and the reader gives the right
//! bytes or an error.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use exos_fs::fsck::{Depth, FsckError, fsck};
use exos_fs::image::Image;
use exos_fs::make::{Options, Plan};
use exos_fs::{FsError, Volume};

use crate::common::{OPTIONS, Site, content, noise, varied_site, walk};

/// What a block is, as found through the reader.
#[derive(Clone, Debug, PartialEq)]
enum Owner {
    Free,
    Metadata,
    Path(Vec<u8>),
}

struct Volumes {
    site: Site,
    bytes: Vec<u8>,
    owners: Vec<Owner>,
    files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Volumes {
    /// A volume with a few free blocks, and all that is known about it.
    fn new() -> Volumes {
        let site = varied_site();
        let plan = Plan::scan(site.root()).unwrap();
        let options = Options { size_bytes: Some(plan.image_bytes() + 5 * 4096), ..OPTIONS };
        plan.write(site.image(), &options, &mut |_| {}).unwrap();
        let mut image = Image::open(site.image()).unwrap();
        let bytes = fs::read(site.image()).unwrap();
        let total_blocks = image.volume().total_blocks() as usize;
        let mut owners = vec![Owner::Free; total_blocks];
        for number in [0, 1, total_blocks - 1] {
            owners[number] = Owner::Metadata;
        }
        let mut files = BTreeMap::new();
        let mut nodes = vec![(b"/".to_vec(), image.volume().root())];
        nodes.extend(walk(&mut image).into_iter().map(|(path, node)| (path, node.unwrap())));
        for (path, node) in nodes {
            for extent in node.extents() {
                for number in extent.first_block..extent.first_block + u64::from(extent.blocks) {
                    owners[number as usize] = Owner::Path(path.clone());
                }
            }
            if node.is_file() {
                files.insert(path, content(&mut image, &node).unwrap());
            }
        }
        assert_eq!(owners.iter().filter(|owner| **owner == Owner::Free).count(), 5);
        Volumes { site, bytes, owners, files }
    }

    /// Reads all files of the image that is there now: each is right, or an error.
    fn assert_never_wrong_data(&self) {
        let Ok(mut image) = Image::open(self.site.image()) else { return };
        for (path, expected) in &self.files {
            let found = match image.lookup(path) {
                Ok(Some(node)) => content(&mut image, &node),
                Ok(None) => panic!("{} is gone without an error", path.escape_ascii()),
                Err(error) => Err(error),
            };
            assert!(found.is_err() || found.unwrap() == *expected, "{}", path.escape_ascii());
        }
    }
}

#[test]
fn fsck_of_a_good_image_is_clean() {
    let volumes = Volumes::new();
    let report = fsck(volumes.site.image(), Depth::Full, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.files, 65);
    assert_eq!(report.directories, 5);
    assert_eq!(report.checked_blocks, report.total_blocks - 5);
}

/// Every byte that is there for something in the beginning of each block, and a sample of the others.
#[test]
fn flipped_bit_is_found_at_its_block_or_harmless() {
    let volumes = Volumes::new();
    let file = fs::File::options().write(true).open(volumes.site.image()).unwrap();
    for (number, owner) in volumes.owners.iter().enumerate() {
        let beginning = (0..4096).step_by(if number < 2 { 3 } else { 7 }).take(20);
        let sample = noise(number as u64, 12).into_iter().zip(noise(!(number as u64), 12));
        let sample = sample.map(|(low, high)| usize::from(low) | usize::from(high & 15) << 8);
        for at in beginning.chain(sample).chain([4095]) {
            let (place, bit) = (number * 4096 + at, 1u8 << ((at / 3) % 8));
            file.write_all_at(&[volumes.bytes[place] ^ bit], place as u64).unwrap();
            let report = fsck(volumes.site.image(), Depth::Full, &mut |_, _| {}).unwrap();
            let found = report.problems.iter().find(|problem| problem.block == Some(number as u64));
            match owner {
                Owner::Free => assert!(report.is_clean(), "free block {number}, byte {at}: {report:#?}"),
                Owner::Metadata => assert!(found.is_some(), "block {number}, byte {at}: {report:#?}"),
                Owner::Path(path) => {
                    let found = found.unwrap_or_else(|| panic!("block {number}, byte {at}: {report:#?}"));
                    assert_eq!(found.path.as_ref(), Some(path), "{found}");
                }
            }
            volumes.assert_never_wrong_data();
            file.write_all_at(&[volumes.bytes[place]], place as u64).unwrap();
        }
    }
}

#[test]
fn fsck_quick_finds_damaged_metadata_and_not_data() {
    let volumes = Volumes::new();
    let owned_by = |path: &[u8]| {
        let is_owner = |owner: &Owner| *owner == Owner::Path(path.to_vec());
        volumes.owners.iter().position(is_owner).unwrap()
    };
    // The first block of a striped file holds checksums; the one behind it is data.
    let striped = owned_by(b"/sub/striped.png");
    for (block, is_found) in
        [(striped, true), (striped + 1, false), (owned_by(b"/index.html"), false), (1, true)]
    {
        let mut bytes = volumes.bytes.clone();
        bytes[block * 4096 + 100] ^= 1;
        fs::write(volumes.site.image(), &bytes).unwrap();
        let report = fsck(volumes.site.image(), Depth::Quick, &mut |_, _| {}).unwrap();
        assert_eq!(!report.is_clean(), is_found, "block {block}: {report:#?}");
    }
}

#[test]
fn block_that_lies_where_another_belongs_is_found() {
    let volumes = Volumes::new();
    let many: Vec<_> =
        (0..volumes.owners.len()).filter(|&at| volumes.owners[at] == Owner::Path(b"/many".into())).collect();
    let (from, to) = (many[0], many[1]);
    let mut bytes = volumes.bytes.clone();
    bytes.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
    fs::write(volumes.site.image(), &bytes).unwrap();
    let report = fsck(volumes.site.image(), Depth::Full, &mut |_, _| {}).unwrap();
    assert_eq!(report.problems[0].block, Some(to as u64), "{report:#?}");
    volumes.assert_never_wrong_data();
}

#[test]
fn image_cut_off_at_any_block_is_found_and_read_as_far_as_it_goes() {
    let volumes = Volumes::new();
    for blocks in 0..volumes.owners.len() {
        // A broken copy ends anywhere.
        fs::write(volumes.site.image(), &volumes.bytes[..blocks * 4096 + 17]).unwrap();
        match fsck(volumes.site.image(), Depth::Full, &mut |_, _| {}) {
            Ok(report) => {
                let missing: Vec<_> = report.problems.iter().filter_map(|problem| problem.block).collect();
                assert!(missing.contains(&(volumes.owners.len() as u64 - 1)), "{blocks}: {report:#?}");
                assert!(missing.iter().all(|&block| block >= blocks as u64), "{blocks}: {report:#?}");
            }
            Err(error) => {
                assert!(
                    blocks == 0 && matches!(error, FsckError::Refused { error: FsError::NotAVolume, .. }),
                    "{error}"
                )
            }
        }
        volumes.assert_never_wrong_data();
        if blocks > 0 {
            let mut image = Image::open(volumes.site.image()).unwrap();
            assert!(image.check_complete().unwrap_err().to_string().contains("cut off"));
            for (path, node) in
                walk(&mut image).into_iter().filter_map(|(path, node)| Some((path, node.ok()?)))
            {
                let end =
                    node.extents().last().map_or(0, |extent| extent.first_block + u64::from(extent.blocks));
                let is_there = end <= blocks as u64;
                if node.is_file() {
                    assert_eq!(content(&mut image, &node).is_ok(), is_there, "{}", path.escape_ascii());
                }
            }
        }
    }
}

#[test]
fn damaged_superblock_is_replaced_by_its_backup() {
    let volumes = Volumes::new();
    for damage in [0..4096, 8..9, 70..71] {
        let mut bytes = volumes.bytes.clone();
        bytes[damage].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(volumes.site.image(), &bytes).unwrap();
        let mut image = Image::open(volumes.site.image()).unwrap();
        assert!(image.uses_backup());
        assert!(image.lookup(b"/index.html").unwrap().is_some());
    }
}

#[test]
fn image_of_random_bytes_is_no_volume() {
    let site = Site::new();
    for bytes in [0, 1, 4095, 4096, 40_960] {
        fs::write(site.image(), noise(bytes as u64, bytes)).unwrap();
        let error = Image::open(site.image()).err().unwrap().to_string();
        assert!(error.contains("no exos file system here"), "{error}");
        let error = fsck(site.image(), Depth::Full, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, FsckError::Refused { error: FsError::NotAVolume, .. }), "{error}");
    }
}

#[test]
fn backup_superblock_of_a_disk_of_one_block_is_none() {
    assert_eq!(Volume::backup_superblock(0), None);
    assert_eq!(Volume::backup_superblock(1), None);
    assert_eq!(Volume::backup_superblock(2), Some(1));
}
