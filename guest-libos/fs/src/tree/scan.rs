//! The walk through a directory tree, which follows links and comes to an end all the same.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::vec::Vec;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{MAX_ENTRIES, ScanError, Stamp, Tree, TreeNode, Warning};

/// A directory on the way from the root to where the walk is.
struct Level {
    number: usize,
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
    Directory(Identity, Stamp),
    Nothing(fn(PathBuf) -> Warning),
}

/// Looks through `root` and everything below it. Symbolic links are followed, also out of the tree, as servers do;
/// those that lead back to a directory above them, or nowhere, are left out with a warning, and so is what is neither
/// file nor directory. A file or directory that cannot be read is an error.
pub fn scan(root: &Path) -> Result<Tree, ScanError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ScanError::Missing { root: root.to_path_buf() },
        _ => ScanError::Unreadable { path: root.to_path_buf(), source },
    };
    let metadata = fs::metadata(root).map_err(unreadable)?;
    if !metadata.is_dir() {
        return Err(ScanError::NotADirectory { root: root.to_path_buf() });
    }
    let mut tree = Tree { nodes: Vec::new(), warnings: Vec::new() };
    walk(root, &metadata, &mut tree)?;
    Ok(tree)
}

/// Opens a file for reading. Does not wait for a writer if the file has been replaced by a pipe.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)
}

fn walk(root: &Path, metadata: &Metadata, tree: &mut Tree) -> Result<(), ScanError> {
    let mut levels = Vec::new();
    levels.push(enter(root, 0, Identity::of(metadata), Stamp::of(metadata), PathBuf::new(), tree)?);
    while let Some(level) = levels.last_mut() {
        let Some((name, file_type)) = level.entries.pop() else {
            levels.pop();
            continue;
        };
        let relative = level.relative.join(name);
        let parent = level.number;
        let path = root.join(&relative);
        match look(&path, file_type)? {
            Found::File(stamp) => tree.nodes.push(TreeNode { relative, parent, is_file: true, stamp }),
            Found::Directory(identity, _) if levels.iter().any(|level| level.identity == identity) => {
                tree.warnings.push(Warning::LinkLoop(path));
            }
            Found::Directory(identity, stamp) => {
                levels.push(enter(root, parent, identity, stamp, relative, tree)?);
            }
            Found::Nothing(warning) => tree.warnings.push(warning(path)),
        }
        if tree.nodes.len() > MAX_ENTRIES {
            return Err(ScanError::TooManyEntries { path: root.join(&tree.nodes[MAX_ENTRIES].relative) });
        }
    }
    Ok(())
}

fn enter(
    root: &Path,
    parent: usize,
    identity: Identity,
    stamp: Stamp,
    relative: PathBuf,
    tree: &mut Tree,
) -> Result<Level, ScanError> {
    // Joining the empty path would add a slash to the name in messages.
    let path = if relative.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&relative) };
    let entries = fs::read_dir(&path)
        .and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))).collect()
        })
        .map_err(|source| ScanError::Unreadable { path, source })?;
    let number = tree.nodes.len();
    tree.nodes.push(TreeNode { relative: relative.clone(), parent, is_file: false, stamp });
    Ok(Level { number, identity, relative, entries })
}

fn look(path: &Path, file_type: FileType) -> Result<Found, ScanError> {
    let found = if file_type.is_file() {
        look_at_file(path)
    } else if file_type.is_dir() || file_type.is_symlink() {
        fs::metadata(path).and_then(|metadata| match metadata.file_type() {
            kind if kind.is_dir() => Ok(Found::Directory(Identity::of(&metadata), Stamp::of(&metadata))),
            kind if kind.is_file() => look_at_file(path),
            _ => Ok(Found::Nothing(Warning::NotAFile)),
        })
    } else {
        Ok(Found::Nothing(Warning::NotAFile))
    };
    found.or_else(|source| match Errno::from_io_error(&source) {
        Some(Errno::NOENT | Errno::NOTDIR) => Ok(Found::Nothing(Warning::LeadsNowhere)),
        Some(Errno::LOOP) => Ok(Found::Nothing(Warning::LinkLoop)),
        Some(Errno::NAMETOOLONG) => Ok(Found::Nothing(Warning::PathTooLong)),
        _ => Err(ScanError::Unreadable { path: path.to_path_buf(), source }),
    })
}

/// Opens the file, so that one that cannot be read is reported now and not when half of the work is done.
fn look_at_file(path: &Path) -> io::Result<Found> {
    let metadata = open(path)?.metadata()?;
    match metadata.is_file() {
        true => Ok(Found::File(Stamp::of(&metadata))),
        false => Ok(Found::Nothing(Warning::NotAFile)),
    }
}
