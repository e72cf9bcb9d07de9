//! What cannot be read or is not what was written is said, to everybody who waits for it, and only to them; never are
//! other bytes handed out.

use exos_cache::{Asked, Broken, Entry};
use exos_fs::FsError;

use crate::disk::{Disk, End, Image, Reader, content, read, run};

fn image() -> Image {
    Image::new(&[
        ("d/bad", content(1, 20_000)),
        ("d/good", content(2, 20_000)),
        ("large", content(3, 4 << 20)),
        ("other/file", content(4, 10)),
    ])
}

#[test]
fn corrupt_data_block_is_reported_for_its_file_alone() {
    let mut image = image();
    let block = image.block_of(&content(1, 20_000)[8_192..12_288]);
    image.damage(block);
    let (mut disk, mut store) = (Disk::default(), image.store(100));
    for _ in 0..2 {
        let (end, got) = read(&image, &mut disk, &mut store, "/d/bad");
        assert_eq!(end, End::Broken(Broken::Corrupt(FsError::BadData { block })));
        assert_eq!(got, [], "found before anything was handed out");
        assert!(read(&image, &mut disk, &mut store, "/d/good").1 == content(2, 20_000));
    }
    assert_eq!(store.counters().bad_blocks, 2);
}

#[test]
fn corrupt_block_is_read_once_for_all_who_wait_and_again_for_who_comes_later() {
    for damaged in [&content(1, 20_000)[..4_096], b""] {
        let clean = image();
        let block = match damaged {
            // A directory.
            b"" => clean
                .bytes
                .chunks(4_096)
                .position(|block| block.windows(4).any(|name| name == b"good"))
                .unwrap() as u64,
            data => clean.block_of(data),
        };
        let mut image = Image { bytes: clean.bytes.clone() };
        image.damage(block);
        let (mut disk, mut store) = (Disk::default(), image.store(100));
        assert!(read(&image, &mut disk, &mut store, "/other/file").1 == content(4, 10));
        let before = disk.times_read.get(&block).copied().unwrap_or_default();
        let mut readers: Vec<_> = (0..10).map(|_| Reader::new("/d/bad")).collect();
        run(&image, &mut disk, &mut store, &mut readers);
        for reader in &readers {
            assert!(matches!(reader.end(), Some(End::Broken(Broken::Corrupt(_)))), "{:?}", reader.end());
        }
        assert!(disk.times_read[&block] <= before + 1, "{} times", disk.times_read[&block]);
        assert!(
            read(&clean, &mut disk, &mut store, "/d/bad").1 == content(1, 20_000),
            "as it is on the disk now"
        );
        assert_eq!(store.counters().evictions, 0);
    }
}

#[test]
fn corrupt_block_in_the_middle_of_a_large_file_ends_the_stream_before_it() {
    let mut image = image();
    let file = content(3, 4 << 20);
    let block = image.block_of(&file[1 << 20..][..4_096]);
    image.damage(block);
    let (mut disk, mut store) = (Disk::default(), image.store(100));
    let (end, got) = read(&image, &mut disk, &mut store, "/large");
    assert_eq!(end, End::Broken(Broken::Corrupt(FsError::BadData { block })));
    assert!(got.len() <= 1 << 20 && got.len() > (1 << 20) - (64 << 10) && file.starts_with(&got));
}

#[test]
fn damage_in_the_first_64_kib_is_found_before_the_file_is_begun() {
    let bytes = content(1, 70_000);
    let mut image = Image::new(&[("file", bytes.clone())]);
    let block = image.block_of(&bytes[15 * 4_096..16 * 4_096]);
    image.damage(block);
    let (mut disk, mut store) = (Disk::default(), image.store(100));
    assert!(read(&image, &mut disk, &mut store, "/nothing").0 == End::NotFound);
    let Asked::Done(Some(Entry::File(file))) = store.lookup(b"/file", b"") else { panic!("it is there") };
    loop {
        match store.begin(&file) {
            Asked::Done(()) => panic!("its 16th block is damaged"),
            Asked::Broken(broken) => {
                assert_eq!(broken, Broken::Corrupt(FsError::BadData { block }));
                break;
            }
            Asked::Wait(_) => disk.take(&mut store, 16),
        }
        while !disk.on_their_way.is_empty() {
            disk.complete(&image, &mut store, 0);
        }
    }
}

#[test]
fn every_damaged_block_is_reported_or_harms_nobody() {
    let clean = image();
    let files =
        [("/d/bad", content(1, 20_000)), ("/d/good", content(2, 20_000)), ("/other/file", content(4, 10))];
    // The superblock is the mount's business, and the large file has the test before.
    for block in (1..clean.blocks() - 1).filter(|block| block % 7 == 0 || *block < 40) {
        let mut image = Image { bytes: clean.bytes.clone() };
        image.damage(block);
        let (mut disk, mut store) = (Disk::default(), image.store(100));
        for (path, content) in &files {
            match read(&image, &mut disk, &mut store, path) {
                (End::All, got) => assert!(got == *content, "{path} with block {block}"),
                (End::Broken(Broken::Corrupt(error)), got) => {
                    assert!(content.starts_with(&got));
                    assert_eq!(error.block(), Some(block));
                }
                (end, _) => panic!("{path} with block {block}: {end:?}"),
            }
        }
    }
}

#[test]
fn failed_read_is_told_to_all_who_wait_and_tried_again_for_who_comes_later() {
    let image = image();
    let block = image.block_of(&content(1, 20_000)[..4_096]);
    let (mut disk, mut store) = (Disk::default(), image.store(100));
    // The directories are in memory before.
    assert!(read(&image, &mut disk, &mut store, "/other/file").1 == content(4, 10));
    disk.bad_blocks.insert(block);
    let mut readers: Vec<_> = (0..10).map(|_| Reader::new("/d/bad")).collect();
    run(&image, &mut disk, &mut store, &mut readers);
    for reader in &readers {
        assert!(matches!(reader.end(), Some(End::Broken(Broken::Unreadable { .. }))), "{:?}", reader.end());
    }
    disk.bad_blocks.clear();
    assert!(read(&image, &mut disk, &mut store, "/d/bad").1 == content(1, 20_000));
}

#[test]
fn failure_of_a_long_read_is_narrowed_down_to_the_frame_that_cannot_be_read() {
    let image = image();
    let file = content(3, 4 << 20);
    let block = image.block_of(&file[2 << 20..][..4_096]);
    let (mut disk, mut store) = (Disk::default(), image.store(200));
    disk.bad_blocks.insert(block);
    let (end, got) = read(&image, &mut disk, &mut store, "/large");
    assert!(matches!(end, End::Broken(Broken::Unreadable { .. })), "{end:?}");
    assert!(file.starts_with(&got) && got.len() > (2 << 20) - (64 << 10), "{}", got.len());
}
