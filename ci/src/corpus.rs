//! A real documentation tree with more than 10,000 files: the API documentation of a JDK, from Debian's package. Fetched
//! once and kept under `target/`, where all tests and checkouts of this workspace find it.
//!
//! A test calls [`documentation`] before it enters its namespace, where there is no network to fetch anything from.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The package: 13 MB to fetch, 270 MB of files.
const PACKAGE: &str = "openjdk-17-doc";
/// Fewer files than this, and the tree is not what the tests want.
const FILES_MIN: usize = 10_000;

/// A file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where it is on disk.
    pub path: PathBuf,
    /// Where it is on a server whose document root the tree is.
    pub target: String,
}

/// The tree, fetched if it is not there yet.
///
/// # Panics
/// With one sentence, if it cannot be had.
pub fn documentation() -> PathBuf {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ci-cache");
    let tree = cache.join(PACKAGE);
    if !tree.exists()
        && let Err(error) = fetch(&cache, &tree)
    {
        panic!(
            "this test needs the files of the Debian package {PACKAGE}, which cannot be fetched ({error}); run \
             `apt-get update`, or unpack the package with `dpkg-deb -x` into {}",
            tree.display()
        );
    }
    tree
}

/// The regular files of a tree, in no order. Links are left out: what they name is in the tree, or outside of it.
pub fn documents(root: &Path) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a readable directory") {
            let entry = entry.expect("a readable directory");
            let kind = entry.file_type().expect("the kind of a file");
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                let target = target_of(entry.path().strip_prefix(root).expect("below the root"));
                documents.push(Document { path: entry.path(), target });
            }
        }
    }
    documents
}

/// A relative path as a request target: what RFC 3986 does not allow in a path is percent-encoded.
pub fn target_of(relative: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;
    let mut target = String::from("/");
    for &byte in relative.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/!$&'()*+,;=:@".contains(&byte) {
            target.push(byte.into());
        } else {
            write!(target, "%{byte:02X}").expect("a String takes everything");
        }
    }
    target
}

fn fetch(cache: &Path, tree: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    fs::create_dir_all(cache).map_err(text)?;
    // Several test processes may want it at once: one fetches, the others wait.
    let lock = File::create(cache.join("lock")).map_err(text)?;
    lock.lock().map_err(text)?;
    if tree.exists() {
        return Ok(());
    }
    let work = tempfile::tempdir_in(cache).map_err(text)?;
    // As the calling user, also when that is root: the directory is nobody else's business.
    let download = ["-o", "APT::Sandbox::User=root", "-q", "download", PACKAGE];
    run(Command::new("apt-get").args(download).current_dir(work.path()))?;
    let package = fs::read_dir(work.path())
        .map_err(text)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("apt-get left no package behind")?;
    let unpacked = work.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("-x").args([&package, &unpacked]))?;
    let files = documents(&unpacked).len();
    if files < FILES_MIN {
        return Err(format!("it has only {files} files, not {FILES_MIN}"));
    }
    fs::rename(&unpacked, tree).map_err(text)
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(format!("{program} ended with {}: {words}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_of_encodes_what_a_path_may_not_hold() {
        assert_eq!(target_of(Path::new("a b/ü%?.html")), "/a%20b/%C3%BC%25%3F.html");
        assert_eq!(target_of(Path::new("java.base/List$1,2.html")), "/java.base/List$1,2.html");
    }
}
