//! Finding out, by trying, what the host does: whether SYSCALL raises the privilege, and whether a "remote read" message
//! ends a halt. Never by a model name.

use super::{apic, entry, tsc};
use crate::machine::Machine;
use abi::boot::wake;
use abi::call::gate;
use abi::layout::{GATE_VA, REMOTE_READ_MSI_DATA};
use core::sync::atomic::{AtomicBool, Ordering};

/// The instruction that enters the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    /// A trap: where SYSCALL stays in ring 3.
    Int3,
    /// Where it does what the manual says.
    Syscall,
}

static PROBING_GATE: AtomicBool = AtomicBool::new(false);

/// Lets ring 3 execute SYSCALL once. If it raises the privilege, the VMM's LSTAR leads to [`syscall_raised`]. If it only
/// jumps, the kernel's text is a supervisor page and the fetch faults: [`gate_fault`].
pub(crate) fn gate(machine: Machine) -> ! {
    PROBING_GATE.store(true, Ordering::Relaxed);
    machine.install_gate(Gate::Syscall);
    entry::enter_ring3(GATE_VA, machine.places().first().map_or(0, |place| place.stack_va))
}

/// SYSCALL arrived in ring 0.
pub(crate) extern "sysv64" fn syscall_raised() -> ! {
    PROBING_GATE.store(false, Ordering::Relaxed);
    crate::start_with_gate(Gate::Syscall)
}

/// Asked by the fault path: was this exception the probe's? Then the answer is known and the start goes on.
pub(crate) fn gate_fault() {
    if PROBING_GATE.swap(false, Ordering::Relaxed) {
        crate::start_with_gate(Gate::Int3);
    }
}

/// Sends this processor the message that a device would send and halts, with the timer as a safety net. If the timer is
/// what ended the halt, messages of that kind do not wake and a vector must be used.
pub(crate) fn wake() -> u32 {
    let limit = tsc() + Machine::get().boot().tsc_khz * 2; // two milliseconds
    apic::set_deadline(limit);
    apic::send_self(REMOTE_READ_MSI_DATA);
    entry::halt_once();
    let silent = !entry::timer_fired();
    apic::set_deadline(0);
    if silent { wake::SILENT } else { wake::INTERRUPT }
}

const _: () = assert!(gate::SYSCALL[0] == 0x0F && GATE_VA.is_multiple_of(4096));
