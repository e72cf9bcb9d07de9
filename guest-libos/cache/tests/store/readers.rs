//! Whatever the order in which reads complete, whoever holds what for how long, and however few frames there are: every
//! reader gets its file, byte for byte.

use std::cell::RefCell;

use crate::disk::{Disk, End, Image, Reader, content, read};
use exos_cache::{Asked, Entry, FRAME_BYTES};
use proptest::prelude::*;

const SIZES: &[(&str, usize)] = &[
    ("empty", 0),
    ("one", 1),
    ("block", 4_096),
    ("more", 4_097),
    ("eight", 8 * 4_096),
    ("striped", 8 * 4_096 + 1),
    ("a/frame", 64 << 10),
    ("a/b/two-stripes", 3 << 20),
    ("a/b/index.html", 100),
    ("a/b/c/deep", 70_000),
];

fn files() -> Vec<(&'static str, Vec<u8>)> {
    SIZES.iter().enumerate().map(|(seed, (name, len))| (*name, content(seed as u8, *len))).collect()
}

thread_local! {
    static IMAGE: RefCell<Image> = RefCell::new(Image::new(&files()));
}

#[test]
fn every_file_is_read_as_it_was_written() {
    let image = Image::new(&files());
    let (mut disk, mut store) = (Disk::default(), image.store(64));
    for _ in 0..2 {
        for (name, content) in files() {
            let (end, got) = read(&image, &mut disk, &mut store, &format!("/{name}"));
            assert_eq!(end, End::All, "{name}");
            assert!(got == content, "{name}");
        }
    }
    assert_eq!(read(&image, &mut disk, &mut store, "/a/b/").1, content(8, 100));
    for path in ["/", "/a", "/a/", "/nothing", "/a/b/nothing", "/one/", "/one/x", "nothing", "//one"] {
        assert_eq!(read(&image, &mut disk, &mut store, path).0, End::NotFound, "{path}");
    }
}

#[test]
fn file_five_hundred_directories_deep_is_found_with_few_reads() {
    let name = format!("{}file", "d/".repeat(500));
    let image = Image::new(&[(&name, content(1, 10))]);
    let (mut disk, mut store) = (Disk::default(), image.store(100));
    assert_eq!(read(&image, &mut disk, &mut store, &format!("/{name}")).1, content(1, 10));
    assert!(store.counters().reads < 40, "{:?}", store.counters());
}

#[test]
fn everything_is_read_once_if_it_fits() {
    let image = Image::new(&files());
    let (mut disk, mut store) = (Disk::default(), image.store(1_000));
    for _ in 0..3 {
        for (name, _) in SIZES {
            read(&image, &mut disk, &mut store, &format!("/{name}"));
        }
    }
    assert!(disk.times_read.values().all(|&times| times == 1));
    assert_eq!(store.counters().evictions, 0);
    assert_eq!(store.counters().bytes_read, 4_096 * disk.times_read.len() as u64);
}

#[test]
fn memory_stays_within_its_bound_and_what_is_held_does_not_change() {
    let image = Image::new(&files());
    let (mut disk, mut store) = (Disk::default(), image.store(16));
    let mut holder = [Reader::new("/a/frame")];
    while holder[0].held.is_empty() {
        holder[0].go_on(0, &mut store, 1);
        disk.take(&mut store, 16);
        while !disk.on_their_way.is_empty() {
            disk.complete(&image, &mut store, 0);
            holder[0].waits = false;
        }
    }
    let before = holder[0].held[0].bytes().to_vec();
    for _ in 0..3 {
        for (name, content) in files() {
            assert!(read(&image, &mut disk, &mut store, &format!("/{name}")).1 == content, "{name}");
        }
    }
    assert!(store.counters().evictions > 50);
    assert!(store.cache().frames() <= 16);
    assert_eq!(holder[0].held[0].bytes(), before);
}

#[test]
fn small_files_that_were_thrown_out_and_come_again_are_the_same() {
    // Several to a frame, in more frames than there is room for: where a file lay the last time lies another now.
    let files: Vec<(String, Vec<u8>)> =
        (0..120).map(|number| (format!("file-{number}"), content(number, 20_000))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let image = Image::new(&files);
    let (mut disk, mut store) = (Disk::default(), image.store(16));
    let mut known = Vec::new();
    for _ in 0..3 {
        for (name, bytes) in &files {
            let path = format!("/{name}");
            let (end, got) = read(&image, &mut disk, &mut store, &path);
            assert!(end == End::All && got == *bytes, "{name}");
            if let Asked::Done(Some(Entry::File(file))) = store.lookup(path.as_bytes(), b"") {
                known.push(file);
            }
        }
    }
    assert!(store.counters().evictions > 60 && store.counters().name_hits > 120, "{:?}", store.counters());
    // Of those that are not there any more it is not said that they are, whatever was known of them.
    known.drain(..240);
    let begun = known.iter().filter(|file| matches!(store.begin(file), Asked::Done(()))).count();
    assert!(begun <= 16 * 4, "{begun} files in 16 frames");
}

#[test]
fn frame_that_somebody_refers_to_is_not_thrown_out_and_whoever_wants_room_waits_for_it() {
    let files: Vec<(String, Vec<u8>)> =
        (0..6).map(|number| (format!("file-{number}"), content(number, 512 << 10))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let image = Image::new(&files);
    let (mut disk, mut store) = (Disk::default(), image.store(16));
    let mut readers: Vec<_> = files.iter().map(|(name, _)| Reader::new(&format!("/{name}"))).collect();
    // Everybody takes what there is and lets nothing go, until there is no room for anybody.
    for _ in 0..100 {
        for (number, reader) in readers.iter_mut().enumerate() {
            reader.go_on(number, &mut store, 100);
        }
        disk.take(&mut store, 16);
        let mut woken = Vec::new();
        while !disk.on_their_way.is_empty() {
            woken.extend(disk.complete(&image, &mut store, 0));
        }
        store.cache().tell_room_waiters(|waiter| woken.push(waiter));
        woken.into_iter().for_each(|number| readers[number].waits = false);
    }
    let held: usize = readers.iter().flat_map(|reader| &reader.held).map(|slice| slice.len()).sum();
    assert!(store.counters().room_waits > 0 && readers.iter().any(|reader| reader.end().is_none()));
    assert!(held <= 16 * FRAME_BYTES && store.cache().frames() == 16, "{held} bytes");
    // What is let go is room for those who wait.
    readers.iter_mut().for_each(|reader| reader.held.clear());
    let mut woken = 0;
    while readers.iter().any(|reader| reader.waits) && woken < readers.len() {
        let before = woken;
        store.cache().tell_room_waiters(|number| {
            woken += 1;
            readers[number].waits = false;
        });
        assert!(woken > before, "somebody waits for room that there is");
    }
}

#[derive(Clone, Debug)]
enum Step {
    GoOn(usize, usize),
    Release(usize),
    Take(usize),
    Complete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<usize>(), 1..5usize).prop_map(|(reader, held)| Step::GoOn(reader, held)),
        2 => any::<usize>().prop_map(Step::Release),
        2 => (1..20usize).prop_map(Step::Take),
        4 => any::<usize>().prop_map(Step::Complete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 200 } else { 4_000 }))]

    #[test]
    fn readers_in_any_order_over_any_number_of_frames_get_their_files(
        max_frames in 16..60usize,
        paths in prop::collection::vec(0..SIZES.len(), 1..8),
        steps in prop::collection::vec(step(), 0..300),
    ) {
        IMAGE.with_borrow(|image| {
            let (mut disk, mut store) = (Disk::default(), image.store(max_frames));
            let mut readers: Vec<_> =
                paths.iter().map(|path| Reader::new(&format!("/{}", SIZES[*path].0))).collect();
            // Whatever happened before, in the end everybody goes on, everything completes and is released.
            let end = |round: usize| [Step::GoOn(round, 4), Step::Release(round), Step::Take(16), Step::Complete(0)];
            for step in steps.into_iter().chain((0..40_000).flat_map(end)) {
                let count = readers.len();
                let mut woken = Vec::new();
                match step {
                    Step::GoOn(reader, held) => readers[reader % count].go_on(reader % count, &mut store, held),
                    Step::Release(reader) => {
                        readers[reader % count].held.clear();
                        store.cache().tell_room_waiters(|waiter| woken.push(waiter));
                    }
                    Step::Take(frames) => disk.take(&mut store, frames),
                    Step::Complete(_) if disk.on_their_way.is_empty() => {}
                    Step::Complete(which) => {
                        let which = which % disk.on_their_way.len();
                        woken = disk.complete(image, &mut store, which);
                    }
                }
                for number in woken {
                    readers[number].waits = false;
                }
                prop_assert!(store.cache().frames() <= max_frames);
                if readers.iter().all(|reader| reader.end().is_some()) {
                    break;
                }
            }
            for (reader, path) in readers.iter().zip(&paths) {
                prop_assert_eq!(reader.end(), Some(&End::All), "{}", &reader.path);
                prop_assert!(reader.got == content(*path as u8, SIZES[*path].1), "{}", &reader.path);
            }
            Ok(())
        })?;
    }
}
