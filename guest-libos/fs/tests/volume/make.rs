//! What goes into a volume comes out of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::{Site, content, noise};

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
