//! What tools cost a machine that is looked at.

use crate::fixture::{burn, config, run_beside, undisturbed};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STEPS: &str = "span:300:2000000";

#[test]
fn what_a_tool_has_a_vcpu_do_is_its_and_not_the_spans() {
    undisturbed(|| {
        let burnt = Arc::new(AtomicU64::new(0));
        let run = run_beside(config(&[STEPS]), |machine| {
            for _ in 0..10 {
                let burnt = Arc::clone(&burnt);
                let job = move |_: &kvm_ioctls::VcpuFd| burnt.fetch_add(burn(16_000_000), Ordering::Relaxed);
                machine.ask(0, job).expect("it runs");
            }
        });
        let burnt = burnt.load(Ordering::Relaxed);
        run.assert_burnt_in("tools", "vcpu", run.bucket("vcpu", "tools"), burnt);
        run.assert_burnt_in("in the VMM, by the guest", "vcpu", run.span("in the VMM"), burnt);
        run.assert_burnt("span", run.span("burn a"), STEPS);
    });
}
