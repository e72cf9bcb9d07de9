//! What a person reads when a guest ends badly: where, in which function, with which registers, called from where.

use super::boot::paging::translate;
use super::team::TeamEnd;
use super::vcpu::VcpuEnd;
use crate::tables::Memory;
use abi::fault::{
    FaultRecord, KIND_ENVIRONMENT, KIND_KERNEL, KIND_PANIC, KIND_SLICE_OVERRUN, KIND_STRAY_GATE,
    REGISTER_NAMES,
};
use exovm_image::container::Image;
use exovm_image::program::Header;
use kvm_bindings::kvm_regs;
use std::fmt::Write;
use vm_memory::{Bytes, GuestAddress};

/// Deepest back trace that is printed.
const FRAMES: usize = 16;

/// Vector of a page fault.
const PAGE_FAULT: u64 = 14;
/// The instruction.
const SYSCALL: [u8; 2] = [0x0F, 0x05];

/// Everything that a report looks at.
pub(crate) struct Reporter {
    image: Image,
    /// Roots of the places' page tables.
    roots_gpa: Vec<u64>,
    /// Whether it must be said which vCPU it was.
    several_vcpus: bool,
}

impl Reporter {
    /// For one machine.
    pub(crate) fn new(image: Image, roots_gpa: Vec<u64>, vcpus: u32) -> Self {
        Self { image, roots_gpa, several_vcpus: vcpus > 1 }
    }

    /// What the machine booted.
    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    /// Roots of the places' page tables.
    pub(crate) fn roots_gpa(&self) -> &[u64] {
        &self.roots_gpa
    }

    /// The report, several lines; `None` for an end that needs none.
    pub(crate) fn report(&self, memory: &Memory, end: &TeamEnd) -> Option<String> {
        let vcpu = end.vcpu;
        match &end.end {
            VcpuEnd::PowerOff { .. } | VcpuEnd::Stopped => None,
            VcpuEnd::Fault(record) => Some(self.fault(memory, vcpu, record)),
            VcpuEnd::Broken { reason, registers } => {
                Some(self.broken(memory, vcpu, reason, registers.as_deref()))
            }
        }
    }

    /// What the fault record of a vCPU tells.
    pub(crate) fn fault(&self, memory: &Memory, vcpu: u32, record: &FaultRecord) -> String {
        let on = if self.several_vcpus { format!(" on vCPU {vcpu}") } else { String::new() };
        let root_gpa = self.root_gpa(record.environment);
        let len = (record.message_len as usize).min(record.message.len());
        let message = String::from_utf8_lossy(&record.message[..len]);
        let mut rip = record.rip;
        let named =
            |name: &str| REGISTER_NAMES.iter().position(|n| *n == name).map_or(0, |i| record.registers[i]);
        let what = match record.kind {
            KIND_PANIC => return format!("the kernel gave up{on}: {message}"),
            // Where SYSCALL stays in ring 3, one outside the gate page shows as a fault at the kernel's entry, with the
            // return address in rcx.
            KIND_ENVIRONMENT if self.is_syscall_that_stayed(memory, root_gpa, record, named("rcx")) => {
                rip = named("rcx").wrapping_sub(SYSCALL.len() as u64);
                format!(
                    "environment {}: a gate instruction outside the gate page (syscall)",
                    record.environment
                )
            }
            KIND_ENVIRONMENT => format!("environment {}: {}", record.environment, exception(record)),
            KIND_STRAY_GATE => format!(
                "environment {}: a gate instruction outside the gate page ({})",
                record.environment,
                if record.vector == 3 { "int3" } else { "syscall" }
            ),
            KIND_SLICE_OVERRUN => {
                format!(
                    "environment {}: did not give the CPU away at the end of its slice",
                    record.environment
                )
            }
            KIND_KERNEL => format!("the kernel itself: {}", exception(record)),
            other => format!("a fault of unknown kind {other}"),
        };
        let mut text = format!("{what}\n  at {}{on}\n", self.place(rip));
        for (row, names) in REGISTER_NAMES.chunks(5).enumerate() {
            for (column, name) in names.iter().enumerate() {
                let value = record.registers[row * 5 + column];
                let _ = write!(text, "  {name:>3} {value:016x}");
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "  rip {:016x}  rsp {:016x}  rflags {:x}  cs {:x}  ss {:x}  cr2 {:x}",
            record.rip, record.rsp, record.rflags, record.cs, record.ss, record.address
        );
        self.back_trace(memory, root_gpa, named("rbp"), &mut text);
        text
    }

    /// Root of an environment's page tables; a number that does not exist is the kernel's mistake.
    fn root_gpa(&self, environment: u32) -> u64 {
        self.roots_gpa.get(environment as usize).or(self.roots_gpa.first()).copied().unwrap_or(0)
    }

    /// Whether ring 3 came to the kernel's SYSCALL entry by that instruction, and not by a jump.
    fn is_syscall_that_stayed(
        &self,
        memory: &Memory,
        root_gpa: u64,
        record: &FaultRecord,
        return_va: u64,
    ) -> bool {
        let Header::Kernel(header) = &self.image.kernel.header else { return false };
        let before = return_va.wrapping_sub(SYSCALL.len() as u64);
        let instruction = translate(memory, root_gpa, before)
            .and_then(|gpa| memory.read_obj::<[u8; 2]>(GuestAddress(gpa)).ok());
        record.vector == PAGE_FAULT && record.rip == header.syscall_va && instruction == Some(SYSCALL)
    }

    fn broken(
        &self,
        memory: &Memory,
        vcpu: u32,
        reason: &str,
        registers: Option<&(kvm_regs, u64)>,
    ) -> String {
        let mut text = format!("vCPU {vcpu} stopped: {reason}\n");
        if let Some((regs, root_gpa)) = registers {
            let _ = writeln!(text, "  at {}", self.place(regs.rip));
            let _ = writeln!(
                text,
                "  rax {:016x}  rbx {:016x}  rcx {:016x}  rdx {:016x}\n  rsi {:016x}  rdi {:016x}  rbp {:016x}  rsp {:016x}",
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp
            );
            self.back_trace(memory, *root_gpa, regs.rbp, &mut text);
        }
        text
    }

    /// An address with its function.
    fn place(&self, va: u64) -> String {
        let symbol = self.image.kernel.symbol(va).filter(|_| va >= abi::layout::KERNEL_VA);
        let symbol = symbol.or_else(|| {
            let in_image = (abi::layout::IMAGE_VA..abi::layout::WINDOW_VA).contains(&va);
            self.image.program.symbol(va).filter(|_| in_image)
        });
        match symbol {
            Some((symbol, offset)) => {
                format!("{va:#x}  {:#}+{offset:#x}", rustc_demangle::demangle(&symbol.name))
            }
            None if va & !0xFFF == abi::layout::GATE_VA => format!("{va:#x}  (gate page)"),
            None => format!("{va:#x}  (no function of the image)"),
        }
    }

    /// Follows frame pointers through the guest's page tables. Anything may be wrong with them, so it goes as far as
    /// they make sense: upwards in memory, never more than [`FRAMES`].
    fn back_trace(&self, memory: &Memory, root_gpa: u64, mut frame: u64, text: &mut String) {
        for _ in 0..FRAMES {
            let word = |va| {
                let gpa = translate(memory, root_gpa, va)?;
                memory.read_obj::<u64>(GuestAddress(gpa)).ok()
            };
            let (Some(caller_frame), Some(return_va)) = (word(frame), frame.checked_add(8).and_then(word))
            else {
                return;
            };
            if return_va == 0 {
                return;
            }
            // A call that never returns is the last instruction of its function: look at the call, not behind it.
            let _ = writeln!(text, "  from {}", self.place(return_va - 1));
            if caller_frame <= frame {
                return;
            }
            frame = caller_frame;
        }
    }
}

fn exception(record: &FaultRecord) -> String {
    let name = match record.vector {
        0 => "divide error",
        1 => "debug exception",
        2 => "non-maskable interrupt",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection fault",
        14 => return page_fault(record),
        16 => "x87 error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD error",
        21 => "control protection",
        _ => "exception",
    };
    format!("{name} (vector {}, error code {:#x})", record.vector, record.error_code)
}

fn page_fault(record: &FaultRecord) -> String {
    let code = record.error_code;
    let how = if code & 16 != 0 {
        "executing"
    } else if code & 2 != 0 {
        "writing"
    } else {
        "reading"
    };
    let why = if code & 1 != 0 { "not permitted" } else { "not mapped" };
    format!("page fault {how} {:#x}: {why} (error code {code:#x})", record.address)
}
