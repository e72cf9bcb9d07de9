//! Environments that share a vCPU and do not give it away by themselves.

use crate::child::{Child, Code};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, state};
use abi::capability::rights;
use core::arch::asm;
use exos_runtime::{clock, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] =
    &[("compute", compute), ("child-runs-on", child_runs_on), ("child-peeks", child_peeks)];

/// `compute MS`: computes for so long without a kernel call, in general and vector registers at once, and finds them as they
/// should be. Says how often somebody else had the CPU meanwhile.
fn compute(arguments: Arguments<'_>) -> Option<u32> {
    let scale = clock::Scale::new();
    let end = clock::tsc() + scale.ticks(crate::number(arguments.next())? * 1_000_000);
    let seed = u64::from(pages::environment().environment) + 1;
    let (mut gaps, mut rounds) = (0, 0u64);
    let mut last = clock::tsc();
    while last < end {
        if !round(seed) {
            log::error!("probe: registers changed in round {rounds}");
            return Some(BROKEN);
        }
        let now = clock::tsc();
        gaps += u32::from(scale.ns(now - last) > 5_000_000);
        last = now;
        rounds += 1;
    }
    log::info!("probe: others had the CPU more than once: {}", gaps > 1);
    Some(HELD)
}

/// Some ten microseconds with a pattern in every register that a program may use.
fn round(seed: u64) -> bool {
    let wrong: u64;
    // SAFETY: registers only; what the compiler may not lose is pushed.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "mov rbx, rax",
            "imul rbp, rax, 3",
            "imul r8, rax, 5",
            "imul r9, rax, 7",
            "imul r10, rax, 11",
            "imul r11, rax, 13",
            "imul r12, rax, 17",
            "imul r13, rax, 19",
            "imul r14, rax, 23",
            "imul r15, rax, 29",
            "imul rsi, rax, 31",
            "imul rdi, rax, 37",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movq xmm\\n, rax",
            "movlhps xmm\\n, xmm\\n",
            "add rax, 41",
            ".endr",
            "mov ecx, 10000",
            "2:",
            "dec ecx",
            "jnz 2b",
            "mov rax, rbx",
            "xor edx, edx",
            // Adds up every difference to what the register should hold.
            ".macro expect reg, factor",
            "imul rcx, rbx, \\factor",
            "xor rcx, \\reg",
            "or rdx, rcx",
            ".endm",
            "expect rbp, 3",
            "expect r8, 5",
            "expect r9, 7",
            "expect r10, 11",
            "expect r11, 13",
            "expect r12, 17",
            "expect r13, 19",
            "expect r14, 23",
            "expect r15, 29",
            "expect rsi, 31",
            "expect rdi, 37",
            ".purgem expect",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "movq rcx, xmm\\n",
            "xor rcx, rax",
            "or rdx, rcx",
            "movhlps xmm\\n, xmm\\n",
            "movq rcx, xmm\\n",
            "xor rcx, rax",
            "or rdx, rcx",
            "add rax, 41",
            ".endr",
            "pop rbp",
            "pop rbx",
            inout("rax") seed => _,
            out("rdx") wrong,
            out("rcx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            out("r12") _, out("r13") _, out("r14") _, out("r15") _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
            out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
        );
    }
    wrong == 0
}

/// A child without an upcall that never gives the CPU away ends, and its parent, who also computes, does not.
fn child_runs_on(_: Arguments<'_>) -> Option<u32> {
    let scale = clock::Scale::new();
    let child = Child::new(Code::new().bytes(&[0xEB, 0xFE]), rights::WRITE).ok()?;
    child.start(0).ok()?;
    let begun = clock::tsc();
    while child.status().0 != state::GONE {
        if !round(7) || scale.ns(clock::tsc() - begun) > 20_000_000_000 {
            log::error!("probe: the child is in state {:?}", child.status());
            return Some(BROKEN);
        }
    }
    log::info!("probe: the child that ran on: {}", child.status().1);
    Some(HELD)
}

/// What a child finds in its registers at its start, and when it comes back from a sleep, while its parent has patterns in all of
/// its own. It ends with the number of those that were not in their initial state.
fn child_peeks(_: Arguments<'_>) -> Option<u32> {
    // ORs everything that should be zero into rdx, and what is wrong with MXCSR and the x87 control word.
    let look = |code: Code| {
        let mut code = code.bytes(&[0x31, 0xD2]); // xor edx, edx
        for register in 0..16u8 {
            // movq rcx, xmm; or rdx, rcx; movhlps xmm, xmm; movq rcx, xmm; or rdx, rcx
            let rex = 0x48 | (register >> 3) << 2;
            let modrm = 0xC1 | (register & 7) << 3;
            let high = 0x40 | (register >> 3) | (register >> 3) << 2;
            code = code
                .bytes(&[0x66, rex, 0x0F, 0x7E, modrm, 0x48, 0x09, 0xCA])
                .bytes(&[high, 0x0F, 0x12, 0xC0 | (register & 7) << 3 | (register & 7)])
                .bytes(&[0x66, rex, 0x0F, 0x7E, modrm, 0x48, 0x09, 0xCA]);
        }
        code
    };
    let code = look(Code::new()).bytes(&[0x48, 0x89, 0xD3]); // mov rbx, rdx
    // rbx does not survive the sleep, so what was found lies in memory meanwhile.
    let code = code
        .rax(crate::child::DATA_VA)
        .bytes(&[0x48, 0x89, 0x18]) // mov [rax], rbx
        .call(Call::Sleep, [1, 0, 0, 0, 0]);
    let code = look(code).rax(crate::child::DATA_VA).bytes(&[0x48, 0x0B, 0x10, 0x48, 0x89, 0x10]); // or rdx, [rax]; mov [rax], rdx
    let child = Child::new(code.exit(0), rights::WRITE).ok()?;
    child.start(0).ok()?;
    // The parent's patterns are in its registers whenever its slice ends.
    while child.status().0 != state::GONE {
        if !round(0x1234_5678_9ABC) {
            return Some(BROKEN);
        }
    }
    log::info!("probe: the child ended with {} and saw {:#x}", child.status().1, child.word());
    Some(HELD)
}
