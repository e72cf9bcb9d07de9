//! An environment that makes others and looks what becomes of them. The children are a few instructions each, in a page that
//! the parent writes; so their program is just what the case is about.

use crate::binding::pages_for;
use crate::{BROKEN, Case, HELD};
use abi::call::{ANY, Call, Error, map, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::*;
use alloc::vec::Vec;
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("children-end", children_end),
    ("child-shares", child_shares),
    ("child-attacks", child_attacks),
    ("child-guesses", child_guesses),
    ("child-loses", child_loses),
    ("child-sleeps", child_sleeps),
    ("family-refusals", refusals),
    ("child-follows", child_follows),
    ("child-grant", child_grant),
    ("turn-beside", turn_beside),
    ("doorbell-after-unbind", doorbell_after_unbind),
];

/// Where a child's program lies, and its data page behind it.
pub(crate) const CODE_VA: u64 = IMAGE_VA;
pub(crate) const DATA_VA: u64 = CODE_VA + PAGE_BYTES;
/// How long a child may take.
const PATIENCE_MS: u64 = 40_000;
/// How long a parent sleeps between two looks. Longer than any child here computes, since those have no upcall that would
/// save them when their parent wants the CPU.
const POLL_MS: u64 = 10_000;

/// Instructions, as bytes.
pub(crate) struct Code(pub(crate) Vec<u8>);

impl Code {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn load(self, opcode: [u8; 2], value: u64) -> Self {
        self.bytes(&opcode).bytes(&value.to_le_bytes())
    }

    pub(crate) fn rax(self, value: u64) -> Self {
        self.load([0x48, 0xB8], value)
    }

    /// `rax` becomes what is at an address.
    pub(crate) fn read(self, va: u64) -> Self {
        self.rax(va).bytes(&[0x48, 0x8B, 0x00])
    }

    /// What `rdi` holds goes to an address.
    pub(crate) fn write_rdi(self, va: u64) -> Self {
        self.rax(va).bytes(&[0x48, 0x89, 0x38])
    }

    pub(crate) fn call(self, call: Call, arguments: [u64; 5]) -> Self {
        let [a, b, c, d, e] = arguments;
        self.load([0x48, 0xBF], a)
            .load([0x48, 0xBE], b)
            .load([0x48, 0xBA], c)
            .load([0x49, 0xBA], d)
            .load([0x49, 0xB8], e)
            .gate(call)
    }

    pub(crate) fn gate(self, call: Call) -> Self {
        self.rax(call as u64).load([0x48, 0xB9], GATE_VA).bytes(&[0xFF, 0xD1]) // call rcx
    }

    /// Ends with what `rax` holds as the status.
    pub(crate) fn exit_rax(self) -> Self {
        self.bytes(&[0x48, 0x89, 0xC7]).exit_rdi()
    }

    pub(crate) fn exit(self, status: u64) -> Self {
        self.rax(status).exit_rax()
    }

    /// Ends with the argument that it was started with, if it did not use `rdi`.
    pub(crate) fn exit_rdi(self) -> Self {
        self.rax(Call::Exit as u64).load([0x48, 0xB9], GATE_VA).bytes(&[0xFF, 0xE1]) // jmp rcx: needs no stack
    }
}

/// A child, and what it was given.
pub(crate) struct Child {
    pub(crate) environment: Handle,
    /// The part of the parent's heap that was given to it: code and data.
    pub(crate) part: Handle,
    /// The child's own handle for it.
    pub(crate) given: Handle,
    /// Where the parent sees the data page.
    pub(crate) data: *mut u64,
}

pub(crate) fn call(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    kernel::raw(number, arguments)
}

impl Child {
    /// Makes one that can do with its data page what `access` says, and does not start it.
    pub(crate) fn new(code: Code, access: u16) -> Result<Self, Error> {
        let own = &pages::environment().capabilities;
        let environment = call(Call::EnvironmentCreate, [own.environments.0, ANY, 0, 0, 0])?;
        let gpa = pages_for(2 * PAGE_BYTES).ok_or(Error::NoSpace)?;
        let at = (WINDOW_VA + gpa) as *mut u8;
        // SAFETY: two fresh pages of the heap; the code is shorter than one.
        unsafe { core::ptr::copy_nonoverlapping(code.0.as_ptr(), at, code.0.len()) };
        let all = rights::READ | rights::WRITE | rights::EXECUTE | rights::DMA | rights::GIVE;
        let part = derive(own.heap[0], gpa / PAGE_BYTES, 2, all)?;
        let given = call(
            Call::CapabilityGive,
            [0, part.0, environment, u64::from(access | rights::READ | rights::EXECUTE), 0],
        )?;
        let write = if access & rights::WRITE != 0 { map::WRITE } else { 0 };
        map_all(environment, given, CODE_VA | map::EXECUTE, 0)?;
        map_all(environment, given, DATA_VA | write, 1)?;
        Ok(Self {
            environment: Handle(environment),
            part,
            given: Handle(given),
            data: (WINDOW_VA + gpa + PAGE_BYTES) as *mut u64,
        })
    }

    pub(crate) fn start(&self, argument: u64) -> Result<(), Error> {
        call(Call::EnvironmentStart, [self.environment.0, CODE_VA, DATA_VA + PAGE_BYTES, argument, 0])
            .map(drop)
    }

    /// The state that it is in, and its exit status.
    pub(crate) fn status(&self) -> (u64, u32) {
        let answer = call(Call::EnvironmentStatus, [self.environment.0, 0, 0, 0, 0]).unwrap_or(u64::MAX);
        (answer & 0xFFFF_FFFF, (answer >> 32) as u32)
    }

    /// Lets it run until it sleeps.
    pub(crate) fn falls_asleep(&self) -> Option<()> {
        for _ in 0..1000 {
            if self.status().0 == state::ASLEEP {
                return Some(());
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
        None
    }

    /// Lets others run until it is in that state; its exit status, or `None` if that takes too long.
    pub(crate) fn wait(&self, wanted: u64) -> Option<u32> {
        let end = clock::tsc() + clock::Scale::new().ticks(PATIENCE_MS * 1_000_000);
        while clock::tsc() < end {
            let (state, status) = self.status();
            if state == wanted {
                return Some(status);
            }
            // The end of a child wakes everybody; until then it has the CPU to itself, most of the time.
            kernel::sleep(clock::tsc() + clock::Scale::new().ticks(POLL_MS * 1_000_000), [sleep::NONE; 4]);
        }
        log::error!("probe: a child is in state {:?}", self.status());
        None
    }

    /// Other instructions, before it runs.
    pub(crate) fn set_code(&self, code: &Code) {
        let page = (self.data as *mut u8).wrapping_sub(PAGE_BYTES as usize);
        // SAFETY: the child's code page, which it does not run yet; the code is shorter.
        unsafe { core::ptr::copy_nonoverlapping(code.0.as_ptr(), page, code.0.len()) };
    }

    pub(crate) fn word(&self) -> u64 {
        // SAFETY: a page of the heap that nothing else uses.
        unsafe { self.data.read_volatile() }
    }

    pub(crate) fn set_word(&self, value: u64) {
        // SAFETY: as above.
        unsafe { self.data.write_volatile(value) }
    }
}

fn map_all(environment: u64, memory: u64, va: u64, first: u64) -> Result<(), Error> {
    let done = call(Call::MemoryMap, [environment, memory, va, first, 1])?;
    if done == 1 { Ok(()) } else { Err(Error::NoSpace) }
}

pub(crate) fn derive(from: Handle, start: u64, count: u64, rights: u16) -> Result<Handle, Error> {
    call(Call::CapabilityDerive, [0, from.0, start, count, u64::from(rights)]).map(Handle)
}

/// Calls until nothing is left to do.
pub(crate) fn to_the_end(number: Call, capability: Handle) -> Result<u64, Error> {
    let mut calls = 1;
    while call(number, [0, capability.0, 0, 0, 0])? != 0 {
        calls += 1;
    }
    Ok(calls)
}

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

/// What children try with addresses and instructions that are not theirs. Each ends with 128 and the exception's vector.
fn child_attacks(_: Arguments<'_>) -> Option<u32> {
    let stray = Code::new().rax(Call::Exit as u64).bytes(&[0x31, 0xFF, 0xCC]).exit(0);
    let attacks = [
        ("reads the kernel", Code::new().read(KERNEL_VA)),
        ("reads all memory", Code::new().read(DIRECT_MAP_VA + 0x1000)),
        ("writes its page tables", Code::new().write_rdi(PAGE_TABLES_VA + (CODE_VA >> 12) * 8)),
        (
            "reads the kernel's page tables",
            Code::new().read(PAGE_TABLES_VA + ((KERNEL_VA & 0xFFFF_FFFF_FFFF) >> 12) * 8),
        ),
        ("reads its parent's heap", Code::new().read(child_of_heap())),
        ("reads its parent's stack", Code::new().read(STACK_TOP_VA - 8)),
        ("writes the environment page", Code::new().write_rdi(ENVIRONMENT_VA)),
        ("writes the kernel's page", Code::new().write_rdi(KERNEL_PAGE_VA)),
        ("writes the gate", Code::new().write_rdi(GATE_VA)),
        ("writes the resume page", Code::new().write_rdi(RESUME_VA)),
        ("takes a turn beside others", Code::new().write_rdi(TURN_VA)),
        ("rings a doorbell that is not bound", Code::new().write_rdi(DOORBELL_VA)),
        ("rings the last doorbell", Code::new().write_rdi(DOORBELL_VA + 255 * PAGE_BYTES)),
        ("executes its data", Code::new().rax(DATA_VA).bytes(&[0xFF, 0xE0])),
        ("halts", Code::new().bytes(&[0xF4])),
        ("changes its page tables' root", Code::new().bytes(&[0x0F, 0x22, 0xDF])),
        ("forbids interrupts", Code::new().bytes(&[0xFA])),
        ("executes nothing known", Code::new().bytes(&[0x0F, 0x0B])),
        ("enters the kernel elsewhere", stray),
        ("goes on at an address that cannot be", Code::new().rax(1 << 47).bytes(&[0xFF, 0xE0])),
    ];
    for (what, code) in attacks {
        let child = Child::new(code.exit(0), rights::WRITE).ok()?;
        child.start(0).ok()?;
        log::info!("probe: a child that {what}: {}", child.wait(state::GONE)?);
        to_the_end(Call::CapabilityDrop, child.part).ok()?;
        to_the_end(Call::CapabilityDrop, child.environment).ok()?;
    }
    Some(HELD)
}

fn child_of_heap() -> u64 {
    WINDOW_VA + pages::environment().heap[0].start_gpa
}

/// A child tries every handle that its parent could have; none is its own but the one that it was given.
fn child_guesses(_: Arguments<'_>) -> Option<u32> {
    for (what, call) in [("derive from", Call::CapabilityDerive), ("status of", Call::EnvironmentStatus)] {
        // rbx: slot, r12: generation, r13: how many answered without an error.
        let code = Code::new()
            .bytes(&[0x45, 0x31, 0xED]) // xor r13d, r13d
            .bytes(&[0x41, 0xBC, 1, 0, 0, 0]) // mov r12d, 1
            .bytes(&[0x31, 0xDB]) // next generation: xor ebx, ebx
            .bytes(&[0x4C, 0x89, 0xE6, 0x48, 0xC1, 0xE6, 0x20, 0x48, 0x09, 0xDE]) // mov rsi, r12; shl rsi, 32; or rsi, rbx
            .bytes(if matches!(call, Call::EnvironmentStatus) {
                &[0x48, 0x89, 0xF7]
            } else {
                &[0x31, 0xFF, 0x90]
            }) // rdi
            .load([0x48, 0xBA], 0)
            .load([0x49, 0xBA], 1)
            .load([0x49, 0xB8], 1)
            .gate(call)
            .bytes(&[0x48, 0x83, 0xF8, 3, 0x74, 3]) // cmp rax, NotFound; je +3
            .bytes(&[0x41, 0xFF, 0xC5]) // inc r13d
            .bytes(&[0xFF, 0xC3]) // inc ebx
            .bytes(&[0x81, 0xFB, 0x04, 0x01, 0, 0]); // cmp ebx, 260
        let loop_start = 3 + 6 + 2;
        let distance = loop_start as i64 - (code.0.len() as i64 + 6);
        let code = code.bytes(&[0x0F, 0x85]).bytes(&(distance as i32).to_le_bytes()); // jne loop
        let code = code.bytes(&[0x41, 0xFF, 0xC4, 0x41, 0x83, 0xFC, 4]); // inc r12d; cmp r12d, 4
        let distance = (3 + 6) as i64 - (code.0.len() as i64 + 6);
        let code = code
            .bytes(&[0x0F, 0x85])
            .bytes(&(distance as i32).to_le_bytes()) // jne next generation
            .bytes(&[0x4C, 0x89, 0xE8]) // mov rax, r13
            .exit_rax();
        let child = Child::new(code, rights::WRITE).ok()?;
        child.start(0).ok()?;
        log::info!("probe: {what} guessed handles: {} not refused as unknown", child.wait(state::GONE)?);
    }
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

/// What a parent is refused.
fn refusals(_: Arguments<'_>) -> Option<u32> {
    let own = &pages::environment().capabilities;
    let heap = own.heap[0];
    let first = pages::environment().heap[0].start_gpa / PAGE_BYTES;
    let count = pages::environment().heap[0].len_bytes / PAGE_BYTES;
    let child = Child::new(Code::new().exit(0), rights::WRITE).ok()?;
    let read_only = derive(heap, first, 4, rights::READ).ok()?;
    let other = Child::new(Code::new().exit(0), rights::WRITE).ok()?;
    let env = child.environment.0;
    let try_ = |what: &str, number: Call, arguments: [u64; 5]| {
        log::info!("probe: {what}: {:?}", call(number, arguments));
    };
    let all = u64::from(rights::ALL);
    try_("create outside of the range", Call::EnvironmentCreate, [own.environments.0, 0, 0, 0, 0]);
    try_("create far outside", Call::EnvironmentCreate, [own.environments.0, 1 << 40, 0, 0, 0]);
    try_("create where one is", Call::EnvironmentCreate, [own.environments.0, 1, 0, 0, 0]);
    try_("create with an environment's", Call::EnvironmentCreate, [env, ANY, 0, 0, 0]);
    try_("create with memory", Call::EnvironmentCreate, [heap.0, ANY, 0, 0, 0]);
    try_("start at an address that cannot be", Call::EnvironmentStart, [env, 1 << 47, 0, 0, 0]);
    try_("start with a stack that cannot be", Call::EnvironmentStart, [env, CODE_VA, u64::MAX, 0, 0]);
    try_("start the places", Call::EnvironmentStart, [own.environments.0, CODE_VA, 0, 0, 0]);
    try_("status of the places", Call::EnvironmentStatus, [own.environments.0, 0, 0, 0, 0]);
    try_("derive more rights", Call::CapabilityDerive, [0, read_only.0, first, 1, u64::from(rights::WRITE)]);
    try_("derive all rights", Call::CapabilityDerive, [0, heap.0, first, 1, all + 1]);
    try_("derive before the range", Call::CapabilityDerive, [0, heap.0, first - 1, 1, 1]);
    try_("derive behind the range", Call::CapabilityDerive, [0, heap.0, first, count + 1, 1]);
    try_("derive nothing", Call::CapabilityDerive, [0, heap.0, first, 0, 1]);
    try_("derive around the end", Call::CapabilityDerive, [0, heap.0, first + 1, u64::MAX, 1]);
    try_("give without the right", Call::CapabilityGive, [0, read_only.0, env, 1, 0]);
    try_("give to memory", Call::CapabilityGive, [0, child.part.0, heap.0, 1, 0]);
    try_("give to the places", Call::CapabilityGive, [0, child.part.0, own.environments.0, 1, 0]);
    try_(
        "map the child's handle as one's own",
        Call::MemoryMap,
        [0, child.given.0 + (200 << 32), DATA_VA, 0, 1],
    );
    try_("map writable what is read-only", Call::MemoryMap, [0, read_only.0, (1 << 40) | map::WRITE, 0, 1]);
    try_("map executable what is not", Call::MemoryMap, [0, read_only.0, (1 << 40) | map::EXECUTE, 0, 1]);
    try_("map behind the range", Call::MemoryMap, [0, read_only.0, 1 << 40, 4, 1]);
    try_("map across its end", Call::MemoryMap, [0, read_only.0, 1 << 40, 3, 2]);
    try_("map at null", Call::MemoryMap, [0, read_only.0, 0, 0, 1]);
    try_("map over the fixed pages", Call::MemoryMap, [0, read_only.0, GATE_VA, 0, 1]);
    try_("map over the page tables", Call::MemoryMap, [0, read_only.0, PAGE_TABLES_VA, 0, 1]);
    try_("map over the kernel", Call::MemoryMap, [0, read_only.0, KERNEL_VA, 0, 1]);
    try_("map over the direct map", Call::MemoryMap, [0, read_only.0, DIRECT_MAP_VA, 0, 1]);
    try_("map with bits that mean nothing", Call::MemoryMap, [0, read_only.0, (1 << 40) | 8, 0, 1]);
    try_("map a large page of small ones", Call::MemoryMap, [0, read_only.0, (1 << 40) | map::LARGE, 0, 1]);
    try_("map inside a large page", Call::MemoryMap, [0, read_only.0, WINDOW_VA + first * PAGE_BYTES, 0, 1]);
    try_("map", Call::MemoryMap, [0, read_only.0, 1 << 40, 0, 4]);
    try_("unmap half of a large page", Call::MemoryUnmap, [0, WINDOW_VA + first * PAGE_BYTES, 1, 0, 0]);
    try_("unmap the fixed pages", Call::MemoryUnmap, [0, GATE_VA, 1, 0, 0]);
    try_("unmap", Call::MemoryUnmap, [0, 1 << 40, 4, 0, 0]);
    try_("unmap what is not mapped", Call::MemoryUnmap, [0, 1 << 40, 4, 0, 0]);
    try_("let devices have what they may not", Call::DmaGrant, [0, read_only.0, 0, 1, 1]);
    try_("let devices write what is read-only", Call::DmaGrant, [0, read_only.0, 0, 1, 2]);
    try_("let devices do what means nothing", Call::DmaGrant, [0, heap.0, 0, 1, 4]);
    try_("let devices have what is behind", Call::DmaGrant, [0, heap.0, count, 1, 1]);
    try_("act for a stranger", Call::MemoryUnmap, [heap.0, 1 << 40, 1, 0, 0]);
    try_(
        "destroy without the right",
        Call::EnvironmentDestroy,
        [derive_environment(&other, rights::WAKE).map_or(0, |handle| handle.0), 0, 0, 0, 0],
    );
    Some(HELD)
}

/// A capability for a child with these rights only.
fn derive_environment(child: &Child, rights: u16) -> Option<Handle> {
    // The number of the environment is the place that it got.
    (1..64).find_map(|number| derive(child.environment, number, 1, rights).ok())
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
    log::info!("probe: the successor found {}", second.wait(state::GONE)?);
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

/// The turn register, written by who was alone and is not any more.
fn turn_beside(_: Arguments<'_>) -> Option<u32> {
    let deadline = clock::tsc() + clock::Scale::new().ticks(200_000_000);
    let child =
        Child::new(Code::new().call(Call::Sleep, [deadline, 0, 0, 0, 0]).exit(0), rights::WRITE).ok()?;
    child.start(0).ok()?;
    // SAFETY: it faults, or the test fails.
    unsafe { (TURN_VA as *mut u64).write_volatile(1) };
    Some(BROKEN)
}

/// The doorbell of a queue that was given back.
fn doorbell_after_unbind(_: Arguments<'_>) -> Option<u32> {
    let base = pages_for(abi::queue::RingLayout::new(256)?.len_bytes())?;
    let doorbell = doorbell_va(0, 0)? as *mut u16;
    kernel::queue_bind(0, 0, base, 256).ok()?;
    // SAFETY: a doorbell of our own.
    unsafe { doorbell.write_volatile(0) };
    log::info!("probe: rang");
    kernel::queue_unbind(0, 0).ok()?;
    // SAFETY: it faults, or the test fails.
    unsafe { doorbell.write_volatile(0) };
    Some(BROKEN)
}
