//! Directories and volumes for tests.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use exos_fs::image::{Image, ImageError};
use exos_fs::make::{Made, MakeError, Options, Plan};
use exos_fs::{Block, Need, Node, Step, Volume};

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

/// A volume read from a cold disk, block by block, as a guest does: what was fetched is known.
pub(crate) struct Disk {
    pub(crate) file: fs::File,
    volume: Volume,
}

impl Disk {
    pub(crate) fn of(path: impl AsRef<Path>) -> Disk {
        let file = fs::File::open(path).unwrap();
        let device_blocks = file.metadata().unwrap().len() / 4096;
        let mut block = [0; 4096];
        file.read_exact_at(&mut block, 0).unwrap();
        Disk { volume: Volume::open(&block, 0, device_blocks).unwrap(), file }
    }

    /// What the path names, and the blocks that were read for it.
    pub(crate) fn lookup(&self, path: &[u8]) -> (Option<Node>, Vec<u64>) {
        let (node, needs) = self.ask(|blocks| self.volume.lookup(blocks, path).unwrap());
        (node, needs.iter().flat_map(|need| need.metadata_blocks()).collect())
    }

    /// The first block and the checksums of a run, and what was fetched for it.
    pub(crate) fn data_run(&self, node: &Node, file_block: u64) -> ((u64, Vec<u64>), Vec<Need>) {
        self.ask(|blocks| {
            let run = self.volume.data_run(blocks, node, file_block).unwrap();
            run.map(|run| (run.first_block, run.checksums().collect()))
        })
    }

    fn ask<T>(&self, question: impl Fn(&HashMap<u64, Box<Block>>) -> Step<T>) -> (T, Vec<Need>) {
        let (mut blocks, mut needs) = (HashMap::new(), Vec::new());
        loop {
            let need = match question(&blocks) {
                Step::Done(answer) => return (answer, needs),
                Step::Need(need) => need,
            };
            for number in need.metadata_blocks() {
                let mut block = Box::new([0; 4096]);
                self.file.read_exact_at(&mut block[..], number * 4096).unwrap();
                self.volume.check(need.kind, number, &block).unwrap();
                assert!(blocks.insert(number, block).is_none(), "block {number} is asked for twice");
            }
            needs.push(need);
        }
    }
}
