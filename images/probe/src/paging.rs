//! An environment that pages for itself: more data than frames, a fault upcall, a policy of its own, and its extent of the disk,
//! through its own queue. The kernel knows nothing of it but maps, unmaps and faults.
//!
//! The policy: frames are taken in the order in which they were filled, those that were only read first. Nobody but the
//! environment knows which pages were written, so pages are mapped read-only first, and the first write is a fault, too.

use crate::binding::pages_for;
use crate::{BROKEN, Case, HELD, number};
use abi::boot::DEVICE_BLOCK;
use abi::call::{Call, map};
use abi::capability::{Handle, rights};
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;
use exos_block::{Buffer, BufferMut, DiskQueue, Piece};
use exos_runtime::upcall::{Fault, Verdict, on_fault};
use exos_runtime::{clock, kernel, pages, turn};
use exos_virtqueue::guest::GuestHal;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("self-paging", self_paging)];

/// Where the data is.
const DATA_VA: u64 = 1 << 42;
/// The first block of the extent.
const FIRST_BLOCK: u64 = 64;
/// Vector of a page fault, and bits of its error code (SDM 4.7).
const PAGE_FAULT: u64 = 14;
const WAS_PRESENT: u64 = 1;
const WAS_WRITE: u64 = 2;
const WORDS: u64 = PAGE_BYTES / 8;
const PATIENCE_MS: u64 = 20_000;

/// A page of the heap, as the disk's buffer.
struct Frame(u64);

impl Frame {
    fn piece(&self) -> Piece {
        let start = NonNull::new((WINDOW_VA + self.0) as *mut u8).unwrap_or(NonNull::dangling());
        Piece { start, len_bytes: PAGE_BYTES as usize }
    }
}

// SAFETY: a page of the heap that is never given back. While the disk has it, it is mapped nowhere else.
unsafe impl Buffer for Frame {
    fn pieces(&self) -> impl Iterator<Item = Piece> {
        core::iter::once(self.piece())
    }
}
// SAFETY: as above; any bytes are words.
unsafe impl BufferMut for Frame {}

/// Where a page of the data is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nowhere: it was never written.
    Nowhere,
    /// On the disk.
    Disk,
    /// In a frame; `dirty`: and nowhere else.
    Frame { gpa: u64, dirty: bool },
}

#[derive(Clone, Copy, Default)]
struct Counts {
    faults: u64,
    reads: u64,
    writes: u64,
    upgrades: u64,
}

struct Pager {
    memory: Handle,
    /// First page of the memory's range.
    memory_first: u64,
    places: Vec<Place>,
    /// Pages of the data that are in frames, the one that came first in front.
    resident: VecDeque<u32>,
    free: Vec<u64>,
    disk: DiskQueue<GuestHal, Frame, u32>,
    counts: Counts,
    failed: bool,
}

/// One environment, one vCPU, and no fault inside the handling of one.
struct Only(RefCell<Option<Pager>>);
// SAFETY: see above; a second borrow is found out by the cell.
unsafe impl Sync for Only {}
static PAGER: Only = Only(RefCell::new(None));

fn handle(fault: &Fault) -> Verdict {
    let Ok(mut pager) = PAGER.0.try_borrow_mut() else { return Verdict::End };
    let Some(pager) = pager.as_mut() else { return Verdict::End };
    let page = fault.address.wrapping_sub(DATA_VA) / PAGE_BYTES;
    if fault.vector != PAGE_FAULT || fault.address < DATA_VA || page >= pager.places.len() as u64 {
        return Verdict::End;
    }
    pager.counts.faults += 1;
    match pager.serve(page as u32, fault.error_code) {
        Some(()) => Verdict::GoOn,
        None => Verdict::End,
    }
}

impl Pager {
    fn serve(&mut self, page: u32, error_code: u64) -> Option<()> {
        let write = error_code & WAS_WRITE != 0;
        if error_code & WAS_PRESENT != 0 {
            let Place::Frame { gpa, dirty: false } = self.places[page as usize] else { return None };
            self.counts.upgrades += 1;
            return self.map(page, gpa, true);
        }
        let gpa = match self.free.pop() {
            Some(gpa) => gpa,
            None => self.evict()?,
        };
        if self.places[page as usize] == Place::Disk {
            self.disk.read(FIRST_BLOCK + u64::from(page), Frame(gpa), page).ok()?;
            self.wait()?;
            self.counts.reads += 1;
        } else {
            // SAFETY: a page of the heap that nothing else uses now.
            unsafe { core::ptr::write_bytes((WINDOW_VA + gpa) as *mut u8, 0, PAGE_BYTES as usize) };
        }
        // What is nowhere else is as good as written.
        let dirty = write || self.places[page as usize] == Place::Nowhere;
        self.resident.push_back(page);
        self.map(page, gpa, dirty)
    }

    fn map(&mut self, page: u32, gpa: u64, dirty: bool) -> Option<()> {
        let write = if dirty { map::WRITE } else { 0 };
        let va = DATA_VA + u64::from(page) * PAGE_BYTES;
        let first = gpa / PAGE_BYTES - self.memory_first;
        self.places[page as usize] = Place::Frame { gpa, dirty };
        (kernel::raw(Call::MemoryMap, [0, self.memory.0, va | write, first, 1]).ok()? == 1).then_some(())
    }

    /// Takes a frame from another page: one of the oldest few that was not written if there is one.
    fn evict(&mut self) -> Option<u64> {
        const LOOK_AT: usize = 16;
        let clean = |page: &u32| matches!(self.places[*page as usize], Place::Frame { dirty: false, .. });
        let at = self.resident.iter().take(LOOK_AT).position(clean).unwrap_or(0);
        let page = self.resident.remove(at)?;
        let Place::Frame { gpa, dirty } = self.places[page as usize] else { return None };
        kernel::raw(Call::MemoryUnmap, [0, DATA_VA + u64::from(page) * PAGE_BYTES, 1, 0, 0]).ok()?;
        if dirty {
            self.disk.write(FIRST_BLOCK + u64::from(page), Frame(gpa), page).ok()?;
            self.wait()?;
            self.counts.writes += 1;
        }
        self.places[page as usize] = Place::Disk;
        Some(gpa)
    }

    /// Waits for the one request that is on its way.
    fn wait(&mut self) -> Option<()> {
        self.disk.publish();
        let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
        loop {
            if let Some(done) = self.disk.poll() {
                self.failed |= done.result.is_err();
                return done.result.ok();
            }
            if self.disk.fault().is_some() || clock::tsc() > end {
                return None;
            }
            if turn::wanted() { turn::take(end) } else { core::hint::spin_loop() }
        }
    }
}

/// What a word is in a pass.
fn value(pass: u64, page: u64, word: u64) -> u64 {
    (pass << 56 ^ page << 16 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn word_at(page: u64, word: u64) -> *mut u64 {
    (DATA_VA + page * PAGE_BYTES + word * 8) as *mut u64
}

/// Pages in an order that looks like none: another one in each pass.
fn order(pages: u64, seed: u64) -> Vec<u32> {
    let mut order: Vec<u32> = (0..pages as u32).collect();
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, ((state >> 33) % (at as u64 + 1)) as usize);
    }
    order
}

/// `self-paging PAGES FRAMES PASSES`
fn self_paging(arguments: Arguments<'_>) -> Option<u32> {
    let (data, frames) = (number(arguments.next())?, number(arguments.next())?);
    let passes = number(arguments.next())?;
    let index = pages::device_of_kind(DEVICE_BLOCK)?;
    let environment = pages::environment();
    let own = &environment.capabilities;
    // Of the disk it keeps what it needs; the rest is out of its reach from here on, whatever its queue is told.
    let all = own.extents[index];
    let extent = kernel::raw(
        Call::CapabilityDerive,
        [0, all.0, FIRST_BLOCK, data, u64::from(rights::READ | rights::WRITE)],
    )
    .ok()?;
    kernel::raw(Call::ExtentUnbind, [0, all.0, 0, 0, 0]).ok()?;
    kernel::raw(Call::ExtentBind, [0, extent, 0, 0, 0]).ok()?;
    let mut disk = DiskQueue::open(GuestHal, index as u32, &environment.devices[index], 0, 64).ok()?;
    let first = pages_for(frames * PAGE_BYTES)?;
    let beyond = disk.write(FIRST_BLOCK - 1, Frame(first), 0).map_err(|refused| refused.reason);
    log::info!("probe: a write before the extent is taken: {}", beyond.is_ok());
    let mut pager = Pager {
        memory: own.heap[0],
        memory_first: environment.heap[0].start_gpa / PAGE_BYTES,
        places: vec![Place::Nowhere; data as usize],
        resident: VecDeque::with_capacity(frames as usize + 1),
        free: (0..frames).map(|frame| first + frame * PAGE_BYTES).collect(),
        disk,
        counts: Counts::default(),
        failed: false,
    };
    log::info!("probe: and done: {}", pager.wait().is_some());
    pager.failed = false;
    *PAGER.0.borrow_mut() = Some(pager);
    on_fault(handle);

    let mut wrong = 0;
    let mut begun = clock::tsc();
    let mut before = Counts::default();
    for pass in 0..=passes {
        for &page in &order(data, pass) {
            let page = u64::from(page);
            for word in 0..WORDS {
                // SAFETY: its own data, which is there when it is touched: that is what this is about.
                unsafe {
                    if pass > 0 {
                        wrong +=
                            u64::from(word_at(page, word).read_volatile() != value(pass - 1, page, word));
                    }
                    if pass < passes {
                        word_at(page, word).write_volatile(value(pass, page, word));
                    }
                }
            }
        }
        let pager = PAGER.0.borrow();
        let counts = pager.as_ref()?.counts;
        let passed = clock::tsc() - begun;
        begun = clock::tsc();
        let faults = counts.faults - before.faults;
        log::info!(
            "probe: pass {pass}: {faults} faults, {} read, {} written, {} for a first write, wrong {wrong}",
            counts.reads - before.reads,
            counts.writes - before.writes,
            counts.upgrades - before.upgrades
        );
        log::debug!("probe: {} cycles a fault", passed / faults.max(1));
        before = counts;
    }
    Some(if PAGER.0.borrow().as_ref()?.failed { BROKEN } else { HELD })
}
