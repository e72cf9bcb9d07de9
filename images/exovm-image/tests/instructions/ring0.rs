//! Ring 0 executes what KVM's instruction emulator knows, for hosts that have nothing else. The list is what was tried, one
//! by one, on such a host; whoever needs an instruction more tries it there first. Vector and floating-point registers
//! belong to the environments: not even the moves that the emulator knows are used.

use crate::guests;
use crate::walk::{Rule, code_of, function_of, lines, walk};
use iced_x86::{EncodingKind, Instruction, Mnemonic as M, OpKind};

/// Integer instructions, jumps, flags, the string instructions.
const BASELINE: &[M] = &[
    M::Adc,
    M::Add,
    M::And,
    M::Bsf,
    M::Bsr,
    M::Bswap,
    M::Bt,
    M::Btc,
    M::Btr,
    M::Bts,
    M::Call,
    M::Cbw,
    M::Cdq,
    M::Cdqe,
    M::Clc,
    M::Cld,
    M::Cmc,
    M::Cmp,
    M::Cmpsb,
    M::Cmpsd,
    M::Cmpsq,
    M::Cmpsw,
    M::Cmpxchg,
    M::Cmpxchg8b,
    M::Cqo,
    M::Cwd,
    M::Cwde,
    M::Dec,
    M::Div,
    M::Idiv,
    M::Imul,
    M::Inc,
    M::Jmp,
    M::Lea,
    M::Leave,
    M::Lodsb,
    M::Lodsd,
    M::Lodsq,
    M::Lodsw,
    M::Loop,
    M::Loope,
    M::Loopne,
    M::Mov,
    M::Movnti,
    M::Movsb,
    M::Movsd,
    M::Movsq,
    M::Movsw,
    M::Movsx,
    M::Movsxd,
    M::Movzx,
    M::Mul,
    M::Neg,
    M::Nop,
    M::Not,
    M::Or,
    M::Pop,
    M::Popfq,
    M::Push,
    M::Pushfq,
    M::Rcl,
    M::Rcr,
    M::Ret,
    M::Rol,
    M::Ror,
    M::Sal,
    M::Sar,
    M::Sbb,
    M::Scasb,
    M::Scasd,
    M::Scasq,
    M::Scasw,
    M::Shl,
    M::Shld,
    M::Shr,
    M::Shrd,
    M::Stc,
    M::Std,
    M::Stosb,
    M::Stosd,
    M::Stosq,
    M::Stosw,
    M::Sub,
    M::Test,
    M::Xadd,
    M::Xchg,
    M::Xor,
    // The emulator executes it as BSF. Without BMI the compiler writes it only where the operand is not zero, and there
    // both do the same. (LZCNT as BSR is another number altogether.)
    M::Tzcnt,
];

/// Conditions, for jumps, `set` and `cmov`.
const CONDITIONAL: &[M] = &[
    M::Ja,
    M::Jae,
    M::Jb,
    M::Jbe,
    M::Je,
    M::Jg,
    M::Jge,
    M::Jl,
    M::Jle,
    M::Jne,
    M::Jno,
    M::Jnp,
    M::Jns,
    M::Jo,
    M::Jp,
    M::Js,
    M::Jecxz,
    M::Jrcxz,
    M::Seta,
    M::Setae,
    M::Setb,
    M::Setbe,
    M::Sete,
    M::Setg,
    M::Setge,
    M::Setl,
    M::Setle,
    M::Setne,
    M::Setno,
    M::Setnp,
    M::Setns,
    M::Seto,
    M::Setp,
    M::Sets,
    M::Cmova,
    M::Cmovae,
    M::Cmovb,
    M::Cmovbe,
    M::Cmove,
    M::Cmovg,
    M::Cmovge,
    M::Cmovl,
    M::Cmovle,
    M::Cmovne,
    M::Cmovno,
    M::Cmovnp,
    M::Cmovns,
    M::Cmovo,
    M::Cmovp,
    M::Cmovs,
];

/// What only ring 0 may do, and what looks at the processor. MOV with CR and DR is a MOV.
const SYSTEM: &[M] = &[
    M::Cli,
    M::Clflush,
    M::Clts,
    M::Cpuid,
    M::Fninit,
    M::Fxrstor,
    M::Fxrstor64,
    M::Fxsave,
    M::Fxsave64,
    M::Hlt,
    M::In,
    M::Invlpg,
    M::Iretq,
    M::Lfence,
    M::Lgdt,
    M::Lidt,
    M::Lldt,
    M::Ltr,
    M::Mfence,
    M::Out,
    M::Pause,
    M::Rdfsbase,
    M::Rdgsbase,
    M::Rdmsr,
    M::Rdrand,
    M::Rdtsc,
    M::Retf,
    M::Sfence,
    M::Sgdt,
    M::Sidt,
    M::Sldt,
    M::Sti,
    M::Str,
    M::Swapgs,
    M::Wbinvd,
    M::Wrfsbase,
    M::Wrgsbase,
    M::Wrmsr,
    // Not emulated, and never to be reached: the end of what cannot return. The report would name it.
    M::Ud2,
];

/// Why the kernel may not hold this instruction.
const RULE: Rule = |instruction| {
    if instruction.encoding() != EncodingKind::Legacy {
        return Some("VEX, EVEX and XOP are not emulated");
    }
    if has_vector_or_x87_register(instruction) {
        return Some("vector and floating-point registers are the environments'");
    }
    if is_far(instruction) {
        return Some("far branches are not emulated");
    }
    let known = [BASELINE, CONDITIONAL, SYSTEM].iter().any(|list| list.contains(&instruction.mnemonic()));
    (!known).then_some("not known to KVM's emulator")
};

fn has_vector_or_x87_register(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).filter(|&operand| instruction.op_kind(operand) == OpKind::Register).any(
        |operand| {
            let register = instruction.op_register(operand);
            register.is_vector_register() || register.is_mm() || register.is_st() || register.is_k()
        },
    )
}

fn is_far(instruction: &Instruction) -> bool {
    let far = |kind| matches!(kind, OpKind::FarBranch16 | OpKind::FarBranch32);
    instruction.is_call_far_indirect()
        || instruction.is_jmp_far_indirect()
        || (0..instruction.op_count()).any(|operand| far(instruction.op_kind(operand)))
}

#[test]
fn kernel_holds_only_what_the_emulator_knows() {
    let walk = walk(&code_of(&guests::named("hello").image.kernel), RULE);
    assert!(walk.findings.is_empty(), "ring 0 must not hold:\n{}", lines(&walk.findings));
    assert!(walk.instructions > 300, "a kernel has more than {} instructions", walk.instructions);
}

#[test]
fn rule_unknown_to_the_emulator_returns_a_finding() {
    for (name, bytes) in [
        ("popcnt eax, eax", &[0xF3, 0x0F, 0xB8, 0xC0][..]),
        ("lzcnt eax, eax", &[0xF3, 0x0F, 0xBD, 0xC0]),
        ("cmpxchg16b [rdi]", &[0x48, 0x0F, 0xC7, 0x0F]),
        ("rdtscp", &[0x0F, 0x01, 0xF9]),
        ("crc32 eax, al", &[0xF2, 0x0F, 0x38, 0xF0, 0xC0]),
        ("movbe eax, [rdi]", &[0x0F, 0x38, 0xF0, 0x07]),
        ("adcx eax, eax", &[0x66, 0x0F, 0x38, 0xF6, 0xC0]),
        ("andn eax, eax, eax", &[0xC4, 0xE2, 0x78, 0xF2, 0xC0]),
        ("vzeroall", &[0xC5, 0xFC, 0x77]),
        ("vpxorq zmm0, zmm0, zmm0", &[0x62, 0xF1, 0xFD, 0x48, 0xEF, 0xC0]),
        ("movd xmm0, eax", &[0x66, 0x0F, 0x6E, 0xC0]),
        ("movups xmm0, [rdi]", &[0x0F, 0x10, 0x07]),
        ("xorps xmm0, xmm0", &[0x0F, 0x57, 0xC0]),
        ("movq mm0, [rdi]", &[0x0F, 0x6F, 0x07]),
        ("emms", &[0x0F, 0x77]),
        ("fld1", &[0xD9, 0xE8]),
        ("fadd st0, st1", &[0xD8, 0xC1]),
        ("xsave [rdi]", &[0x0F, 0xAE, 0x27]),
        ("xgetbv", &[0x0F, 0x01, 0xD0]),
        ("ldmxcsr [rdi]", &[0x0F, 0xAE, 0x17]),
        ("clac", &[0x0F, 0x01, 0xCA]),
        ("stac", &[0x0F, 0x01, 0xCB]),
        ("sysretq", &[0x48, 0x0F, 0x07]),
        ("syscall", &[0x0F, 0x05]),
        ("int 0x80", &[0xCD, 0x80]),
        ("int3", &[0xCC]),
        ("call far [rdi]", &[0xFF, 0x1F]),
        ("jmp far [rdi]", &[0xFF, 0x2F]),
        ("rdseed eax", &[0x0F, 0xC7, 0xF8]),
        ("endbr64", &[0xF3, 0x0F, 0x1E, 0xFA]),
    ] {
        let findings = walk(&[function_of(bytes)], RULE).findings;
        assert_eq!(findings.len(), 1, "{name}: {}", lines(&findings));
        let line = findings[0].to_string();
        assert!(
            line.contains("0x400000 in tested") && line.contains(&format!("{:02x} ", bytes[0])),
            "{line}"
        );
    }
}

#[test]
fn rule_known_to_the_emulator_returns_nothing() {
    for (name, bytes) in [
        ("lock xadd [rdi], rax", &[0xF0, 0x48, 0x0F, 0xC1, 0x07][..]),
        ("lock cmpxchg8b [rdi]", &[0xF0, 0x0F, 0xC7, 0x0F]),
        ("rep stosb", &[0xF3, 0xAA]),
        ("mov cr3, rax", &[0x0F, 0x22, 0xD8]),
        ("mov rax, dr7", &[0x0F, 0x21, 0xF8]),
        ("wrmsr", &[0x0F, 0x30]),
        ("iretq", &[0x48, 0xCF]),
        ("sti", &[0xFB]),
        ("hlt", &[0xF4]),
        ("swapgs", &[0x0F, 0x01, 0xF8]),
        ("fxsave [rdi]", &[0x0F, 0xAE, 0x07]),
        ("rep bsf eax, eax", &[0xF3, 0x0F, 0xBC, 0xC0]),
    ] {
        let findings = walk(&[function_of(bytes)], RULE).findings;
        assert!(findings.is_empty(), "{name}: {}", lines(&findings));
    }
}
