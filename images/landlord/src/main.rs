//! Two environments: the first is the static HTTP server, the second its parent, who asks it for memory while it serves. The
//! arguments say when, for how much, and how long it may take: `AFTER_MS PERCENT GRACE_MS`, as often as wanted.
//!
//! What it got back the parent maps and uses, and says in the log how that went.
#![no_std]
#![no_main]

extern crate alloc;

use abi::boot::{Child, phase};
use abi::call::{Call, Error, map, sleep, state};
use abi::layout::{LARGE_PAGE_BYTES, PAGE_BYTES};
use alloc::vec::Vec;
use exos_runtime::{clock, kernel, pages, revocation, turn};

exos_runtime::entry!(main);

/// The environment that is the parent; the image says so, too.
const LANDLORD: u32 = 1;
/// Where what came back is mapped.
const BACK_VA: u64 = 1 << 41;
/// Pages of a large page.
const LARGE_PAGES: u64 = LARGE_PAGE_BYTES / PAGE_BYTES;

fn main() -> u32 {
    if pages::environment().environment != LANDLORD {
        return cheetah::main();
    }
    match landlord() {
        Some(()) => 0,
        None => 1,
    }
}

fn ms(milliseconds: u64) -> u64 {
    clock::Scale::new().ticks(milliseconds * 1_000_000)
}

fn sleep_until(deadline_tsc: u64) {
    while clock::tsc() < deadline_tsc && !turn::stop_wanted() {
        kernel::sleep(deadline_tsc, [sleep::NONE; 4]);
    }
}

fn landlord() -> Option<()> {
    let child = pages::environment().capabilities.children[0];
    pages::stamp(phase::READY);
    let words: Option<Vec<u64>> = pages::arguments().map(|word| word.parse().ok()).collect();
    let all = pages_of(&child)?;
    for ask in words?.chunks_exact(3) {
        let &[after_ms, percent, grace_ms] = ask else { return None };
        sleep_until(clock::tsc() + ms(after_ms));
        let keep = all * percent.min(100) / 100 / LARGE_PAGES * LARGE_PAGES;
        ask_for(&child, all, keep, grace_ms)?;
    }
    // With its parent the child would end, so that goes first.
    while kernel::raw(Call::EnvironmentStatus, [child.environment.0, 0, 0, 0, 0]).ok()? & 0xFFFF_FFFF
        != state::GONE
    {
        kernel::sleep(clock::tsc() + ms(200), [sleep::NONE; 4]);
    }
    Some(())
}

/// How many pages the child's memory has.
fn pages_of(child: &Child) -> Option<u64> {
    let (mut least, mut more) = (0, 1 << 32);
    // Mapping nothing is refused behind the end only.
    while more - least > 1 {
        let middle = (least + more) / 2;
        let inside =
            kernel::raw(Call::DmaGrant, [0, child.memory.0, middle, 0, 0]) != Err(Error::BadArgument);
        if inside { least = middle } else { more = middle }
    }
    Some(least)
}

/// Asks the child to keep so many of its pages, and uses the rest.
fn ask_for(child: &Child, all: u64, keep: u64, grace_ms: u64) -> Option<()> {
    let begun = clock::tsc();
    let deadline = begun + ms(grace_ms);
    let answer = loop {
        match revocation::ask(child.memory, child.environment, child.theirs, keep, ms(grace_ms)) {
            Ok(left) if left > 0 && clock::tsc() < deadline + ms(10_000) => {
                kernel::sleep(deadline + ms(10), [sleep::NONE; 4]);
            }
            answer => break answer,
        }
    };
    let passed = clock::tsc() - begun;
    let in_time = if passed < ms(grace_ms) { "before" } else { "after" };
    log::info!("landlord: asked for {} of {all} pages: {answer:?} {in_time} the deadline", all - keep);
    log::info!("landlord: that took {} us", clock::Scale::new().ns(passed) / 1000);
    if answer == Ok(0) {
        let used = use_them(child, keep, all - keep);
        log::info!("landlord: what came back can be used: {used:?}");
    }
    Some(())
}

/// Maps the pages, writes a pattern into all of them, reads it, and lets go of them.
fn use_them(child: &Child, first: u64, count: u64) -> Result<bool, Error> {
    let mut done = 0;
    while done < count {
        let va = (BACK_VA + done * PAGE_BYTES) | map::WRITE | map::LARGE;
        done += kernel::raw(Call::MemoryMap, [0, child.memory.0, va, first + done, count - done])?;
    }
    let words = count * PAGE_BYTES / 8;
    // One word in each 64 bytes: every page and every line of it.
    let word = |index: u64| (BACK_VA + index * 8) as *mut u64;
    let mut right = true;
    for index in (0..words).step_by(8) {
        // SAFETY: mapped just now, for us alone: the child has given it back.
        unsafe { word(index).write_volatile(index ^ 0x1A9D_10BD) };
    }
    for index in (0..words).step_by(8) {
        // SAFETY: as above.
        right &= unsafe { word(index).read_volatile() } == index ^ 0x1A9D_10BD;
    }
    Ok(right)
}
