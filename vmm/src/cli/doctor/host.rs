//! CPUs, memory, and whether guest memory gets huge pages.

use super::finding::Finding;
use crate::machine::memory;
use crate::placement::allowed_cpus;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Guest memory that is touched.
const TOUCHED_BYTES: u64 = 32 << 20;
const PAGE_BYTES: u64 = 4096;
/// What a few machines want.
const MEMORY_GOOD_BYTES: u64 = 1 << 30;

pub(super) fn cpus() -> Vec<Finding> {
    let count = allowed_cpus().len();
    let finding = if count > 1 {
        let found = format!("{count} CPUs may be used");
        Finding::good("cpus", found, "device work can run beside the guest")
    } else {
        Finding::odd("cpus", "one CPU may be used", "device work takes turns with the guest")
            .slow("one to sixteen connections at once: each batch takes an exit")
            .todo("give this process a second CPU (taskset, cgroup, the VM's configuration)")
    };
    vec![finding.value("cpus", count)]
}

pub(super) fn memory() -> Vec<Finding> {
    // proc(5): "MemAvailable:   12345 kB"
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let Some(bytes) = available.map(|kib| kib << 10) else {
        return vec![Finding::odd(
            "memory",
            "/proc/meminfo does not say how much is available",
            "it is not known",
        )];
    };
    let found = format!("{} MiB are available", bytes >> 20);
    let finding = if bytes >= MEMORY_GOOD_BYTES {
        Finding::good("memory", found, "an image takes 32 to 256 MiB, and what it serves")
    } else {
        Finding::odd("memory", found, "an image takes 32 to 256 MiB, and what it serves")
            .todo("run --memory with less, or free some")
    };
    vec![finding.value("available_bytes", bytes)]
}

/// Guest memory as machines have it is touched, and then it is counted how much of it lies in huge pages.
pub(super) fn huge_pages() -> Vec<Finding> {
    let finding = match huge_bytes() {
        Err(error) => {
            Finding::odd("huge-pages", format!("not found out: {error}"), "guest memory may be slower")
        }
        Ok(bytes) => {
            let percent = bytes * 100 / TOUCHED_BYTES;
            let found = format!("{percent} % of touched guest memory lies in huge pages");
            let finding = if percent >= 90 {
                Finding::good("huge-pages", found, "first touches are few and translations cheap")
            } else {
                Finding::odd(
                    "huge-pages",
                    found,
                    "each 4 KiB page of the guest is a fault when first touched",
                )
                .slow("starts with much memory, and throughput of large documents")
                .todo("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")
            };
            finding.value("huge_percent", percent)
        }
    };
    vec![finding]
}

fn huge_bytes() -> Result<u64, String> {
    let memory = memory::map(TOUCHED_BYTES).map_err(|error| error.to_string())?;
    for gpa in (0..TOUCHED_BYTES).step_by(PAGE_BYTES as usize) {
        memory.write_obj(1u8, GuestAddress(gpa)).map_err(|error| error.to_string())?;
    }
    let regions = memory.iter().map(|region| region.as_ptr() as u64).collect::<Vec<_>>();
    let smaps =
        std::fs::read_to_string("/proc/self/smaps").map_err(|error| format!("/proc/self/smaps: {error}"))?;
    Ok(regions.into_iter().map(|address| anonymous_huge_bytes(&smaps, address)).sum())
}

/// AnonHugePages of the mapping that an address lies in (proc(5), smaps).
fn anonymous_huge_bytes(smaps: &str, address: u64) -> u64 {
    let mut inside = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((start, end)) = first.split_once('-').filter(|_| !first.ends_with(':')) {
            let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
            inside = (number(start)..number(end)).contains(&address);
        } else if inside && first == "AnonHugePages:" {
            let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
            bytes += kib.unwrap_or(0) << 10;
        }
    }
    // A mapping may be larger than what was asked for, where the kernel merged it with a neighbour.
    bytes.min(TOUCHED_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn huge_pages_are_counted_in_the_mapping_that_is_meant() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0 \nRss: 8 kB\nAnonHugePages:      2048 kB\n\
                     3000-5000 rw-p 00000000 00:00 0 \nAnonHugePages:      4096 kB\n";
        assert_eq!(anonymous_huge_bytes(smaps, 0x1000), 2 << 20);
        assert_eq!(anonymous_huge_bytes(smaps, 0x4FFF), 4 << 20);
        assert_eq!(anonymous_huge_bytes(smaps, 0x5000), 0);
    }
}
