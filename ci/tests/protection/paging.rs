//! An environment with more data than memory pages for itself: faults arrive as upcalls, the policy is its own, and what does not
//! fit is in its extent of the disk.

use crate::fixture::{Probe, said};
use abi::extent::BLOCK_BYTES;
use exovm::backend::disk::Access;
use exovm::machine::DiskSetup;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Where the extent begins, as the probe has it.
const FIRST_BLOCK: u64 = 64;
/// What blocks of others hold.
const MARK: u8 = 0xA5;

/// A disk with an extent of so many blocks on it, and blocks of others around that.
fn disk(blocks: u64) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a file");
    file.as_file().set_len((FIRST_BLOCK + blocks + 64) * BLOCK_BYTES).expect("room");
    for block in (0..FIRST_BLOCK).chain(FIRST_BLOCK + blocks..FIRST_BLOCK + blocks + 64) {
        let at = block * BLOCK_BYTES;
        file.as_file().write_all_at(&[MARK; BLOCK_BYTES as usize], at).expect("room");
    }
    file
}

fn block(file: &NamedTempFile, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK_BYTES as usize];
    file.as_file().read_exact_at(&mut bytes, block * BLOCK_BYTES).expect("within the disk");
    bytes
}

fn start(file: &NamedTempFile, pages: u64, frames: u64, passes: u64) -> Probe {
    let numbers = [pages, frames, passes].map(|number| number.to_string());
    let arguments = [&["self-paging"][..], &numbers.each_ref().map(String::as_str)].concat();
    Probe::start(&arguments, |config| {
        config.disks = vec![DiskSetup::open(file.path(), Access::ReadWrite).expect("an image")];
    })
}

/// The numbers of the passes.
fn passes(log: &[String]) -> Vec<Vec<u64>> {
    let numbers = |line: &str| {
        line.split([' ', ':', ',']).filter_map(|word| word.parse().ok()).skip(1).collect::<Vec<u64>>()
    };
    said(log).filter(|line| line.starts_with("pass ")).map(numbers).collect()
}

fn pages_to_its_extent(pages: u64, frames: u64) {
    const PASSES: u64 = 3;
    let file = disk(pages);
    let log = start(&file, pages, frames, PASSES).finish().held();
    let lines: Vec<&str> = said(&log).collect();
    assert_eq!(lines[..2], ["a write before the extent is taken: true", "and done: false"]);
    let all = passes(&log);
    assert_eq!(all.len() as u64, PASSES + 1, "{log:#?}");
    for (pass, numbers) in all.iter().enumerate() {
        let &[faults, read, written, upgrades, wrong] = numbers.as_slice() else { panic!("{log:#?}") };
        assert_eq!(wrong, 0, "{lines:#?}");
        // Nothing was there before the first pass. In an order like none, a page is in a frame with the frames' share.
        let absent = if pass == 0 { 0 } else { pages - pages * frames / pages * 5 / 4 };
        assert!(read >= absent && read <= pages, "{lines:#?}");
        assert_eq!(faults, upgrades + if pass == 0 { pages } else { read }, "{lines:#?}");
        // All that was written and gave its frame away went to the disk.
        assert!(pass as u64 == PASSES || written >= pages - frames - frames / 8, "{lines:#?}");
    }
    for other in (0..FIRST_BLOCK).chain(FIRST_BLOCK + pages..FIRST_BLOCK + pages + 64) {
        assert!(block(&file, other).iter().all(|&byte| byte == MARK), "block {other} is another's");
    }
}

#[test]
fn core_environment_with_more_data_than_frames_pages_to_its_extent() {
    pages_to_its_extent(512, 128);
}

/// 16 MiB of data, 4 MiB of frames.
#[test]
fn large_environment_pages_to_its_extent() {
    pages_to_its_extent(4096, 1024);
}

/// What lies on the disk is what comes back: if somebody else changes it there, the environment sees that.
#[test]
fn core_what_is_paged_in_is_what_lies_on_the_disk() {
    const PAGES: u64 = 512;
    let file = disk(PAGES);
    let probe = start(&file, PAGES, 64, 2);
    let begun = Instant::now();
    while !probe.log().iter().any(|line| line.contains("pass 0: ")) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:#?}", probe.log());
        std::thread::sleep(Duration::from_millis(1));
    }
    for block in FIRST_BLOCK..FIRST_BLOCK + PAGES {
        file.as_file().write_all_at(&[MARK], block * BLOCK_BYTES + 77).expect("within the disk");
    }
    let log = probe.finish().held();
    let wrong = passes(&log).last().and_then(|numbers| numbers.last().copied());
    assert!(wrong.is_some_and(|wrong| wrong > 0 && wrong <= 2 * PAGES), "{log:#?}");
}
