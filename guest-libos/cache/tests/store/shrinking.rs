//! A cache whose memory is asked back while it is used: nobody notices but by reading again.

use crate::disk::{Disk, End, Image, Reader, content, run};

/// Everything must go, wherever it lies.
const ALL: usize = 0;

fn image(files: u8) -> Image {
    let files: Vec<(String, Vec<u8>)> =
        (0..files).map(|file| (format!("file{file}"), content(file, 300_000 + usize::from(file)))).collect();
    let named: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    Image::new(&named)
}

fn readers(files: u8) -> Vec<Reader> {
    (0..files).map(|file| Reader::new(&format!("/file{file}"))).collect()
}

#[test]
fn shrunk_cache_gives_back_what_nobody_uses_and_serves_on() {
    let image = image(20);
    let (mut disk, mut store) = (Disk::default(), image.store(200));
    run(&image, &mut disk, &mut store, &mut readers(20));
    let before = store.cache().frames();
    assert!(before > 80, "{before}");
    let back = store.cache().shrink(40, ALL);
    assert_eq!((back, store.cache().frames()), (before, 0));
    assert!(store.counters().given_back as usize >= before);
    let mut again = readers(20);
    run(&image, &mut disk, &mut store, &mut again);
    for (file, reader) in (0u8..).zip(&again) {
        assert_eq!(reader.end(), Some(&End::All));
        assert!(reader.got == content(file, 300_000 + usize::from(file)));
    }
    assert!(store.cache().frames() <= 40, "{}", store.cache().frames());
}

#[test]
fn shrunk_cache_does_not_touch_what_is_in_use_until_it_is_not() {
    let image = image(4);
    let (mut disk, mut store) = (Disk::default(), image.store(200));
    let mut all = readers(4);
    // Nobody lets go of what it got.
    while all.iter().any(|reader| reader.end().is_none()) {
        for (number, reader) in all.iter_mut().enumerate().filter(|(_, reader)| !reader.waits) {
            reader.go_on(number, &mut store, usize::MAX);
        }
        disk.take(&mut store, 16);
        while !disk.on_their_way.is_empty() {
            disk.complete(&image, &mut store, 0).into_iter().for_each(|number| all[number].waits = false);
        }
    }
    store.cache().shrink(16, ALL);
    let held = store.cache().frames();
    assert!(held >= 4 * 4, "{held}");
    for (file, reader) in (0u8..).zip(&all) {
        let bytes: Vec<u8> = reader.held.iter().flat_map(|slice| slice.bytes().to_vec()).collect();
        assert!(bytes == content(file, 300_000 + usize::from(file)), "a page changed under its reader");
    }
    drop(all);
    assert_eq!(store.cache().shrink(16, ALL), held);
    assert_eq!(store.cache().frames(), 0);
}

/// In the middle of everything, again and again: the disk does one read in each step, and every few steps all memory must go.
#[test]
fn cache_that_is_shrunk_again_and_again_serves_every_byte() {
    const FILES: u8 = 4;
    let files: Vec<(String, Vec<u8>)> = (0..FILES)
        .map(|file| (format!("file{file}"), content(file, 3_000_000 + usize::from(file))))
        .collect();
    let named: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let image = Image::new(&named);
    let (mut disk, mut store) = (Disk::default(), image.store(64));
    let mut all = readers(FILES);
    let mut steps = 0;
    while all.iter().any(|reader| reader.end().is_none()) {
        steps += 1;
        assert!(steps < 20_000, "no end: {:?}", store.counters());
        for (number, reader) in all.iter_mut().enumerate() {
            if !reader.waits && reader.end().is_none() {
                reader.held.clear();
                reader.go_on(number, &mut store, 1);
            }
        }
        disk.take(&mut store, 4);
        if steps % 16 == 0 {
            store.cache().shrink(32, ALL);
        }
        let mut woken = Vec::new();
        if !disk.on_their_way.is_empty() {
            woken = disk.complete(&image, &mut store, 0);
        }
        store.cache().tell_room_waiters(|number| woken.push(number));
        woken.into_iter().for_each(|number| all[number].waits = false);
    }
    for (reader, (_, bytes)) in all.iter().zip(&files) {
        assert_eq!(reader.end(), Some(&End::All));
        assert!(reader.got == *bytes);
    }
    assert!(store.counters().given_back > 10, "{:?}", store.counters());
}

#[test]
fn shrunk_cache_grows_again() {
    let image = image(20);
    let (mut disk, mut store) = (Disk::default(), image.store(200));
    run(&image, &mut disk, &mut store, &mut readers(20));
    let before = store.cache().frames();
    store.cache().shrink(16, ALL);
    store.cache().grow(200);
    for _ in 0..2 {
        run(&image, &mut disk, &mut store, &mut readers(20));
    }
    assert_eq!(store.cache().frames(), before, "it has as much as it needs");
    assert!(disk.times_read.values().all(|&times| times <= 2), "and reads nothing twice that it could keep");
}
