//! The site that is served when none is given: it explains exovm and shows the server's counters live. Its files are
//! embedded in the binary and written into a directory of the user's cache, from where they go the way of any site.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../images/cheetah/site/", $name)))),*]
    };
}

/// Name and content of each.
static FILES: &[(&str, &[u8])] = files!["counters.js", "index.html", "mark.svg", "path.svg", "style.css"];

/// A directory below `cache` with the site's files: made if it is not there, left alone if it is. Two processes may do this
/// at once.
pub fn unpack(cache: &Path) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    let dir = cache.join(format!("sample-site-{:016x}", hasher.finish()));
    if dir.is_dir() {
        return Ok(dir);
    }
    let unfinished = cache.join(format!("sample-site-{}.unfinished", std::process::id()));
    fs::create_dir_all(&unfinished)?;
    for (name, content) in FILES {
        fs::write(unfinished.join(name), content)?;
    }
    match fs::rename(&unfinished, &dir) {
        // Somebody else was faster; theirs has the same content.
        Err(_) if dir.is_dir() => fs::remove_dir_all(&unfinished)?,
        other => other?,
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("a directory")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_of_the_site_are_embedded() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images/cheetah/site");
        assert_eq!(names(&source), FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn unpack_twice_gives_the_same_directory_and_leaves_nothing_beside_it() {
        let cache = tempfile::tempdir().expect("a directory");
        let first = unpack(cache.path()).expect("room");
        assert_eq!(unpack(cache.path()).expect("room"), first);
        assert_eq!(names(cache.path()).len(), 1);
        assert_eq!(names(&first).len(), FILES.len());
    }
}
