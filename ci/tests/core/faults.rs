//! Ring 3 tries what it may not: each attempt ends the machine with a report that says what was tried and where, and never
//! the VMM. The attempts are machine code that hello runs instead of its own.

use abi::call::{Call, Error};
use abi::layout::{DIRECT_MAP_VA, GATE_VA, IMAGE_VA, KERNEL_VA, STACK_BYTES, STACK_TOP_VA};
use exovm::machine::End;
use exovm_ci::Guest;

/// How the machine ends when ring 3 runs `code`.
fn end_of(code: &[u8]) -> End {
    Guest::image("hello").no_network().execute(code).launch().wait().0
}

/// The report on `code`.
fn report_on(code: &[u8]) -> String {
    match end_of(code) {
        End::Fault { report } => report,
        other => panic!("{code:02x?} ended with {other:?} instead of a fault"),
    }
}

fn assert_reported(code: &[u8], expected: &str) {
    let report = report_on(code);
    assert!(report.contains(expected), "{code:02x?} should be {expected:?}:\n{report}");
    assert!(!report.contains("no function"), "the report names the function:\n{report}");
}

/// `mov rax, value`.
fn load_rax(value: u64) -> Vec<u8> {
    [&[0x48, 0xB8][..], &value.to_le_bytes()].concat()
}

const READ_AT_RAX: [u8; 3] = [0x48, 0x8B, 0x00];
const WRITE_AT_RAX: [u8; 3] = [0xC6, 0x00, 0x90];
const JUMP_TO_RAX: [u8; 2] = [0xFF, 0xE0];

#[test]
fn core_fault_report_has_exception_symbol_and_registers() {
    let mut code = load_rax(0x1122_3344_5566_7788);
    code.extend([0x0F, 0x0B]); // ud2
    let report = report_on(&code);
    for expected in ["environment 0: invalid opcode", "event_loop", "+0xa\n", "rax 1122334455667788", "cs 33"]
    {
        assert!(report.contains(expected), "{expected}:\n{report}");
    }
}

#[test]
fn core_privileged_instructions_in_ring_3_are_faults() {
    for code in [
        &[0xFA][..],         // cli
        &[0xF4],             // hlt
        &[0x0F, 0x22, 0xD8], // mov cr3, rax
        &[0x0F, 0x20, 0xC0], // mov rax, cr0
        &[0x0F, 0x32],       // rdmsr
        &[0x0F, 0x30],       // wrmsr
        &[0x0F, 0x01, 0xF8], // swapgs
        &[0x0F, 0x01, 0x10], // lgdt [rax]
        &[0x0F, 0x08],       // invd
    ] {
        assert_reported(code, "general protection fault");
    }
}

#[test]
fn core_software_interrupts_in_ring_3_are_faults() {
    // 0x80, and the timer's vector. Hosts that interpret ring 0 call the instruction invalid.
    for code in [[0xCD, 0x80], [0xCD, 0x61]] {
        let report = report_on(&code);
        let refused = report.contains("general protection fault") || report.contains("invalid opcode");
        assert!(refused, "{code:02x?}:\n{report}");
    }
}

#[test]
fn core_port_access_in_ring_3_is_a_fault() {
    for code in [&[0xEC][..], &[0xE6, 0x80], &[0x66, 0xEF]] {
        assert_reported(code, "general protection fault");
    }
}

#[test]
fn core_kernel_memory_is_not_reachable_from_ring_3() {
    for va in [KERNEL_VA, DIRECT_MAP_VA, DIRECT_MAP_VA + 0x1000] {
        for access in [&READ_AT_RAX[..], &WRITE_AT_RAX, &JUMP_TO_RAX] {
            let code = [&load_rax(va), access].concat();
            // Some hosts say "not mapped" of a page that only ring 0 has: less is told, nothing more is reachable.
            let report = report_on(&code);
            let refused = report.contains("page fault") && report.contains(&format!(" {va:#x}: not "));
            assert!(refused, "{code:02x?}:\n{report}");
        }
    }
}

#[test]
fn core_code_and_gate_cannot_be_written() {
    for va in [IMAGE_VA, GATE_VA] {
        let code = [&load_rax(va)[..], &WRITE_AT_RAX].concat();
        assert_reported(&code, &format!("page fault writing {va:#x}: not permitted"));
    }
}

#[test]
fn core_data_cannot_be_executed() {
    // push rax; mov rax, rsp; jmp rax
    let report = report_on(&[0x50, 0x48, 0x89, 0xE0, 0xFF, 0xE0]);
    assert!(report.contains("page fault executing 0x7d"), "{report}");
    assert!(report.contains("not permitted"), "{report}");
}

#[test]
fn core_stack_overflow_is_a_fault_below_the_stack() {
    // push rax, again and again
    let below = STACK_TOP_VA - STACK_BYTES - 8;
    assert_reported(&[0x50, 0xEB, 0xFD], &format!("page fault writing {below:#x}: not mapped"));
}

#[test]
fn core_address_zero_is_not_mapped() {
    let code = [&load_rax(0)[..], &READ_AT_RAX].concat();
    assert_reported(&code, "page fault reading 0x0: not mapped");
}

#[test]
fn core_non_canonical_address_is_a_fault() {
    let code = [&load_rax(0x8000_0000_0000_0000)[..], &READ_AT_RAX].concat();
    assert_reported(&code, "general protection fault");
}

#[test]
fn core_gate_instruction_outside_the_gate_page_is_no_kernel_call() {
    // With the number and status of an exit, which must not happen.
    let exit = [&load_rax(Call::Exit as u64)[..], &[0x31, 0xFF]].concat();
    let breakpoint = [&exit[..], &[0xCC]].concat();
    assert_reported(&breakpoint, "a gate instruction outside the gate page (int3)");
    let syscall = [&exit[..], &[0x0F, 0x05]].concat();
    // Where SYSCALL does not raise the privilege, what it jumps to is a page of the kernel.
    let report = report_on(&syscall);
    let refused = report.contains("outside the gate page (syscall)")
        || (report.contains("page fault executing") && report.contains("not permitted"));
    assert!(refused, "{report}");
}

/// Code that makes kernel calls with these numbers and arguments, and then exits with the status of the last.
fn calls(list: &[(u64, [u64; 5])]) -> Vec<u8> {
    let mut code = Vec::new();
    let load = |code: &mut Vec<u8>, opcode: [u8; 2], value: u64| {
        code.extend(opcode);
        code.extend(value.to_le_bytes());
    };
    for (number, [a, b, c, d, e]) in list {
        load(&mut code, [0x48, 0xBF], *a); // mov rdi
        load(&mut code, [0x48, 0xBE], *b); // mov rsi
        load(&mut code, [0x48, 0xBA], *c); // mov rdx
        load(&mut code, [0x49, 0xBA], *d); // mov r10
        load(&mut code, [0x49, 0xB8], *e); // mov r8
        load(&mut code, [0x48, 0xB8], *number); // mov rax
        load(&mut code, [0x48, 0xB9], GATE_VA); // mov rcx
        code.extend([0xFF, 0xD1]); // call rcx
    }
    code.extend([0x48, 0x89, 0xC7]); // mov rdi, rax
    load(&mut code, [0x48, 0xB8], Call::Exit as u64);
    load(&mut code, [0x48, 0xB9], GATE_VA);
    code.extend([0xFF, 0xD1]);
    code
}

#[test]
fn core_exit_status_is_the_machines() {
    let code = calls(&[(Call::Version as u64, [0; 5])]);
    assert_eq!(end_of(&code), End::PowerOff { status: 0 });
}

#[test]
fn core_unknown_kernel_calls_are_refused() {
    for number in [0x0F, 0x1F, 0x22, (1 << 32) | 3, 0xFF, 1 << 32, u64::MAX, 1 << 63] {
        let code = calls(&[(number, [u64::MAX, 0, 1 << 40, 7, 1])]);
        assert_eq!(end_of(&code), End::PowerOff { status: Error::NoSuchCall as u32 }, "{number:#x}");
    }
}

#[test]
fn core_queue_calls_without_a_capability_are_refused() {
    let bind = |queues, queue, base, size| (Call::QueueBind as u64, [0, queues, queue, base, size]);
    for call in [
        bind(1 << 32, 0, 0, 256),
        bind(u64::MAX, u64::MAX, u64::MAX, u64::MAX),
        bind(7, 3, 0x20_0000, 256),
        (Call::QueueBind as u64, [u64::MAX, 0, 0, 0, 0]),
        (Call::QueueUnbind as u64, [0, 1, 0, 0, 0]),
        (Call::QueueUnbind as u64, [0, u64::MAX, 1 << 40, 0, 0]),
    ] {
        assert_eq!(end_of(&calls(&[call])), End::PowerOff { status: Error::NotFound as u32 }, "{call:x?}");
    }
}
