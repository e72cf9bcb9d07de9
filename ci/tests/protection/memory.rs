//! Addresses that ring 3 may not read, write or execute.

use crate::fixture::{Host, image, run};
use abi::layout::*;
use exovm::machine::boot::CONTROL_GPA;
use exovm_image::program::Access;

/// What the processor says (SDM 4.7): error code bits present 1, write 2, user 4, fetch 16.
#[derive(Clone, Copy)]
enum Why {
    NotPermitted,
    NotMapped,
}

/// Bits of the error code that a host which interprets ring 0 takes from its own page tables, for the upper half.
const HOSTS_OWN: u64 = 1 | 8;

/// `read`, `write` or `execute` at `va` is reported as a page fault there, from ring 3, in the function that did it.
fn assert_page_fault(verb: &str, va: u64, why: Why) {
    let outcome = run(&[verb, &format!("{va:#x}")]);
    let vague = outcome.host == Host::Interpreting && va > u64::MAX / 2;
    let report = outcome.report();
    let (how, code) = match verb {
        "read" => ("reading", 4),
        "write" => ("writing", 6),
        _ => ("executing", 0x14),
    };
    let (text, code) = match why {
        Why::NotPermitted => ("not permitted", code | 1),
        Why::NotMapped => ("not mapped", code),
    };
    let start = format!("environment 0: page fault {how} {va:#x}: ");
    assert!(report.starts_with(&start), "{start}: {report}");
    if vague {
        assert_eq!(error_code(&report) & !HOSTS_OWN, code & !HOSTS_OWN, "{report}");
    } else {
        assert!(
            report[start.len()..].starts_with(&format!("{text} (error code {code:#x})")),
            "{code:#x}: {report}"
        );
    }
    assert!(report.contains(&format!("probe_{verb}")) || verb == "execute", "{report}");
    assert!(report.contains("probe::main"), "the back trace goes on: {report}");
    assert!(report.contains(&format!("cr2 {va:x}")), "{report}");
}

fn error_code(report: &str) -> u64 {
    let digits = report.split("(error code 0x").nth(1).and_then(|rest| rest.split(')').next());
    u64::from_str_radix(digits.unwrap_or_default(), 16).expect("an error code")
}

/// First and last byte of each part.
fn ends(va: u64, len_bytes: u64) -> [u64; 2] {
    [va, va + len_bytes - 1]
}

#[test]
fn core_kernel_is_not_reachable() {
    for segment in image().kernel.segments {
        for va in ends(segment.va, segment.len_bytes) {
            for verb in ["read", "write", "execute"] {
                assert_page_fault(verb, va, Why::NotPermitted);
            }
        }
    }
}

#[test]
fn core_direct_map_is_not_reachable() {
    let memory_bytes = image().manifest.memory_mib << 20;
    for gpa in [0, 0x1000, memory_bytes - 1] {
        for verb in ["read", "write", "execute"] {
            assert_page_fault(verb, DIRECT_MAP_VA + gpa, Why::NotPermitted);
        }
    }
}

#[test]
fn core_control_register_of_the_vmm_is_not_reachable() {
    assert_page_fault("write", DIRECT_MAP_VA + CONTROL_GPA, Why::NotPermitted);
    assert_page_fault("write", CONTROL_GPA, Why::NotMapped);
    assert_page_fault("write", WINDOW_VA + CONTROL_GPA, Why::NotMapped);
    // The turn register is a neighbour, and its own page only.
    assert_page_fault("write", TURN_VA + PAGE_BYTES, Why::NotPermitted);
}

#[test]
fn core_page_of_another_is_not_in_the_window() {
    let memory_bytes = image().manifest.memory_mib << 20;
    for gpa in [0, 0x1000, memory_bytes] {
        assert_page_fault("read", WINDOW_VA + gpa, Why::NotMapped);
        assert_page_fault("write", WINDOW_VA + gpa, Why::NotMapped);
    }
}

#[test]
fn core_doorbell_without_a_device_is_not_mapped() {
    // Of a device that there is not, and of a queue that the first one has not.
    for (device, queue) in [(7, 0), (0, 31)] {
        let va = doorbell_va(device, queue).expect("there is a place for it");
        assert_page_fault("write", va, Why::NotMapped);
    }
}

#[test]
fn core_own_code_and_constants_cannot_be_written_nor_data_executed() {
    for segment in image().program.segments {
        let [first, last] = ends(segment.va, segment.len_bytes);
        if segment.access != Access::Write {
            assert_page_fault("write", first, Why::NotPermitted);
            assert_page_fault("write", last, Why::NotPermitted);
        }
        if segment.access != Access::Execute {
            assert_page_fault("execute", first, Why::NotPermitted);
        }
    }
}

#[test]
fn core_fixed_pages_cannot_be_written_nor_executed() {
    for va in [GATE_VA, TIME_VA, ENVIRONMENT_VA, HOST_VA] {
        assert_page_fault("write", va, Why::NotPermitted);
    }
    for va in
        [TIME_VA, ENVIRONMENT_VA, HOST_VA, STATUS_VA, TURN_VA, ACCOUNT_VA, STATISTICS_VA, LOG_VA, TRACE_VA]
    {
        assert_page_fault("execute", va, Why::NotPermitted);
    }
}

#[test]
fn core_heap_and_stack_cannot_be_executed() {
    for case in ["exec-heap", "exec-stack"] {
        let report = run(&[case]).report();
        assert!(report.starts_with("environment 0: page fault executing 0x"), "{report}");
        assert!(report.contains("not permitted (error code 0x15)"), "{report}");
        assert!(report.contains("probe::memory::exec_"), "the back trace names the caller: {report}");
    }
}

#[test]
fn core_null_is_not_mapped() {
    for va in [0, 8, 0xFFF] {
        assert_page_fault("read", va, Why::NotMapped);
        assert_page_fault("write", va, Why::NotMapped);
    }
}

#[test]
fn core_stack_overflow_returns_page_fault_below_the_stack() {
    let report = run(&["stack-overflow"]).report();
    let address = report.split("writing 0x").nth(1).and_then(|rest| rest.split(':').next());
    let address = u64::from_str_radix(address.unwrap_or_default(), 16).expect("an address");
    let guard = STACK_TOP_VA - STACK_BYTES - PAGE_BYTES..STACK_TOP_VA - STACK_BYTES;
    assert!(guard.contains(&address), "{report}");
    assert!(report.contains("not mapped (error code 0x6)"), "{report}");
    assert!(report.matches("from 0x").count() > 3 && report.contains("probe_deeper+"), "{report}");
}
