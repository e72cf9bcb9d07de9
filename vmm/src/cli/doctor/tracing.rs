//! What the host tells about a guest besides what exovm counts itself: the processor's counters, KVM's tracepoints and
//! statistics.

use super::finding::Finding;
use crate::machine::kvm;
use crate::perf_events::Unavailable;
use crate::perf_events::attributes::Kind;
use crate::perf_events::counter::{Counter, Whose};
use crate::trace::try_tracepoints;

/// Additions for the counter to see.
const WORK: u64 = 1_000_000;
/// PERF_COUNT_HW_CPU_CYCLES.
const CYCLES: u64 = 0;

pub(super) fn pmu() -> Vec<Finding> {
    let finding = match cycles() {
        Ok(cycles) if cycles > 0 => of_guests(),
        Ok(_) => {
            let found = "the processor's counters stand still";
            Finding::odd("pmu", found, WITHOUT_PMU).value("works", false)
        }
        Err(error) => {
            with_todo(Finding::odd("pmu", error.to_string(), WITHOUT_PMU), &error).value("works", false)
        }
    };
    vec![finding]
}

const WITHOUT_PMU: &str = "accounts work without it: they use the TSC; exovm stat has no layer pmu";

/// Cycles that some work of this thread's takes in ring 3.
fn cycles() -> Result<u64, Unavailable> {
    const OWN: libc::pid_t = 0;
    let mut counter =
        Counter::open(Kind::Hardware, CYCLES, OWN, Whose::Ring3).map_err(Unavailable::counter)?;
    (0..WORK).fold(0u64, |sum, number| std::hint::black_box(sum.wrapping_add(number)));
    counter.read().map(|sum| sum.value).map_err(Unavailable::Other)
}

/// It counts; whether also for a guest alone.
fn of_guests() -> Finding {
    const OWN: libc::pid_t = 0;
    let open = |whose| Counter::open(Kind::Hardware, CYCLES, OWN, whose).map_err(Unavailable::counter);
    let found = "the processor's counters count";
    let finding = match (open(Whose::Guest), open(Whose::GuestRing3)) {
        (Ok(_), _) => {
            Finding::good("pmu", found, "exovm stat has the cycles, instructions and misses of a guest")
        }
        (Err(error), Ok(_)) => {
            let means =
                "exovm stat has the cycles, instructions and misses of a guest's ring 3, not of its ring 0";
            with_todo(Finding::good("pmu", found, means), &error)
        }
        (Err(_), Err(error)) => with_todo(Finding::odd("pmu", error.to_string(), WITHOUT_PMU), &error),
    };
    finding.value("works", true)
}

fn with_todo(finding: Finding, error: &Unavailable) -> Finding {
    let todo = error.todo();
    if todo.is_empty() { finding } else { finding.todo(todo) }
}

pub(super) fn kvm_events() -> Vec<Finding> {
    vec![tracepoints(), statistics()]
}

fn tracepoints() -> Finding {
    let finding = match try_tracepoints() {
        Ok(()) => {
            let means = "exovm trace has what KVM does: exits, emulated instructions, halts";
            return Finding::good("tracepoints", "KVM's tracepoints can be recorded", means)
                .value("works", true);
        }
        Err(error) => {
            let means = "accounts and traces work without them; exovm trace has nothing of what KVM does";
            with_todo(Finding::odd("tracepoints", error.to_string(), means), &error)
        }
    };
    finding.value("works", false)
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
