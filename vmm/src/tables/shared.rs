//! References into guest memory that stay valid: the one place where a table's address becomes a Rust reference.
//!
//! An edge. What is reached through [`Shared`] consists of atomics only, so the guest may change it at any time; every value
//! read is just a number, to be judged by the reader.

use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};

use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::Memory;

/// Why a table cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// It does not lie in guest memory, or crosses its end.
    #[error(
        "{what} at guest-physical {gpa:#x} ({len_bytes} bytes) does not lie in one piece of guest memory; check the boot page"
    )]
    NotMemory {
        /// Which table.
        what: &'static str,
        /// Where it was said to be.
        gpa: u64,
        /// How long it is.
        len_bytes: usize,
    },
    /// It is not aligned as its type demands.
    #[error("{what} at guest-physical {gpa:#x} is not aligned to {align} bytes; check the boot page")]
    Misaligned {
        /// Which table.
        what: &'static str,
        /// Where it was said to be.
        gpa: u64,
        /// The alignment it needs.
        align: usize,
    },
    /// It cannot have so many entries.
    #[error("{what} cannot have {count} entries, only a power of two up to {max}")]
    Count {
        /// Which table.
        what: &'static str,
        /// How many it is said to have.
        count: u32,
        /// Most that are possible.
        max: u32,
    },
}

/// A type of which every byte pattern is a value and that consists of atomics only.
///
/// # Safety
/// Only for `repr(C)` or primitive types without padding whose fields are all atomic integers (or types for which this
/// trait holds): the guest changes them while references exist.
pub unsafe trait Words {}

// SAFETY: an atomic integer.
unsafe impl Words for AtomicU8 {}
// SAFETY: an atomic integer.
unsafe impl Words for AtomicU64 {}
// SAFETY: `repr(C)`, two AtomicU32, an AtomicU64 and twelve AtomicU32, which fill 64 bytes without padding.
unsafe impl Words for abi::flow::FlowTable {}
// SAFETY: `repr(C)`, AtomicU32 and AtomicU64 that fill 64 bytes without padding.
unsafe impl Words for abi::flow::Node {}
// SAFETY: `repr(C)`, atomics only, whose sizes leave no padding.
unsafe impl Words for abi::boot::HostPage {}
// SAFETY: as above.
unsafe impl Words for abi::boot::StatusPage {}
// SAFETY: as above.
unsafe impl Words for abi::environment::KernelPage {}
// SAFETY: as above.
unsafe impl Words for abi::time::TimePage {}
// SAFETY: as above.
unsafe impl Words for abi::trace::AccountArea {}
// SAFETY: as above.
unsafe impl Words for abi::vcpu::VcpuTime {}
// SAFETY: as above.
unsafe impl Words for abi::statistics::StatisticsArea {}
// SAFETY: as above.
unsafe impl Words for abi::trace::TraceRing {}
// SAFETY: as above.
unsafe impl Words for abi::log::LogRing {}
// SAFETY: an array has no padding of its own.
unsafe impl<T: Words, const N: usize> Words for [T; N] {}

/// A reference to `T` in guest memory that keeps the memory mapped.
pub struct Shared<T: ?Sized> {
    target: NonNull<T>,
    /// Never read: it keeps `target` mapped.
    memory: Arc<Memory>,
}

// SAFETY: the target consists of atomics (`Words`), and the mapping is owned by an `Arc` that is itself `Send + Sync`.
unsafe impl<T: ?Sized> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized> Sync for Shared<T> {}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { target: self.target, memory: Arc::clone(&self.memory) }
    }
}

impl<T: ?Sized> std::fmt::Debug for Shared<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shared({:p})", self.target)
    }
}

impl<T: Words> Shared<T> {
    /// The `T` at `gpa`.
    pub fn open(memory: &Arc<Memory>, what: &'static str, gpa: u64) -> Result<Self, TableError> {
        let target = locate::<T>(memory, what, gpa, 1)?;
        Ok(Self { target, memory: Arc::clone(memory) })
    }
}

impl<T: Words> Shared<[T]> {
    /// The `count` elements from `gpa` on.
    pub fn slice(
        memory: &Arc<Memory>,
        what: &'static str,
        gpa: u64,
        count: usize,
    ) -> Result<Self, TableError> {
        let first = locate::<T>(memory, what, gpa, count)?;
        Ok(Self { target: NonNull::slice_from_raw_parts(first, count), memory: Arc::clone(memory) })
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the constructors checked that the target lies aligned in one mapped region, which `memory` keeps
        // mapped; it consists of atomics, so that the guest's writes do not break the shared reference.
        unsafe { self.target.as_ref() }
    }
}

/// Host address of `count` elements at `gpa`, checked for range and alignment.
fn locate<T>(memory: &Memory, what: &'static str, gpa: u64, count: usize) -> Result<NonNull<T>, TableError> {
    let len_bytes = count.saturating_mul(size_of::<T>());
    let not_memory = TableError::NotMemory { what, gpa, len_bytes };
    let Some((region, offset)) = memory.to_region_addr(GuestAddress(gpa)) else { return Err(not_memory) };
    if len_bytes as u64 > region.len() - offset.raw_value() {
        return Err(not_memory);
    }
    let host = region.get_host_address(offset).ok().and_then(|address| NonNull::new(address.cast::<T>()));
    let Some(host) = host else { return Err(not_memory) };
    if !host.is_aligned() {
        return Err(TableError::Misaligned { what, gpa, align: align_of::<T>() });
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use vm_memory::Bytes;

    fn memory() -> Arc<Memory> {
        Arc::new(Memory::from_ranges(&[(GuestAddress(0x1000), 0x2000)]).expect("two pages"))
    }

    #[test]
    fn slice_sees_later_writes_of_the_guest() {
        let memory = memory();
        let words = Shared::<[AtomicU64]>::slice(&memory, "words", 0x1008, 4).expect("inside");
        memory.write_obj(7u64, GuestAddress(0x1010)).expect("inside");
        assert_eq!(words[1].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn slice_outside_of_memory_returns_not_memory() {
        let memory = memory();
        for (gpa, count) in [(0x0, 1), (0x2ff8, 2), (0x3000, 1), (u64::MAX - 7, 1), (0x1000, usize::MAX)] {
            let result = Shared::<[AtomicU64]>::slice(&memory, "words", gpa, count);
            assert!(matches!(result, Err(TableError::NotMemory { .. })), "{gpa:#x}");
        }
    }

    #[test]
    fn slice_misaligned_returns_misaligned() {
        let result = Shared::<[AtomicU64]>::slice(&memory(), "words", 0x1004, 1);
        assert_eq!(result.err(), Some(TableError::Misaligned { what: "words", gpa: 0x1004, align: 8 }));
    }
}
