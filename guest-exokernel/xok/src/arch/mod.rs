//! The architecture: the only folder with assembly. Ring 0 code is compiled without SSE (see `exovm-image`), and uses
//! only instructions that KVM's emulator knows; a test disassembles the kernel to make sure.

pub(crate) mod apic;
pub(crate) mod entry;
mod header;
mod memory;
pub(crate) mod probe;
pub(crate) mod vcpu;

use core::arch::asm;

/// The time stamp counter.
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Writes a model-specific register.
///
/// # Safety
/// The value must keep the kernel's own state (stacks, entry points, paging) intact.
unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller vouches for the value.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}

/// Reads a model-specific register that exists on every x86-64 processor.
fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: only called with architectural registers; reading has no effect.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// The address of the last page fault.
pub(crate) fn fault_address() -> u64 {
    let address: u64;
    // SAFETY: reading CR2 has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack)) };
    address
}

/// The page at this address may have been mapped otherwise before.
pub(crate) fn flush_page(va: u64) {
    // SAFETY: forgetting a translation is always allowed.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack)) };
}

/// Everything of ring 3 may have been mapped otherwise before.
pub(crate) fn flush_all() {
    // SAFETY: the same root again.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack)) };
}
