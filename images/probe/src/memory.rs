//! Addresses that ring 3 may not read, write or execute, and the stack's end. All accesses go through three functions,
//! so that the test finds their names in the report.

use crate::{BROKEN, Case, number};
use abi::layout::*;
use alloc::boxed::Box;
use core::arch::asm;

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[
    ("read", |arguments| read(number(arguments.next())?)),
    ("write", |arguments| write(number(arguments.next())?)),
    ("execute", |arguments| execute(number(arguments.next())?)),
    ("read-kernel", |_| read(KERNEL_VA)),
    ("write-kernel", |_| write(KERNEL_VA)),
    ("exec-kernel", |_| execute(KERNEL_VA)),
    ("read-direct-map", |_| read(DIRECT_MAP_VA)),
    ("write-text", |_| write(main_va())),
    ("exec-heap", exec_heap),
    ("exec-stack", exec_stack),
    ("write-gate-page", |_| write(GATE_VA)),
    ("write-time-page", |_| write(TIME_VA)),
    ("write-environment-page", |_| write(ENVIRONMENT_VA)),
    ("write-host-page", |_| write(HOST_VA)),
    ("null", |_| read(0)),
    ("stack-overflow", stack_overflow),
];

/// A `ret`, for code where no code may be.
const RET: u8 = 0xC3;

/// Reads a byte. The machine should not survive it.
fn read(va: u64) -> Option<u32> {
    log::info!("probe: reading {va:#x}");
    let byte = probe_read(va);
    log::error!("probe: {va:#x} is {byte:#x}");
    Some(BROKEN)
}

/// Writes a byte. The machine should not survive it.
fn write(va: u64) -> Option<u32> {
    log::info!("probe: writing {va:#x}");
    probe_write(va);
    log::error!("probe: {va:#x} was written");
    Some(BROKEN)
}

/// Calls an address. The machine should not survive it.
fn execute(va: u64) -> Option<u32> {
    log::info!("probe: executing {va:#x}");
    probe_execute(va);
    log::error!("probe: {va:#x} was executed");
    Some(BROKEN)
}

fn main_va() -> u64 {
    crate::main as fn() -> u32 as usize as u64
}

fn exec_heap(_: Arguments<'_>) -> Option<u32> {
    let code = Box::new([RET; 64]);
    execute(code.as_ptr() as u64)
}

fn exec_stack(_: Arguments<'_>) -> Option<u32> {
    let code = core::hint::black_box([RET; 64]);
    execute(code.as_ptr() as u64)
}

fn stack_overflow(_: Arguments<'_>) -> Option<u32> {
    // The page below the lowest.
    log::info!("probe: growing to {:#x}", STACK_TOP_VA - STACK_BYTES - PAGE_BYTES);
    Some(probe_deeper(1) as u32)
}

/// In assembly, since the compiler may assume that a pointer of Rust's points at something.
#[unsafe(no_mangle)]
#[inline(never)]
extern "sysv64" fn probe_read(va: u64) -> u8 {
    let byte;
    // SAFETY: reads one byte; if the environment may not, that ends it, which is what the case is about.
    unsafe {
        asm!("mov {byte}, [{va}]", va = in(reg) va, byte = out(reg_byte) byte, options(nostack, readonly))
    };
    byte
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "sysv64" fn probe_write(va: u64) {
    // SAFETY: if the environment may not write there, that ends it. If it may, the case has failed and ends it at once.
    unsafe { asm!("mov byte ptr [{va}], 0x5A", va = in(reg) va, options(nostack)) };
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "sysv64" fn probe_execute(va: u64) {
    // SAFETY: calls code that, if it is any, is a `ret` or the case has failed.
    unsafe { asm!("call {va}", va = in(reg) va, clobber_abi("sysv64")) };
}

/// Calls itself until the stack ends.
#[unsafe(no_mangle)]
#[inline(never)]
extern "sysv64" fn probe_deeper(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    if room[0] == 0 { 0 } else { probe_deeper(depth + 1) + room[63] }
}
