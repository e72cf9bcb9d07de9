//! Kernel calls: what comes back, what is preserved, what is refused, and the halt.

use crate::fixture::{run, said};
use exovm::kernel_costs::{Cost, SUBJECTS, measure};

#[test]
fn core_kernel_call_keeps_and_clears_registers_as_documented() {
    let log = run(&["registers"]).held();
    let said: Vec<&str> = said(&log).collect();
    assert_eq!(said.last(), Some(&"0 registers wrong"), "{said:#?}");
    let version = format!("version: status 0 value {}", abi::VERSION);
    assert!(said.contains(&version.as_str()), "{said:#?}");
    assert!(said.contains(&"unknown call: status 1 value 0"), "{said:#?}");
    assert_eq!(said.iter().filter(|line| **line == "halt: status 0 value 0").count(), 2, "{said:#?}");
}

#[test]
fn core_kernel_call_with_any_flags_works_and_keeps_them() {
    let log = run(&["flags"]).held();
    assert_eq!(said(&log).collect::<Vec<_>>(), ["0 wrong with flags"]);
}

#[test]
fn core_unknown_kernel_call_returns_no_such_call() {
    // Between the known ones, behind them, and known ones with something in the upper half.
    for number in [
        "0xf",
        "0x1f",
        "0x22",
        "0x100",
        "0x100000000",
        "0x100000003",
        "0x8000000000000020",
        "0xffffffffffffffff",
    ] {
        let log = run(&["bad-call", number]).held();
        let said: Vec<&str> = said(&log).collect();
        assert!(said.len() == 1 && said[0].ends_with(": Err(NoSuchCall)"), "{said:#?}");
    }
}

/// The kernel has a stack of its own. What faults is the return from the gate page, in ring 3.
#[test]
fn core_kernel_call_with_a_bad_stack_returns_to_a_fault_in_ring3() {
    for (stack, expected) in [
        ("null", &["page fault reading 0x0: not mapped (error code 0x4)"][..]),
        ("kernel", &["page fault reading 0xffff800000001000: not "]),
        // Real processors say the first (SDM 6.15), QEMU's emulation the second.
        (
            "non-canonical",
            &["stack fault (vector 12, error code 0x0)", "general protection fault (vector 13,"],
        ),
    ] {
        let report = run(&["bad-stack", stack]).report();
        let said = |text: &&str| report.starts_with(&format!("environment 0: {text}"));
        assert!(expected.iter().any(said), "{stack}: {report}");
        assert!(report.contains("(gate page)") && report.contains("cs 33"), "{stack}: {report}");
        assert!(report.contains("rax 0000000000000000"), "the call was served: {report}");
    }
}

/// The gate is the page's first instruction; nothing else in that page is a way into the kernel.
#[test]
fn core_gate_page_elsewhere_is_no_gate() {
    for offset in ["3", "0x10", "0x800", "0xffe"] {
        let report = run(&["call-fault", offset]).report();
        // `add [rax], al`: a processor says that it writes, an emulated one may say that it reads first.
        assert!(report.starts_with("environment 0: page fault "), "{offset}: {report}");
        assert!(report.contains("ing 0x666000000000: not mapped"), "{offset}: {report}");
        assert!(report.contains("(gate page)"), "{offset}: {report}");
    }
}

/// On a host that interprets ring 0 the timer is some 35 us late; an emulated or busy host takes its time.
#[test]
fn core_halt_ends_at_its_deadline() {
    const LATE_US_MAX: u64 = 50_000;
    let log = run(&["halt-deadline", "5000", "20"]).held();
    let line = said(&log).next().unwrap_or_default();
    let least_us: u64 = line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    assert!(least_us < LATE_US_MAX, "{line}");
}

/// Counted by KVM where it interprets ring 0. A host that runs ring 0 natively counts nothing; there a call takes some hundred
/// cycles, and one that loops would take more than these.
#[test]
fn kernel_calls_take_no_more_instructions_than_is_known() {
    let mut beyond = Vec::new();
    for subject in SUBJECTS {
        let within = |cost: &Cost| match (subject.ceiling, cost.instructions) {
            (Some(ceiling), Some(instructions)) => (5.0..=ceiling).contains(&instructions),
            (Some(_), None) => cost.cycles.1 < 20_000,
            (None, _) => true,
        };
        // Ends of slices are counted, too, and on a busy host there are more of them in the same number of calls.
        let mut costs = (0..20).map(|_| measure(*subject).unwrap_or_else(|error| panic!("{error}")));
        if !costs.any(|cost| within(&cost)) {
            beyond.push(measure(*subject));
        }
    }
    assert!(beyond.is_empty(), "{beyond:#?}");
}
