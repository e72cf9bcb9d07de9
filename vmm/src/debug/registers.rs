//! Registers, as gdb orders them, of whoever is stopped: on a vCPU, in front of the kernel's exception frame, in a fault record,
//! or waiting for the CPU.

use super::hub::TRAP_FLAG;
use abi::environment::KernelPage;
use abi::fault::{FaultRecord, TrapFrame};
use abi::layout::{KERNEL_DATA_SELECTOR, USER_CODE_SELECTOR, USER_DATA_SELECTOR};
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use kvm_bindings::{kvm_regs, kvm_sregs, kvm_xsave};
use std::sync::atomic::Ordering;

/// Where in [`X86_64CoreRegs::regs`] the general registers of a frame or record are: the same order, with `rsp` in between.
const GENERAL: [usize; 15] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15];
/// `rsp` in [`X86_64CoreRegs::regs`].
const RSP: usize = 7;
/// The words of [`KernelPage::resume`] behind `rip` and `rsp`, in [`X86_64CoreRegs::regs`].
const RESUMED: [usize; 6] = [0, 3, 5, 4, 10, 8];
/// Flags of ring 3 when it gets the CPU.
const RESUME_FLAGS: u32 = 0x202;

/// Only the lower half of RFLAGS has flags.
fn flags(rflags: u64) -> u32 {
    (rflags & !TRAP_FLAG) as u32
}

/// Those of an exception's frame. Vector registers are the vCPU's.
pub(super) fn of_frame(frame: &TrapFrame) -> X86_64CoreRegs {
    let mut registers = selectors(frame.cs as u16, frame.ss as u16);
    for (at, value) in GENERAL.into_iter().zip(frame.registers) {
        registers.regs[at] = value;
    }
    registers.regs[RSP] = frame.rsp;
    registers.rip = frame.rip;
    registers.eflags = flags(frame.rflags);
    registers
}

/// Into a frame, but for selectors and flags that are the kernel's business.
pub(super) fn into_frame(registers: &X86_64CoreRegs, frame: &mut TrapFrame) {
    for (at, value) in GENERAL.into_iter().zip(&mut frame.registers) {
        *value = registers.regs[at];
    }
    frame.rsp = registers.regs[RSP];
    frame.rip = registers.rip;
    frame.rflags = changed_flags(frame.rflags, registers.eflags);
}

/// Of what a debugger wants in the flags, that which changes nothing but results: status and direction.
fn changed_flags(rflags: u64, wanted: u32) -> u64 {
    const RESULTS: u64 = 0xCD5;
    (rflags & !RESULTS) | (u64::from(wanted) & RESULTS)
}

/// Those of a vCPU.
pub(super) fn of_vcpu(general: &kvm_regs, system: &kvm_sregs) -> X86_64CoreRegs {
    let mut registers = selectors(system.cs.selector, system.ss.selector);
    let g = general;
    registers.regs = [
        g.rax, g.rbx, g.rcx, g.rdx, g.rsi, g.rdi, g.rbp, g.rsp, g.r8, g.r9, g.r10, g.r11, g.r12, g.r13,
        g.r14, g.r15,
    ];
    registers.rip = g.rip;
    registers.eflags = flags(g.rflags);
    registers
}

/// Into a vCPU's.
pub(super) fn into_vcpu(registers: &X86_64CoreRegs, general: &mut kvm_regs) {
    let g = general;
    [
        g.rax, g.rbx, g.rcx, g.rdx, g.rsi, g.rdi, g.rbp, g.rsp, g.r8, g.r9, g.r10, g.r11, g.r12, g.r13,
        g.r14, g.r15,
    ] = registers.regs;
    g.rip = registers.rip;
    g.rflags = changed_flags(g.rflags, registers.eflags);
}

/// Those that a fault record tells. Vector registers are the vCPU's.
pub(super) fn of_record(record: &FaultRecord) -> X86_64CoreRegs {
    of_frame(&TrapFrame {
        registers: record.registers,
        vector: record.vector,
        error_code: record.error_code,
        rip: record.rip,
        cs: record.cs,
        rflags: record.rflags,
        rsp: record.rsp,
        ss: record.ss,
    })
}

/// Those that an environment will find when it gets the CPU: the kernel keeps eight words, and the resume page clears everything
/// else.
pub(super) fn of_waiting(page: &KernelPage) -> X86_64CoreRegs {
    let mut registers = selectors(USER_CODE_SELECTOR, USER_DATA_SELECTOR);
    let word = |at: usize| page.resume[at].load(Ordering::Relaxed);
    (registers.rip, registers.regs[RSP]) = (word(0), word(1));
    for (at, name) in RESUMED.into_iter().enumerate() {
        registers.regs[name] = word(at + 2);
    }
    registers.eflags = RESUME_FLAGS;
    registers.fpu.fctrl = 0x37F;
    registers.fpu.ftag = 0xFFFF;
    registers.mxcsr = 0x1F80;
    registers
}

/// Into the words that the kernel keeps. False: something else was changed, for which there is no place.
pub(super) fn into_waiting(registers: &X86_64CoreRegs, page: &KernelPage) -> bool {
    let mut expected = of_waiting(page);
    (expected.rip, expected.regs[RSP]) = (registers.rip, registers.regs[RSP]);
    for name in RESUMED {
        expected.regs[name] = registers.regs[name];
    }
    if expected != *registers {
        return false;
    }
    let words = [registers.rip, registers.regs[RSP]].into_iter().chain(RESUMED.map(|at| registers.regs[at]));
    for (slot, word) in page.resume.iter().zip(words) {
        slot.store(word, Ordering::Relaxed);
    }
    true
}

fn selectors(cs: u16, ss: u16) -> X86_64CoreRegs {
    let mut registers = X86_64CoreRegs::default();
    let data = if cs & 3 == 0 { KERNEL_DATA_SELECTOR } else { USER_DATA_SELECTOR };
    let segments = &mut registers.segments;
    (segments.cs, segments.ss) = (cs.into(), ss.into());
    (segments.ds, segments.es, segments.fs, segments.gs) =
        (data.into(), data.into(), data.into(), data.into());
    registers
}

/// The legacy region of XSAVE (SDM 13.4.1), which KVM always has: x87 and SSE registers.
const ST_OFFSET: usize = 32;
const XMM_OFFSET: usize = 160;
const MXCSR_OFFSET: usize = 24;

fn bytes_of(area: &kvm_xsave) -> Vec<u8> {
    area.region[..128].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn half(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Adds what a vCPU has of x87 and SSE registers.
pub(super) fn add_extended(area: &kvm_xsave, registers: &mut X86_64CoreRegs) {
    let bytes = bytes_of(area);
    registers.fpu.fctrl = half(&bytes, 0);
    registers.fpu.fstat = half(&bytes, 2);
    registers.fpu.ftag = full_tags(bytes[4]);
    registers.fpu.fop = half(&bytes, 6);
    registers.fpu.fioff = word(&bytes, 8);
    registers.fpu.fiseg = half(&bytes, 12);
    registers.fpu.fooff = word(&bytes, 16);
    registers.fpu.foseg = half(&bytes, 20);
    registers.mxcsr = word(&bytes, MXCSR_OFFSET);
    for (at, register) in registers.st.iter_mut().enumerate() {
        register.copy_from_slice(&bytes[ST_OFFSET + 16 * at..][..10]);
    }
    for (at, register) in registers.xmm.iter_mut().enumerate() {
        let mut value = [0; 16];
        value.copy_from_slice(&bytes[XMM_OFFSET + 16 * at..][..16]);
        *register = u128::from_le_bytes(value);
    }
}

/// Two bits a register, of one: gdb wants the form of FSAVE. Those in use are shown as valid, whatever lies in them.
fn full_tags(abridged: u8) -> u32 {
    (0..8).map(|at| if abridged & 1 << at == 0 { 3 << (2 * at) } else { 0 }).sum()
}

/// Puts x87 and SSE data registers and MXCSR into a vCPU's area.
pub(super) fn into_extended(registers: &X86_64CoreRegs, area: &mut kvm_xsave) {
    /// XSTATE_BV: x87 and SSE registers are not in their initial state.
    const LEGACY: u32 = 3;
    /// XSTATE_BV lies behind the legacy region.
    const STATE_WORD: usize = 128;
    /// Of MXCSR, what a processor without any extension has; others may fault.
    const MXCSR_BITS: u32 = 0xFFBF;
    let mut bytes = bytes_of(area);
    for (at, register) in registers.st.iter().enumerate() {
        bytes[ST_OFFSET + 16 * at..][..10].copy_from_slice(register);
    }
    for (at, register) in registers.xmm.iter().enumerate() {
        bytes[XMM_OFFSET + 16 * at..][..16].copy_from_slice(&register.to_le_bytes());
    }
    bytes[MXCSR_OFFSET..][..4].copy_from_slice(&(registers.mxcsr & MXCSR_BITS).to_le_bytes());
    for (slot, bytes) in area.region.iter_mut().zip(bytes.chunks_exact(4)) {
        *slot = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    area.region[STATE_WORD] |= LEGACY;
}
