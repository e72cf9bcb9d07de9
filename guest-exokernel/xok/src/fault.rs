//! The way down: an exception that nobody handles, or the kernel's own surrender. The record is filled, the VMM told; it
//! does the formatting, finds the symbols and ends the machine. Exceptions that may be a debugger's are shown to the VMM before.

use crate::arch::entry::TrapFrame;
use crate::arch::{fault_address, probe, vcpu};
use crate::kernel::Kernel;
use crate::machine::{Machine, direct_map};
use abi::boot::control;
use abi::fault::{
    FaultRecord, GO_ON, KIND_ENVIRONMENT, KIND_KERNEL, KIND_PANIC, KIND_SLICE_OVERRUN, KIND_STRAY_GATE,
};
use abi::upcall;
use core::fmt::Write;
use core::sync::atomic::Ordering;

/// Not a processor's vector: SYSCALL outside the gate page.
pub(crate) const VECTOR_STRAY_SYSCALL: u64 = 0x100;
const VECTOR_DEBUG: u64 = 1;
const VECTOR_BREAKPOINT: u64 = 3;
/// RFLAGS.TF: ring 3 is being stepped.
const TRAP_FLAG: u64 = 1 << 8;
/// Those that have a stack of their own.
const VECTOR_NMI: u64 = 2;
const VECTOR_DOUBLE_FAULT: u64 = 8;
const VECTOR_MACHINE_CHECK: u64 = 18;

/// Every exception but a kernel call. Comes back from a debugger's, with the frame as that left it.
pub(crate) extern "sysv64" fn exception(frame: &mut TrapFrame) {
    let from_ring3 = frame.cs & 3 == 3;
    if matches!(frame.vector, VECTOR_NMI | VECTOR_DOUBLE_FAULT | VECTOR_MACHINE_CHECK) {
        // On a stack of their own, where neither the lock nor anything else can be relied on.
        describe(frame, vcpu::current_on_any_stack());
        down();
    }
    if from_ring3 {
        probe::gate_fault();
    }
    // Without the lock: whoever has it may be on a vCPU that a debugger has stopped.
    if is_debuggers(frame) {
        return;
    }
    if from_ring3 {
        // SAFETY: ring 3 ran until now, and the lock is taken.
        let kernel = unsafe { crate::kernel::lock() };
        kernel.leave_if_ended();
        let fault_va = kernel.upcall_page().fault_va.load(Ordering::Relaxed);
        kernel.upcall(fault_va, frame, upcall::FAULT, fault_address());
        describe(frame, kernel.current);
        end_of_environment(kernel, STATUS_OF_FAULT + frame.vector as u32);
    }
    // SAFETY: if it was in the kernel, that does not go on.
    describe(frame, unsafe { crate::kernel::enter() }.current);
    down()
}

/// Whether it is an exception that a debugger asked for: the VMM knows.
fn is_debuggers(frame: &mut TrapFrame) -> bool {
    if !matches!(frame.vector, VECTOR_DEBUG | VECTOR_BREAKPOINT) && frame.rflags & TRAP_FLAG == 0 {
        return false;
    }
    // The kernel lies in the last 2 GiB.
    Machine::get().control(control::BREAKPOINT, &raw const *frame as u32);
    // SAFETY: a field of the frame; the VMM may have written it.
    unsafe { (&raw const frame.vector).read_volatile() == GO_ON }
}

/// The environment that runs did not give the CPU away.
pub(crate) fn overrun(kernel: &mut Kernel, frame: &TrapFrame) -> ! {
    describe(frame, kernel.current);
    record().kind = KIND_SLICE_OVERRUN;
    end_of_environment(kernel, STATUS_OF_OVERRUN)
}

/// The environment that runs ends, for the reason in the record; with the last one the machine does.
fn end_of_environment(kernel: &mut Kernel, status: u32) -> ! {
    if !kernel.has_others() {
        down();
    }
    Machine::get().control(control::ENVIRONMENT_FAULT, 1);
    let current = kernel.current;
    kernel.end(current, status);
    kernel.schedule()
}

/// Exit status of an environment that ran on: as of a process that the system ended for the same reason.
const STATUS_OF_OVERRUN: u32 = 152;

/// Exit status of an environment that faulted: this and the vector.
const STATUS_OF_FAULT: u32 = 128;

/// Fills the record.
fn describe(frame: &TrapFrame, environment: u32) {
    let from_ring3 = frame.cs & 3 == 3;
    let kind = match (from_ring3, frame.vector) {
        (false, _) => KIND_KERNEL,
        (true, VECTOR_BREAKPOINT | VECTOR_STRAY_SYSCALL) => KIND_STRAY_GATE,
        (true, _) => KIND_ENVIRONMENT,
    };
    let record = record();
    record.kind = kind;
    record.environment = environment;
    record.vector = frame.vector;
    record.error_code = frame.error_code;
    record.address = fault_address();
    record.rip = frame.rip;
    record.cs = frame.cs;
    record.rflags = frame.rflags;
    record.rsp = frame.rsp;
    record.ss = frame.ss;
    record.registers = frame.registers;
}

/// The kernel cannot go on.
pub(crate) fn give_up(why: &str) -> ! {
    let record = record();
    record.kind = KIND_PANIC;
    let len = why.len().min(record.message.len());
    record.message[..len].copy_from_slice(&why.as_bytes()[..len]);
    record.message_len = len as u64;
    down()
}

/// This vCPU's.
fn record() -> &'static mut FaultRecord {
    let (vcpu, _) = vcpu::here();
    let gpa = Machine::get().boot().fault_gpa + u64::from(vcpu) * size_of::<FaultRecord>() as u64;
    // SAFETY: the records are RAM that the VMM reserved for this; whoever fills one is the vCPU's only user of it.
    unsafe { &mut *direct_map::<FaultRecord>(gpa).cast_mut() }
}

/// The VMM reports the record and ends the machine.
fn down() -> ! {
    Machine::get().control(control::FAULT, 1);
    loop {
        // The VMM does not come back from that.
        core::hint::spin_loop();
    }
}

/// Formats into the record's message, cutting what does not fit.
struct Message<'a> {
    record: &'a mut FaultRecord,
}

impl Write for Message<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            let at = self.record.message_len as usize;
            let Some(slot) = self.record.message.get_mut(at) else { return Ok(()) };
            *slot = byte;
            self.record.message_len += 1;
        }
        Ok(())
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let record = record();
    record.kind = KIND_PANIC;
    record.message_len = 0;
    // Cannot fail: `Message` cuts instead.
    let _ = write!(Message { record }, "{info}");
    down()
}
