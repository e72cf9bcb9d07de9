//! Instructions that ring 3 may not execute: each ends the environment at the instruction, with the exception that the
//! manuals say, and not the VMM.

use crate::fixture::{Host, run};
use abi::layout::{KERNEL_CODE_SELECTOR, KERNEL_DATA_SELECTOR, TIMER_VECTOR};

/// The report on a case names the exception, the function with the instruction, and the registers.
fn assert_reported(case: &str, expected: &str) {
    assert_report(case, expected, &run(&[case]).report());
}

fn assert_report(case: &str, expected: &str, report: &str) {
    assert!(
        report.starts_with(&format!("environment 0: {expected}")),
        "{case} should be {expected:?}: {report}"
    );
    let symbol = format!("probe_forbidden_{}", case.trim_start_matches("stray-").replace('-', "_"));
    let at = report.lines().nth(1).unwrap_or_default();
    assert!(at.trim_start().starts_with("at 0x40") && at.contains(&symbol), "{case} at {symbol}: {report}");
    assert_registers(report);
}

/// All registers are in a report, and the selectors are ring 3's.
fn assert_registers(report: &str) {
    let names = abi::fault::REGISTER_NAMES.iter().chain(&["rip", "rsp", "rflags", "cr2"]);
    for name in names {
        assert!(report.contains(&format!(" {name} ")), "{name} is missing: {report}");
    }
    assert!(report.contains("cs 33  ss 2b"), "{report}");
}

fn assert_general_protection(cases: &[&str], error_code: u32) {
    for case in cases {
        assert_reported(case, &format!("general protection fault (vector 13, error code {error_code:#x})"));
    }
}

#[test]
fn core_privileged_instruction_returns_general_protection() {
    assert_general_protection(&["hlt", "cli", "sti", "clts", "invlpg", "wbinvd"], 0);
    assert_general_protection(&["rdmsr", "wrmsr", "swapgs", "sysret"], 0);
    assert_general_protection(&["lgdt", "lidt", "ltr", "lldt"], 0);
    assert_general_protection(&["mov-from-cr3", "mov-cr0", "mov-cr3", "mov-cr4", "xsetbv"], 0);
}

/// So no breakpoint of one environment's is another's.
#[test]
fn core_debug_registers_are_out_of_reach() {
    assert_general_protection(&["mov-dr0", "mov-dr3", "mov-dr6", "mov-dr7"], 0);
    assert_general_protection(&["mov-from-dr0", "mov-from-dr6", "mov-from-dr7"], 0);
}

#[test]
fn core_port_access_returns_general_protection() {
    assert_general_protection(&["port-in", "port-out", "port-out-string"], 0);
}

/// The error code is the vector's place in the IDT (SDM 6.13): the gates belong to the processor, not to `int n`.
#[test]
fn core_software_interrupt_returns_general_protection() {
    for (case, vector) in [
        ("int-divide", 0u32),
        ("int-page-fault", 14),
        ("int-timer", TIMER_VECTOR.into()),
        ("int-unused", 0x80),
    ] {
        let outcome = run(&[case]);
        let host = outcome.host;
        let report = outcome.report();
        let expected = match host {
            // QEMU's emulation of a processor multiplies by the size of a 64-bit gate.
            Host::Native if report.contains(&format!("{:#x})", vector << 4 | 2)) => {
                format!("general protection fault (vector 13, error code {:#x})", vector << 4 | 2)
            }
            Host::Native => {
                format!("general protection fault (vector 13, error code {:#x})", vector << 3 | 2)
            }
            Host::Interpreting => "invalid opcode (vector 6, error code 0x0)".to_owned(),
        };
        assert_report(case, &expected, &report);
    }
}

#[test]
fn core_kernel_selector_returns_general_protection() {
    let code = u32::from(KERNEL_CODE_SELECTOR);
    assert_general_protection(&["iret-ring0", "far-return-ring0"], code);
    assert_general_protection(&["load-kernel-data"], u32::from(KERNEL_DATA_SELECTOR));
}

#[test]
fn core_exception_of_the_program_is_reported_as_what_it_is() {
    assert_reported("divide", "divide error (vector 0, error code 0x0)");
    assert_reported("invalid-opcode", "invalid opcode (vector 6, error code 0x0)");
    assert_reported("single-step", "debug exception (vector 1, error code 0x0)");
}

#[test]
fn core_breakpoint_outside_the_gate_page_returns_stray_gate() {
    for case in ["stray-int3", "stray-int3-long"] {
        let report = run(&[case]).report();
        assert!(
            report.starts_with("environment 0: a gate instruction outside the gate page (int3)"),
            "{report}"
        );
        assert!(report.contains("probe_forbidden_int3"), "{report}");
        assert_registers(&report);
    }
}

/// Where SYSCALL raises the privilege, the kernel sees where it comes from. Where it only jumps, the jump ends at a page
/// of the kernel's, in ring 3, and the report finds the way back.
#[test]
fn core_syscall_outside_the_gate_page_returns_stray_gate() {
    let report = run(&["stray-syscall"]).report();
    assert!(
        report.starts_with("environment 0: a gate instruction outside the gate page (syscall)"),
        "{report}"
    );
    assert!(report.contains("probe_forbidden_syscall"), "{report}");
    assert_registers(&report);
}
