//! Directories and volumes for tests.

use std::fs;
use std::path::{Path, PathBuf};

use exos_fs::Node;
use exos_fs::image::{Image, ImageError};
use exos_fs::make::{Made, MakeError, Options, Plan};

/// A directory to make volumes from, and a place for the image.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

/// What makes images reproducible.
pub(crate) const OPTIONS: Options =
    Options { size_bytes: None, uuid: Some([7; 16]), made_unix_seconds: Some(1_000_000) };

impl Site {
    pub(crate) fn new() -> Site {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("site")).unwrap();
        Site { folder }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("site")
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn write(&self, name: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn try_make(&self) -> Result<Made, MakeError> {
        Plan::scan(self.root())?.write(self.image(), &OPTIONS, &mut |_| {})
    }

    /// Makes the image and opens it.
    pub(crate) fn make(&self) -> Image {
        self.try_make().unwrap();
        Image::open(self.image()).unwrap()
    }
}

/// Bytes that differ from place to place, and for each seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// The content of a file that is there.
pub(crate) fn content(image: &mut Image, node: &Node) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    image.copy(node, &mut bytes)?;
    Ok(bytes)
}

/// A site with something of everything: an empty directory and file, several buckets, inline and striped files.
pub(crate) fn varied_site() -> Site {
    let site = Site::new();
    fs::create_dir(site.root().join("empty-directory")).unwrap();
    site.write("empty", b"");
    site.write("index.html", &noise(1, 700));
    site.write("two-blocks.css", &noise(2, 5000));
    site.write("sub/striped.png", &noise(3, 11 * 4096 + 100));
    site.write("sub/deeper/exact.bin", &noise(4, 8192));
    for number in 0..60 {
        site.write(format!("many/{number}-with-a-longer-name.txt"), &noise(100 + number, 10));
    }
    site
}

/// All paths of an image with what they name, directories first; a directory that cannot be read is an error in its place.
pub(crate) fn walk(image: &mut Image) -> Vec<(Vec<u8>, Result<Node, ImageError>)> {
    let mut all = Vec::new();
    let mut waiting = vec![(Vec::new(), image.volume().root())];
    while let Some((path, directory)) = waiting.pop() {
        match image.entries(&directory) {
            Ok(entries) => {
                for (name, node) in entries {
                    let path = [&path[..], b"/", &name].concat();
                    if node.is_directory() {
                        waiting.push((path.clone(), node));
                    }
                    all.push((path, Ok(node)));
                }
            }
            Err(error) => all.push((path, Err(error))),
        }
        assert!(all.len() < 100_000, "the walk goes round in circles");
    }
    all
}
