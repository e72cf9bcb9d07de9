//! What goes into a volume comes out of it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use exos_fs::fsck::{Depth, fsck};
use exos_fs::image::Image;
use exos_fs::make::{MakeError, Plan};
use exos_fs::tree::{ScanError, Warning};
use exos_fs::{Block, FsError, check_data};
use proptest::prelude::*;

use crate::common::{Disk, OPTIONS, Site, content, noise, varied_site, walk};

#[test]
fn make_then_read_returns_every_file() {
    let site = Site::new();
    let long = "n".repeat(255);
    let files: [(&[u8], usize); 14] = [
        (b"index.html", 5),
        (b"with space.txt", 4095),
        ("übergröße/日本.css".as_bytes(), 4097),
        (b"not-utf8-\xff\xfe.bin", 1),
        (b"a/b/c/d/e.png", 20_000),
        (b"a-b/x.js", 3),
        (b"a.b", 2),
        (b"empty", 0),
        (b"exactly-a-page.bin", 4096),
        (long.as_bytes(), 9000),
        (b"largest-with-checksums-in-its-entry", 8 * 4096),
        (b"smallest-striped", 8 * 4096 + 1),
        (b"exactly-a-stripe", 511 * 4096),
        (b"three-stripes", 2 * 511 * 4096 + 10),
    ];
    for (seed, (name, bytes)) in files.iter().enumerate() {
        site.write(OsStr::from_bytes(name), &noise(seed as u64, *bytes));
    }
    let mut image = site.make();
    assert_eq!(image.volume().file_count(), 14);
    assert_eq!(image.volume().directory_count(), 7);
    for (seed, (name, bytes)) in files.iter().enumerate() {
        let path = [b"/", *name].concat();
        let node = image.lookup(&path).unwrap().unwrap_or_else(|| panic!("{}", path.escape_ascii()));
        assert!(node.is_file());
        assert_eq!(node.size_bytes(), *bytes as u64);
        assert!(content(&mut image, &node).unwrap() == noise(seed as u64, *bytes), "{}", path.escape_ascii());
    }
}

fn component() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![Just(b'a'), Just(b'-'), Just(b'.'), Just(b'b'), 1..=255u8], 1..12)
        .prop_map(|mut name| {
            name.iter_mut().for_each(|byte| *byte = if *byte == b'/' { b'_' } else { *byte });
            if name.iter().all(|&byte| byte == b'.') {
                name.push(b'x');
            }
            name
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn make_then_read_any_tree_returns_every_file(
        files in prop::collection::vec((prop::collection::vec(component(), 1..4), 0..50_000usize), 1..40)
    ) {
        let site = Site::new();
        let mut expected = BTreeMap::new();
        for (number, (components, size)) in files.iter().enumerate() {
            let name = components.join(&b'/');
            let path = site.root().join(OsStr::from_bytes(&name));
            // Names may contradict each other (file and directory of one name): those are not written.
            let written = fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir();
            if written && fs::write(&path, noise(number as u64, *size)).is_ok() {
                expected.insert([b"/", &name[..]].concat(), noise(number as u64, *size));
            }
        }
        let mut image = site.make();
        let mut found = BTreeMap::new();
        for (path, node) in walk(&mut image) {
            let node = node.unwrap();
            if node.is_file() {
                // A look-up finds what the list says.
                prop_assert_eq!(image.lookup(&path).unwrap(), Some(node));
                found.insert(path, content(&mut image, &node).unwrap());
            }
        }
        prop_assert!(found == expected);
        let report = fsck(site.image(), Depth::Full, &mut |_, _| {}).unwrap();
        prop_assert!(report.is_clean(), "{:#?}", report);
    }
}

#[test]
fn node_says_size_time_kind_and_media_type() {
    let site = Site::new();
    let path = site.write("docs/page.HTML", b"<p>");
    let time = UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    let mut image = site.make();
    let node = image.lookup(b"/docs/page.HTML").unwrap().unwrap();
    assert_eq!((node.size_bytes(), node.data_blocks()), (3, 1));
    assert_eq!((node.mtime_unix_seconds(), node.mtime_nanoseconds()), (1_700_000_000, 123_456_789));
    assert_eq!(node.media_type(), "text/html; charset=utf-8");
    let directory = image.lookup(b"/docs/").unwrap().unwrap();
    assert!(directory.is_directory() && directory.id() != node.id());
    assert_eq!(directory.media_type(), "application/octet-stream");
}

#[test]
fn times_that_no_date_can_express_are_clamped() {
    let site = Site::new();
    let file = fs::File::options().write(true).open(site.write("early", b"")).unwrap();
    file.set_modified(UNIX_EPOCH - Duration::from_secs(1_000_000)).unwrap();
    let node = site.make().lookup(b"/early").unwrap().unwrap();
    assert_eq!((node.mtime_unix_seconds(), node.mtime_nanoseconds()), (0, 0));
}

#[test]
fn lookup_of_what_is_not_so_finds_nothing() {
    let site = Site::new();
    site.write("dir/file", b"x");
    fs::create_dir(site.root().join("empty")).unwrap();
    let mut image = site.make();
    let long = [b"/", &[b'n'; 256][..]].concat();
    let absent: [&[u8]; 14] = [
        b"",
        b"dir",
        b"//dir",
        b"/dir//file",
        b"/dir/file/",
        b"/dir/file/x",
        b"/dir/.",
        b"/..",
        b"/di",
        b"/dirr",
        b"/empty/x",
        b"/empty/index.html",
        b"/dir/file\0",
        &long,
    ];
    for path in absent {
        assert_eq!(image.lookup(path).unwrap(), None, "{}", path.escape_ascii());
    }
    for path in [&b"/"[..], b"/dir", b"/dir/", b"/empty", b"/empty/"] {
        assert!(image.lookup(path).unwrap().unwrap().is_directory(), "{}", path.escape_ascii());
    }
}

#[test]
fn volume_without_files_is_a_volume() {
    let site = Site::new();
    let mut image = site.make();
    let root = image.lookup(b"/").unwrap().unwrap();
    assert!(image.entries(&root).unwrap().is_empty());
    assert_eq!(fs::metadata(site.image()).unwrap().len(), 3 * 4096);
    assert!(fsck(site.image(), Depth::Full, &mut |_, _| {}).unwrap().is_clean());
}

#[test]
fn directory_of_10_000_files_reads_one_block_for_each() {
    let site = Site::new();
    for number in 0..10_000 {
        site.write(format!("many/page-{number}.html"), &[]);
    }
    let mut image = site.make();
    let directory = image.lookup(b"/many").unwrap().unwrap();
    assert_eq!(image.entries(&directory).unwrap().len(), 10_000);
    let disk = Disk::of(site.image());
    for number in (0..10_000).step_by(97) {
        let path = format!("/many/page-{number}.html");
        let (node, blocks) = disk.lookup(path.as_bytes());
        assert!(node.is_some());
        assert_eq!(blocks.len(), 2, "{path}");
    }
}

#[test]
fn deep_tree_is_read_to_its_leaf() {
    let site = Site::new();
    let mut deep = PathBuf::new();
    let mut levels = 0;
    // As deep as the host lets a path be, in directories of one letter.
    while site.root().join(&deep).as_os_str().len() < 4000 {
        deep.push("d");
        levels += 1;
    }
    site.write(deep.join("leaf.txt"), b"deep");
    let mut image = site.make();
    assert_eq!(image.volume().directory_count(), levels + 1);
    let path = [b"/", deep.as_os_str().as_bytes(), b"/leaf.txt"].concat();
    let node = image.lookup(&path).unwrap().unwrap();
    assert_eq!(content(&mut image, &node).unwrap(), b"deep");
    assert!(fsck(site.image(), Depth::Full, &mut |_, _| {}).unwrap().is_clean());
}

/// Bytes that this thread has read, from files or caches (proc(5), `io`).
fn read_bytes() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// Holes of 4 GiB take no room in the image either, and are not read.
#[test]
fn file_larger_than_4_gib_comes_out_and_its_holes_stay_holes() {
    let site = Site::new();
    let file = fs::File::create(site.root().join("large")).unwrap();
    let size_bytes = (4 << 30) + 100_005;
    file.set_len(size_bytes).unwrap();
    file.write_all_at(b"needle", (4 << 30) + 12_345).unwrap();
    let read_before = read_bytes();
    site.try_make().unwrap();
    // The last stripes have the needle and are read.
    assert!(read_bytes() - read_before < 16 << 20, "{} bytes", read_bytes() - read_before);
    let mut image = Image::open(site.image()).unwrap();
    let node = image.lookup(b"/large").unwrap().unwrap();
    assert_eq!(node.size_bytes(), size_bytes);
    assert!(fs::metadata(site.image()).unwrap().blocks() * 512 < 64 << 20);
    let disk = Disk::of(site.image());
    let (run, _) = disk.data_run(&node, ((4 << 30) + 12_345) / 4096);
    let mut block = [0; 4096];
    disk.file.read_exact_at(&mut block, run.0 * 4096).unwrap();
    assert_eq!(&block[12_345 % 4096..][..6], b"needle");
    assert_eq!(check_data(run.1[0], run.0, &block), Ok(()));
    assert!(fsck(site.image(), Depth::Quick, &mut |_, _| {}).unwrap().is_clean());
}

/// A hole and zeros that were written are the same to a reader of the file, so they are in the image.
#[test]
fn holes_give_the_same_image_as_zeros() {
    const STRIPE: u64 = 511 * 4096;
    let site = Site::new();
    let files: [(u64, &[u64]); 9] = [
        (40_000, &[]),
        (STRIPE, &[]),
        (3 * STRIPE + 5, &[]),
        (5 * STRIPE, &[2 * STRIPE + 7]),
        (4 * STRIPE, &[STRIPE - 1, STRIPE]),
        (3 * STRIPE + 1, &[3 * STRIPE]),
        (3 * STRIPE + 4097, &[0]),
        (6 * STRIPE, &[STRIPE, 4 * STRIPE, 6 * STRIPE - 1]),
        (20_000, &[10_000]),
    ];
    let make_from = |zeros: fn(&fs::File, u64)| {
        for (number, (bytes, data)) in files.iter().enumerate() {
            let file = fs::File::create(site.root().join(format!("file-{number}"))).unwrap();
            zeros(&file, *bytes);
            data.iter().for_each(|&at| file.write_all_at(b"x", at).unwrap());
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
        }
        site.make();
        fs::read(site.image()).unwrap()
    };
    let of_zeros = make_from(|file, bytes| file.write_all_at(&vec![0; bytes as usize], 0).unwrap());
    let of_holes = make_from(|file, bytes| file.set_len(bytes).unwrap());
    let sparse_blocks = fs::metadata(site.root().join("file-2")).unwrap().blocks();
    assert!(sparse_blocks == 0, "the file system of this test has holes: {sparse_blocks}");
    assert!(of_zeros == of_holes);
    assert!(fsck(site.image(), Depth::Full, &mut |_, _| {}).unwrap().is_clean());
}

#[test]
fn cold_lookup_reads_one_block_a_component() {
    let site = Site::new();
    site.write("a/b/c/page.html", b"x");
    site.make();
    let (node, blocks) = Disk::of(site.image()).lookup(b"/a/b/c/page.html");
    assert!(node.is_some());
    assert_eq!(blocks.len(), 4);
}

/// The checksums of a file come with the look-up or with its data.
#[test]
fn cold_file_needs_one_request() {
    let site = Site::new();
    for (name, bytes) in [("small", 8 * 4096), ("large", 511 * 4096), ("medium", 8 * 4096 + 1)] {
        site.write(name, &noise(9, bytes));
    }
    let mut image = site.make();
    let disk = Disk::of(site.image());
    for (name, requests) in [("small", 0), ("medium", 1), ("large", 1)] {
        let node = image.lookup(format!("/{name}").as_bytes()).unwrap().unwrap();
        let (run, needs) = disk.data_run(&node, 0);
        assert_eq!(run.1.len() as u64, node.data_blocks(), "{name}");
        assert_eq!(needs.len(), requests, "{name}");
        // With the block of checksums comes all of the data behind it.
        for need in needs {
            assert_eq!(
                (need.first_block + 1, u64::from(need.data_blocks_behind)),
                (run.0, node.data_blocks())
            );
        }
    }
}

#[test]
fn data_run_in_the_middle_of_a_stripe_ends_with_it() {
    let site = Site::new();
    site.write("file", &noise(3, 600 * 4096));
    let mut image = site.make();
    let node = image.lookup(b"/file").unwrap().unwrap();
    let disk = Disk::of(site.image());
    let first = node.extents()[0].first_block;
    for (file_block, block, blocks) in
        [(0, 1, 511), (500, 501, 11), (510, 511, 1), (511, 513, 89), (599, 601, 1)]
    {
        let (run, _) = disk.data_run(&node, file_block);
        assert_eq!((run.0, run.1.len()), (first + block, blocks), "block {file_block}");
    }
    let blocks = HashMap::<u64, Box<Block>>::new();
    let error = image.volume().data_run(&blocks, &node, 600).unwrap_err();
    assert_eq!(error, FsError::BehindTheEnd { file_block: 600 });
    let root = image.volume().root();
    assert_eq!(image.volume().data_run(&blocks, &root, 0).unwrap_err(), FsError::NotAFile);
}

#[test]
fn made_twice_from_the_same_files_is_the_same() {
    let site = varied_site();
    site.make();
    let first = fs::read(site.image()).unwrap();
    site.make();
    assert!(fs::read(site.image()).unwrap() == first);
}

#[test]
fn fingerprint_changes_with_the_files_alone() {
    let site = varied_site();
    let fingerprint = || Plan::scan(site.root()).unwrap().fingerprint();
    let first = fingerprint();
    assert_eq!(fingerprint(), first);
    site.write("sub/new", b"");
    let second = fingerprint();
    assert_ne!(second, first);
    fs::rename(site.root().join("sub/new"), site.root().join("new")).unwrap();
    assert_ne!(fingerprint(), second);
    fs::remove_file(site.root().join("new")).unwrap();
    assert_eq!(fingerprint(), first);
}

#[test]
fn links_out_of_the_tree_are_followed_and_loops_left_out_with_a_warning() {
    let site = Site::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("style.css"), "css").unwrap();
    symlink(outside.path(), site.root().join("shared")).unwrap();
    site.write("a/file", b"x");
    symlink("..", site.root().join("a/up")).unwrap();
    symlink("gone", site.root().join("dangling")).unwrap();
    let plan = Plan::scan(site.root()).unwrap();
    let mut warnings = plan.warnings().to_vec();
    warnings.sort_by_key(|warning| warning.to_string());
    let (up, dangling) = (site.root().join("a/up"), site.root().join("dangling"));
    assert_eq!(warnings, [Warning::LinkLoop(up), Warning::LeadsNowhere(dangling)]);
    let mut image = site.make();
    let node = image.lookup(b"/shared/style.css").unwrap().unwrap();
    assert_eq!(content(&mut image, &node).unwrap(), b"css");
    assert_eq!(image.lookup(b"/dangling").unwrap(), None);
}

#[test]
fn file_that_changes_while_it_is_copied_is_named() {
    let site = Site::new();
    let path = site.write("log", b"0123456789");
    let change = |content: &[u8], seconds: u64| {
        let plan = Plan::scan(site.root()).unwrap();
        fs::write(&path, content).unwrap();
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        plan.write(site.image(), &OPTIONS, &mut |_| {}).unwrap_err()
    };
    let grown = change(b"0123456789ab", 1);
    assert!(matches!(grown, MakeError::FileChanged { scanned_bytes: 10, found_bytes: 12, .. }), "{grown}");
    let shrunk = change(b"0123", 2);
    assert!(matches!(shrunk, MakeError::FileChanged { scanned_bytes: 12, found_bytes: 4, .. }), "{shrunk}");
    let rewritten = change(b"abcd", 3);
    assert!(
        rewritten.to_string().contains("log") && rewritten.to_string().contains("modified"),
        "{rewritten}"
    );
    let plan = Plan::scan(site.root()).unwrap();
    fs::remove_file(&path).unwrap();
    let gone = plan.write(site.image(), &OPTIONS, &mut |_| {}).unwrap_err();
    assert!(
        matches!(&gone, MakeError::Scan(ScanError::Unreadable { path: gone, .. }) if *gone == path),
        "{gone}"
    );
    assert!(!site.image().exists());
}

#[test]
fn image_replaces_what_a_link_leads_to_and_nothing_that_is_no_file() {
    let site = varied_site();
    let real = site.image().with_extension("real");
    fs::write(&real, "old").unwrap();
    symlink(&real, site.image()).unwrap();
    site.make();
    assert!(fs::symlink_metadata(site.image()).unwrap().is_symlink());
    assert!(fs::metadata(&real).unwrap().len() > 4096);
    fs::remove_file(site.image()).unwrap();
    fs::create_dir(site.image()).unwrap();
    assert!(matches!(site.try_make(), Err(MakeError::NotAFile { .. })));
}
