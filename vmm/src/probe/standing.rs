//! Who stands where, while no vCPU is in the guest: every instruction pointer that will be loaded again. When a jump is written
//! over the beginning of a function, nobody may stand inside it; who does is put to where that instruction is now, in the
//! trampoline.
//!
//! Instruction pointers are kept in the vCPUs' registers; where a vCPU in ring 0 has interrupted ring 3, on the top of its
//! stack; of environments that wait, in the kernel's page; of interrupted ones, in their own upcall page, and for some
//! instructions on their stack (`exos_slice_end` goes back by a RET). What is found on a stack may be anything, so that is not
//! changed but waited for.

use super::ProbeError;
use crate::machine::boot::paging::translate;
use crate::machine::{AskError, Pause, Shared};
use crate::tables::Memory;
use abi::environment::KernelPage;
use abi::header::KernelHeader;
use abi::layout::{KERNEL_PAGE_VA, STACK_BYTES, STACK_TOP_VA, UPCALL_VA};
use abi::upcall::UpcallPage;
use std::mem::offset_of;
use std::ops::Range;
use vm_memory::{Bytes, GuestAddress};

/// Where an instruction pointer is kept.
#[derive(Clone, Copy, Debug)]
enum Kept {
    /// In a vCPU's register.
    Register(u32),
    /// In guest memory.
    Memory(u64),
}

/// An instruction pointer that will be used again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) va: u64,
    kept: Kept,
}

/// The words that an interrupt pushes, from the top of the stack down: SS, RSP, RFLAGS, CS, RIP.
const RIP_BELOW_TOP: u64 = 40;
const CS_BELOW_TOP: u64 = 32;

/// Everybody that is known.
pub(super) fn all(machine: &Shared, pause: &Pause, header: &KernelHeader) -> Result<Vec<Standing>, AskError> {
    let memory = &machine.memory;
    let mut found = Vec::new();
    for vcpu in 0..machine.vcpus {
        let registers = pause.ask(vcpu, |vcpu| (vcpu.get_regs(), vcpu.get_sregs()))?;
        let (Ok(registers), Ok(system)) = registers else { return Err(AskError::Failed) };
        found.push(Standing { va: registers.rip, kept: Kept::Register(vcpu) });
        let top = header.stack_top_va.wrapping_add(u64::from(vcpu) * header.stack_stride_bytes);
        if system.cs.selector & 3 == 0
            && let Some(gpa) = translate(memory, system.cr3, top.wrapping_sub(RIP_BELOW_TOP))
            && let Some(cs_gpa) = translate(memory, system.cr3, top.wrapping_sub(CS_BELOW_TOP))
            && word(memory, cs_gpa).is_some_and(|cs| cs & 3 == 3)
        {
            found.extend(kept_at(memory, gpa));
        }
    }
    for &root_gpa in machine.reporter.roots_gpa() {
        for va in [
            KERNEL_PAGE_VA + offset_of!(KernelPage, resume) as u64,
            UPCALL_VA + offset_of!(UpcallPage, frame) as u64,
        ] {
            let gpa = translate(memory, root_gpa, va);
            found.extend(gpa.and_then(|gpa| kept_at(memory, gpa)));
        }
    }
    Ok(found)
}

fn word(memory: &Memory, gpa: u64) -> Option<u64> {
    memory.read_obj(GuestAddress(gpa)).ok()
}

fn kept_at(memory: &Memory, gpa: u64) -> Option<Standing> {
    word(memory, gpa).map(|va| Standing { va, kept: Kept::Memory(gpa) })
}

impl Standing {
    /// Puts it elsewhere.
    pub(super) fn put(&self, machine: &Shared, pause: &Pause, va: u64) -> Result<(), ProbeError> {
        match self.kept {
            Kept::Memory(gpa) => Ok(machine.memory.write_obj(va, GuestAddress(gpa))?),
            Kept::Register(vcpu) => pause
                .ask(vcpu, move |vcpu| {
                    let mut registers = vcpu.get_regs()?;
                    registers.rip = va;
                    vcpu.set_regs(&registers)
                })?
                .map_err(|_| ProbeError::Machine(AskError::Failed)),
        }
    }
}

/// Whether a word of an environment's stack is an address in this range.
pub(super) fn is_on_a_stack(machine: &Shared, inside: &Range<u64>) -> bool {
    const CHUNK: usize = 4096;
    let mut page = [0; CHUNK];
    let first = STACK_TOP_VA - STACK_BYTES;
    machine.reporter.roots_gpa().iter().any(|&root_gpa| {
        (0..STACK_BYTES).step_by(CHUNK).any(|offset| {
            let Some(gpa) = translate(&machine.memory, root_gpa, first + offset) else { return false };
            if machine.memory.read_slice(&mut page, GuestAddress(gpa)).is_err() {
                return false;
            }
            let mut words =
                page.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            words.any(|word| inside.contains(&word))
        })
    })
}
