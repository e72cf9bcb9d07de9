//! The directory in which exovm keeps what it can make again.

use std::path::PathBuf;

/// `$XDG_CACHE_HOME/exovm`, or the same below `~/.cache`; `None` if there is neither. A relative path in the environment is
/// to be ignored (XDG Base Directory Specification).
pub fn cache_dir() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("exovm"))
}
