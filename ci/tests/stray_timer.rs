//! The timer's interrupt, when nobody set it: from the first instruction on it does nothing. The one that was set while the start
//! looked what ends a halt may come late, when the start is in ring 3 and nobody runs yet.
//!
//! A program of its own: it raises interrupts in whatever machine it finds in its process.

use abi::layout::TIMER_VECTOR;
use exovm_ci::Guest;
use kvm_bindings::kvm_msi;
use kvm_ioctls::{Kvm, VmFd};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A machine whose vCPU is interrupted all the time comes no further.
const STORM: Duration = Duration::from_millis(30);
const MACHINES: u32 = 10;

/// This process's machine, as soon as there is one.
fn find_machine() -> VmFd {
    let kvm = Kvm::new().expect("KVM");
    loop {
        for entry in fs::read_dir("/proc/self/fd").expect("descriptors").flatten() {
            if fs::read_link(entry.path()).is_ok_and(|what| what.as_os_str() == "anon_inode:kvm-vm") {
                let number = entry.file_name().to_string_lossy().parse().expect("a number");
                // SAFETY: a copy of the descriptor of a machine, which nobody else has.
                return unsafe { kvm.create_vmfd_from_rawfd(libc::dup(number)) }.expect("a machine");
            }
        }
    }
}

/// Raises the interrupt all the time, from before there is a vCPU that takes it; how often it did.
fn storm() -> u32 {
    let machine = find_machine();
    let (mut begun, mut taken) = (Instant::now(), 0);
    let patience = begun + Duration::from_secs(10);
    while begun.elapsed() < STORM {
        if taken == 0 && Instant::now() < patience {
            begun = Instant::now();
        }
        let message = kvm_msi { address_lo: 0xFEE0_0000, data: TIMER_VECTOR.into(), ..Default::default() };
        taken += u32::from(machine.signal_msi(message).is_ok_and(|delivered| delivered > 0));
    }
    taken
}

#[test]
fn timer_that_nobody_set_does_nothing_from_the_first_instruction_on() {
    for machine in 0..MACHINES {
        let storm = thread::spawn(storm);
        let guest = Guest::image("hello").user_net().start();
        let taken = storm.join().expect("the storm");
        assert!(taken > 100, "machine {machine}: {taken} interrupts");
        assert_eq!(guest.get("/").status(), 200);
        guest.stop();
    }
}
