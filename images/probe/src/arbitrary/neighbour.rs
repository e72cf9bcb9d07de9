//! Who has nothing to do with it all, and must not notice: it has memory with a pattern in it, a capability, and a mapping of its
//! own, and looks after them as long as somebody else is there.

use crate::binding::pages_for;
use crate::{BROKEN, HELD};
use abi::call::{Call, map};
use abi::capability::Handle;
use abi::flow::Level;
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use exos_runtime::{clock, kernel, pages, sleep};

/// Pages of the pattern.
const PAGES: u64 = 32;
/// Where they are mapped a second time, by turns.
const VA: u64 = 1 << 40;
/// How long it sleeps between two looks.
const PAUSE_MS: u64 = 20;

/// What a word of the pattern is.
fn word(at: u64) -> u64 {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5AFE
}

/// Looks, sleeps, looks again, until it is alone.
pub(crate) fn watch() -> Option<u32> {
    let gpa = pages_for(PAGES * PAGE_BYTES)?;
    let words = PAGES * PAGE_BYTES / 8;
    let own = (WINDOW_VA + gpa) as *mut u64;
    // SAFETY: fresh pages of the heap, that many words.
    (0..words).for_each(|at| unsafe { own.add(at as usize).write_volatile(word(at)) });
    let heap = pages::environment().capabilities.heap[0].0;
    let pause = clock::Scale::new().ticks(PAUSE_MS * 1_000_000);
    let mut rounds = 0u64;
    while !sleep::alone() {
        // SAFETY: as above.
        let wrong =
            (0..words).filter(|&at| unsafe { own.add(at as usize).read_volatile() } != word(at)).count();
        if wrong > 0 {
            log::error!("probe: neighbour: {wrong} words changed in round {rounds}");
            return Some(BROKEN);
        }
        if let Err(error) = hold(heap, gpa, rounds) {
            log::error!("probe: neighbour: {error:?} in round {rounds}");
            return Some(BROKEN);
        }
        rounds += 1;
        kernel::sleep(clock::tsc() + pause, [0; 4]);
    }
    log::info!("probe: neighbour: {rounds} rounds");
    Some(HELD)
}

/// What it is entitled to works: a capability made out of its own, mapped, read through, and taken back.
fn hold(heap: u64, gpa: u64, round: u64) -> Result<(), abi::call::Error> {
    let page = gpa / PAGE_BYTES + round % PAGES;
    let part = kernel::raw(Call::CapabilityDerive, [0, heap, page, 1, 3])?;
    // A part of the address space that is used for nothing else, and every round another table.
    let va = VA + ((round % 16) << 21);
    if kernel::raw(Call::MemoryMap, [0, part, va | map::WRITE, 0, 1])? != 1 {
        return Err(abi::call::Error::NoSpace);
    }
    // SAFETY: mapped a moment ago, and the page is ours.
    let seen = unsafe { (va as *const u64).read_volatile() };
    if seen != word(round % PAGES * PAGE_BYTES / 8) {
        return Err(abi::call::Error::NotFound);
    }
    while kernel::raw(Call::CapabilityDrop, [0, part, 0, 0, 0])? != 0 {}
    let own = &pages::environment().capabilities;
    for extent in own.extents.iter().filter(|extent| **extent != Handle::NONE) {
        kernel::raw(Call::ExtentUnbind, [0, extent.0, 0, 0, 0])?;
        kernel::raw(Call::ExtentBind, [0, extent.0, 0, 0, 0])?;
    }
    // Its flow is a port of an address: the next field is the sender's.
    for flow in own.flows.iter().filter(|flow| **flow != Handle::NONE) {
        let sender = Level::SourcePrefix as u64 | 128 << 8;
        let child = kernel::raw(Call::FlowCarve, [0, flow.0, sender, 0, 0xFFFF_0A00_0000 + round % 256])?;
        while kernel::raw(Call::CapabilityDrop, [0, child, 0, 0, 0])? != 0 {}
    }
    Ok(())
}
