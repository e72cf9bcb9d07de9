//! What environments try against those that they run beside, and what a parent is refused.

use crate::binding::pages_for;
use crate::child::*;
use crate::{BROKEN, Case, HELD};
use abi::call::{ANY, Call, map, state};
use abi::capability::rights;
use abi::layout::*;
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("child-attacks", child_attacks),
    ("child-guesses", child_guesses),
    ("family-refusals", refusals),
    ("turn-beside", turn_beside),
    ("doorbell-after-unbind", doorbell_after_unbind),
];

/// Where nothing lies in a page that is written on trial: whoever may write there goes on and ends as if nothing were the matter.
const NOTHING: u64 = 0x800;

/// What children try with addresses and instructions that are not theirs. Each ends with 128 and the exception's vector, and with 0 if
/// it is let: so what is written must not be what it needs on its way out, and what is executed must be an end.
fn child_attacks(_: Arguments<'_>) -> Option<u32> {
    let stray = Code::new().rax(Call::Exit as u64).bytes(&[0x31, 0xFF, 0xCC]).exit(0);
    let attacks = [
        ("reads the kernel", Code::new().read(KERNEL_VA)),
        ("reads all memory", Code::new().read(DIRECT_MAP_VA + 0x1000)),
        ("writes its page tables", Code::new().write_rdi(PAGE_TABLES_VA + (CODE_VA >> 12) * 8 + 64)),
        (
            "reads the kernel's page tables",
            Code::new().read(PAGE_TABLES_VA + ((KERNEL_VA & 0xFFFF_FFFF_FFFF) >> 12) * 8),
        ),
        ("reads its parent's heap", Code::new().read(child_of_heap())),
        ("reads its parent's stack", Code::new().read(STACK_TOP_VA - 8)),
        ("writes the environment page", Code::new().write_rdi(ENVIRONMENT_VA + NOTHING)),
        ("writes the kernel's page", Code::new().write_rdi(KERNEL_PAGE_VA + NOTHING)),
        ("writes the gate", Code::new().write_rdi(GATE_VA + NOTHING)),
        ("writes the resume page", Code::new().write_rdi(RESUME_VA + NOTHING)),
        ("takes a turn beside others", Code::new().write_rdi(TURN_VA)),
        ("rings a doorbell that is not bound", Code::new().write_rdi(DOORBELL_VA)),
        ("rings the last doorbell", Code::new().write_rdi(DOORBELL_VA + 255 * PAGE_BYTES)),
        ("executes its data", Code::new().rax(DATA_VA).bytes(&[0xFF, 0xE0])),
        ("halts", Code::new().bytes(&[0xF4])),
        ("changes its page tables' root", Code::new().bytes(&[0x0F, 0x22, 0xDF])),
        ("forbids interrupts", Code::new().bytes(&[0xFA])),
        ("sets a breakpoint", Code::new().bytes(&[0x0F, 0x23, 0xC0])), // mov dr0, rax
        // pushfq; or qword ptr [rsp], 0x100; popfq: the next instruction is the last. Then with the gate as that.
        ("single-steps", Code::new().bytes(&[0x9C, 0x48, 0x81, 0x0C, 0x24, 0, 1, 0, 0, 0x9D, 0x90])),
        (
            "single-steps into the kernel",
            Code::new()
                .load([0x48, 0xB9], GATE_VA)
                .bytes(&[0x31, 0xC0, 0x9C, 0x48, 0x81, 0x0C, 0x24, 0, 1, 0, 0, 0x9D, 0xFF, 0xD1]),
        ),
        ("executes nothing known", Code::new().bytes(&[0x0F, 0x0B])),
        ("enters the kernel elsewhere", stray),
        ("goes on at an address that cannot be", Code::new().rax(1 << 47).bytes(&[0xFF, 0xE0])),
    ];
    for (what, code) in attacks {
        let child = Child::new(code.exit(0), rights::WRITE).ok()?;
        child.set_data(&Code::new().exit(0));
        // Should a turn be taken, it is over at once.
        child.start(1).ok()?;
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
    // Of a slot in which its parent has nothing.
    let mut childs = child.given;
    for _ in 0..64 {
        childs = give(child.part, &child, rights::READ).ok()?;
    }
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
    try_("map the child's handle as one's own", Call::MemoryMap, [0, childs.0, 1 << 40, 0, 1]);
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
    kernel::queue_unbind(0, 0).ok()?;
    log::info!("probe: rang, then given back: {doorbell:p}");
    // SAFETY: it faults, or the test fails.
    unsafe { doorbell.write_volatile(0) };
    Some(BROKEN)
}
