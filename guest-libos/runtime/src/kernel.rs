//! Kernel calls, through the gate page.

use abi::call::{Call, Error};
use abi::layout::GATE_VA;
use core::arch::asm;

/// What a call answers.
fn call(number: Call, a: u64, b: u64, c: u64, d: u64) -> Result<u64, Error> {
    let _span = exos_trace::span!("kernel call");
    let (status, value): (u64, u64);
    // SAFETY: the gate page holds the gate instruction and `ret`; the kernel keeps the callee-saved registers, and no
    // call lets it write to the environment's memory.
    unsafe {
        asm!(
            "call {gate}",
            gate = in(reg) GATE_VA,
            inlateout("rax") number as u64 => status,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => value,
            inlateout("r10") d => _,
            lateout("rcx") _, lateout("r8") _, lateout("r9") _, lateout("r11") _,
        );
    }
    match Error::from_status(status) {
        None if status == 0 => Ok(value),
        None => Err(Error::NoSuchCall),
        Some(error) => Err(error),
    }
}

/// Version of the ABI that the kernel speaks.
pub fn version() -> u32 {
    call(Call::Version, 0, 0, 0, 0).map_or(0, |version| version as u32)
}

/// Ends the environment.
pub fn exit(status: u32) -> ! {
    loop {
        // Does not come back; should it, there is nothing else to do.
        let _ = call(Call::Exit, u64::from(status), 0, 0, 0);
    }
}

/// Halts until a bound queue signals or the TSC reaches the deadline (0: none). May return early.
pub fn halt(deadline_tsc: u64) {
    // The call has no error that a sleeper could do anything about.
    let _ = call(Call::Halt, deadline_tsc, 0, 0, 0);
}

/// Binds a queue of a device; see [`Call::QueueBind`].
pub fn queue_bind(device: u32, queue: u32, base_gpa: u64, size: u16) -> Result<(), Error> {
    call(Call::QueueBind, u64::from(device), u64::from(queue), base_gpa, u64::from(size)).map(|_| ())
}

/// Gives a queue back.
pub fn queue_unbind(device: u32, queue: u32) -> Result<(), Error> {
    call(Call::QueueUnbind, u64::from(device), u64::from(queue), 0, 0).map(|_| ())
}
