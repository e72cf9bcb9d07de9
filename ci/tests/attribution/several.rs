//! Several environments on a vCPU, and several vCPUs: what one has is not in another's spans.

use crate::fixture::{Run, assert_between, assert_near, config, run, undisturbed};
use exovm::placement::IoMode;

const STEPS: &str = "span:150:2000000";

/// Fails unless an environment's span is what it burnt: its own cycles at least, and no more than with what the host and the kernel took
/// of its slices, and with what it takes to come back: where KVM shadows page tables each page that is touched again is an exit, 300,000
/// cycles in all.
fn assert_burnt(run: &Run, environment: u32, what: &str) -> u64 {
    let burnt = run.burnt_by(STEPS, environment as usize);
    let (found, unsure) = (run.span_of(environment, "burn a"), run.unsure("vcpu"));
    let what = format!("{what}, environment {environment}");
    let most = burnt.own + burnt.gaps + burnt.away / 40;
    assert_between(&what, found.saturating_sub(unsure), found + unsure, burnt.own, most);
    assert!(burnt.gaps < burnt.own / 8, "{what}: {burnt:?}");
    burnt.own
}

#[test]
fn environments_that_share_a_vcpu_have_what_each_burnt() {
    for io in [IoMode::Turn, IoMode::Thread] {
        undisturbed(|| {
            let mut config = config(&[STEPS]);
            (config.environments, config.memory_bytes, config.io) = (Some(2), Some(64 << 20), io);
            let run = run(config);
            for environment in 0..2u32 {
                let name = format!("{io:?}, environment {environment}");
                let burnt = assert_burnt(&run, environment, &format!("{io:?}"));
                let waited = run.span_of(environment, "waiting for a vCPU");
                assert!(waited > burnt / 4, "{name}: the other one had the vCPU, too: {waited}");
                let ran = run.account.environments[environment as usize].ran_cycles[0];
                assert!(ran > burnt, "{name}: had the vCPU for {ran}");
            }
            let ran: u64 = run.account.environments.iter().map(|environment| environment.ran_cycles[0]).sum();
            assert!(
                ran <= run.account.tsc / 100 * 101,
                "one vCPU cannot be had for longer than there is time: {ran}"
            );
            run.assert_explained();
        });
    }
}

#[test]
fn sleep_beside_another_environment_is_asleep() {
    undisturbed(|| {
        let steps = "sleep:40:5000";
        let mut config = config(&[steps]);
        (config.environments, config.memory_bytes) = (Some(2), Some(64 << 20));
        let run = run(config);
        for environment in 0..2u32 {
            let known = run.burnt_by(steps, environment as usize).own;
            let of = |name| run.span_of(environment, name);
            // It waits for a vCPU beside its sleeps, too, while the other one burns.
            let (least, waiting) = (of("asleep") + of("kernel call"), of("waiting for a vCPU"));
            assert_between(&format!("environment {environment}"), least, least + waiting, known, known);
            assert!(of("asleep") > known / 2, "asleep {} of {known}", of("asleep"));
        }
        run.assert_explained();
    });
}

#[test]
fn environments_on_vcpus_of_their_own_have_what_each_burnt() {
    undisturbed(|| {
        let mut config = config(&[STEPS]);
        (config.environments, config.memory_bytes) = (Some(2), Some(64 << 20));
        (config.vcpus, config.io) = (Some(2), IoMode::Thread);
        let run = run(config);
        for environment in 0..2u32 {
            let burnt = run.burnt_by(STEPS, environment as usize);
            assert_near("two vCPUs", run.span_of(environment, "burn a"), burnt.alone());
            let burnt = burnt.own;
            let ran = &run.account.environments[environment as usize].ran_cycles;
            let (own, other) = (ran[environment as usize], ran[1 - environment as usize]);
            assert!(own > burnt && other == 0, "environment {environment} ran {ran:?}");
        }
        run.assert_explained();
    });
}
