//! Asking a vCPU's thread, with real vCPUs: wherever the vCPU is, it comes out soon, between two instructions, and goes on as if
//! nothing had been.

use crate::kernel::{Act, Bare};
use crate::serving::{Done, cheetah_serves_while};
use abi::layout::{IMAGE_VA, KERNEL_VA, WINDOW_VA};
use exovm::account::ledger::now_tsc;
use exovm::machine::{AskError, End, Machine};
use exovm::placement::IoMode;
use exovm_ci::Guest;
use exovm_netns::in_namespace;
use kvm_bindings::kvm_regs;
use std::time::{Duration, Instant};

/// What an ask may take on a host that is busy with other tests. (Alone it is tens of microseconds.)
const SOON: Duration = Duration::from_millis(250);
const ROUNDS: u32 = 300;

/// Registers and code selector of a vCPU, and how long it took to get them.
fn registers(machine: &Machine, vcpu: u32) -> (kvm_regs, u16, Duration) {
    let begun = Instant::now();
    let read = machine.ask(vcpu, |fd| (fd.get_regs().expect("registers"), fd.get_sregs().expect("more")));
    let (registers, system) = read.expect("it runs");
    (registers, system.cs.selector, begun.elapsed())
}

/// The median of what many asks take.
fn median(machine: &Machine, vcpu: u32, mut check: impl FnMut(&kvm_regs, u16)) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let (registers, cs, time) = registers(machine, vcpu);
            check(&registers, cs);
            time
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn vcpus_that_are_halted_answer_and_stay_halted() {
    const VCPUS: u32 = 4;
    let bare = Bare::start(VCPUS, 0, Act::Halt);
    bare.wait_until_alive();
    let entry = bare.header.entry_va;
    // Until the first is at its halt, too.
    std::thread::sleep(Duration::from_millis(200));
    let halts: Vec<u64> = (0..VCPUS).map(|vcpu| registers(&bare.machine, vcpu).0.rip).collect();
    for vcpu in 0..VCPUS {
        let time = median(&bare.machine, vcpu, |registers, cs| {
            assert_eq!((registers.rip, cs & 3), (halts[vcpu as usize], 0), "vCPU {vcpu}");
            assert!((KERNEL_VA..).contains(&registers.rip) && registers.rip >= entry);
            assert_eq!(registers.rsi, u64::from(vcpu), "the thread that answered is that vCPU's");
        });
        println!("halted: {time:?}");
        assert!(time < SOON, "{time:?}");
    }
    assert_eq!(bare.machine.ask(VCPUS, |_| ()), Err(AskError::NoSuchVcpu));
}

#[test]
fn vcpu_that_waits_in_a_turn_answers_behind_the_instruction_that_took_it() {
    // The turn has no deadline and nothing comes: who asks is all that ends it, and behind it the guest ends the machine.
    let (mut first, mut times) = (None, Vec::new());
    for _ in 0..20 {
        let bare = Bare::in_a_turn();
        // Polling is over, it waits.
        std::thread::sleep(Duration::from_millis(5));
        let (registers, _, time) = registers(&bare.machine, 0);
        times.push(time);
        // The next instruction is `mov dword ptr [r10 + ..], 9`, and so it is each time.
        assert_eq!(*first.get_or_insert(registers.rip), registers.rip);
        assert_eq!(bare.end(), End::PowerOff { status: 9 });
        assert_eq!(bare.machine.ask(0, |_| ()), Err(AskError::Ended));
    }
    times.sort();
    assert!(times[times.len() / 2] < SOON, "{times:?}");
}

#[test]
fn vcpus_that_compute_in_ring_3_answer_where_they_are() {
    for vcpus in [1, 3] {
        let guest = Guest::image("probe").arguments(&["spin"]).no_network().vcpus(vcpus).io(IoMode::Auto);
        let guest = guest.launch();
        let machine = guest.machine();
        let in_program =
            |registers: &kvm_regs, cs| cs & 3 == 3 && (IMAGE_VA..WINDOW_VA).contains(&registers.rip);
        let begun = Instant::now();
        while !matches!(registers(machine, 0), (registers, cs, _) if in_program(&registers, cs)) {
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        let mut found = 0;
        let time = median(machine, 0, |registers, cs| found += u32::from(in_program(registers, cs)));
        println!("computing: {time:?}, {found} of {ROUNDS} in the program");
        assert!(found > ROUNDS * 9 / 10, "{found} of {ROUNDS}");
        let mut cycles = [u64::MAX; 2];
        for _ in 0..ROUNDS {
            let took = machine.ask(0, |fd| {
                let begun = now_tsc();
                let registers = fd.get_regs();
                let between = now_tsc();
                let system = fd.get_sregs();
                (registers.is_ok() && system.is_ok()).then(|| [between - begun, now_tsc() - between])
            });
            let took = took.expect("it runs").expect("KVM tells");
            cycles = std::array::from_fn(|which| cycles[which].min(took[which]));
        }
        println!("KVM_GET_REGS {} cycles, KVM_GET_SREGS {}", cycles[0], cycles[1]);
        assert!(time < SOON, "{time:?}");
        // Those that have nothing to run are halted in the kernel.
        for vcpu in 1..vcpus {
            let time = median(machine, vcpu, |_, _| ());
            println!("idle in xok: {time:?}");
            assert!(time < SOON, "{time:?}");
        }
    }
}

#[test]
fn cheetah_that_is_asked_all_the_time_serves_every_request() {
    let ask = |machine: &Machine, vcpu| {
        registers(machine, vcpu);
    };
    let judge = |Done { times, longest }: &Done| {
        assert!(*times > 100 && *longest < 4 * SOON, "{times} asks, the longest {longest:?}");
    };
    in_namespace!(|| cheetah_serves_while(ask, judge));
}
