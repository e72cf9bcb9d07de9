//! Guest memory: private and anonymous, on transparent huge pages, and the placement of what lies in it at boot.

use super::MachineError;
use crate::tables::Memory;
use abi::boot::MemoryRange;
use abi::layout::{HIGH_RAM_GPA, LARGE_PAGE_BYTES, MMIO_GPA, PAGE_BYTES};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion,
};

/// Largest memory of a machine: what the DMA bitmaps and page tables are dimensioned for.
pub const MEMORY_MAX_BYTES: u64 = 512 << 30;

/// Maps `len_bytes` (a multiple of 2 MiB) of guest memory: below the device range first, the rest from 4 GiB on.
pub fn map(len_bytes: u64) -> Result<Memory, MachineError> {
    let low = len_bytes.min(MMIO_GPA);
    let mut regions = vec![region(0, low)?];
    if len_bytes > low {
        regions.push(region(HIGH_RAM_GPA, len_bytes - low)?);
    }
    GuestMemoryMmap::from_regions(regions)
        .map_err(|error| MachineError::Memory { mib: len_bytes >> 20, reason: error.to_string() })
}

fn region(start_gpa: u64, len_bytes: u64) -> Result<GuestRegionMmap<()>, MachineError> {
    let fail = |reason: String| MachineError::Memory { mib: len_bytes >> 20, reason };
    let mapping = aligned_mapping(len_bytes as usize).map_err(fail)?;
    // SAFETY: the range is a mapping of our own; the advice changes how it is backed, not what it holds. Without huge
    // pages everything works, slower.
    if unsafe { libc::madvise(mapping.as_ptr().cast(), len_bytes as usize, libc::MADV_HUGEPAGE) } != 0 {
        tracing::debug!("no transparent huge pages for guest memory: {}", std::io::Error::last_os_error());
    }
    GuestRegionMmap::new(mapping, GuestAddress(start_gpa))
        .ok_or_else(|| fail("the region does not fit the address space".to_owned()))
}

/// An anonymous mapping that begins at a 2 MiB boundary, without which the host cannot map it with huge pages. New
/// kernels align large mappings by themselves; on older ones the next mapping lands right below the last, so a small
/// one in between shifts it into place.
fn aligned_mapping(len_bytes: usize) -> Result<MmapRegion<()>, String> {
    let map = |len| MmapRegion::new(len).map_err(|error| error.to_string());
    let first = map(len_bytes)?;
    let excess = first.as_ptr() as usize % LARGE_PAGE_BYTES as usize;
    if excess == 0 {
        return Ok(first);
    }
    let _shift = map(excess)?;
    let second = map(len_bytes)?;
    Ok(if (second.as_ptr() as usize).is_multiple_of(LARGE_PAGE_BYTES as usize) { second } else { first })
}

/// RAM of a machine with this much memory, as the boot page lists it.
pub fn ranges(len_bytes: u64) -> [MemoryRange; 4] {
    let low = len_bytes.min(MMIO_GPA);
    let mut ranges = [MemoryRange::default(); 4];
    ranges[0] = MemoryRange { start_gpa: 0, len_bytes: low };
    if len_bytes > low {
        ranges[1] = MemoryRange { start_gpa: HIGH_RAM_GPA, len_bytes: len_bytes - low };
    }
    ranges
}

/// Hands out guest-physical memory from the bottom up, for what lies in it at boot. Fresh memory is zero.
#[derive(Debug)]
pub struct Placer {
    next_gpa: u64,
    end_gpa: u64,
}

impl Placer {
    /// Places below `end_gpa`. Page 0 stays free, so that address 0 is nothing.
    pub fn new(end_gpa: u64) -> Self {
        Self { next_gpa: PAGE_BYTES, end_gpa }
    }

    /// Places between two page boundaries.
    pub fn between(start_gpa: u64, end_gpa: u64) -> Self {
        Self { next_gpa: start_gpa, end_gpa }
    }

    /// Whole pages for `len_bytes`.
    pub fn pages(&mut self, len_bytes: u64) -> Result<u64, MachineError> {
        self.aligned(len_bytes, PAGE_BYTES)
    }

    /// Whole large pages for `len_bytes`.
    pub fn large_pages(&mut self, len_bytes: u64) -> Result<u64, MachineError> {
        self.aligned(len_bytes, LARGE_PAGE_BYTES)
    }

    fn aligned(&mut self, len_bytes: u64, align: u64) -> Result<u64, MachineError> {
        let start = self.next_gpa.next_multiple_of(align);
        let end = start.saturating_add(len_bytes).checked_next_multiple_of(align).unwrap_or(u64::MAX);
        if end > self.end_gpa {
            return Err(MachineError::MemoryTooSmall { needed_mib: end.div_ceil(1 << 20) });
        }
        self.next_gpa = end;
        Ok(start)
    }

    /// First address behind everything placed so far.
    pub fn end(&self) -> u64 {
        self.next_gpa
    }
}

/// Why pages are not cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pages {start}..+{pages} do not all lie in one range of memory")]
pub struct NotMemory {
    start: u64,
    pages: u64,
}

/// What is written at once.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Fills pages with zeroes. Whole large pages are given back to the host, which has fresh ones at the next touch.
pub fn clean(memory: &Memory, start: u64, pages: u64) -> Result<(), NotMemory> {
    let refused = NotMemory { start, pages };
    let bytes = |pages: u64| pages.checked_mul(PAGE_BYTES).ok_or(refused);
    let (mut next, len) = (bytes(start)?, bytes(pages)?);
    let end = next.checked_add(len).ok_or(refused)?;
    if len == 0 {
        return Ok(());
    }
    let region = memory.find_region(GuestAddress(next)).ok_or(refused)?;
    if end - 1 > region.last_addr().0 {
        return Err(refused);
    }
    let large = next.next_multiple_of(LARGE_PAGE_BYTES)..end / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
    if large.start < large.end && drop_pages(region, &large) {
        zero(memory, next, large.start - next)?;
        next = large.end;
    }
    zero(memory, next, end - next)
}

/// Gives a range of a region back to the host. `false`: it cannot be had.
fn drop_pages(region: &GuestRegionMmap<()>, range: &std::ops::Range<u64>) -> bool {
    let mapping = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // Else the file's bytes would come back.
    if region.flags() & mapping != mapping || region.file_offset().is_some() {
        return false;
    }
    let offset = range.start - region.start_addr().0;
    let len = (range.end - range.start) as usize;
    // SAFETY: the caller has checked that the range lies in this mapping of ours. It reads as zeroes afterwards, and guest
    // memory may change at any time anyway.
    unsafe { libc::madvise(region.as_ptr().add(offset as usize).cast(), len, libc::MADV_DONTNEED) == 0 }
}

fn zero(memory: &Memory, mut gpa: u64, mut len: u64) -> Result<(), NotMemory> {
    while len > 0 {
        let part = len.min(ZEROES.len() as u64);
        let refused = NotMemory { start: gpa / PAGE_BYTES, pages: len / PAGE_BYTES };
        memory.write_slice(&ZEROES[..part as usize], GuestAddress(gpa)).map_err(|_| refused)?;
        (gpa, len) = (gpa + part, len - part);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_leaves_the_device_range_free() {
        let memory = map(MMIO_GPA + (4 << 20)).expect("address space");
        let regions: Vec<_> = memory.iter().map(|r| (r.start_addr().0, r.len())).collect();
        assert_eq!(regions, [(0, MMIO_GPA), (HIGH_RAM_GPA, 4 << 20)]);
    }

    #[test]
    fn map_is_aligned_for_huge_pages() {
        let memory = map(6 << 20).expect("6 MiB");
        let host = memory.iter().next().expect("one region").as_ptr() as u64;
        assert_eq!(host % LARGE_PAGE_BYTES, 0);
    }

    #[test]
    fn placer_beyond_the_end_returns_memory_too_small() {
        let mut placer = Placer::new(4 << 20);
        assert_eq!(placer.pages(1).expect("fits"), 4096);
        assert_eq!(placer.pages(5000).expect("fits"), 8192);
        assert_eq!(placer.large_pages(1).expect("fits"), 2 << 20);
        assert!(matches!(placer.pages(1), Err(MachineError::MemoryTooSmall { needed_mib: 5 })));
        assert!(matches!(placer.pages(u64::MAX), Err(MachineError::MemoryTooSmall { .. })));
    }

    const LARGE: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;

    #[test]
    fn clean_clears_these_pages_and_no_other() {
        let memory = map(8 << 20).expect("8 MiB");
        // Within a page table's reach, one large page and its neighbours, large pages only.
        for (start, pages) in [(3, 1), (5, 40), (LARGE - 1, LARGE + 2), (LARGE, 2 * LARGE)] {
            memory.write_slice(&vec![0xEE; 8 << 20], GuestAddress(0)).expect("all of it");
            clean(&memory, start, pages).expect("memory");
            let mut bytes = vec![0; 8 << 20];
            memory.read_slice(&mut bytes, GuestAddress(0)).expect("all of it");
            let (start, end) = ((start * PAGE_BYTES) as usize, ((start + pages) * PAGE_BYTES) as usize);
            assert!(bytes[start..end].iter().all(|&byte| byte == 0), "{start:#x}");
            assert!(bytes[..start].iter().chain(&bytes[end..]).all(|&byte| byte == 0xEE), "{start:#x}");
        }
    }

    #[test]
    fn clean_refuses_what_is_not_memory_and_clears_nothing_of_it() {
        let memory = map(8 << 20).expect("8 MiB");
        memory.write_slice(&vec![0xEE; 8 << 20], GuestAddress(0)).expect("all of it");
        let u32_max = u64::from(u32::MAX);
        for (start, pages) in
            [(2047, 2), (2048, 1), (0, u32_max), (u32_max, u32_max), (MMIO_GPA / PAGE_BYTES, 1), (0, 2049)]
        {
            assert_eq!(clean(&memory, start, pages), Err(NotMemory { start, pages }));
        }
        assert_eq!(clean(&memory, u32_max, 0), Ok(()));
        let mut bytes = vec![0; 8 << 20];
        memory.read_slice(&mut bytes, GuestAddress(0)).expect("all of it");
        assert!(bytes.iter().all(|&byte| byte == 0xEE));
    }
}
