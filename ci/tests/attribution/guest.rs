//! Burnt by the guest, alone on its vCPU.

use crate::fixture::{assert_between, config, run, undisturbed};
use exovm::placement::IoMode;

/// Cycles in a span, and how many of them.
const SPANS: &str = "span:100:1000000";

#[test]
fn span_and_nested_span_have_what_was_burnt_in_them() {
    undisturbed(|| {
        let run = run(config(&[SPANS, "nested:100:1000000"]));
        run.assert_burnt("span", run.span("burn a"), SPANS);
        run.assert_burnt("inner span", run.span("burn inner"), "nested:100:1000000");
        run.assert_burnt("outer span", run.span("burn outer"), "outer");
        run.assert_explained();
    });
}

#[test]
fn what_no_span_covers_is_in_no_span() {
    undisturbed(|| {
        let run = run(config(&["none:100:2000000"]));
        run.assert_burnt("no span", run.span("no span"), "none:100:2000000");
    });
}

#[test]
fn kernel_call_has_what_it_took() {
    undisturbed(|| {
        let run = run(config(&["call:2000"]));
        run.assert_burnt("kernel calls", run.span("kernel call"), "call:2000");
        run.assert_explained();
    });
}

#[test]
fn page_fault_has_what_its_handler_burnt() {
    undisturbed(|| {
        let run = run(config(&["fault:100:2000000"]));
        run.assert_burnt("page faults", run.span("page fault"), "fault:100:2000000");
    });
}

#[test]
fn turn_is_divided_into_the_ways_and_what_the_vmm_did_and_waited() {
    undisturbed(|| {
        let steps = "turn:60:5000";
        let run = run(config(&[steps]));
        let ways = run.span("leaving the guest") + run.span("entering the guest");
        let turns = run.span("turn");
        let known = run.burnt(steps).own;
        let off_cpu_in_guest = run.span("off CPU");
        assert_between("turns and the ways", turns + ways, turns + ways + off_cpu_in_guest, known, known);
        assert!(ways > 0 && ways < known / 10, "{ways} cycles of {known} on the way");
        // The same time, by the VMM's own stamps.
        let vmm: u64 = ["poll", "wait", "exit handling", "off CPU", "channel", "blocked", "tools"]
            .iter()
            .map(|bucket| run.bucket("vcpu", bucket))
            .sum();
        assert_between(
            "turns, told by the VMM",
            vmm.saturating_sub(run.bucket("vcpu", "off CPU")),
            vmm,
            turns,
            turns,
        );
        // 50 us of each are polled.
        assert!(run.bucket("vcpu", "wait") > known / 2, "{} cycles waited", run.bucket("vcpu", "wait"));
        run.assert_explained();
    });
}

#[test]
fn halt_is_halted_and_what_kernel_and_kvm_take_for_it_is_apart() {
    undisturbed(|| {
        let steps = "halt:60:5000";
        let mut config = config(&[steps]);
        config.io = IoMode::Thread;
        let run = run(config);
        let known = run.burnt(steps).own;
        assert_between("halts", run.span("halt"), run.span("halt") + run.span("off CPU"), known, known);
        let halted = run.bucket("vcpu", "halted");
        assert!(halted > known / 10 * 6 && halted <= known / 100 * 102, "halted {halted} of {known}");
        run.assert_explained();
    });
}
