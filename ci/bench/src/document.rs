//! The documents that are served: their paths and their bytes, which every contender must send exactly.

use crate::BenchError;
use std::path::Path;

/// The path of the document of `size_bytes` bytes, as in a request.
pub(crate) fn path(size_bytes: u64) -> String {
    format!("/f{size_bytes}")
}

/// The size that a request's path asks for: the inverse of [`path`].
pub(crate) fn size_of_path(path: &[u8]) -> Option<u64> {
    std::str::from_utf8(path.strip_prefix(b"/f")?).ok()?.parse().ok()
}

/// The bytes of the document: letters in a pattern that repeats with no power of two, so that a page or a segment sent
/// twice or out of place is seen.
pub(crate) fn content(size_bytes: u64) -> Vec<u8> {
    (0..size_bytes).map(|i| b'a' + ((i % 251 + i / 251) % 26) as u8).collect()
}

/// Writes the documents of these sizes into `folder`.
pub(crate) fn write_all(folder: &Path, sizes_bytes: &[u64]) -> Result<(), BenchError> {
    let failed = |source| BenchError::system(format!("write the documents to {}", folder.display()), source);
    std::fs::create_dir_all(folder).map_err(failed)?;
    for &size_bytes in sizes_bytes {
        std::fs::write(folder.join(&path(size_bytes)[1..]), content(size_bytes)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_of_path_reads_what_path_writes() {
        assert_eq!(size_of_path(path(65536).as_bytes()), Some(65536));
        for other in ["/", "/f", "/g64", "/f64x", "f64"] {
            assert_eq!(size_of_path(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn content_of_neighbouring_pages_and_segments_differs() {
        let bytes = content(20_000);
        for shift in [256, 512, 1448, 1460, 4096, 8192] {
            assert_ne!(bytes[..1000], bytes[shift..shift + 1000], "{shift}");
        }
    }
}
