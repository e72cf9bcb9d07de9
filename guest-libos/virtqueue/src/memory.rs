//! Memory that the device reads and writes: whole pages from the heap, and bounds-checked access to them. The only unsafe
//! code of the driver proper. May assume that the heap is reachable for the device where [`Hal`] says so.

use crate::fault::OpenError;
use crate::hal::Hal;
use abi::layout::PAGE_BYTES;
use alloc::alloc::{alloc, alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

/// What a block holds when it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zero.
    Zero,
    /// Whatever was there; nothing is touched, so no page is faulted in before it is needed.
    Stale,
}

/// A page-aligned run of heap memory that the device may touch at any time.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    layout: Layout,
    device_address: u64,
    leaked: bool,
}

// SAFETY: the block owns its memory; the pointer is not tied to a thread.
unsafe impl Send for Block {}

impl Block {
    /// A block of at least `len_bytes`, in whole pages.
    pub fn new(hal: &impl Hal, len_bytes: usize, contents: Contents) -> Result<Self, OpenError> {
        let pages =
            len_bytes.max(1).checked_next_multiple_of(PAGE_BYTES as usize).ok_or(OpenError::OutOfMemory)?;
        let layout =
            Layout::from_size_align(pages, PAGE_BYTES as usize).map_err(|_| OpenError::OutOfMemory)?;
        // SAFETY: the size is not zero.
        let start = unsafe { if contents == Contents::Zero { alloc_zeroed(layout) } else { alloc(layout) } };
        let start = NonNull::new(start).ok_or(OpenError::OutOfMemory)?;
        release_to_device(start);
        let mut block = Self { start, layout, device_address: 0, leaked: false };
        block.device_address = hal.device_address(start.as_ptr(), pages).ok_or(OpenError::Unreachable)?;
        Ok(block)
    }

    /// Where the device finds the block.
    pub fn device_address(&self) -> u64 {
        self.device_address
    }

    /// Dropping the block will not free it: the device may still be writing to it.
    pub fn leak(&mut self) {
        self.leaked = true;
    }

    /// The first byte of `len_bytes` at `offset`, if they lie in the block.
    #[inline(always)]
    fn at(&self, offset: usize, len_bytes: usize) -> Option<NonNull<u8>> {
        if offset <= self.layout.size() && len_bytes <= self.layout.size() - offset {
            // SAFETY: the offset is within the allocation.
            Some(unsafe { self.start.add(offset) })
        } else {
            None
        }
    }

    /// `len_bytes` at `offset`. The caller asks only for bytes that the device has given back; a device that writes to them
    /// all the same changes plain data under its reader, as with any DMA.
    #[inline(always)]
    pub fn bytes(&self, offset: usize, len_bytes: usize) -> Option<&[u8]> {
        let start = self.at(offset, len_bytes)?;
        // SAFETY: within the allocation, initialised (see `release_to_device`), and not written by the driver while the
        // block is borrowed.
        Some(unsafe { core::slice::from_raw_parts(start.as_ptr(), len_bytes) })
    }

    /// Like [`Self::bytes`], to write.
    #[inline(always)]
    pub fn bytes_mut(&mut self, offset: usize, len_bytes: usize) -> Option<&mut [u8]> {
        let start = self.at(offset, len_bytes)?;
        // SAFETY: as in `bytes`, and borrowed mutably.
        Some(unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len_bytes) })
    }

    /// Starts to load the first two cache lines at `offset`.
    #[inline(always)]
    pub fn prefetch(&self, offset: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Some(start) = self.at(offset, 128) {
            use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: within the allocation; a prefetch reads nothing the program could see.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(start.as_ptr().cast());
                _mm_prefetch::<_MM_HINT_T0>(start.as_ptr().add(64).cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// `len` little-endian words at `offset`; empty if they do not lie in the block.
    #[inline(always)]
    pub fn words<W: Word>(&self, offset: usize, len: usize) -> &[W] {
        match self.at(offset, len * size_of::<W>()) {
            Some(start) if start.cast::<W>().is_aligned() => {
                // SAFETY: within the allocation, aligned, initialised, and only ever accessed atomically: rings are used
                // through this function alone, and the device's side is outside the program.
                unsafe { core::slice::from_raw_parts(start.cast::<W>().as_ptr(), len) }
            }
            _ => &[],
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: allocated in `new` with this layout; the owning queue was unbound, or never bound, before.
            unsafe { dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

/// Words of which rings are made.
///
/// # Safety
/// Every bit pattern is a value, and shared access is atomic.
pub unsafe trait Word {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU16 {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU32 {}
// SAFETY: an atomic integer.
unsafe impl Word for AtomicU64 {}

/// Tells the compiler that someone else knows the memory from here on and may have written all of it. After this its bytes
/// are what the machine has there, initialised as far as the program is concerned.
fn release_to_device(start: NonNull<u8>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the assembly does nothing; as far as the compiler knows it writes the allocation, which is allowed.
    unsafe {
        core::arch::asm!("/* {0} */", in(reg) start.as_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    core::hint::black_box(start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeHal;

    #[test]
    fn block_access_out_of_range_returns_none() {
        let mut block = Block::new(&FakeHal::new(), 5000, Contents::Zero).expect("memory");
        assert_eq!(block.device_address() % 4096, 0);
        assert_eq!(block.bytes(0, 8192).map(<[u8]>::len), Some(8192));
        assert_eq!(block.bytes(8192, 0).map(<[u8]>::len), Some(0));
        assert!(block.bytes(0, 8193).is_none());
        assert!(block.bytes(8193, 0).is_none());
        assert!(block.bytes(usize::MAX, 2).is_none());
        assert!(block.bytes(2, usize::MAX).is_none());
        assert!(block.bytes_mut(8000, 193).is_none());
        assert!(block.words::<AtomicU16>(8190, 2).is_empty());
        assert!(block.words::<AtomicU16>(1, 1).is_empty());
        assert_eq!(block.words::<AtomicU16>(8188, 2).len(), 2);
        block.prefetch(usize::MAX);
    }

    #[test]
    fn block_unreachable_for_the_device_returns_unreachable() {
        let hal = FakeHal::new();
        hal.hide_memory();
        assert_eq!(Block::new(&hal, 4096, Contents::Zero).err(), Some(OpenError::Unreachable));
    }
}
