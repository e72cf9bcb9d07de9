//! What tools cost a machine that is looked at.

use crate::fixture::{assert_between, assert_near, burn, config, run_beside};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: &str = "span:150:2000000";

#[test]
fn what_a_tool_has_a_vcpu_do_is_its_and_not_the_spans() {
    let burnt = Arc::new(AtomicU64::new(0));
    let run = run_beside(config(&[STEPS]), |machine| {
        for _ in 0..40 {
            let burnt = Arc::clone(&burnt);
            let job = move |_: &kvm_ioctls::VcpuFd| burnt.fetch_add(burn(2_000_000), Ordering::Relaxed);
            machine.ask(0, job).expect("it runs");
        }
    });
    let burnt = burnt.load(Ordering::Relaxed);
    assert_near("tools", run.bucket("vcpu", "tools"), burnt);
    assert_near("in the VMM, by the guest", run.span("in the VMM"), burnt);
    let (span, own) = (run.span("burn a"), run.burnt(STEPS).own);
    // A tenth of it is ways out and in, where the host emulates KVM, and what the host's host takes.
    assert_between("span", span, span, own, own / 10 * 11);
}
