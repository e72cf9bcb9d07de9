//! What processes use of the host: memory, threads, descriptors; and what tests need of it.

pub use exovm_test::host::{require, require_tap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

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

/// How often a test is begun anew that a host disturbed.
const ATTEMPTS: u32 = 5;
/// Of its CPUs' time, what a host may lose and a test that fails still says something: 20 ms of one of two CPUs, lost while a
/// machine of six seconds was under load for three, are 0.16 % of the whole and 0.7 of the percent that may be unattributed.
const LOST_SHARE: f64 = 0.001;

/// Does a test. A host that is itself a guest loses its CPUs when nobody is told, and that is in whatever ran then: a test that fails
/// while much was lost is done again. What is wrong with an account, or with a server, is wrong each time.
pub fn undisturbed(test: impl Fn()) {
    for attempt in 1..ATTEMPTS {
        let (begun, lost_ms) = (Instant::now(), lost_cpu_ms());
        let Err(failure) = catch_unwind(AssertUnwindSafe(&test)) else { return };
        let share = (lost_cpu_ms() - lost_ms) / begun.elapsed().as_millis() as f64;
        if share < LOST_SHARE {
            resume_unwind(failure);
        }
        eprintln!(
            "attempt {attempt} failed while the host lost {:.1} % of its CPUs; once more",
            100.0 * share
        );
    }
    test();
}

/// What the host has lost of its CPUs since it was started, on average of all.
fn lost_cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").expect("the host counts that");
    let ticks: f64 = text.split_whitespace().nth(8).and_then(|steal| steal.parse().ok()).expect("a number");
    // SAFETY: asks the C library two numbers.
    let (hz, cpus) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_NPROCESSORS_ONLN)) };
    ticks * 1000.0 / hz as f64 / cpus as f64
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
