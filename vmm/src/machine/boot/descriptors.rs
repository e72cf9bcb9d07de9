//! Descriptor tables and the initial state of a vCPU: straight into long mode, at the kernel's entry.

use crate::machine::MachineError;
use crate::machine::memory::Placer;
use crate::machine::vcpu::ExtendedState;
use crate::tables::Memory;
use abi::boot::VCPUS_MAX;
use abi::header::KernelHeader;
use abi::layout::{
    KERNEL_CODE_SELECTOR, KERNEL_DATA_SELECTOR, PAGE_BYTES, STAR_SELECTORS, TSS_SELECTOR, tss_selector,
};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress};

/// Bytes of a 64-bit TSS without its I/O bitmap; a limit right behind it forbids all ports in ring 3.
const TSS_BYTES: u64 = 104;
/// From one vCPU's TSS to the next one's; they lie in one page.
const TSS_STRIDE_BYTES: u64 = 128;
const _: () = assert!(TSS_STRIDE_BYTES * VCPUS_MAX as u64 <= PAGE_BYTES);
/// Last byte of the GDT: the last vCPU's TSS descriptor ends there.
const GDT_LIMIT: u16 = TSS_SELECTOR + 16 * VCPUS_MAX as u16 - 1;

const GDT_KERNEL_CODE: u64 = 0x00AF_9B00_0000_FFFF;
const GDT_KERNEL_DATA: u64 = 0x00CF_9300_0000_FFFF;
const GDT_USER_DATA: u64 = 0x00CF_F300_0000_FFFF;
const GDT_USER_CODE: u64 = 0x00AF_FB00_0000_FFFF;
const GDT_TSS_BUSY: u64 = 0x0000_8B00_0000_0000;

const MSR_STAR: u32 = 0xC000_0081;
const MSR_LSTAR: u32 = 0xC000_0082;
const MSR_SFMASK: u32 = 0xC000_0084;
const MSR_KERNEL_GS_BASE: u32 = 0xC000_0102;
/// Flags cleared by SYSCALL: trap, interrupt, direction, I/O privilege, nested task, alignment check.
const SFMASK: u64 = 0x4_7700;

/// CR0: protection, monitor coprocessor, extension type, numeric error, write protect, paging.
const CR0: u64 = 0x8001_0033;
/// CR4: physical address extension, FXSAVE, unmasked SIMD exceptions.
const CR4: u64 = 0x620;
/// CR4: XSAVE enabled, where there is such a thing.
const CR4_OSXSAVE: u64 = 1 << 18;
/// EFER: SYSCALL enable, long mode enable and active, no-execute enable.
const EFER: u64 = 0xD01;

/// Where the tables lie.
#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    gdt_va: u64,
    idt_va: u64,
    /// The first vCPU's; the others follow.
    tss_va: u64,
}

/// What is a vCPU's own at the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Number of the vCPU.
    pub(crate) vcpu: u32,
    /// Root of the page tables.
    pub(crate) root_gpa: u64,
    /// Goes into `rdi`.
    pub(crate) boot_page_gpa: u64,
    /// What it has of the registers that XSAVE knows.
    pub(crate) extended: ExtendedState,
}

impl Descriptors {
    /// Writes GDT and IDT, which all vCPUs share, and a TSS for each that there may be. `direct_map_va` is where ring 0 sees guest-physical memory.
    pub fn place(
        memory: &Memory,
        placer: &mut Placer,
        kernel: &KernelHeader,
        direct_map_va: u64,
    ) -> Result<Self, MachineError> {
        let gdt = placer.pages(PAGE_BYTES)?;
        let idt = placer.pages(PAGE_BYTES)?;
        let tss = placer.pages(PAGE_BYTES)?;
        let tss_va = direct_map_va + tss;
        let write = |gpa: u64, value: u64| memory.write_obj(value, GuestAddress(gpa));
        write(gdt + u64::from(KERNEL_CODE_SELECTOR), GDT_KERNEL_CODE)?;
        write(gdt + u64::from(KERNEL_DATA_SELECTOR), GDT_KERNEL_DATA)?;
        write(gdt + 0x28, GDT_USER_DATA)?;
        write(gdt + 0x30, GDT_USER_CODE)?;
        for vcpu in 0..VCPUS_MAX as u64 {
            let (tss, tss_va) = (tss + vcpu * TSS_STRIDE_BYTES, tss_va + vcpu * TSS_STRIDE_BYTES);
            let descriptor = gdt + u64::from(tss_selector(vcpu as u16));
            let low = (tss_va & 0xFF_FFFF) << 16 | (tss_va >> 24 & 0xFF) << 56 | (TSS_BYTES - 1);
            write(descriptor, GDT_TSS_BUSY | low)?;
            write(descriptor + 8, tss_va >> 32)?;
            write(tss + 4, kernel.stack_top_va + vcpu * kernel.stack_stride_bytes)?; // RSP0
            write(tss + 0x24, kernel.fault_stack_top_va + vcpu * kernel.stack_stride_bytes)?; // IST1
            memory.write_obj(TSS_BYTES as u16, GuestAddress(tss + 102))?; // I/O map base: behind the limit
        }
        for vector in kernel.vectors.iter().take_while(|vector| vector.handler_va != 0) {
            let at = idt + 16 * u64::from(vector.vector);
            let handler = vector.handler_va;
            let flags = 0x8E00 | u64::from(vector.dpl & 3) << 13 | u64::from(vector.ist & 7);
            let low = (handler & 0xFFFF)
                | u64::from(KERNEL_CODE_SELECTOR) << 16
                | flags << 32
                | (handler >> 16 & 0xFFFF) << 48;
            write(at, low)?;
            write(at + 8, handler >> 32)?;
        }
        Ok(Self { gdt_va: direct_map_va + gdt, idt_va: direct_map_va + idt, tss_va })
    }

    /// Sets a vCPU up to execute the kernel's first instruction, as [`KernelHeader`] says.
    pub(crate) fn load(&self, fd: &VcpuFd, kernel: &KernelHeader, start: Start) -> Result<(), MachineError> {
        let number = u64::from(start.vcpu);
        let stack_top_va = kernel.stack_top_va + number * kernel.stack_stride_bytes;
        let segment = |selector: u16, type_: u8, long: u8| kvm_segment {
            base: 0,
            limit: 0xFFFF_FFFF,
            selector,
            type_,
            present: 1,
            s: 1,
            l: long,
            db: 1 - long,
            g: 1,
            ..Default::default()
        };
        let mut sregs = fd.get_sregs().map_err(MachineError::kvm("KVM_GET_SREGS"))?;
        let data = segment(KERNEL_DATA_SELECTOR, 3, 0);
        sregs.cs = segment(KERNEL_CODE_SELECTOR, 11, 1);
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = kvm_segment {
            base: self.tss_va + number * TSS_STRIDE_BYTES,
            limit: TSS_BYTES as u32 - 1,
            selector: tss_selector(start.vcpu as u16),
            type_: 11,
            present: 1,
            ..Default::default()
        };
        (sregs.gdt.base, sregs.gdt.limit) = (self.gdt_va, GDT_LIMIT);
        (sregs.idt.base, sregs.idt.limit) = (self.idt_va, 0xFFF);
        let cr4 = if start.extended.xsave { CR4 | CR4_OSXSAVE } else { CR4 };
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (CR0, start.root_gpa, cr4, EFER);
        fd.set_sregs(&sregs).map_err(MachineError::kvm("KVM_SET_SREGS"))?;
        let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
        let msrs = Msrs::from_entries(&[
            msr(MSR_STAR, u64::from(STAR_SELECTORS) << 32),
            msr(MSR_LSTAR, kernel.syscall_va),
            msr(MSR_SFMASK, SFMASK),
            msr(MSR_KERNEL_GS_BASE, stack_top_va - kernel.stack_stride_bytes),
        ])
        .map_err(|_| MachineError::Internal("MSR list"))?;
        let set = fd.set_msrs(&msrs).map_err(MachineError::kvm("KVM_SET_MSRS"))?;
        if set != 4 {
            return Err(MachineError::Internal("KVM refused one of STAR, LSTAR, SFMASK, KERNEL_GS_BASE"));
        }
        let regs = kvm_regs {
            rip: kernel.entry_va,
            rsp: stack_top_va,
            rdi: start.boot_page_gpa,
            rsi: number,
            rflags: 2,
            ..Default::default()
        };
        fd.set_regs(&regs).map_err(MachineError::kvm("KVM_SET_REGS"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::header::{KERNEL_MAGIC, VECTORS, Vector};
    use abi::layout::DIRECT_MAP_VA;

    const STRIDE: u64 = 16 << 10;

    fn kernel() -> KernelHeader {
        let none = Vector { handler_va: 0, vector: 0, dpl: 0, ist: 0, reserved: [0; 5] };
        KernelHeader {
            magic: KERNEL_MAGIC,
            abi_version: abi::VERSION,
            reserved: 0,
            entry_va: 0,
            stack_top_va: 0xFFFF_FFFF_8010_0000,
            fault_stack_top_va: 0xFFFF_FFFF_8020_0000,
            stack_stride_bytes: STRIDE,
            syscall_va: 0,
            vectors: [none; VECTORS],
        }
    }

    #[test]
    fn task_state_of_each_vcpu_names_its_own_stacks() {
        let memory = crate::machine::memory::map(2 << 20).expect("2 MiB");
        let descriptors = Descriptors::place(&memory, &mut Placer::new(2 << 20), &kernel(), DIRECT_MAP_VA);
        let descriptors = descriptors.expect("fits");
        let word = |va: u64| memory.read_obj::<u64>(GuestAddress(va - DIRECT_MAP_VA)).expect("memory");
        for vcpu in 0..VCPUS_MAX as u64 {
            // The descriptor as the processor reads it (SDM 8.2.3).
            let at = descriptors.gdt_va + u64::from(tss_selector(vcpu as u16));
            assert!(at + 15 - descriptors.gdt_va <= u64::from(GDT_LIMIT), "inside the table");
            let (low, high) = (word(at), word(at + 8));
            let base = low >> 16 & 0xFF_FFFF | low >> 32 & 0xFF00_0000 | high << 32;
            let (limit, kind) = (low & 0xFFFF, low >> 40 & 0xFF);
            assert_eq!((limit, kind), (103, 0x8B), "present, busy, 64 bits");
            assert_eq!(word(base + 4), kernel().stack_top_va + vcpu * STRIDE, "RSP0");
            assert_eq!(word(base + 0x24), kernel().fault_stack_top_va + vcpu * STRIDE, "IST1");
            let io_map: u16 = memory.read_obj(GuestAddress(base + 102 - DIRECT_MAP_VA)).expect("memory");
            assert!(u64::from(io_map) > limit, "no port for ring 3");
        }
    }
}
