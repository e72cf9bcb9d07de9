//! Slices and several vCPUs: who runs where and for how long, and what one vCPU does to an environment that runs on another.

use crate::child::{Child, Code, DATA_VA, call, derive, to_the_end};
use crate::{Case, HELD};
use abi::call::{Call, map, sleep, state};
use abi::capability::rights;
use abi::layout::{PAGE_BYTES, UPCALL_VA};
use abi::slice::SLICES;
use abi::upcall::{SLICE_END, UpcallPage};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("slice-refusals", refusals),
    ("slice-shares", shares),
    ("slice-neighbour", neighbour),
    ("vcpus-beside", beside),
    ("vcpus-flush", flush),
    ("vcpus-wake", wake),
    ("vcpus-move", moves),
    ("vcpus-move-itself", moves_itself),
    ("vcpus-ask", ask),
    ("vcpus-end", end),
];

/// Where a child sees the page that it shares with its parent.
const SHARED_VA: u64 = 1 << 41;
const MS: u64 = 1_000_000;

impl Code {
    fn store(self, va: u64, value: u64) -> Self {
        self.load([0x48, 0xB9], value).rax(va).bytes(&[0x48, 0x89, 0x08]) // mov rcx, ..; mov [rax], rcx
    }

    /// Counts at an address for ever, and yields when its slice is over.
    fn counter(va: u64) -> Self {
        let head = |entry_va| {
            Self::new()
                .store(UPCALL_VA + 8, entry_va) // slice_end_va
                .store(UPCALL_VA + 16, DATA_VA + PAGE_BYTES) // stack_va
        };
        const LOOP: usize = 15;
        let entry = head(0).0.len() + LOOP;
        let code = head(crate::child::CODE_VA + entry as u64)
            .rax(va)
            .bytes(&[0x48, 0xFF, 0x00, 0xEB, 0xF1]) // inc qword ptr [rax]; jmp to the loop's begin
            .store(UPCALL_VA + 24, 0) // busy
            .call(Call::Yield, [0; 5]);
        let back = -((code.0.len() - entry + LOOP + 5) as i32);
        code.bytes(&[0xE9]).bytes(&back.to_le_bytes())
    }
}

/// Computes for a while, without a kernel call.
fn compute(ns: u64) {
    let end = clock::tsc() + clock::Scale::new().ticks(ns);
    while clock::tsc() < end {
        core::hint::spin_loop();
    }
}

fn asleep(ns: u64) {
    let end = clock::tsc() + clock::Scale::new().ticks(ns);
    while clock::tsc() < end {
        kernel::sleep(end, [sleep::NONE; 4]);
    }
}

/// Gives a child slices of a vCPU, from number `first` there on, and binds them for it. The child's handle for them.
fn give_slices(child: &Child, vcpu: usize, first: u64, count: u64) -> Option<u64> {
    let all = pages::environment().capabilities.slices[vcpu];
    let first = (vcpu * SLICES) as u64 + first;
    let part = derive(all, first, count, rights::BIND | rights::GIVE).ok()?;
    let given = call(
        Call::CapabilityGive,
        [0, part.0, child.environment.0, u64::from(rights::BIND | rights::GIVE), 0],
    );
    let given = given.ok()?;
    let bound = call(Call::SliceBind, [child.environment.0, given, first, count, 0]);
    (bound == Ok(count)).then_some(given)
}

/// The first of one's own slices are nobody's.
fn give_up(count: u64) -> Option<()> {
    let own = pages::environment().capabilities.slices[0];
    (call(Call::SliceUnbind, [0, own.0, 0, count, 0]) == Ok(count)).then_some(())
}

/// One that counts in its data page, on the second vCPU.
fn counts_there(va: u64) -> Option<Child> {
    let child = Child::new(Code::counter(va), rights::WRITE).ok()?;
    give_slices(&child, 1, 0, SLICES as u64)?;
    Some(child)
}

/// A child counts while its parent computes, as soon as its vCPU has a CPU.
fn counts(child: &Child) -> bool {
    counts_within(child, 5000 * MS)
}

fn counts_within(child: &Child, ns: u64) -> bool {
    let before = child.word();
    let end = clock::tsc() + clock::Scale::new().ticks(ns);
    while child.word() <= before + 1000 && clock::tsc() < end {
        core::hint::spin_loop();
    }
    child.word() > before + 1000
}

fn refusals(_: Arguments<'_>) -> Option<u32> {
    let own = pages::environment().capabilities.slices[0];
    let heap = pages::environment().capabilities.heap[0];
    let half = SLICES as u64 / 2;
    let weak = derive(own, 0, half, rights::GIVE).ok()?;
    let part = derive(own, half, half, rights::BIND).ok()?;
    let try_ = |what: &str, number, arguments| log::info!("probe: {what}: {:?}", call(number, arguments));
    try_("bind what is bound", Call::SliceBind, [0, own.0, 0, 1, 0]);
    try_("unbind what another capability bound", Call::SliceUnbind, [0, part.0, half, 1, 0]);
    try_("unbind without the right", Call::SliceUnbind, [0, weak.0, 0, 1, 0]);
    try_("unbind with memory", Call::SliceUnbind, [0, heap.0, 0, 1, 0]);
    try_("unbind nothing", Call::SliceUnbind, [0, own.0, 0, 0, 0]);
    try_("unbind behind the range", Call::SliceUnbind, [0, own.0, half, half + 1, 0]);
    try_("unbind far behind", Call::SliceUnbind, [0, own.0, u64::MAX, 1, 0]);
    try_("unbind more than there is", Call::SliceUnbind, [0, own.0, 1, u64::MAX, 0]);
    try_("unbind all", Call::SliceUnbind, [0, own.0, 0, SLICES as u64, 0]);
    try_("unbind all again", Call::SliceUnbind, [0, own.0, 0, SLICES as u64, 0]);
    try_("bind without the right", Call::SliceBind, [0, weak.0, 0, 1, 0]);
    try_("bind before the range", Call::SliceBind, [0, part.0, half - 1, 2, 0]);
    try_("bind a part", Call::SliceBind, [0, part.0, half, half, 0]);
    try_("bind all", Call::SliceBind, [0, own.0, 0, SLICES as u64, 0]);
    try_("drop the part", Call::CapabilityDrop, [0, part.0, 0, 0, 0]);
    try_("bind what it had", Call::SliceBind, [0, own.0, half, half, 0]);
    Some(HELD)
}

/// Two that count share a vCPU as their slices say; their parent keeps some, to come back at all.
fn shares(_: Arguments<'_>) -> Option<u32> {
    give_up(24)?;
    let mut children = Vec::new();
    for (first, count) in [(0, 18), (18, 6)] {
        let child = Child::new(Code::counter(DATA_VA), rights::WRITE).ok()?;
        give_slices(&child, 0, first, count)?;
        children.push(child);
    }
    for child in &children {
        child.start(0).ok()?;
    }
    asleep(3000 * MS);
    let [more, less] = [children[0].word(), children[1].word()];
    log::info!("probe: {more} and {less}, in percent of three times: {}", more * 100 / (3 * less.max(1)));
    for child in &children {
        call(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
        child.wait(state::GONE)?;
    }
    Some(HELD)
}

/// The first environment starts many that compute; the second finds as much time as without them.
fn neighbour(_: Arguments<'_>) -> Option<u32> {
    if pages::environment().environment == 0 {
        asleep(1500 * MS);
        let mut children = Vec::new();
        for _ in 0..12 {
            let child = Child::new(Code::counter(DATA_VA), rights::WRITE).ok()?;
            child.start(0).ok()?;
            children.push(child);
        }
        asleep(2500 * MS);
        log::info!("probe: all of them ran: {}", children.iter().all(|child| child.word() > 0));
        return Some(HELD);
    }
    let count = |ms: u64| {
        let end = clock::tsc() + clock::Scale::new().ticks(ms * MS);
        let (mut turns, mut last) = (0u64, clock::tsc());
        while last < end {
            let now = clock::tsc();
            // Whoever was away for longer than this did not have the CPU.
            turns += if now - last < 100_000 { now - last } else { 0 };
            last = now;
        }
        turns / clock::Scale::new().ticks(MS)
    };
    let alone = count(1000);
    asleep(1000 * MS);
    log::info!("probe: alone {alone} ms of 1000, beside twelve {} ms of 1000", count(1000));
    Some(HELD)
}

/// A child computes while its parent computes, and stops when it is ended.
fn beside(_: Arguments<'_>) -> Option<u32> {
    let child = counts_there(DATA_VA)?;
    child.start(0).ok()?;
    compute(20 * MS);
    log::info!("probe: counts while its parent computes: {}", counts(&child));
    call(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
    let status = child.wait(state::GONE)?;
    log::info!("probe: ended with {status}, counts: {}", counts_within(&child, 20 * MS));
    // A fault on the other vCPU ends that one only.
    let child = Child::new(Code::new().read(8), rights::WRITE).ok()?;
    give_slices(&child, 1, 0, 1)?;
    child.start(0).ok()?;
    log::info!("probe: one that faulted there ended with {}", child.wait(state::GONE)?);
    Some(HELD)
}

/// What a child has mapped goes while it uses it on another vCPU: when the call returns, it does not any more.
fn flush(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = crate::number(arguments.next())?;
    let heap = pages::environment().capabilities.heap[0];
    let mut late = 0u64;
    let mut idle = 0;
    for round in 0..rounds {
        let child = counts_there(SHARED_VA)?;
        let gpa = crate::binding::pages_for(PAGE_BYTES)?;
        let page = (abi::layout::WINDOW_VA + gpa) as *mut u64;
        let part = derive(heap, gpa / PAGE_BYTES, 1, rights::READ | rights::WRITE | rights::GIVE).ok()?;
        let give = [0, part.0, child.environment.0, u64::from(rights::READ | rights::WRITE), 0];
        let given = call(Call::CapabilityGive, give).ok()?;
        call(Call::MemoryMap, [child.environment.0, given, SHARED_VA | map::WRITE, 0, 1]).ok()?;
        child.start(0).ok()?;
        // SAFETY: a page of the heap that only the child uses besides.
        let word = || unsafe { page.read_volatile() };
        let end = clock::tsc() + clock::Scale::new().ticks(2000 * MS);
        while word() == 0 && clock::tsc() < end {
            core::hint::spin_loop();
        }
        idle += u32::from(word() == 0);
        if round % 2 == 0 {
            to_the_end(Call::CapabilityRevoke, part).ok()?;
        } else {
            call(Call::MemoryUnmap, [child.environment.0, SHARED_VA, 1, 0, 0]).ok()?;
        }
        // SAFETY: as above.
        unsafe { page.write_volatile(0) };
        compute(MS);
        late += word();
        child.wait(state::GONE)?;
        to_the_end(Call::CapabilityDrop, child.part).ok()?;
        to_the_end(Call::CapabilityDrop, child.environment).ok()?;
    }
    log::info!("probe: {rounds} times, {idle} did not run, counted afterwards: {late}");
    Some(HELD)
}

/// One sleeps on one vCPU, the other wakes it from another; both ways.
fn wake(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = crate::number(arguments.next())?;
    // The child: sleeps, counts, wakes its parent, and again.
    let child = Child::new(Code::new(), rights::WRITE).ok()?;
    let own = pages::environment().capabilities.neighbours[pages::environment().environment as usize];
    let give = [0, own.0, child.environment.0, u64::from(rights::WAKE), 0];
    let parent = call(Call::CapabilityGive, give).ok()?;
    let code = Code::new().call(Call::Sleep, [0; 5]).rax(DATA_VA).bytes(&[0x48, 0xFF, 0x00]);
    let code = code.call(Call::Wake, [parent, 0, 0, 0, 0]);
    let back = -(code.0.len() as i32 + 5);
    child.set_code(&code.bytes(&[0xE9]).bytes(&back.to_le_bytes()));
    give_slices(&child, 1, 0, SLICES as u64)?;
    child.start(0).ok()?;
    let mut done = 0;
    let scale = clock::Scale::new();
    while done < rounds {
        let before = child.word();
        call(Call::Wake, [child.environment.0, 0, 0, 0, 0]).ok()?;
        let end = clock::tsc() + scale.ticks(5000 * MS);
        while child.word() == before && clock::tsc() < end {
            // A wake-up that came before the sleep ends it at once.
            kernel::sleep(end, [sleep::NONE; 4]);
        }
        if child.word() == before {
            // For whoever reads why the test failed.
            log::warn!("probe: the child is in state {:?}, counted {before}", child.status());
            break;
        }
        done += 1;
    }
    log::info!("probe: {done} of {rounds} wake-ups and answers");
    Some(HELD)
}

/// A child goes where it has slices, while it runs.
fn moves(arguments: Arguments<'_>) -> Option<u32> {
    let rounds = crate::number(arguments.next())?;
    let child = counts_there(DATA_VA)?;
    let own = pages::environment().capabilities.slices[0];
    give_up(16)?;
    child.start(0).ok()?;
    let mut stood = 0;
    for round in 0..rounds {
        // On the first vCPU as well, then not any more.
        let part = derive(own, 0, 16, rights::BIND | rights::GIVE).ok()?;
        let give = [0, part.0, child.environment.0, u64::from(rights::BIND), 0];
        let given = call(Call::CapabilityGive, give).ok()?;
        call(Call::SliceBind, [child.environment.0, given, 0, 16, 0]).ok()?;
        let before = child.word();
        asleep(if round % 2 == 0 { 15 * MS } else { MS });
        to_the_end(Call::CapabilityDrop, part).ok()?;
        let end = clock::tsc() + clock::Scale::new().ticks(2000 * MS);
        while child.word() == before && clock::tsc() < end {
            core::hint::spin_loop();
        }
        stood += u32::from(child.word() == before);
    }
    log::info!("probe: moved {rounds} times, stood still {stood} times, runs: {}", counts(&child));
    call(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
    log::info!("probe: ended with {}", child.wait(state::GONE)?);
    Some(HELD)
}

/// An environment that is alone where it runs goes where it has slices, though nobody wants its vCPU.
fn moves_itself(_: Arguments<'_>) -> Option<u32> {
    let [first, second] = [0, 1].map(|vcpu| pages::environment().capabilities.slices[vcpu]);
    let count = SLICES as u64;
    call(Call::SliceBind, [0, second.0, count, count, 0]).ok()?;
    // SAFETY: the upcall page is always there; all its fields are atomics.
    let page = unsafe { &*(UPCALL_VA as *const UpcallPage) };
    page.reason.store(0, Ordering::Relaxed);
    call(Call::SliceUnbind, [0, first.0, 0, count, 0]).ok()?;
    compute(300 * MS);
    log::info!("probe: its slice ended: {}", page.reason.load(Ordering::Relaxed) == SLICE_END);
    Some(HELD)
}

/// What is not given back is taken at the deadline, also if the holder does not run and nobody else does but who asked.
fn ask(_: Arguments<'_>) -> Option<u32> {
    const GRACE_MS: u64 = 150;
    let capabilities = &pages::environment().capabilities;
    let child = Child::new(Code::new(), rights::WRITE).ok()?;
    let own = capabilities.neighbours[pages::environment().environment as usize];
    let parent =
        call(Call::CapabilityGive, [0, own.0, child.environment.0, u64::from(rights::CALL), 0]).ok()?;
    // It is not answered.
    child.set_code(&Code::new().call(Call::MessageCall, [parent, 0, 0, 0, 0]));
    give_slices(&child, 1, 0, SLICES as u64)?;
    let page = crate::binding::pages_for(PAGE_BYTES)? / PAGE_BYTES;
    let part = derive(capabilities.heap[0], page, 1, rights::READ | rights::GIVE).ok()?;
    let give = [0, part.0, child.environment.0, u64::from(rights::READ), 0];
    let given = call(Call::CapabilityGive, give).ok()?;
    child.start(0).ok()?;
    let end = clock::tsc() + clock::Scale::new().ticks(2000 * MS);
    while child.status().0 != state::CALLING && clock::tsc() < end {
        compute(MS);
    }
    // The vCPU there has nothing to do, and halts.
    compute(20 * MS);
    let grace = clock::Scale::new().ticks(GRACE_MS * MS);
    let ask = || call(Call::CapabilityAsk, [part.0, child.environment.0, given, 0, grace]);
    let first = ask();
    compute((GRACE_MS + 300) * MS);
    log::info!("probe: calls: {}, {first:?}, later {:?}", child.status().0 == state::CALLING, ask());
    Some(HELD)
}

/// Who looks whether somebody's end is complete, and then sleeps until it is, does not sleep if it was complete in between.
fn end(_: Arguments<'_>) -> Option<u32> {
    // Its end may be complete before this looks at it, if the vCPU had no CPU for a moment.
    let attempt = || {
        let child = Child::new(Code::new().call(Call::Sleep, [0; 5]), rights::WRITE).ok()?;
        child.start(0).ok()?;
        child.falls_asleep()?;
        call(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
        let before = child.status().0;
        Some((child, before))
    };
    let (mut child, mut before) = attempt()?;
    for _ in 0..3 {
        if before != state::ENDING {
            // What that end would wake is not kept for the next.
            asleep(MS);
            (child, before) = attempt()?;
        }
    }
    compute(300 * MS);
    let begun = clock::tsc();
    kernel::sleep(begun + clock::Scale::new().ticks(5000 * MS), [sleep::NONE; 4]);
    let slept = clock::tsc() - begun;
    let soon = slept < clock::Scale::new().ticks(2000 * MS);
    let gone = child.status().0 == state::GONE;
    log::info!("probe: before {}, awake soon: {soon}, gone: {gone}", before == state::ENDING);
    Some(HELD)
}
