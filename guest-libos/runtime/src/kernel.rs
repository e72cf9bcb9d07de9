//! Kernel calls, through the gate page.

use crate::pages;
use abi::call::{Call, Error};
use abi::capability::Handle;
use abi::layout::GATE_VA;
use abi::statistics;
use core::arch::asm;

/// What a call answers.
fn call(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    let _span = exos_trace::span!("kernel call");
    pass(number, arguments)
}

/// Through the gate and back, on the same vCPU.
fn pass(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    count_call(number);
    let [a, b, c, d, e] = arguments;
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
            inlateout("r8") e => _,
            lateout("rcx") _, lateout("r9") _, lateout("r11") _,
        );
    }
    count_error(number, status);
    match Error::from_status(status) {
        None if status == 0 => Ok(value),
        None => Err(Error::NoSuchCall),
        Some(error) => Err(error),
    }
}

/// Counts a call that is about to be made: in ring 3, since one that ring 0 counts costs it a microsecond where that is interpreted.
#[inline(always)]
pub(crate) fn count_call(number: Call) {
    statistics::add(&pages::statistics().calls[number as usize].calls, 1);
}

/// Counts what came of it.
#[inline(always)]
pub(crate) fn count_error(number: Call, status: u64) {
    if status != 0 {
        statistics::add(&pages::statistics().calls[number as usize].errors, 1);
    }
}

/// One of the calls that give the CPU away: no register but the stack pointer comes back.
fn give_way(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    let _span = exos_trace::span!("asleep");
    count_call(number);
    let [a, b, c, d, e] = arguments;
    let status: u64;
    // SAFETY: as in `call`; what the compiler may not lose is on the stack meanwhile.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "call {gate}",
            "pop rbp",
            "pop rbx",
            gate = in(reg) GATE_VA,
            inlateout("rax") number as u64 => status,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            inlateout("r10") d => _,
            inlateout("r8") e => _,
            lateout("r12") _, lateout("r13") _, lateout("r14") _, lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    exos_trace::guest::ledger().back(exos_trace::parts!("kernel call", "asleep", "waiting for a vCPU"));
    count_error(number, status);
    Error::from_status(status).map_or(Ok(0), Err)
}

/// Version of the ABI that the kernel speaks.
pub fn version() -> u32 {
    call(Call::Version, [0; 5]).map_or(0, |version| version as u32)
}

/// Ends the environment.
pub fn exit(status: u32) -> ! {
    loop {
        // Does not come back; should it, there is nothing else to do.
        let _ = call(Call::Exit, [u64::from(status), 0, 0, 0, 0]);
    }
}

/// Halts until a bound queue signals or the TSC reaches the deadline (0: none). May return early. Beside other environments it
/// is a sleep.
pub fn halt(deadline_tsc: u64) {
    if !crate::sleep::alone() {
        return crate::sleep::Watch::nap(deadline_tsc);
    }
    // The call has no error that a sleeper could do anything about.
    let _span = exos_trace::span!("halt");
    let _ = pass(Call::Halt, [deadline_tsc, 0, 0, 0, 0]);
}

/// Gives the CPU to others until a term of [`abi::call::sleep`] holds, somebody wakes us, or the TSC reaches the deadline
/// (0: none). May return early.
pub fn sleep(deadline_tsc: u64, terms: [u64; 4]) {
    let [a, b, c, d] = terms;
    // As for `halt`.
    let _ = give_way(Call::Sleep, [deadline_tsc, a, b, c, d]);
}

/// Gives the CPU to that environment, or to whoever is next.
pub fn yield_to(environment: Handle) -> Result<(), Error> {
    give_way(Call::Yield, [environment.0, 0, 0, 0, 0]).map(drop)
}

/// Any call, by its arguments: for what has no function of its own here.
pub fn raw(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    match number {
        Call::Sleep | Call::Yield | Call::MessageCall | Call::MessageReceive | Call::MessageReplyReceive => {
            give_way(number, arguments)
        }
        _ => call(number, arguments),
    }
}

/// Binds a queue of a device; see [`Call::QueueBind`].
pub fn queue_bind(device: u32, queue: u32, base_gpa: u64, size: u16) -> Result<(), Error> {
    let (queues, number) = queue_of(device, queue)?;
    call(Call::QueueBind, [Handle::NONE.0, queues.0, number, base_gpa, u64::from(size)])?;
    crate::sleep::bound(device, queue, base_gpa, size);
    Ok(())
}

/// Gives a queue back.
pub fn queue_unbind(device: u32, queue: u32) -> Result<(), Error> {
    let (queues, number) = queue_of(device, queue)?;
    call(Call::QueueUnbind, [Handle::NONE.0, queues.0, number, 0, 0])?;
    crate::sleep::unbound(device, queue);
    Ok(())
}

/// The capability that the VMM gave us for a device's queues, and the queue's number.
fn queue_of(device: u32, queue: u32) -> Result<(Handle, u64), Error> {
    let queues = pages::environment().capabilities.queues;
    let queues = queues.get(device as usize).copied().ok_or(Error::NotFound)?;
    let number = abi::queue::owner_index(device, queue).ok_or(Error::NotFound)?;
    Ok((queues, number as u64))
}
