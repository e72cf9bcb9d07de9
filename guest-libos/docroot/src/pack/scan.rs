//! Walks a directory tree. Knows the host's file system and nothing of the format.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::vec::Vec;

use super::{MAX_ENTRIES, PackError, Stamp, Warning};

/// Everything below a root, in the order in which it was found.
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) warnings: Vec<Warning>,
}

/// A file or a directory.
pub(super) struct Node {
    /// Relative to the root; empty for the root.
    pub(super) relative: PathBuf,
    /// `None` for a directory.
    pub(super) file: Option<Stamp>,
}

/// A directory on the way from the root to where the walk is.
struct Level {
    identity: Identity,
    relative: PathBuf,
    /// What is still to be looked at. Read in one go: a handle kept open at every level would run out in deep trees.
    entries: Vec<(OsString, FileType)>,
}

/// Device and inode number: the same for every path that leads to a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(metadata: &Metadata) -> Identity {
        Identity(metadata.dev(), metadata.ino())
    }
}

/// What is behind a name, after links were followed.
enum Found {
    File(Stamp),
    Directory(Identity),
    Nothing(fn(PathBuf) -> Warning),
}

pub(super) fn scan(root: &Path) -> Result<Tree, PackError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => PackError::Missing { root: root.to_path_buf() },
        _ => PackError::Unreadable { path: root.to_path_buf(), source },
    };
    let metadata = fs::metadata(root).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Err(PackError::NotADirectory { root: root.to_path_buf() });
    }
    let mut tree = Tree { nodes: Vec::new(), warnings: Vec::new() };
    walk(root, Identity::of(&metadata), &mut tree)?;
    if tree.nodes.iter().all(|node| node.file.is_none()) {
        return Err(PackError::Empty { root: root.to_path_buf(), left_out: tree.warnings.len() });
    }
    Ok(tree)
}

/// Opens a file for reading. Does not wait for a writer if the file has been replaced by a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn walk(root: &Path, identity: Identity, tree: &mut Tree) -> Result<(), PackError> {
    let mut levels = Vec::new();
    levels.push(enter(root, identity, PathBuf::new(), tree)?);
    while let Some(level) = levels.last_mut() {
        let Some((name, file_type)) = level.entries.pop() else {
            levels.pop();
            continue;
        };
        let relative = level.relative.join(name);
        let path = root.join(&relative);
        match look(&path, file_type)? {
            Found::File(stamp) => tree.nodes.push(Node { relative, file: Some(stamp) }),
            Found::Directory(identity) if levels.iter().any(|level| level.identity == identity) => {
                tree.warnings.push(Warning::LinkLoop(path));
            }
            Found::Directory(identity) => levels.push(enter(root, identity, relative, tree)?),
            Found::Nothing(warning) => tree.warnings.push(warning(path)),
        }
        if tree.nodes.len() > MAX_ENTRIES {
            return Err(PackError::TooManyEntries { path: root.join(&tree.nodes[MAX_ENTRIES].relative) });
        }
    }
    Ok(())
}

fn enter(root: &Path, identity: Identity, relative: PathBuf, tree: &mut Tree) -> Result<Level, PackError> {
    // Joining the empty path would add a slash to the name in messages.
    let path = if relative.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&relative) };
    let entries = fs::read_dir(&path)
        .and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))).collect()
        })
        .map_err(|source| PackError::Unreadable { path, source })?;
    tree.nodes.push(Node { relative: relative.clone(), file: None });
    Ok(Level { identity, relative, entries })
}

fn look(path: &Path, file_type: FileType) -> Result<Found, PackError> {
    let found = if file_type.is_file() {
        look_at_file(path)
    } else if file_type.is_dir() || file_type.is_symlink() {
        fs::metadata(path).and_then(|metadata| match metadata.file_type() {
            kind if kind.is_dir() => Ok(Found::Directory(Identity::of(&metadata))),
            kind if kind.is_file() => look_at_file(path),
            _ => Ok(Found::Nothing(Warning::NotAFile)),
        })
    } else {
        Ok(Found::Nothing(Warning::NotAFile))
    };
    found.or_else(|source| match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Ok(Found::Nothing(Warning::LeadsNowhere)),
        Some(libc::ELOOP) => Ok(Found::Nothing(Warning::LinkLoop)),
        Some(libc::ENAMETOOLONG) => Ok(Found::Nothing(Warning::PathTooLong)),
        _ => Err(PackError::Unreadable { path: path.to_path_buf(), source }),
    })
}

/// Opens the file, so that one that cannot be read is reported now and not after the guest has its memory.
fn look_at_file(path: &Path) -> io::Result<Found> {
    let metadata = open(path)?.metadata()?;
    match metadata.is_file() {
        true => Ok(Found::File(Stamp::of(&metadata))),
        false => Ok(Found::Nothing(Warning::NotAFile)),
    }
}
