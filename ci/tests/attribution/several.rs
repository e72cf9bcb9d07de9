//! Several environments on a vCPU, and several vCPUs: what one has is not in another's spans.

use crate::fixture::{assert_between, assert_near, config, run};
use exovm::placement::IoMode;

const STEPS: &str = "span:150:2000000";

#[test]
fn environments_that_share_a_vcpu_have_what_each_burnt() {
    for io in [IoMode::Turn, IoMode::Thread] {
        let mut config = config(&[STEPS]);
        (config.environments, config.memory_bytes, config.io) = (Some(2), Some(64 << 20), io);
        let run = run(config);
        let burnt = [0, 1].map(|number| run.burnt_by(STEPS, number).own);
        for environment in 0..2u32 {
            let name = format!("{io:?}, environment {environment}");
            assert_near(&name, run.span_of(environment, "burn a"), burnt[environment as usize]);
            let waited = run.span_of(environment, "waiting for a vCPU");
            assert!(waited > burnt[0] / 4, "{name}: the other one had the vCPU, too: {waited}");
            let ran = run.account.environments[environment as usize].ran_cycles[0];
            assert!(ran > burnt[0], "{name}: had the vCPU for {ran}");
        }
        let ran: u64 = run.account.environments.iter().map(|environment| environment.ran_cycles[0]).sum();
        assert!(
            ran <= run.account.tsc / 100 * 101,
            "one vCPU cannot be had for longer than there is time: {ran}"
        );
        assert!(run.unattributed().abs() < 0.01, "{io:?}: unattributed: {}", run.unattributed());
    }
}

#[test]
fn sleep_beside_another_environment_is_asleep() {
    let steps = "sleep:40:5000";
    let mut config = config(&[steps]);
    (config.environments, config.memory_bytes) = (Some(2), Some(64 << 20));
    let run = run(config);
    for environment in 0..2u32 {
        let known = run.burnt_by(steps, environment as usize).own;
        let of = |name| run.span_of(environment, name);
        // It waits for a vCPU beside its sleeps, too, while the other one burns.
        let (least, waiting) = (of("asleep") + of("kernel call"), of("waiting for a vCPU"));
        assert_between(&format!("environment {environment}"), least, least + waiting, known);
        assert!(of("asleep") > known / 2, "asleep {} of {known}", of("asleep"));
    }
    assert!(run.unattributed().abs() < 0.01, "unattributed: {}", run.unattributed());
}

#[test]
fn environments_on_vcpus_of_their_own_have_what_each_burnt() {
    let mut config = config(&[STEPS]);
    (config.environments, config.memory_bytes) = (Some(2), Some(64 << 20));
    (config.vcpus, config.io) = (Some(2), IoMode::Thread);
    let run = run(config);
    for environment in 0..2u32 {
        let burnt = run.burnt_by(STEPS, environment as usize).own;
        assert_near(&format!("environment {environment}"), run.span_of(environment, "burn a"), burnt);
        let ran = &run.account.environments[environment as usize].ran_cycles;
        let (own, other) = (ran[environment as usize], ran[1 - environment as usize]);
        assert!(own > burnt && other == 0, "environment {environment} ran {ran:?}");
    }
    assert!(run.unattributed().abs() < 0.02, "unattributed: {}", run.unattributed());
}
