//! One vCPU ends the machine, in each way there is, while the others are halted with interrupts off: nothing but a signal gets
//! them out of that.

use crate::kernel::{Act, Bare, MANY, MANY_VCPUS};
use exovm::machine::End;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

const VCPUS: u32 = 4;

#[test]
fn power_off_by_any_vcpu_ends_all() {
    for actor in 0..VCPUS {
        assert_eq!(Bare::start(VCPUS, actor, Act::PowerOff).end(), End::PowerOff { status: 7 });
    }
}

#[test]
fn fault_of_any_vcpu_is_reported_from_its_own_record() {
    for actor in 0..VCPUS {
        let report = Bare::start(VCPUS, actor, Act::Fault).report();
        assert_eq!(report, format!("the kernel gave up on vCPU {actor}: by {actor}"));
    }
    assert_eq!(Bare::start(1, 0, Act::Fault).report(), "the kernel gave up: by 0");
}

#[test]
fn triple_fault_of_any_vcpu_is_reported_with_its_number() {
    for actor in 0..VCPUS {
        let bare = Bare::start(VCPUS, actor, Act::TripleFault);
        let report = bare.report();
        assert!(report.starts_with(&format!("vCPU {actor} stopped: triple fault\n")), "{report}");
        assert!(report.contains(&format!("rsi {actor:016x}")), "{report}");
    }
}

#[test]
fn instruction_that_kvm_does_not_know_is_reported_with_the_registers_of_its_vcpu() {
    for actor in 0..VCPUS {
        let report = Bare::start(VCPUS, actor, Act::Unknown).report();
        assert!(report.starts_with(&format!("vCPU {actor} stopped: KVM ")), "{report}");
        assert!(report.contains(&format!("rax 00000000c0de000{actor}")), "{report}");
    }
}

#[test]
fn machine_whose_vcpus_are_all_halted_is_stopped_from_outside() {
    for vcpus in [1, 2, VCPUS] {
        let mut bare = Bare::start(vcpus, 0, Act::Halt);
        bare.wait_until_alive();
        let started = Instant::now();
        assert_eq!(bare.machine.stop(Duration::from_millis(20)), End::Stopped);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn guest_that_is_asked_to_stop_hears_of_it_on_every_vcpu() {
    for actor in 0..VCPUS {
        let bare = Bare::start(VCPUS, actor, Act::Wait);
        let started = Instant::now();
        while !bare.found()[actor as usize].waits {
            assert!(started.elapsed() < Duration::from_secs(20), "{:x?}", bare.found());
            std::thread::sleep(Duration::from_millis(1));
        }
        bare.machine.ask_to_stop();
        assert_eq!(bare.end(), End::PowerOff { status: 6 }, "vCPU {actor}");
    }
}

#[test]
fn machine_that_is_dropped_at_once_takes_its_threads_with_it() {
    let _alone = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..20 {
        // Its vCPUs may be about to enter the guest, or not begun.
        drop(Bare::start(MANY_VCPUS, 0, Act::Halt));
        // The kernel may list a thread for a moment after it has been joined.
        let last = format!("exovm-vcpu{}", MANY_VCPUS - 1);
        let started = Instant::now();
        while threads().contains(&last) {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", threads());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The names of this process's threads.
fn threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.flatten().filter_map(name).map(|name| name.trim().to_owned()).collect()
}
