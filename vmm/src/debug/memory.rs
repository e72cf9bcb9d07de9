//! The guest's memory as a debugger sees it: by the addresses of an environment, whatever their rights, or of the kernel.

use crate::machine::boot::paging::leaf;
use crate::tables::Memory;
use abi::fault::{FaultRecord, TrapFrame};
use abi::header::KernelHeader;
use abi::layout::{KERNEL_VA, PAGE_BYTES};
use abi::paging::NO_EXECUTE;
use exovm_image::program::Symbol;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

/// The memory of one machine, and where what in it is.
pub(super) struct GuestMemory {
    memory: Arc<Memory>,
    /// Roots of the page tables, by place.
    pub(super) roots_gpa: Vec<u64>,
    kernel: KernelHeader,
    /// Fault records, one a vCPU.
    fault_gpa: u64,
    /// The kernel's functions that an exception comes by on its way to the VMM.
    exception_path: Vec<std::ops::Range<u64>>,
}

impl GuestMemory {
    pub(super) fn new(
        memory: Arc<Memory>,
        roots_gpa: Vec<u64>,
        kernel: KernelHeader,
        fault_gpa: u64,
        symbols: &[Symbol],
    ) -> Self {
        // Labels of assembly have no length: the next begins where they end.
        let ends = symbols.iter().skip(1).map(|symbol| symbol.va).chain([u64::MAX]);
        let exception_path = symbols
            .iter()
            .zip(ends)
            .filter(|(symbol, _)| {
                let name = format!("{:#}", rustc_demangle::demangle(&symbol.name));
                name.starts_with("xok_")
                    || name.starts_with("xok::fault::")
                    || name.contains("Machine>::control")
                    || name.ends_with("Machine::control")
            })
            .map(|(symbol, end)| {
                symbol.va..if symbol.len_bytes == 0 { end } else { symbol.va + symbol.len_bytes }
            })
            .collect();
        Self { memory, roots_gpa, kernel, fault_gpa, exception_path }
    }

    /// The environment with these page tables.
    pub(super) fn environment_of(&self, root_gpa: u64) -> Option<u32> {
        let number = self.roots_gpa.iter().position(|&root| root == root_gpa & !(PAGE_BYTES - 1));
        number.map(|number| number as u32)
    }

    /// Root of an environment's page tables.
    pub(super) fn root_gpa(&self, environment: u32) -> Option<u64> {
        self.roots_gpa.get(environment as usize).copied()
    }

    /// Whether an exception on its way to the VMM executes this.
    pub(super) fn is_exception_path(&self, va: u64) -> bool {
        va >= KERNEL_VA && self.exception_path.iter().any(|range| range.contains(&va))
    }

    /// The guest-physical addresses at which `va` may be executed by somebody.
    pub(super) fn executable_at(&self, va: u64) -> Vec<u64> {
        let executable = |&root| leaf(&self.memory, root, va).filter(|(_, entry)| entry & NO_EXECUTE == 0);
        let mut found: Vec<u64> = self.roots_gpa.iter().filter_map(executable).map(|(gpa, _)| gpa).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether an environment could execute something at `va`.
    pub(super) fn can_execute(&self, environment: u32, va: u64) -> bool {
        let leaf = self.root_gpa(environment).and_then(|root| leaf(&self.memory, root, va));
        leaf.is_some_and(|(_, entry)| entry & NO_EXECUTE == 0)
    }

    pub(super) fn physical_byte(&self, gpa: u64) -> Option<u8> {
        self.memory.read_obj(GuestAddress(gpa)).ok()
    }

    pub(super) fn set_physical_byte(&self, gpa: u64, byte: u8) {
        // It was read before; memory does not go.
        let _ = self.memory.write_obj(byte, GuestAddress(gpa));
    }

    /// The pieces, each within a page, of `len` bytes from `va` on: offset, guest-physical address, length. Ends at the first that
    /// is not mapped.
    pub(super) fn pieces(
        &self,
        root_gpa: u64,
        va: u64,
        len: usize,
    ) -> impl Iterator<Item = (usize, u64, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done >= len {
                return None;
            }
            let at = va.checked_add(done as u64)?;
            let (gpa, _) = leaf(&self.memory, root_gpa, at)?;
            let piece = (len - done).min((PAGE_BYTES - at % PAGE_BYTES) as usize);
            done += piece;
            Some((done - piece, gpa, piece))
        })
    }

    /// Reads a piece. Whether it is memory.
    pub(super) fn read_physical(&self, gpa: u64, bytes: &mut [u8]) -> bool {
        self.memory.read_slice(bytes, GuestAddress(gpa)).is_ok()
    }

    /// Writes a piece. Whether it is memory.
    pub(super) fn write_physical(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.memory.write_slice(bytes, GuestAddress(gpa)).is_ok()
    }

    /// Reads all of `bytes` from `va` on, or nothing.
    fn read(&self, root_gpa: u64, va: u64, bytes: &mut [u8]) -> Option<()> {
        let mut done = 0;
        for (offset, gpa, len) in self.pieces(root_gpa, va, bytes.len()) {
            if !self.read_physical(gpa, &mut bytes[offset..offset + len]) {
                return None;
            }
            done += len;
        }
        (done == bytes.len()).then_some(())
    }

    /// Writes all of `bytes` from `va` on, as far as it is mapped.
    fn write(&self, root_gpa: u64, va: u64, bytes: &[u8]) {
        for (offset, gpa, len) in self.pieces(root_gpa, va, bytes.len()) {
            self.write_physical(gpa, &bytes[offset..offset + len]);
        }
    }

    pub(super) fn byte(&self, root_gpa: u64, va: u64) -> Option<u8> {
        let mut byte = [0];
        self.read(root_gpa, va, &mut byte)?;
        Some(byte[0])
    }

    pub(super) fn word(&self, root_gpa: u64, va: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(root_gpa, va, &mut word)?;
        Some(u64::from_le_bytes(word))
    }

    pub(super) fn set_word(&self, root_gpa: u64, va: u64, word: u64) {
        self.write(root_gpa, va, &word.to_le_bytes());
    }

    /// The frame of an exception, on the kernel's stack.
    pub(super) fn frame(&self, root_gpa: u64, va: u64) -> Option<TrapFrame> {
        let mut bytes = [0; size_of::<TrapFrame>()];
        self.read(root_gpa, va, &mut bytes)?;
        TrapFrame::read_from_bytes(&bytes).ok()
    }

    pub(super) fn set_frame(&self, root_gpa: u64, va: u64, frame: &TrapFrame) {
        self.write(root_gpa, va, frame.as_bytes());
    }

    /// A vCPU's fault record.
    pub(super) fn record(&self, vcpu: u32) -> Option<FaultRecord> {
        let mut bytes = [0; size_of::<FaultRecord>()];
        let gpa = self.fault_gpa + u64::from(vcpu) * size_of::<FaultRecord>() as u64;
        self.memory.read_slice(&mut bytes, GuestAddress(gpa)).ok()?;
        FaultRecord::read_from_bytes(&bytes).ok()
    }

    /// Where the flags lie that ring 3 gets back when a vCPU leaves the kernel, if it came from there: the processor pushed them
    /// at the top of the vCPU's stack.
    pub(super) fn ring3_flags_va(&self, root_gpa: u64, vcpu: u32) -> Option<u64> {
        let top_va = self.kernel.stack_top_va + u64::from(vcpu) * self.kernel.stack_stride_bytes;
        let selector = |offset| self.word(root_gpa, top_va - offset);
        let is_ring3 = selector(8) == Some(abi::layout::USER_DATA_SELECTOR.into())
            && selector(32) == Some(abi::layout::USER_CODE_SELECTOR.into());
        is_ring3.then_some(top_va - 24)
    }
}
