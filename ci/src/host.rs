//! What processes use of the host: memory, threads, descriptors; and what tests need of it.

pub use exovm_test::host::{require, require_tap};

/// Bytes of private memory of this process that are backed, by mapping: address range and `Private_Dirty` plus
/// `Private_Clean` (proc(5), smaps).
pub fn private_mappings(pid: u32) -> Vec<Mapping> {
    let path = format!("/proc/{pid}/smaps");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some((start, end)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let address =
                |text| u64::from_str_radix(text, 16).expect("smaps begins a mapping with its range");
            let name = line.splitn(6, ' ').nth(5).unwrap_or_default().trim().to_owned();
            mappings.push(Mapping { len_bytes: address(end) - address(start), private_bytes: 0, name });
        } else if matches!(first, "Private_Dirty:" | "Private_Clean:") {
            let kib: u64 = second.parse().expect("smaps counts in kB");
            mappings.last_mut().expect("a mapping came before").private_bytes += kib << 10;
        }
    }
    mappings
}

/// A mapping of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its length.
    pub len_bytes: u64,
    /// How much of it this process alone has in memory.
    pub private_bytes: u64,
    /// File or kind; empty for anonymous memory.
    pub name: String,
}

/// Lets this process have that many descriptors open.
///
/// # Panics
/// If the host does not allow it.
pub fn allow_descriptors(count: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the structure given.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    assert!(limit.rlim_max >= count, "this test needs {count} descriptors; raise `ulimit -Hn`");
    limit.rlim_cur = limit.rlim_cur.max(count);
    // SAFETY: setrlimit reads the structure given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// Threads and open descriptors of this process.
pub fn threads_and_descriptors() -> (usize, usize) {
    let count = |dir| std::fs::read_dir(dir).map_or(0, Iterator::count);
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_mappings_of_this_process_count_what_it_touches() {
        const BYTES: usize = 64 << 20;
        let before: u64 = private_mappings(std::process::id()).iter().map(|m| m.private_bytes).sum();
        let touched = vec![1u8; BYTES];
        let after: u64 = private_mappings(std::process::id()).iter().map(|m| m.private_bytes).sum();
        assert!(after - before >= BYTES as u64, "{before} {after}");
        drop(touched);
    }
}
