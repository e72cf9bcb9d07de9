//! Many who want the same: one read.

use crate::disk::{Disk, End, Image, Reader, content, run};

#[test]
fn readers_of_a_cold_file_share_its_reads() {
    let file = content(1, 5 << 20);
    let image = Image::new(&[("large", file.clone())]);
    let (mut disk, mut store) = (Disk::default(), image.store(200));
    let mut readers: Vec<_> = (0..64).map(|_| Reader::new("/large")).collect();
    run(&image, &mut disk, &mut store, &mut readers);
    for reader in &readers {
        assert_eq!(reader.end(), Some(&End::All));
        assert!(reader.got == file);
    }
    assert!(disk.times_read.values().all(|&times| times == 1));
    assert!(store.counters().joined > 60);
    // A megabyte at a time once the stream is going.
    assert!(store.counters().reads <= 16, "{:?}", store.counters());
}

#[test]
fn stream_reads_ahead_of_its_reader() {
    let image = Image::new(&[("large", content(1, 5 << 20))]);
    let (mut disk, mut store) = (Disk::default(), image.store(400));
    let mut reader = Reader::new("/large");
    let mut waits = 0;
    while reader.end().is_none() {
        reader.held.clear();
        reader.go_on(0, &mut store, 4);
        disk.take(&mut store, 16);
        waits += usize::from(reader.waits);
        // The disk does one read for each quarter megabyte that goes out.
        if !disk.on_their_way.is_empty() {
            disk.complete(&image, &mut store, 0);
        }
        reader.waits = false;
    }
    assert!(waits <= 8, "the stream waited {waits} times");
}

#[test]
fn warm_requests_look_nothing_up_in_directories() {
    let image = Image::new(&[("a/b/file", content(1, 500))]);
    let (mut disk, mut store) = (Disk::default(), image.store(10));
    for _ in 0..10 {
        run(&image, &mut disk, &mut store, &mut [Reader::new("/a/b/file")]);
    }
    assert_eq!((store.counters().name_misses, store.counters().name_hits), (1, 9));
}
