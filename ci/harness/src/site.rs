//! Document roots made for a test, and bodies that are computed from their offset, so that nobody has to store them.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A directory to serve. It goes away with the value.
///
/// The served directory lies inside the temporary one, so a test can put things beside it that must not be served.
#[derive(Debug)]
pub struct Site {
    dir: tempfile::TempDir,
    served: PathBuf,
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// An empty one.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let served = dir.path().join("site");
        fs::create_dir(&served).expect("a directory in a fresh directory");
        Self { dir, served }
    }

    /// Adds a file; directories are made.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        put(&self.path().join(path), content.as_ref());
        self
    }

    /// Adds a file beside the served directory.
    pub fn file_outside(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        put(&self.dir.path().join(name), content.as_ref());
        self
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        std::os::unix::fs::symlink(target, self.path().join(path)).expect("a free name");
        self
    }

    /// Adds a file with the first `len_bytes` of a [`Pattern`].
    pub fn pattern_file(self, path: &str, seed: u64, len_bytes: u64) -> Self {
        let file = fs::File::create(self.path().join(path)).expect("a new file");
        let mut writer = io::BufWriter::with_capacity(1 << 20, file);
        io::copy(&mut Pattern::new(seed).take(len_bytes), &mut writer).expect("room for the file");
        writer.flush().expect("room for the file");
        self
    }

    /// The served directory.
    pub fn path(&self) -> &Path {
        &self.served
    }
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().expect("a path in a directory")).expect("directories");
    fs::write(path, content).expect("a new file");
}

/// An endless stream of bytes that looks random and is the same for the same seed: SplitMix64 over the offset, so a
/// byte that is missing, doubled or moved shows from there on.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    next: u64,
    /// Bytes of the current word that were not given out.
    left: [u8; 8],
    left_len: usize,
}

impl Pattern {
    /// From its beginning.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: 0, left: [0; 8], left_len: 0 }
    }

    /// The first `len_bytes`.
    pub fn bytes(seed: u64, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        Self::new(seed).read_exact(&mut bytes).expect("it never ends");
        bytes
    }

    fn word(&mut self) -> [u8; 8] {
        self.next = self.next.wrapping_add(1);
        let mut z = self.seed ^ self.next.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).to_le_bytes()
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let kept = self.left_len.min(buffer.len());
        let from = 8 - self.left_len;
        buffer[..kept].copy_from_slice(&self.left[from..from + kept]);
        self.left_len -= kept;
        let mut chunks = buffer[kept..].chunks_exact_mut(8);
        for chunk in &mut chunks {
            chunk.copy_from_slice(&self.word());
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            self.left = self.word();
            rest.copy_from_slice(&self.left[..rest.len()]);
            self.left_len = 8 - rest.len();
        }
        Ok(buffer.len())
    }
}

/// Compares two streams without storing them. `Err` says where they differ, or how a read failed.
pub fn compare(mut got: impl Read, mut want: impl Read, len_bytes: u64) -> Result<(), String> {
    let (mut got_bytes, mut want_bytes) = (vec![0; 1 << 18], vec![0; 1 << 18]);
    let mut at = 0;
    while at < len_bytes {
        let len = got_bytes.len().min((len_bytes - at).try_into().unwrap_or(usize::MAX));
        got.read_exact(&mut got_bytes[..len]).map_err(|error| format!("from byte {at} on: {error}"))?;
        want.read_exact(&mut want_bytes[..len]).map_err(|error| format!("the original at {at}: {error}"))?;
        if got_bytes[..len] != want_bytes[..len] {
            let differs = got_bytes.iter().zip(&want_bytes).position(|(got, want)| got != want);
            return Err(format!("byte {} of {len_bytes} differs", at + differs.unwrap_or(0) as u64));
        }
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_the_same_however_it_is_read() {
        let whole = Pattern::bytes(7, 1000);
        let mut pieces = Vec::new();
        let mut pattern = Pattern::new(7);
        for len in [1, 7, 8, 9, 100, 3, 872] {
            let mut piece = vec![0; len];
            pattern.read_exact(&mut piece).unwrap();
            pieces.extend(piece);
        }
        assert_eq!(pieces, whole);
        assert_ne!(Pattern::bytes(8, 1000), whole);
    }

    #[test]
    fn compare_says_where_streams_differ_or_end() {
        let mut other = Pattern::bytes(1, 500_000);
        assert_eq!(compare(&other[..], Pattern::new(1), 500_000), Ok(()));
        other[300_001] ^= 1;
        assert_eq!(
            compare(&other[..], Pattern::new(1), 500_000).unwrap_err(),
            "byte 300001 of 500000 differs"
        );
        assert!(compare(&other[..10], Pattern::new(1), 11).unwrap_err().contains("from byte 0"));
    }
}
