//! xok, the ring 0 kernel of an exovm machine. It hands hardware out securely and stays out of the way.
//!
//! 1. **No data path here.** Frames, blocks and timers go between ring 3 and the device; the kernel binds, blocks,
//!    revokes.
//! 2. **Binding is a store** into a table that the VMM, which is the hardware, reads: [`tables`].
//! 3. **Every instruction counts.** Some hosts interpret ring 0 at a microsecond an instruction. The VMM prepares page
//!    tables and descriptor tables; nothing is cleared, copied or formatted here except on the way down.
//! 4. **Interrupts are off** except at the halt; an exception in ring 0 is a defect, reported and final.
//!
//! | module | what |
//! | --- | --- |
//! | [`arch`] | entry stubs, instructions, probing the gate and the wake-up |
//! | [`machine`] | boot page, direct map: the only place that makes references to physical memory |
//! | [`kernel`] | what is known of environments, bound queues, spare page tables |
//! | [`schedule`] | who runs, where, and for how long |
//! | [`sleep`] | who sleeps over what |
//! | [`ending`] | the end of an environment, and taking back what it held |
//! | [`vcpus`] | what each vCPU does, in whose slices who runs |
//! | [`tables`] | DMA domains and queue owners |
//! | [`calls`] | the kernel calls |
//! | [`fault`] | the way down |
#![no_std]
#![no_main]

mod account;
mod arch;
mod calls;
mod drain;
mod ending;
mod fault;
mod kernel;
mod machine;
mod schedule;
mod sleep;
mod tables;
mod vcpus;

use abi::boot::phase;
use machine::Machine;

/// First Rust code, on the kernel's own stack, with the tables that the VMM prepared.
extern "sysv64" fn start(boot_gpa: u64) -> ! {
    let machine = Machine::init(boot_gpa);
    machine.stamp(phase::KERNEL);
    arch::apic::enable();
    let wake = arch::probe::wake();
    machine.set_wake(wake);
    arch::probe::gate(machine)
}

/// Second half of the start, once the probe said which instruction raises the privilege.
fn start_with_gate(gate: arch::probe::Gate) -> ! {
    let machine = Machine::get();
    machine.install_gate(gate);
    machine.stamp(phase::ENVIRONMENT);
    let several = machine.boot().vcpus > 1;
    if several {
        arch::vcpu::share();
    }
    if gate == arch::probe::Gate::Syscall {
        arch::entry::use_syscall_gate(several);
    }
    arch::vcpu::begin(0);
    // SAFETY: the first use; nothing else runs.
    let kernel = unsafe { kernel::lock() };
    kernel.init(gate);
    arch::vcpu::release_others();
    kernel.schedule()
}

/// The other vCPUs, on their own stacks. They wait until the first has prepared everything.
extern "sysv64" fn start_other(vcpu: u32) -> ! {
    arch::vcpu::begin(vcpu);
    arch::vcpu::wait_for_first();
    arch::apic::enable();
    // SAFETY: nothing of this vCPU is in the kernel yet.
    let kernel = unsafe { kernel::lock() };
    if kernel.gate == arch::probe::Gate::Syscall {
        arch::entry::use_syscall_gate(true);
    }
    kernel.schedule()
}
