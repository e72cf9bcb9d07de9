//! What the children do who are asked for something: functions that run in environments of their own, without a heap. What they saw
//! they write into the page that they share with their parent.

use super::{KEEP, PAGES, PART_VA, ms};
use crate::offspring::{Entry, Words, shared};
use abi::call::{Call, sleep};
use abi::capability::{Handle, rights};
use abi::layout::PAGE_BYTES;
use core::sync::atomic::Ordering::Relaxed;
use exos_runtime::revocation::{Losses, asks, give_back, is_asked};
use exos_runtime::{kernel, upcall};

/// Words of the shared page.
pub(super) mod word {
    pub(in crate::revocation) const READY: usize = 0;
    pub(in crate::revocation) const ANSWERS: usize = 1;
    pub(in crate::revocation) const WRONG: usize = 2;
    pub(in crate::revocation) const ROUNDS: usize = 3;
    pub(in crate::revocation) const POKE: usize = 4;
    pub(in crate::revocation) const FAULT: usize = 5;
    pub(in crate::revocation) const PART: usize = 6;
    pub(in crate::revocation) const OTHER: usize = 7;
    pub(in crate::revocation) const ENVIRONMENT: usize = 8;
    pub(in crate::revocation) const ANSWER: usize = 9;
    pub(in crate::revocation) const MISSED: usize = 10;
    pub(in crate::revocation) const KEEP: usize = 11;
    pub(in crate::revocation) const BOUND: usize = 12;
    pub(in crate::revocation) const LOSSES: usize = 16;
}

fn page_word(va: u64, page: u64) -> *mut u64 {
    (va + page * PAGE_BYTES) as *mut u64
}

/// Writes its number into each page.
pub(super) fn fill(va: u64, pages: u64) {
    // SAFETY: pages that are mapped for nothing else.
    (0..pages).for_each(|page| unsafe { page_word(va, page).write_volatile(0x5EED_0000 + page) });
}

pub(super) fn wrong(va: u64, pages: u64) -> u64 {
    // SAFETY: as in `fill`.
    (0..pages).filter(|&page| unsafe { page_word(va, page).read_volatile() } != 0x5EED_0000 + page).count()
        as u64
}

pub(super) fn nap() {
    kernel::sleep(0, [sleep::NONE; 4]);
}

pub(super) fn give_way() {
    // There is nobody whom it could refuse.
    let _ = kernel::yield_to(Handle::NONE);
}

/// Writes what was lost into the shared page.
pub(super) fn tell_losses(words: &Words, losses: &mut Losses) {
    for (loss, slots) in losses.zip(words[word::LOSSES..].chunks(4)) {
        let all = [loss.capability.0, loss.start, loss.count, u64::from(loss.kind) | loss.why << 8];
        slots.iter().zip(all).for_each(|(slot, value)| slot.store(value, Relaxed));
    }
    words[word::MISSED].store(losses.missed(), Relaxed);
}

/// Answers each ask at once, and looks whether what it kept is what it was.
pub(super) extern "sysv64" fn answers(_: u64) -> ! {
    upcall::init();
    let words = shared();
    fill(PART_VA, PAGES);
    words[word::READY].store(1, Relaxed);
    loop {
        if words[word::POKE].load(Relaxed) != 0 {
            touch(KEEP);
        }
        if !is_asked() {
            nap();
            continue;
        }
        for ask in asks() {
            let refused = give_back(ask.capability, ask.keep).is_err();
            words[word::WRONG].fetch_add(u64::from(refused) + wrong(PART_VA, ask.keep), Relaxed);
            words[word::ANSWERS].fetch_add(1, Relaxed);
        }
        tell_losses(words, &mut Losses::default());
    }
}

/// Reads a page of the part.
pub(super) fn touch(page: u64) {
    // SAFETY: mapped, or it faults, which the case is about.
    let value = unsafe { page_word(PART_VA, page).read_volatile() };
    shared()[word::WRONG].fetch_add(value | 1, Relaxed);
}

/// Lets faults and asks arrive at these, and the end of a slice where it always does.
pub(super) fn take_upcalls(fault: Option<Entry>, revoke: Option<Entry>) {
    upcall::init();
    let page = upcall::page();
    // Ten pages of the stack are far more than is in use.
    let here = 0u64;
    page.stack_va.store(((&raw const here as u64) & !0xFFF) - 4 * PAGE_BYTES - 8, Relaxed);
    page.fault_va.store(fault.map_or(0, |entry| entry as usize as u64), Relaxed);
    page.revoke_va.store(revoke.map_or(0, |entry| entry as usize as u64), Relaxed);
}

/// Says why it faulted, by what was taken.
pub(super) extern "sysv64" fn explains(_: u64) -> ! {
    let words = shared();
    words[word::FAULT].store(upcall::page().address.load(Relaxed), Relaxed);
    tell_losses(words, &mut Losses::default());
    kernel::exit(9)
}

/// Does not answer. When it is poked, it uses what it had.
pub(super) extern "sysv64" fn ignores(_: u64) -> ! {
    let words = shared();
    take_upcalls(Some(explains), None);
    fill(PART_VA, PAGES);
    words[word::READY].store(1, Relaxed);
    while words[word::POKE].load(Relaxed) == 0 {
        nap();
    }
    words[word::WRONG].store(wrong(PART_VA, KEEP), Relaxed);
    touch(5);
    kernel::exit(1)
}

/// Looks at its own pages for ever.
pub(super) extern "sysv64" fn neighbour(_: u64) -> ! {
    upcall::init();
    let words = shared();
    fill(PART_VA, PAGES);
    words[word::READY].store(1, Relaxed);
    loop {
        words[word::WRONG].fetch_add(wrong(PART_VA, PAGES), Relaxed);
        words[word::ROUNDS].fetch_add(1, Relaxed);
        if is_asked() || Losses::default().next().is_some() {
            words[word::WRONG].fetch_add(1, Relaxed);
        }
        give_way();
    }
}

/// Computes, and never gives the CPU away. The argument says whether it hears of asks.
pub(super) extern "sysv64" fn computing(hears: u64) -> ! {
    let words = shared();
    take_upcalls(None, if hears != 0 { Some(hears_of_it) } else { None });
    fill(PART_VA, PAGES);
    words[word::READY].store(1, Relaxed);
    loop {
        words[word::ROUNDS].fetch_add(1, Relaxed);
    }
}

pub(super) extern "sysv64" fn hears_of_it(_: u64) -> ! {
    let (words, page) = (shared(), upcall::page());
    let told = page.reason.load(Relaxed) == abi::upcall::REVOKE && page.address.load(Relaxed) == 1;
    for ask in asks() {
        words[word::ANSWERS].fetch_add(u64::from(give_back(ask.capability, ask.keep).is_ok()), Relaxed);
    }
    kernel::exit(if told { 6 } else { 7 })
}

/// Gives less back than it was asked for.
pub(super) extern "sysv64" fn gives_less(_: u64) -> ! {
    upcall::init();
    let words = shared();
    fill(PART_VA, PAGES);
    words[word::READY].store(1, Relaxed);
    loop {
        if words[word::ANSWERS].load(Relaxed) == 0
            && let Some(ask) = asks().next()
        {
            words[word::ANSWERS].store(1 + u64::from(give_back(ask.capability, 6).is_err()), Relaxed);
        }
        tell_losses(words, &mut Losses::default());
        nap();
    }
}

/// Does everything but answer: gives something else back, and binds, derives and trims as fast as it can. The argument: 1, it
/// also begins to drop what it is asked for, with much derived from it, and does not go on.
pub(super) extern "sysv64" fn stalling(drops: u64) -> ! {
    upcall::init();
    let words = shared();
    let (part, other) = (words[word::PART].load(Relaxed), words[word::OTHER].load(Relaxed));
    let start = words[word::KEEP].load(Relaxed);
    let derive = || kernel::raw(Call::CapabilityDerive, [0, part, start + PAGES - 1, 1, 1]);
    // What is not in the tail comes first in the kernel's walk, what is in it comes last.
    let below = derive().unwrap_or(0);
    for _ in 0..60 {
        let _ = derive();
    }
    for _ in 0..120 {
        let _ = kernel::raw(Call::CapabilityDerive, [0, part, start, 1, 1]);
    }
    words[word::READY].store(1, Relaxed);
    let (mut begun, mut late) = (false, 0);
    loop {
        if is_asked() {
            let _ = give_back(Handle(other), 1);
            if drops != 0 && !begun {
                begun = true;
                let _ = kernel::raw(Call::CapabilityDrop, [0, part, 0, 0, 0]);
            }
        }
        // Below the kernel's sweep, above it, and one more below the capability. What is bound when all is over counts.
        for page in [0, 1 << 18] {
            let _ = kernel::raw(Call::MemoryMap, [0, part, PART_VA + page * PAGE_BYTES, PAGES - 1, 1]);
        }
        if drops == 0 {
            // Giving nothing back must not end what the kernel has begun: what is derived then would outlast it.
            let _ = kernel::raw(Call::CapabilityTrim, [0, part, PAGES, 0, 0]);
            if let Ok(one) = derive() {
                let _ = kernel::raw(Call::CapabilityDrop, [0, late, 0, 0, 0]);
                late = one;
            }
        }
        words[word::ROUNDS].fetch_add(1, Relaxed);
        if words[word::POKE].load(Relaxed) != 0 {
            let bound = [0, 1 << 18].map(|page: u64| {
                let at = abi::layout::PAGE_TABLES_VA + ((PART_VA + page * PAGE_BYTES) >> 12) * 8;
                // SAFETY: one's own page tables; both are there since it mapped something in each.
                unsafe { (at as *const u64).read_volatile() & abi::paging::PRESENT }
            });
            // What it derived from the tail before is no way to it either.
            let va = PART_VA + (1 << 30);
            let with = |handle| u64::from(kernel::raw(Call::MemoryMap, [0, handle, va, 0, 1]).is_ok());
            words[word::BOUND].store(bound.iter().sum::<u64>() + with(below) + with(late), Relaxed);
            kernel::exit(4);
        }
        give_way();
    }
}

/// Ends when it is asked.
pub(super) extern "sysv64" fn ends_when_asked(_: u64) -> ! {
    upcall::init();
    shared()[word::READY].store(1, Relaxed);
    while !is_asked() {
        nap();
    }
    kernel::exit(3)
}

/// Gives on what it was given, asks for it back, and ends; or asks for what did not come from it.
pub(super) extern "sysv64" fn asks_and_ends(stranger: u64) -> ! {
    upcall::init();
    let words = shared();
    let load = |at: usize| words[at].load(Relaxed);
    let (own, environment) = (load(word::PART), load(word::ENVIRONMENT));
    let given = if stranger != 0 {
        Ok(load(word::OTHER))
    } else {
        kernel::raw(Call::CapabilityGive, [0, own, environment, u64::from(rights::READ), 0])
    };
    let ask =
        given.and_then(|given| kernel::raw(Call::CapabilityAsk, [own, environment, given, 1, ms(30_000)]));
    words[word::ANSWER].store(ask.unwrap_or_else(|error| 1000 + error as u64), Relaxed);
    kernel::exit(2)
}

/// Sleeps, and says what it has lost.
pub(super) extern "sysv64" fn counts_losses(_: u64) -> ! {
    upcall::init();
    let words = shared();
    let mut losses = Losses::default();
    words[word::READY].store(1, Relaxed);
    while words[word::POKE].load(Relaxed) == 0 {
        nap();
    }
    let all: u64 = losses.by_ref().map(|_| 1).sum();
    words[word::ROUNDS].store(all, Relaxed);
    words[word::MISSED].store(losses.missed(), Relaxed);
    let asked = is_asked();
    kernel::exit(u32::from(asked))
}
