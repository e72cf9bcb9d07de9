//! An environment that makes others and looks what becomes of them.

use crate::child::*;
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::*;
use exos_runtime::{clock, kernel};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("children-end", children_end),
    ("child-shares", child_shares),
    ("child-loses", child_loses),
    ("child-sleeps", child_sleeps),
    ("child-follows", child_follows),
    ("child-grant", child_grant),
    ("family-ends", family_ends),
];

/// `children-end ROUNDS`: more children, one after the other, than there are places, slots and tables for at a time.
fn children_end(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = crate::number(arguments.next())?;
    for round in 0..rounds {
        let child = match Child::new(Code::new().exit_rdi(), rights::WRITE) {
            Ok(child) => child,
            Err(error) => {
                log::error!("probe: child {round}: {error:?}");
                return Some(BROKEN);
            }
        };
        if child.status() != (state::NEW, 0) {
            log::error!("probe: child {round} is in state {:?} before its start", child.status());
            return Some(BROKEN);
        }
        child.start(round).ok()?;
        let status = child.wait(state::GONE)?;
        if u64::from(status) != round {
            log::error!("probe: child {round} ended with {status}");
            return Some(BROKEN);
        }
        to_the_end(Call::CapabilityDrop, child.part).ok()?;
        to_the_end(Call::CapabilityDrop, child.environment).ok()?;
    }
    log::info!("probe: {rounds} children ended with their numbers");
    Some(HELD)
}

/// What a child writes its parent sees, and the other way round; what it may only read it cannot write.
fn child_shares(_: Arguments<'_>) -> Option<u32> {
    let child = Child::new(Code::new().write_rdi(DATA_VA).exit(7), rights::WRITE).ok()?;
    child.start(0x1234_5678_9ABC).ok()?;
    log::info!("probe: the writer ended with {}, wrote {:#x}", child.wait(state::GONE)?, child.word());
    let child = Child::new(Code::new().read(DATA_VA).exit_rax(), 0).ok()?;
    child.set_word(99);
    child.start(0).ok()?;
    log::info!("probe: the reader ended with {}", child.wait(state::GONE)?);
    let child = Child::new(Code::new().write_rdi(DATA_VA).exit(7), 0).ok()?;
    child.start(5).ok()?;
    log::info!("probe: the forbidden writer ended with {}, wrote {}", child.wait(state::GONE)?, child.word());
    // Its own page tables it may read: present, user, not writable, executable, and the slot that it was mapped with.
    let entry_va = PAGE_TABLES_VA + (CODE_VA >> 12) * 8;
    let child =
        Child::new(Code::new().read(entry_va).bytes(&[0x48, 0x25, 0xFF, 0x0F, 0, 0]).exit_rax(), 0).ok()?;
    child.start(0).ok()?;
    log::info!("probe: the entry of its code is {:#x}", child.wait(state::GONE)?);
    Some(HELD)
}

/// What was given is taken back while it is used.
fn child_loses(_: Arguments<'_>) -> Option<u32> {
    // Yields for ever; its code goes away under it.
    let yields = || {
        let code = Code::new().call(Call::Yield, [0; 5]);
        let back = -(code.0.len() as i32 + 5);
        code.bytes(&[0xE9]).bytes(&back.to_le_bytes())
    };
    let child = Child::new(yields(), rights::WRITE).ok()?;
    child.start(0).ok()?;
    kernel::yield_to(child.environment).ok()?;
    log::info!("probe: before: {:?}", child.status().0 == state::RUNNABLE);
    to_the_end(Call::CapabilityRevoke, child.part).ok()?;
    log::info!("probe: after its memory was revoked: {}", child.wait(state::GONE)?);
    let again = call(Call::MemoryMap, [0, child.part.0, DATA_VA + (1 << 30), 1, 1]);
    log::info!("probe: the parent maps it: {again:?}");
    let child = Child::new(yields(), rights::WRITE).ok()?;
    child.start(0).ok()?;
    kernel::yield_to(child.environment).ok()?;
    call(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: destroyed: {}", child.wait(state::GONE)?);
    for (what, number) in
        [("destroy", Call::EnvironmentDestroy), ("start", Call::EnvironmentStart), ("wake", Call::Wake)]
    {
        log::info!("probe: {what} what is gone: {:?}", call(number, [child.environment.0, 0, 0, 0, 0]));
    }
    let child = Child::new(yields(), rights::WRITE).ok()?;
    child.start(0).ok()?;
    kernel::yield_to(child.environment).ok()?;
    to_the_end(Call::CapabilityDrop, child.environment).ok()?;
    log::info!(
        "probe: status of what was dropped: {:?}",
        call(Call::EnvironmentStatus, [child.environment.0, 0, 0, 0, 0])
    );
    log::info!("probe: its part is taken back: {:?}", to_the_end(Call::CapabilityDrop, child.part).is_ok());
    // One that ends itself by a call does not come back from it, and its place is as good as before.
    let child = Child::new(Code::new(), rights::WRITE).ok()?;
    let give = [0, child.environment.0, child.environment.0, u64::from(rights::DESTROY), 0];
    let itself = call(Call::CapabilityGive, give).ok()?;
    let code = Code::new().call(Call::EnvironmentDestroy, [itself, 0, 0, 0, 0]);
    child.set_code(&code.call(Call::Sleep, [0; 5]).exit(7));
    child.start(0).ok()?;
    log::info!("probe: ended itself: {}", child.wait(state::GONE)?);
    for _ in 0..3 {
        let child = Child::new(Code::new().exit(5), rights::WRITE).ok()?;
        child.start(0).ok()?;
        log::info!("probe: and the next: {}", child.wait(state::GONE)?);
    }
    Some(HELD)
}

/// Sleeping for good, for a while, for a word, and being woken.
fn child_sleeps(_: Arguments<'_>) -> Option<u32> {
    let sleeper = |terms: [u64; 5]| Code::new().call(Call::Sleep, terms).exit(3);
    let child = Child::new(sleeper([0; 5]), rights::WRITE).ok()?;
    child.start(0).ok()?;
    child.falls_asleep()?;
    for _ in 0..50 {
        kernel::yield_to(Handle::NONE).ok()?;
    }
    log::info!("probe: still asleep: {}", child.status().0 == state::ASLEEP);
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: woken: {}", child.wait(state::GONE)?);
    // Woken before it falls asleep: the wake-up is not lost.
    let child = Child::new(sleeper([0; 5]), rights::WRITE).ok()?;
    child.start(0).ok()?;
    call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: woken before: {}", child.wait(state::GONE)?);
    let begun = clock::tsc();
    let ahead = clock::Scale::new().ticks(30_000_000);
    let child = Child::new(sleeper([begun + ahead, 0, 0, 0, 0]), rights::WRITE).ok()?;
    child.start(0).ok()?;
    let status = child.wait(state::GONE)?;
    log::info!("probe: after a deadline: {status}, not before it: {}", clock::tsc() >= begun + ahead);
    // Alone with sleepers the machine waits for the deadline, too.
    let begun = clock::tsc();
    kernel::sleep(begun + ahead, [sleep::NONE; 4]);
    log::info!("probe: both asleep, not before the deadline: {}", clock::tsc() >= begun + ahead);
    let child = Child::new(Code::new(), rights::WRITE).ok()?;
    let word = sleep::word(child.given.slot(), PAGE_BYTES, 0);
    child.set_code(&sleeper([0, word, 0, 0, 0]));
    child.start(0).ok()?;
    child.falls_asleep()?;
    for _ in 0..50 {
        kernel::yield_to(Handle::NONE).ok()?;
    }
    log::info!("probe: asleep over a word: {}", child.status().0 == state::ASLEEP);
    child.set_word(1);
    log::info!("probe: the word changed: {}", child.wait(state::GONE)?);
    Some(HELD)
}

/// Who gets the place of one that is gone: the old handle does not mean it, and it finds nothing of its predecessor's.
fn child_follows(_: Arguments<'_>) -> Option<u32> {
    // A page that it writes and that is fixed: nobody mapped it, nobody takes it away.
    const WORD_VA: u64 = UPCALL_VA + 0x800;
    let first = Child::new(Code::new().write_rdi(WORD_VA).exit(1), rights::WRITE).ok()?;
    first.start(77).ok()?;
    first.wait(state::GONE)?;
    let second = Child::new(Code::new().read(WORD_VA).exit_rax(), rights::WRITE).ok()?;
    for (what, number) in [("wake", Call::Wake), ("destroy", Call::EnvironmentDestroy)] {
        log::info!("probe: {what} by the old handle: {:?}", call(number, [first.environment.0, 0, 0, 0, 0]));
    }
    log::info!("probe: its state: {:?}", first.status().0 == state::GONE);
    second.start(0).ok()?;
    log::info!("probe: the successor found: {}", second.wait(state::GONE)?);
    Some(HELD)
}

/// `child-grant keep|revoke`: devices may use a child's pages; then its parent takes them back, or not. The log says which pages.
fn child_grant(arguments: Arguments<'_>) -> Option<u32> {
    let revoke = arguments.next()? == "revoke";
    let child = Child::new(Code::new(), rights::WRITE | rights::DMA).ok()?;
    let page = (child.data as u64 - PAGE_BYTES - WINDOW_VA) / PAGE_BYTES;
    let done = call(Call::DmaGrant, [child.environment.0, child.given.0, 0, 2, 3]);
    log::info!("probe: pages from {page} on: {done:?}");
    if revoke {
        to_the_end(Call::CapabilityRevoke, child.part).ok()?;
    }
    Some(HELD)
}

/// A parent ends while its children run, in memory of its own. A second environment, with the same arguments, sees the end of
/// them all: it is the last.
fn family_ends(_: Arguments<'_>) -> Option<u32> {
    const OBSERVED_MS: u64 = 1500;
    const PARENT_ENDED: u32 = 5;
    if exos_runtime::pages::environment().environment != 0 {
        let end = clock::tsc() + clock::Scale::new().ticks(OBSERVED_MS * 1_000_000);
        while clock::tsc() < end {
            kernel::sleep(end, [sleep::NONE; 4]);
        }
        return Some(HELD);
    }
    for _ in 0..3 {
        let code = Code::new().call(Call::Yield, [0; 5]);
        let back = -(code.0.len() as i32 + 5);
        let child = Child::new(code.bytes(&[0xE9]).bytes(&back.to_le_bytes()), rights::WRITE).ok()?;
        child.start(0).ok()?;
        kernel::yield_to(child.environment).ok()?;
        log::info!("probe: a child runs: {}", child.status().0 == state::RUNNABLE);
    }
    Some(PARENT_ENDED)
}
