//! What a profiler should see: known shares in known functions, kernel calls all the time, and frame pointers that lead nowhere.
//! All go on until the VMM wants the machine to end.

use crate::{Case, HELD};
use abi::boot::phase;
use abi::layout::{DIRECT_MAP_VA, GATE_VA, KERNEL_VA, STACK_TOP_VA, TURN_VA, WINDOW_VA};
use exos_runtime::{clock, kernel, pages, turn};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] =
    &[("profile-shares", shares), ("profile-calls", calls), ("profile-frames", frames)];

/// Thousands of steps of a round in [`outer`], [`middle`] and [`inner`], by environment: half, three tenths, two tenths; and the
/// other way round. Steps and not time, which passes as well while another environment has the CPU.
const SHARES: [[u64; 3]; 2] = [[500, 300, 200], [200, 300, 500]];

fn shares(_: Arguments<'_>) -> Option<u32> {
    let environment = pages::environment().environment as usize;
    let parts = SHARES[environment % 2].map(|thousands| thousands * 1000);
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        outer(parts);
    }
    Some(HELD)
}

#[inline(never)]
fn outer(parts: [u64; 3]) {
    burn(parts[0]);
    middle(parts);
    // Else the call would be a jump, and this function none of the stack.
    core::hint::black_box(());
}

#[inline(never)]
fn middle(parts: [u64; 3]) {
    burn(parts[1]);
    inner(parts);
    core::hint::black_box(());
}

#[inline(never)]
fn inner(parts: [u64; 3]) {
    burn(parts[2]);
    core::hint::black_box(());
}

/// So many steps, in whoever calls it.
#[inline(always)]
fn burn(steps: u64) {
    // A function that begins with a loop cannot be probed.
    let steps = core::hint::black_box(steps);
    // SAFETY: counts a register down; no memory.
    unsafe {
        core::arch::asm!("2:", "sub {steps}, 1", "jnz 2b", steps = inout(reg) steps => _, options(nomem, nostack));
    }
}

fn calls(_: Arguments<'_>) -> Option<u32> {
    pages::stamp(phase::READY);
    while !turn::stop_wanted() {
        call_much();
    }
    Some(HELD)
}

#[inline(never)]
fn call_much() {
    for _ in 0..100 {
        core::hint::black_box(kernel::version());
    }
}

fn frames(_: Arguments<'_>) -> Option<u32> {
    let mut to_itself = [0u64; 2];
    to_itself[0] = (&raw const to_itself).addr() as u64;
    let mut there = [0u64, 0x40_0000];
    let back = [(&raw const there).addr() as u64, 0x40_0000];
    there[0] = (&raw const back).addr() as u64;
    let bases = [
        0,
        1,
        7,
        u64::MAX,
        1 << 47,
        1 << 63,
        0x1234_5678_9ABC_DEF0,
        KERNEL_VA,
        DIRECT_MAP_VA,
        DIRECT_MAP_VA + 0xFEE0_0000,
        GATE_VA,
        GATE_VA + 0xFF8,
        TURN_VA,
        TURN_VA - 8,
        STACK_TOP_VA - 8,
        STACK_TOP_VA,
        WINDOW_VA,
        WINDOW_VA + 0xFFF8,
        (&raw const to_itself).addr() as u64,
        (&raw const there).addr() as u64,
    ];
    core::hint::black_box((&to_itself, &there, &back));
    pages::stamp(phase::READY);
    let ticks = clock::Scale::new().ticks(1_000_000);
    while !turn::stop_wanted() {
        for base in bases {
            with_base(base, ticks);
        }
    }
    Some(HELD)
}

/// Computes for so many ticks with that in `rbp`.
#[inline(never)]
fn with_base(base: u64, ticks: u64) {
    // SAFETY: `rbp` comes back as it was, nothing is called and no memory but the stack used meanwhile.
    unsafe {
        core::arch::asm!(
            "push rbp",
            "mov rbp, {base}",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "add {ticks}, rax",
            "2: pause",
            "rdtsc",
            "shl rdx, 32",
            "or rax, rdx",
            "cmp rax, {ticks}",
            "jb 2b",
            "pop rbp",
            base = in(reg) base,
            ticks = inout(reg) ticks => _,
            out("rax") _,
            out("rdx") _,
        );
    }
}
