//! Pages that one environment writes and others read.

use crate::{dma, kernel, pages};
use abi::call::{Call, Error};
use abi::capability::{Handle, rights};
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

/// Words of a page.
pub const WORDS: usize = PAGE_BYTES as usize / 8;

/// Where the pages of others are mapped, one behind the other.
const FOREIGN_VA: u64 = 1 << 43;
static NEXT_VA: AtomicU64 = AtomicU64::new(FOREIGN_VA);

/// A page of one's own, to be given to others.
#[derive(Debug)]
pub struct Page {
    /// What it holds; zero at first.
    pub words: &'static [AtomicU64; WORDS],
    /// The capability for it, to be given with the right to read.
    pub memory: Handle,
}

#[repr(C, align(4096))]
struct Aligned([AtomicU64; WORDS]);

impl Page {
    /// A page out of the heap, for good.
    pub fn new() -> Result<Self, Error> {
        let leaked: &'static Aligned = Box::leak(Box::new(Aligned([const { AtomicU64::new(0) }; WORDS])));
        let words = &leaked.0;
        let gpa =
            dma::device_address(words.as_ptr().cast(), PAGE_BYTES as usize).ok_or(Error::BadArgument)?;
        let page = pages::environment();
        let inside = |range: &abi::boot::MemoryRange| gpa >= range.start_gpa && gpa < range.end_gpa();
        let at = page.heap.iter().position(inside).ok_or(Error::NotFound)?;
        let derive =
            [0, page.capabilities.heap[at].0, gpa / PAGE_BYTES, 1, u64::from(rights::READ | rights::GIVE)];
        Ok(Self { words, memory: Handle(kernel::raw(Call::CapabilityDerive, derive)?) })
    }
}

/// Maps the first page of a memory capability read-only, for good. If it is revoked, reading it faults.
pub fn map(memory: Handle) -> Result<&'static [AtomicU64; WORDS], Error> {
    let va = NEXT_VA.fetch_add(PAGE_BYTES, Ordering::Relaxed);
    if kernel::raw(Call::MemoryMap, [0, memory.0, va, 0, 1])? != 1 {
        return Err(Error::NoSpace);
    }
    // SAFETY: mapped just now at an address that is used for nothing else; others write it, so it is read as atomics.
    Ok(unsafe { &*(va as *const [AtomicU64; WORDS]) })
}

const _: () = assert!(FOREIGN_VA < WINDOW_VA);
