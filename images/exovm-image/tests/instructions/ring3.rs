//! Ring 3 holds no instruction that is the kernel's or leads to it: the gate instruction exists in the gate page and nowhere
//! else, ports and system registers are not an environment's, and `fs:` and `gs:` would be thread locals, which nobody sets
//! up. The image `probe` tries these things on purpose, in functions called `probe_forbidden_…`.

use crate::guests::{self, Guest};
use crate::walk::{Finding, Rule, code_of, function_of, lines, walk};
use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic as M, OpKind, Register};

/// Where the probe keeps what no other program may hold.
const PROBE: &str = "probe";
const PROBE_PREFIX: &str = "probe_forbidden_";
/// Functions of that name whose instructions are allowed as such.
const PROBE_ALLOWED: &[&str] = &["divide", "invalid_opcode", "single_step"];

/// Ways into the kernel or a hypervisor, and back.
const GATES: &[M] = &[
    M::Int,
    M::Int1,
    M::Int3,
    M::Into,
    M::Syscall,
    M::Sysenter,
    M::Sysexit,
    M::Sysexitq,
    M::Sysret,
    M::Sysretq,
    M::Vmcall,
    M::Vmmcall,
    M::Iret,
    M::Iretd,
    M::Iretq,
    M::Retf,
];

/// Ports.
const PORTS: &[M] = &[M::In, M::Insb, M::Insd, M::Insw, M::Out, M::Outsb, M::Outsd, M::Outsw];

/// Not privileged everywhere, but a look at the kernel's state, or dependent on bits of CR4 that are not set.
const SYSTEM_STATE: &[M] = &[
    M::Sgdt,
    M::Sidt,
    M::Sldt,
    M::Smsw,
    M::Str,
    M::Rdpmc,
    M::Rdfsbase,
    M::Rdgsbase,
    M::Wrfsbase,
    M::Wrgsbase,
    M::Xgetbv,
    M::Lar,
    M::Lsl,
    M::Verr,
    M::Verw,
];

/// Why an image may not hold this instruction.
const RULE: Rule = |instruction| {
    let mnemonic = instruction.mnemonic();
    if GATES.contains(&mnemonic) || instruction.flow_control() == FlowControl::Interrupt {
        return Some("a gate outside the gate page");
    }
    if PORTS.contains(&mnemonic) {
        return Some("a port");
    }
    if instruction.is_privileged() {
        return Some("privileged");
    }
    if SYSTEM_STATE.contains(&mnemonic) {
        return Some("the kernel's state");
    }
    if uses_segment(instruction) {
        return Some("a segment: thread locals are not set up");
    }
    if instruction.is_call_far_indirect() || instruction.is_jmp_far_indirect() {
        return Some("a far branch");
    }
    // A vector unit that is wider than SSE needs CR4.OSXSAVE and XCR0, which the kernel does not set.
    (instruction.encoding() != EncodingKind::Legacy).then_some("VEX, EVEX or XOP without CR4.OSXSAVE")
};

fn uses_segment(instruction: &Instruction) -> bool {
    let memory = |kind| {
        matches!(
            kind,
            OpKind::Memory
                | OpKind::MemorySegSI
                | OpKind::MemorySegESI
                | OpKind::MemorySegRSI
                | OpKind::MemorySegRDI
        )
    };
    let thread = [Register::FS, Register::GS];
    (0..instruction.op_count()).any(|operand| match instruction.op_kind(operand) {
        OpKind::Register => instruction.op_register(operand).is_segment_register(),
        kind => memory(kind) && thread.contains(&instruction.memory_segment()),
    }) || thread.contains(&instruction.segment_prefix())
}

fn findings(guest: &Guest) -> Vec<Finding> {
    let walk = walk(&code_of(&guest.image.program), RULE);
    assert!(walk.instructions > 1000, "a program has more than {} instructions", walk.instructions);
    walk.findings
}

#[test]
fn images_hold_no_gate_no_port_and_nothing_privileged() {
    for guest in guests::all() {
        let name = &guest.image.manifest.name;
        let mut findings = findings(guest);
        findings.retain(|finding| name != PROBE || !finding.function.starts_with(PROBE_PREFIX));
        assert!(findings.is_empty(), "image {name} must not hold:\n{}", lines(&findings));
    }
}

/// The same test sees what the probe does: in each function that tries something forbidden there is something forbidden.
#[test]
fn probe_is_found_to_hold_what_it_tries() {
    let probe = guests::named(PROBE);
    let found = findings(probe);
    let tries: Vec<&str> = probe
        .image
        .program
        .symbols
        .iter()
        .filter_map(|symbol| symbol.name.strip_prefix(PROBE_PREFIX))
        .filter(|name| !PROBE_ALLOWED.contains(name))
        .collect();
    assert!(tries.len() > 25, "{tries:?}");
    for name in tries {
        let function = format!("{PROBE_PREFIX}{name}");
        assert!(found.iter().any(|finding| finding.function == function), "{function} is not found");
    }
}

#[test]
fn rule_forbidden_returns_a_finding() {
    for (name, bytes) in [
        ("int3", &[0xCC][..]),
        ("int1", &[0xF1]),
        ("int 3", &[0xCD, 0x03]),
        ("int 0x80", &[0xCD, 0x80]),
        ("syscall", &[0x0F, 0x05]),
        ("sysenter", &[0x0F, 0x34]),
        ("sysretq", &[0x48, 0x0F, 0x07]),
        ("vmcall", &[0x0F, 0x01, 0xC1]),
        ("vmmcall", &[0x0F, 0x01, 0xD9]),
        ("iretq", &[0x48, 0xCF]),
        ("retfq", &[0x48, 0xCB]),
        ("call far [rdi]", &[0xFF, 0x1F]),
        ("jmp far [rdi]", &[0xFF, 0x2F]),
        ("in al, dx", &[0xEC]),
        ("in eax, 0x60", &[0xE5, 0x60]),
        ("out dx, al", &[0xEE]),
        ("rep outsb", &[0xF3, 0x6E]),
        ("insd", &[0x6D]),
        ("hlt", &[0xF4]),
        ("cli", &[0xFA]),
        ("sti", &[0xFB]),
        ("rdmsr", &[0x0F, 0x32]),
        ("wrmsr", &[0x0F, 0x30]),
        ("rdpmc", &[0x0F, 0x33]),
        ("lgdt [rdi]", &[0x0F, 0x01, 0x17]),
        ("sgdt [rdi]", &[0x0F, 0x01, 0x07]),
        ("mov cr3, rax", &[0x0F, 0x22, 0xD8]),
        ("mov rax, cr0", &[0x0F, 0x20, 0xC0]),
        ("mov dr7, rax", &[0x0F, 0x23, 0xF8]),
        ("invlpg [rdi]", &[0x0F, 0x01, 0x3F]),
        ("wbinvd", &[0x0F, 0x09]),
        ("swapgs", &[0x0F, 0x01, 0xF8]),
        ("xsetbv", &[0x0F, 0x01, 0xD1]),
        ("xgetbv", &[0x0F, 0x01, 0xD0]),
        ("mov rax, fs:[0]", &[0x64, 0x48, 0x8B, 0x04, 0x25, 0, 0, 0, 0]),
        ("mov rax, gs:[rdi]", &[0x65, 0x48, 0x8B, 0x07]),
        ("mov rax, fs:[rip + 0]", &[0x64, 0x48, 0x8B, 0x05, 0, 0, 0, 0]),
        ("fs movsb", &[0x64, 0xA4]),
        ("mov eax, ds", &[0x8C, 0xD8]),
        ("mov ss, eax", &[0x8E, 0xD0]),
        ("push fs", &[0x0F, 0xA0]),
        ("wrfsbase rax", &[0xF3, 0x48, 0x0F, 0xAE, 0xD0]),
        ("vzeroupper", &[0xC5, 0xF8, 0x77]),
    ] {
        let findings = walk(&[function_of(bytes)], RULE).findings;
        assert_eq!(findings.len(), 1, "{name}: {}", lines(&findings));
    }
}

#[test]
fn rule_allowed_returns_nothing() {
    for (name, bytes) in [
        ("ud2", &[0x0F, 0x0B][..]),
        ("rdtsc", &[0x0F, 0x31]),
        ("pause", &[0xF3, 0x90]),
        ("rep movsb", &[0xF3, 0xA4]),
        ("cs nopw [rax + rax]", &[0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0]),
        ("movups xmm0, [rdi]", &[0x0F, 0x10, 0x07]),
        ("call [rdi]", &[0xFF, 0x17]),
    ] {
        let findings = walk(&[function_of(bytes)], RULE).findings;
        assert!(findings.is_empty(), "{name}: {}", lines(&findings));
    }
}
