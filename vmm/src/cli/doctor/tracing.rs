//! What the host tells about a guest besides what exovm counts itself: the processor's counters, KVM's tracepoints and
//! statistics.

use super::finding::Finding;
use super::perf;
use crate::machine::kvm;
use std::io::ErrorKind;
use std::path::Path;

/// Additions for the counter to see.
const WORK: u64 = 1_000_000;
/// Where tracefs is mounted, the newer place first.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

pub(super) fn pmu() -> Vec<Finding> {
    let work = || {
        (0..WORK).fold(0u64, |sum, number| std::hint::black_box(sum.wrapping_add(number)));
    };
    let means = "accounts work without it: they use the TSC";
    let finding = match perf::cycles_of(work) {
        Ok(cycles) if cycles > 0 => {
            let means = "cycles, instructions and cache misses can be counted";
            Finding::good("pmu", "the processor's counters count", means).value("works", true)
        }
        Ok(_) => Finding::odd("pmu", "the processor's counters stand still", means).value("works", false),
        Err(error) => {
            let finding =
                Finding::odd("pmu", format!("no hardware counters: {error}"), means).value("works", false);
            match error.kind() {
                ErrorKind::PermissionDenied => finding.todo("sudo sysctl kernel.perf_event_paranoid=1"),
                _ => finding,
            }
        }
    };
    vec![finding]
}

pub(super) fn kvm_events() -> Vec<Finding> {
    vec![tracepoints(), statistics()]
}

fn tracepoints() -> Finding {
    let means = "accounts work without them; exits cannot be told apart by KVM's own reasons";
    let missing = |found: &str| Finding::odd("tracepoints", found, means).value("readable", false);
    let mut denied = false;
    for root in TRACEFS {
        match std::fs::read_to_string(Path::new(root).join("events/kvm/kvm_exit/format")) {
            Ok(_) => {
                let found = format!("KVM's tracepoints can be read in {root}");
                return Finding::good("tracepoints", found, "KVM says why and when it leaves a guest")
                    .value("readable", true);
            }
            Err(error) => denied |= error.kind() == ErrorKind::PermissionDenied,
        }
    }
    if denied {
        missing("KVM's tracepoints may not be read by this user")
            .todo("run as root, or: sudo mount -o remount,gid=$(id -g),mode=750 /sys/kernel/tracing")
    } else {
        missing("KVM's tracepoints are not there").todo("sudo mount -t tracefs tracefs /sys/kernel/tracing")
    }
}

/// KVM_GET_STATS_FD.
fn statistics() -> Finding {
    const CAP_BINARY_STATS_FD: i32 = kvm_bindings::KVM_CAP_BINARY_STATS_FD as i32;
    // `check_extension_raw` of the system: KVM answers for all its machines.
    let offered =
        kvm::open().is_ok_and(|kvm| kvm.check_extension_raw(CAP_BINARY_STATS_FD as libc::c_ulong) > 0);
    let finding = if offered {
        let means = "exits, emulated instructions and faults of a guest are counted by KVM";
        Finding::good("statistics", "KVM offers its statistics of a machine", means)
    } else {
        Finding::odd("statistics", "KVM offers no statistics", "KVM's own counters of a guest cannot be read")
    };
    finding.value("offered", offered)
}
