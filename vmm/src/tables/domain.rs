//! A DMA domain as the devices see it: guest memory in which every access is checked against the owner's bitmap first.
//!
//! The bitmap is read live, one look-up a page, before the address is translated. A bit that the kernel clears is seen by
//! the next access; that no access is in flight any more is a matter of the queue's drain (see `device::virtio::queue`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use abi::boot::MemoryRange;
use abi::domain::{DomainEntry, Rights, bitmap_bytes, position};
use abi::layout::PAGE_BYTES;
use vm_memory::bitmap::BS;
use vm_memory::guest_memory::{GuestMemorySliceIterator, Result as MemoryResult};
use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, Permissions,
    VolatileSlice,
};

use super::Memory;
use super::shared::{Shared, TableError, Words};

/// Why a domain cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// The number is beyond the domain table.
    #[error("environment {environment} is beyond the domain table; the kernel's owner table is wrong")]
    NoSuchEnvironment {
        /// The number.
        environment: u32,
    },
    /// The entry is empty.
    #[error(
        "environment {environment} has no DMA domain; the kernel must write its domain entry before it binds a queue"
    )]
    Empty {
        /// The environment.
        environment: u32,
    },
    /// The bitmap does not lie in guest memory.
    #[error("the DMA domain of environment {environment} is unusable: {source}")]
    Bitmap {
        /// The environment.
        environment: u32,
        /// What is wrong.
        source: TableError,
    },
    /// Pages to be granted are not covered by the bitmap.
    #[error("pages up to {end_gpa:#x} are beyond the {pages} pages that the domain's bitmap covers")]
    Uncovered {
        /// End of the range to be granted.
        end_gpa: u64,
        /// Pages that the bitmap covers.
        pages: u64,
    },
}

/// One entry of the domain table in guest memory: `bitmap_gpa`, `pages`.
#[derive(Debug)]
#[repr(transparent)]
pub struct Entry([AtomicU64; 2]);

// SAFETY: transparent over an array of atomic integers.
unsafe impl Words for Entry {}

impl Entry {
    /// The entry now.
    pub(super) fn read(&self) -> DomainEntry {
        DomainEntry {
            bitmap_gpa: self.0[0].load(Ordering::Acquire),
            pages: self.0[1].load(Ordering::Acquire),
        }
    }
}

/// A run of guest-physical memory and where the VMM has it.
#[derive(Clone, Copy, Debug)]
struct Region {
    start_gpa: u64,
    len_bytes: u64,
    host: *mut u8,
}

/// The memory that the devices may reach for one environment.
#[derive(Clone, Debug)]
pub struct DmaDomain {
    regions: Arc<[Region]>,
    /// Lies in the memory that `regions` describe, and keeps all of it mapped.
    bitmap: Shared<[AtomicU8]>,
    pages: u64,
    environment: u32,
}

// SAFETY: the host addresses in `regions` belong to memory that `bitmap` keeps mapped, on whatever thread; they are used for
// volatile access only.
unsafe impl Send for DmaDomain {}
// SAFETY: as above.
unsafe impl Sync for DmaDomain {}

impl DmaDomain {
    /// The domain that `entry` describes.
    pub fn open(memory: &Arc<Memory>, environment: u32, entry: DomainEntry) -> Result<Self, DomainError> {
        if entry.pages == 0 {
            return Err(DomainError::Empty { environment });
        }
        let bytes = usize::try_from(bitmap_bytes(entry.pages)).unwrap_or(usize::MAX);
        let bitmap = Shared::slice(memory, "the domain's bitmap", entry.bitmap_gpa, bytes)
            .map_err(|source| DomainError::Bitmap { environment, source })?;
        let mut regions = Vec::new();
        for region in memory.iter() {
            let start_gpa = region.start_addr().raw_value();
            if let Ok(host) = memory.get_host_address(region.start_addr()) {
                regions.push(Region { start_gpa, len_bytes: region.len(), host });
            }
        }
        Ok(Self { regions: regions.into(), bitmap, pages: entry.pages, environment })
    }

    /// Whose domain this is.
    pub fn environment(&self) -> u32 {
        self.environment
    }

    /// Whether the domain allows `access` to all pages of `addr..addr + count`. Says nothing about what lies there.
    #[inline]
    pub(crate) fn allows(&self, addr: u64, count: usize, access: Permissions) -> bool {
        if count == 0 {
            return true;
        }
        let Some(last) = addr.checked_add(count as u64 - 1) else { return false };
        let (first_page, last_page) = (addr / PAGE_BYTES, last / PAGE_BYTES);
        if last_page >= self.pages {
            return false;
        }
        let need = access as u8;
        let mut page = first_page;
        while page <= last_page {
            // The pages of one byte together: four bits pairs, of which this range may begin or end in the middle.
            let (byte, shift) = position(page);
            let pages = (4 - page % 4).min(last_page - page + 1);
            let mask = ((0x55 * need) as u32 & ((1 << (2 * pages)) - 1)) << shift;
            if u32::from(self.bitmap[byte as usize].load(Ordering::Acquire)) & mask != mask {
                return false;
            }
            page += pages;
        }
        true
    }

    /// The region in which `addr` lies.
    #[inline]
    fn region(&self, addr: u64) -> Option<&Region> {
        self.regions.iter().find(|region| addr.wrapping_sub(region.start_gpa) < region.len_bytes)
    }
}

impl GuestMemory for DmaDomain {
    type PhysicalMemory = Memory;
    type Bitmap = ();

    #[inline]
    fn check_range(&self, addr: GuestAddress, count: usize, access: Permissions) -> bool {
        self.allows(addr.0, count, access)
            && Slices { domain: self, addr: addr.0, count }.all(|slice| slice.is_ok())
    }

    #[inline]
    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> MemoryResult<impl GuestMemorySliceIterator<'a, BS<'a, ()>>> {
        if !self.allows(addr.0, count, access) {
            return Err(GuestMemoryError::InvalidGuestAddress(addr));
        }
        Ok(Slices { domain: self, addr: addr.0, count })
    }
}

/// The pieces of a range that was checked, one a region.
struct Slices<'a> {
    domain: &'a DmaDomain,
    addr: u64,
    count: usize,
}

impl<'a> Iterator for Slices<'a> {
    type Item = MemoryResult<VolatileSlice<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.count == 0 {
            return None;
        }
        let Some(region) = self.domain.region(self.addr) else {
            self.count = 0;
            return Some(Err(GuestMemoryError::InvalidGuestAddress(GuestAddress(self.addr))));
        };
        let offset = self.addr - region.start_gpa;
        let len = (self.count as u64).min(region.len_bytes - offset) as usize;
        self.count -= len;
        self.addr = self.addr.wrapping_add(len as u64);
        // SAFETY: `offset + len` is at most the region's length, and `domain.bitmap` keeps the region mapped for 'a.
        Some(Ok(unsafe { VolatileSlice::new(region.host.add(offset as usize), len) }))
    }
}

impl std::iter::FusedIterator for Slices<'_> {}
impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

/// Sets what the devices may do with the pages of a range: for the VMM's boot and for tests. While the machine runs, the
/// kernel does this itself.
pub fn grant(
    memory: &Arc<Memory>,
    entry: DomainEntry,
    range: MemoryRange,
    rights: Rights,
) -> Result<(), DomainError> {
    let Some(end_gpa) = range.start_gpa.checked_add(range.len_bytes) else {
        return Err(DomainError::Uncovered { end_gpa: u64::MAX, pages: entry.pages });
    };
    if end_gpa.div_ceil(PAGE_BYTES) > entry.pages {
        return Err(DomainError::Uncovered { end_gpa, pages: entry.pages });
    }
    let bytes = usize::try_from(bitmap_bytes(entry.pages)).unwrap_or(usize::MAX);
    let bitmap: Shared<[AtomicU8]> = Shared::slice(memory, "the domain's bitmap", entry.bitmap_gpa, bytes)
        .map_err(|source| DomainError::Bitmap { environment: u32::MAX, source })?;
    for page in range.start_gpa / PAGE_BYTES..end_gpa.div_ceil(PAGE_BYTES) {
        let (byte, shift) = position(page);
        bitmap[byte as usize].fetch_and(!(3 << shift), Ordering::AcqRel);
        bitmap[byte as usize].fetch_or((rights as u8) << shift, Ordering::AcqRel);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::Bytes;

    const ENTRY: DomainEntry = DomainEntry { bitmap_gpa: 0x2000, pages: 32 };

    /// Two regions with a hole between them: pages 0..8 and 16..24.
    fn memory() -> Arc<Memory> {
        let ranges = [(GuestAddress(0), 0x8000), (GuestAddress(0x10000), 0x8000)];
        Arc::new(Memory::from_ranges(&ranges).expect("two regions"))
    }

    fn pages(first: u64, count: u64) -> MemoryRange {
        MemoryRange { start_gpa: first * 4096, len_bytes: count * 4096 }
    }

    #[test]
    fn access_without_the_right_fails_and_with_it_succeeds() {
        let memory = memory();
        let domain = DmaDomain::open(&memory, 3, ENTRY).expect("usable");
        grant(&memory, ENTRY, pages(4, 1), Rights::Read).expect("covered");
        assert!(domain.read_obj::<u64>(GuestAddress(0x4000)).is_ok());
        assert!(domain.write_obj(1u64, GuestAddress(0x4000)).is_err());
        assert!(domain.read_obj::<u64>(GuestAddress(0x5000)).is_err());
        grant(&memory, ENTRY, pages(4, 1), Rights::ReadWrite).expect("covered");
        assert!(domain.write_obj(1u64, GuestAddress(0x4000)).is_ok());
    }

    #[test]
    fn revoked_bit_is_seen_by_the_next_access() {
        let memory = memory();
        grant(&memory, ENTRY, pages(4, 2), Rights::ReadWrite).expect("covered");
        let domain = DmaDomain::open(&memory, 3, ENTRY).expect("usable");
        assert!(domain.check_range(GuestAddress(0x4ff0), 0x20, Permissions::Write));
        grant(&memory, ENTRY, pages(5, 1), Rights::None).expect("covered");
        assert!(!domain.check_range(GuestAddress(0x4ff0), 0x20, Permissions::Write));
        assert!(domain.check_range(GuestAddress(0x4ff0), 0x10, Permissions::Write));
    }

    #[test]
    fn right_to_a_hole_does_not_make_it_memory() {
        let memory = memory();
        grant(&memory, ENTRY, pages(7, 3), Rights::ReadWrite).expect("covered");
        let domain = DmaDomain::open(&memory, 3, ENTRY).expect("usable");
        assert!(domain.check_range(GuestAddress(0x7fff), 1, Permissions::Read));
        assert!(!domain.check_range(GuestAddress(0x7fff), 2, Permissions::Read));
        assert!(!domain.check_range(GuestAddress(0x8000), 1, Permissions::Read));
    }

    #[test]
    fn open_without_entry_or_bitmap_returns_error() {
        let memory = memory();
        let empty = DmaDomain::open(&memory, 3, DomainEntry::default());
        assert_eq!(empty.err(), Some(DomainError::Empty { environment: 3 }));
        for entry in [
            DomainEntry { bitmap_gpa: 0x9000, pages: 4 },
            DomainEntry { bitmap_gpa: 0x2000, pages: u64::MAX },
            DomainEntry { bitmap_gpa: u64::MAX, pages: 4 },
        ] {
            assert!(
                matches!(DmaDomain::open(&memory, 3, entry), Err(DomainError::Bitmap { .. })),
                "{entry:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn check_range_agrees_with_a_naive_model(
            rights in prop::collection::vec(0u8..4, 32),
            start in 0u64..0x21000,
            count in 0usize..0x6000,
            access in 1u8..4,
        ) {
            let memory = memory();
            for (page, right) in rights.iter().enumerate() {
                let right = [Rights::None, Rights::Read, Rights::Write, Rights::ReadWrite][*right as usize];
                // The bitmap's own page may be granted as well: the table does not care.
                grant(&memory, ENTRY, pages(page as u64, 1), right).expect("covered");
            }
            let permissions = [Permissions::No, Permissions::Read, Permissions::Write, Permissions::ReadWrite];
            let domain = DmaDomain::open(&memory, 0, ENTRY).expect("usable");
            let expected = (start..start + count as u64).all(|address| {
                let page = (address / 4096) as usize;
                let is_memory = page < 8 || (16..24).contains(&page);
                is_memory && rights[page] & access == access
            });
            let got = domain.check_range(GuestAddress(start), count, permissions[access as usize]);
            prop_assert_eq!(got, expected);
            let bytes = domain
                .get_slices(GuestAddress(start), count, permissions[access as usize])
                .map(|slices| slices.map_while(Result::ok).map(|slice| slice.len()).sum::<usize>());
            prop_assert_eq!(bytes.is_ok_and(|bytes| bytes == count), expected);
        }
    }
}
