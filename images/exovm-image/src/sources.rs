//! The sources that an image of one's own is built from, as one file that is embedded in `exovm`: kernel, ABI, library OS
//! and linker scripts, in a compressed archive that is the same for the same sources.
//!
//! The VMM's build script packs it, `exovm new` and `exovm build` unpack it.

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

/// Folders and files of the workspace that are packed as they are.
const PACKED: &[&str] =
    &["guest-exokernel", "guest-libos", "LICENSE-APACHE", "LICENSE-MIT", "rust-toolchain.toml"];
/// Members of the workspace that they are, once unpacked.
const MEMBERS: &[&str] = &["guest-exokernel/abi", "guest-exokernel/xok", "guest-libos/*"];
const MANIFEST: &str = "Cargo.toml";

/// Why sources cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file is missing or unreadable.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The workspace's manifest.
    #[error("{MANIFEST}: {0}")]
    Manifest(#[from] toml::de::Error),
}

/// A file of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative, without `..`.
    pub path: PathBuf,
    /// Its content.
    pub content: Vec<u8>,
}

/// Packs the sources of the workspace at `root`.
pub fn pack(root: &Path) -> Result<Vec<u8>, PackError> {
    let mut files = vec![SourceFile { path: MANIFEST.into(), content: manifest(root)?.into_bytes() }];
    for path in PACKED {
        collect(root, Path::new(path), &mut files)?;
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::best()));
    for file in &files {
        // Neither owner nor time: the same sources are the same archive.
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive
            .append_data(&mut header, &file.path, &file.content[..])
            .map_err(|error| PackError::Io { path: file.path.clone(), error })?;
    }
    let compressed = archive.into_inner().and_then(GzEncoder::finish);
    compressed.map_err(|error| PackError::Io { path: root.to_owned(), error })
}

/// The files of an archive, in order.
pub fn files(archive: &[u8]) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if !path.components().all(|component| matches!(component, Component::Normal(_))) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a path that leads out of the archive"));
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.push(SourceFile { path, content });
    }
    Ok(files)
}

/// Writes files into a folder. Read-only, because all projects share them: who wants to change one makes a copy.
pub fn unpack(files: &[SourceFile], dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    for file in files {
        let path = dir.join(&file.path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path)?;
        out.write_all(&file.content)?;
    }
    Ok(())
}

/// The first file that is missing in a folder or has other content.
pub fn first_difference(files: &[SourceFile], dir: &Path) -> Option<PathBuf> {
    let differs =
        |file: &&SourceFile| fs::read(dir.join(&file.path)).map_or(true, |content| content != file.content);
    files.iter().find(differs).map(|file| file.path.clone())
}

fn collect(root: &Path, path: &Path, files: &mut Vec<SourceFile>) -> Result<(), PackError> {
    let full = root.join(path);
    let wrap = |error| PackError::Io { path: full.clone(), error };
    if !full.is_dir() {
        let content = fs::read(&full).map_err(wrap)?;
        files.push(SourceFile { path: path.to_owned(), content });
        return Ok(());
    }
    for entry in fs::read_dir(&full).map_err(wrap)? {
        let name = entry.map_err(wrap)?.file_name();
        // What editors and cargo leave behind is no source.
        let text = name.to_string_lossy();
        if !text.starts_with('.') && !text.ends_with('~') && text != "target" {
            collect(root, &path.join(&name), files)?;
        }
    }
    Ok(())
}

/// The manifest of the workspace that the sources are: the one at `root` with fewer members, and without lints, because
/// warnings of a newer compiler are no errors of whoever uses these sources.
fn manifest(root: &Path) -> Result<String, PackError> {
    let path = root.join(MANIFEST);
    let text = fs::read_to_string(&path).map_err(|error| PackError::Io { path, error })?;
    let mut manifest: toml::Table = toml::from_str(&text)?;
    if let Some(workspace) = manifest.get_mut("workspace").and_then(toml::Value::as_table_mut) {
        let members: Vec<toml::Value> = MEMBERS.iter().copied().map(toml::Value::from).collect();
        workspace.insert("members".to_owned(), members.into());
        workspace.remove("default-members");
        // The members say that they inherit them, so they must exist.
        workspace.insert("lints".to_owned(), toml::Table::new().into());
    }
    Ok(format!("# The workspace of exovm without its host side.\n\n{manifest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    }

    #[test]
    fn pack_twice_returns_the_same_bytes() {
        assert_eq!(pack(&root()).unwrap(), pack(&root()).unwrap());
    }

    #[test]
    fn pack_has_the_guest_side_and_nothing_of_the_machine_it_was_made_on() {
        let archive = pack(&root()).unwrap();
        println!("{} bytes", archive.len());
        let files = files(&archive).unwrap();
        for wanted in ["guest-libos/runtime/link.ld", "guest-exokernel/xok/src/main.rs", "LICENSE-MIT"] {
            assert!(files.iter().any(|file| file.path == Path::new(wanted)), "{wanted}");
        }
        let here = root().canonicalize().unwrap();
        let here = here.to_str().unwrap().as_bytes();
        for file in &files {
            assert!(!file.path.starts_with("vmm") && file.path.is_relative(), "{:?}", file.path);
            let found = file.content.windows(here.len()).any(|window| window == here);
            assert!(!found, "{:?} names the folder it comes from", file.path);
        }
    }

    #[test]
    fn first_difference_finds_changed_and_missing_files() {
        let files = files(&pack(&root()).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        unpack(&files, dir.path()).unwrap();
        assert_eq!(first_difference(&files, dir.path()), None);

        let link_script = Path::new("guest-libos/runtime/link.ld");
        fs::remove_file(dir.path().join(link_script)).unwrap();
        assert_eq!(first_difference(&files, dir.path()).as_deref(), Some(link_script));
        fs::write(dir.path().join(link_script), "SECTIONS {}").unwrap();
        assert_eq!(first_difference(&files, dir.path()).as_deref(), Some(link_script));
    }

    #[test]
    fn files_damaged_archive_returns_an_error() {
        let archive = pack(&root()).unwrap();
        assert!(files(&archive[..archive.len() / 2]).is_err());
        assert!(files(b"something else").is_err());
    }

    #[test]
    fn files_path_out_of_the_archive_returns_an_error() {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
        header.set_cksum();
        builder.append(&header, &[][..]).unwrap();
        let archive = builder.into_inner().unwrap().finish().unwrap();
        assert_eq!(files(&archive).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
