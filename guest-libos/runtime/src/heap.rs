//! The heap: the pages of the window, under the `talc` allocator; and, for a program that wants that, frames at its end that can be
//! given back ([`reserve_frames`]).

use crate::frames::Frames;
use abi::boot::EnvironmentPage;
use abi::capability::Handle;
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES, WINDOW_VA};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use talc::lock_api::{GuardSend, Mutex, RawMutex};
use talc::source::Manual;

/// Bytes of a frame. Memory of just this size comes from the frames while there are any.
pub const FRAME_BYTES: usize = 64 << 10;

/// An environment runs on one vCPU at a time and nothing interrupts it, so there is never anybody to wait for; the flag
/// is there to find out if that ever changes.
struct SingleVcpu(AtomicBool);

// SAFETY: `try_lock` succeeds only if the flag was clear, so no two guards exist at once.
unsafe impl RawMutex for SingleVcpu {
    #[allow(clippy::declare_interior_mutable_const)] // what the trait asks for
    const INIT: Self = Self(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        assert!(self.try_lock(), "the heap is used again from inside the heap");
    }

    fn try_lock(&self) -> bool {
        let free = !self.0.load(Ordering::Relaxed);
        if free {
            self.0.store(true, Ordering::Relaxed);
        }
        free
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

struct Heap {
    talc: talc::TalcLock<SingleVcpu, Manual>,
    frames: Mutex<SingleVcpu, Frames>,
    /// Where the frames begin, for a quick look: [`usize::MAX`] if there are none.
    frames_start: AtomicUsize,
    /// Where the part of the first range ends that `talc` has.
    talc_end: AtomicUsize,
}

#[global_allocator]
static HEAP: Heap = Heap {
    talc: talc::TalcLock::new(Manual),
    frames: Mutex::new(Frames::NONE),
    frames_start: AtomicUsize::new(usize::MAX),
    talc_end: AtomicUsize::new(0),
};

impl Heap {
    /// Whether a block is a frame: they lie behind everything else of their range, and other ranges are not there with them.
    #[inline]
    fn is_frame(&self, block: *mut u8) -> bool {
        block.addr() >= self.frames_start.load(Ordering::Relaxed) && self.frames.lock().holds(block.addr())
    }
}

// SAFETY: each block comes from one of two allocators whose memory is disjoint, and goes back to the one whose memory it lies in.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() == FRAME_BYTES
            && layout.align() <= FRAME_BYTES
            && self.frames_start.load(Ordering::Relaxed) != usize::MAX
            && let Some(frame) = self.frames.lock().take()
        {
            return frame as *mut u8;
        }
        // SAFETY: as the caller promises.
        unsafe { self.talc.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_frame(block) {
            self.frames.lock().give(block.addr());
            return;
        }
        // SAFETY: as the caller promises; it came from there.
        unsafe { self.talc.dealloc(block, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.is_frame(block) {
            // SAFETY: as the caller promises; it came from there.
            return unsafe { self.talc.realloc(block, layout, new_size) };
        }
        // SAFETY: the caller promises that the new size fits the alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: sizes are not zero, as the caller promises; both blocks are there and do not overlap.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

/// Gives the allocator every page of the environment.
pub(crate) fn init(environment: &EnvironmentPage) {
    for (number, range) in environment.heap.iter().take_while(|range| range.len_bytes != 0).enumerate() {
        let start = (WINDOW_VA + range.start_gpa) as *mut u8;
        // SAFETY: the VMM mapped the range for this environment alone, and it is claimed once.
        let claimed = unsafe { HEAP.talc.lock().claim(start, range.len_bytes as usize) };
        match claimed {
            None => log::warn!("a heap range of {} bytes is too small to use", range.len_bytes),
            Some(end) if number == 0 => HEAP.talc_end.store(end.as_ptr().addr(), Ordering::Relaxed),
            Some(_) => {}
        }
    }
}

/// Sets the last `bytes` of the heap's first range, or as much of them as nothing lies in yet, aside for frames. Answers how many
/// frames there are; none if that was done before.
pub fn reserve_frames(bytes: u64) -> usize {
    let range = crate::pages::environment().heap[0];
    let range_end = (WINDOW_VA + range.end_gpa()) as usize;
    let (Some(old_end), Some(new_end)) = (
        NonNull::new(HEAP.talc_end.load(Ordering::Relaxed) as *mut u8),
        range_end.checked_sub(bytes as usize),
    ) else {
        return 0;
    };
    if HEAP.frames_start.load(Ordering::Relaxed) != usize::MAX {
        return 0;
    }
    // SAFETY: the end that claiming the range answered, and nobody has changed it since.
    let end = unsafe { HEAP.talc.lock().truncate(old_end, new_end as *mut u8) };
    let Some(end) = end.map(|end| end.as_ptr().addr()) else { return 0 };
    HEAP.talc_end.store(end, Ordering::Relaxed);
    // SAFETY: what lies behind is mapped for us, and the allocator has just let go of it.
    let frames = unsafe { Frames::new(end.next_multiple_of(FRAME_BYTES), range_end) };
    let count = frames.count();
    HEAP.frames_start.store(frames.start(), Ordering::Relaxed);
    *HEAP.frames.lock() = frames;
    count
}

/// A part of the heap's end that is asked back, or the most of it that can be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Where it begins.
    pub start_va: usize,
    /// How many frames lie before it.
    pub frames_before: usize,
    capability: Handle,
    keep_pages: u64,
}

/// What an ask means for the frames; `None` if it is for something else, or all that can be given was given. The heap is mapped in
/// large pages, so it is whole ones that go.
pub fn tail(ask: &crate::revocation::Ask) -> Option<Tail> {
    let environment = crate::pages::environment();
    if ask.capability != environment.capabilities.heap[0] {
        return None;
    }
    let range_va = (WINDOW_VA + environment.heap[0].start_gpa) as usize;
    let wanted = (ask.keep.saturating_mul(PAGE_BYTES) as usize).saturating_add(range_va);
    let frames = HEAP.frames.lock();
    let large = LARGE_PAGE_BYTES as usize;
    let first = frames.start().next_multiple_of(large);
    let start_va = (wanted / large * large).max(first);
    (start_va < frames.given_end()).then_some(Tail {
        start_va,
        frames_before: (start_va - frames.start()) / FRAME_BYTES,
        capability: ask.capability,
        keep_pages: (start_va - range_va) as u64 / PAGE_BYTES,
    })
}

impl Tail {
    /// From now on nothing is put there. Answers how many frames there are still in use.
    pub fn close(&self) -> usize {
        let mut frames = HEAP.frames.lock();
        frames.close_from(self.start_va);
        frames.in_use_from(self.start_va)
    }

    /// Gives it back. Refused while any of it is in use.
    pub fn give_back(&self) -> Result<(), abi::call::Error> {
        if self.close() > 0 {
            return Err(abi::call::Error::Busy);
        }
        crate::revocation::give_back(self.capability, self.keep_pages)?;
        HEAP.frames.lock().set_given(self.start_va);
        Ok(())
    }
}
