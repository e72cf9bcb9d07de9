//! Pauses of real vCPUs: wherever they are, they stay out of the guest until the pause is over, and go on as if nothing had been.

use crate::kernel::Bare;
use crate::serving::{Done, cheetah_serves_while};
use exovm::machine::{AskError, End, Machine, Pause};
use exovm::placement::IoMode;
use exovm_ci::Guest;
use exovm_netns::in_namespace;
use std::time::{Duration, Instant};

/// Long enough for a guest that is not stopped to have gone on.
const A_WHILE: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(20);
/// A program that counts in rbx for ever.
const COUNT: [u8; 5] = [0x48, 0xFF, 0xC3, 0xEB, 0xFB];

/// Where each vCPU is, with all its registers.
fn state(pause: &Pause, vcpus: u32) -> Vec<(kvm_bindings::kvm_regs, u16)> {
    let read = |vcpu| pause.ask(vcpu, |fd| (fd.get_regs().expect("there"), fd.get_sregs().expect("there")));
    (0..vcpus)
        .map(|vcpu| read(vcpu).expect("it runs"))
        .map(|(registers, system)| (registers, system.cs.selector))
        .collect()
}

fn assert_stays(machine: &Machine, vcpus: u32) {
    let pause = machine.pause().expect("it runs");
    let before = state(&pause, vcpus);
    std::thread::sleep(A_WHILE);
    assert_eq!(state(&pause, vcpus), before);
}

#[test]
fn vcpus_that_compute_are_halted_or_wait_in_a_turn_stay_where_they_are_paused() {
    for vcpus in [1, 3] {
        let guest = Guest::image("hello").no_network().execute(&COUNT).vcpus(vcpus).io(IoMode::Auto).launch();
        std::thread::sleep(Duration::from_millis(200));
        let mut counts = std::collections::BTreeSet::new();
        let begun = Instant::now();
        for round in 0.. {
            if round >= 10 && (counts.len() > 1 || begun.elapsed() > PATIENCE) {
                break;
            }
            assert_stays(guest.machine(), vcpus);
            let pause = guest.machine().pause().expect("it runs");
            let states = state(&pause, vcpus);
            counts.extend(states.iter().find(|(_, cs)| cs & 3 == 3).map(|(registers, _)| registers.rbx));
        }
        assert!(counts.len() > 1, "in between it goes on: {counts:x?}");
    }
    let bare = Bare::in_a_turn();
    let pause = bare.machine.pause().expect("it runs");
    assert!(bare.machine.wait(Some(A_WHILE)).is_none(), "behind its turn it would have ended");
    drop(pause);
    assert_eq!(bare.end(), End::PowerOff { status: 9 });
}

#[test]
fn paused_machine_that_is_stopped_ends() {
    for vcpus in [1, 2] {
        let guest = Guest::image("probe").arguments(&["spin"]).no_network().vcpus(vcpus).io(IoMode::Auto);
        let guest = guest.launch();
        let machine = guest.machine();
        let pause = machine.pause().expect("it runs");
        let begun = Instant::now();
        assert_eq!(machine.end(Duration::from_millis(20)), End::Stopped);
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(pause.ask(0, |_| ()), Err(AskError::Ended));
        assert!(matches!(machine.pause(), Err(AskError::Ended)));
    }
}

#[test]
fn cheetah_that_is_paused_again_and_again_serves_every_request() {
    let pause = |machine: &Machine, _| {
        let pause = machine.pause().expect("it runs");
        std::thread::sleep(Duration::from_micros(500));
        drop(pause);
    };
    let judge = |Done { times, .. }: &Done| assert!(*times > 20, "{times} pauses");
    in_namespace!(|| cheetah_serves_while(pause, judge));
}
