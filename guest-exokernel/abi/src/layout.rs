//! Where things are: guest-virtual addresses (fixed) and guest-physical ranges (what is RAM and what is not).
//!
//! An environment sees its image at [`IMAGE_VA`], a handful of fixed pages at [`PAGES_VA`], and every page of RAM that it
//! owns at [`WINDOW_VA`] plus the page's guest-physical address, so the address a device needs is a subtraction.
//! The kernel sees itself at [`KERNEL_VA`] and all of guest-physical memory at [`DIRECT_MAP_VA`]; neither is reachable
//! from ring 3.

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a large page.
pub const LARGE_PAGE_BYTES: u64 = 2 << 20;

/// First guest-physical address that is not RAM; devices live from here to 4 GiB, RAM continues at [`HIGH_RAM_GPA`].
pub const MMIO_GPA: u64 = 0xC000_0000;
/// Guest-physical address of the RAM that does not fit below [`MMIO_GPA`].
pub const HIGH_RAM_GPA: u64 = 0x1_0000_0000;

/// Kernel text and data are linked from here on (top 2 GiB: the `kernel` code model).
pub const KERNEL_VA: u64 = 0xFFFF_FFFF_8000_0000;
/// All guest-physical memory, devices included, as the kernel sees it (supervisor, writable, never executable).
pub const DIRECT_MAP_VA: u64 = 0xFFFF_8000_0000_0000;

/// Where an image is linked.
pub const IMAGE_VA: u64 = 0x40_0000;
/// Where the VMM keeps the code and data of probes for an image's program, near enough for a jump of 32 bits. They are mapped
/// where the program is; an environment that maps something else there, or writes to the data, harms itself.
pub const PROBE_VA: u64 = 0x3000_0000;
/// As [`PROBE_VA`], for the kernel.
pub const KERNEL_PROBE_VA: u64 = KERNEL_VA + (1 << 30);
/// Pages that an environment owns: `WINDOW_VA + guest-physical address`.
pub const WINDOW_VA: u64 = 0x1000_0000_0000;
/// Highest address of the stack (exclusive). An unmapped page lies below its lowest one.
pub const STACK_TOP_VA: u64 = 0x7E00_0000_0000;
/// Bytes of the stack.
pub const STACK_BYTES: u64 = 256 << 10;

/// The first of the fixed pages.
pub const PAGES_VA: u64 = 0x7F00_0000_0000;
/// The gate page: the only place from which ring 3 enters the kernel on purpose. Read and execute.
pub const GATE_VA: u64 = PAGES_VA;
/// [`crate::time::TimePage`], read-only.
pub const TIME_VA: u64 = PAGES_VA + 0x1000;
/// [`crate::boot::EnvironmentPage`], read-only.
pub const ENVIRONMENT_VA: u64 = PAGES_VA + 0x2000;
/// [`crate::boot::HostPage`], written by the VMM, read-only here.
pub const HOST_VA: u64 = PAGES_VA + 0x3000;
/// [`crate::boot::StatusPage`], written by the environment.
pub const STATUS_VA: u64 = PAGES_VA + 0x4000;
/// The turn register: an 8-byte write of a TSC deadline (0: none) hands the CPU to the device work.
pub const TURN_VA: u64 = PAGES_VA + 0x5000;
/// [`crate::environment::KernelPage`], written by the kernel, read-only here.
pub const KERNEL_PAGE_VA: u64 = PAGES_VA + 0x6000;
/// The code by which ring 3 gets the CPU back: [`crate::environment::resume`]. Read and execute.
pub const RESUME_VA: u64 = PAGES_VA + 0x7000;
/// [`crate::upcall::UpcallPage`], the environment's own.
pub const UPCALL_VA: u64 = PAGES_VA + 0x8000;
/// [`crate::vcpu::VcpuTime`] × [`crate::boot::VCPUS_MAX`], written by KVM, the VMM and the kernel, read-only here.
pub const VCPUS_VA: u64 = PAGES_VA + 0x9000;
/// [`crate::trace::AccountArea`], written by the environment.
pub const ACCOUNT_VA: u64 = PAGES_VA + 0x10_0000;
/// [`crate::statistics::StatisticsArea`], written by the environment.
pub const STATISTICS_VA: u64 = PAGES_VA + 0x18_0000;
/// [`crate::log::LogRing`], written by the environment.
pub const LOG_VA: u64 = PAGES_VA + 0x20_0000;
/// [`crate::trace::TraceRing`], written by the environment.
pub const TRACE_VA: u64 = PAGES_VA + 0x30_0000;
/// The environment's own page tables, read-only: the entry for the page at `va` is the word at
/// `PAGE_TABLES_VA + (va >> 12) * 8`. The root's last lower entry points at the root itself.
pub const PAGE_TABLES_VA: u64 = 0x7F80_0000_0000;
/// Doorbell pages, one for each entry of the queue owner table; those of queues that are bound are mapped. See [`doorbell_va`].
pub const DOORBELL_VA: u64 = PAGES_VA + 0x100_0000;

/// The doorbell page of queue `queue` of device `device`; `None`: there can be no such queue.
pub const fn doorbell_va(device: u32, queue: u32) -> Option<u64> {
    match crate::queue::owner_index(device, queue) {
        Some(index) => Some(DOORBELL_VA + index as u64 * PAGE_BYTES),
        None => None,
    }
}

/// Ring 3 code selector (with RPL). These two values let `iretq` and ring 3 run without extra exits on hosts that
/// interpret ring 0, and satisfy SYSRET's arithmetic.
pub const USER_CODE_SELECTOR: u16 = 0x33;
/// Ring 3 data and stack selector (with RPL).
pub const USER_DATA_SELECTOR: u16 = 0x2B;
/// Ring 0 code selector.
pub const KERNEL_CODE_SELECTOR: u16 = 0x10;
/// Ring 0 data and stack selector.
pub const KERNEL_DATA_SELECTOR: u16 = 0x18;
/// Task-state segment selector of vCPU 0; the descriptors of the others, 16 bytes each, follow.
pub const TSS_SELECTOR: u16 = 0x40;

/// The task-state segment selector of a vCPU.
pub const fn tss_selector(vcpu: u16) -> u16 {
    TSS_SELECTOR + 16 * vcpu
}

/// What `STAR[63:32]` holds: SYSCALL loads the kernel selectors from bits 47:32, SYSRET the user ones from bits 63:48.
pub const STAR_SELECTORS: u32 = 0x0023_0010;

/// Interrupt vector of the LAPIC timer.
pub const TIMER_VECTOR: u8 = 0x61;
/// Interrupt vector by which one vCPU calls another.
pub const KICK_VECTOR: u8 = 0x62;
/// Interrupt vector of device wake-ups where [`REMOTE_READ_MSI_DATA`] does not wake a halted vCPU.
pub const WAKE_VECTOR: u8 = 0x60;
/// MSI data with delivery mode "remote read": KVM ends a halt for it and delivers nothing.
pub const REMOTE_READ_MSI_DATA: u32 = 0x300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doorbell_pages_of_different_queues_differ_and_overlap_nothing() {
        assert_eq!(doorbell_va(0, 0), Some(DOORBELL_VA));
        assert_eq!(doorbell_va(0, 31), Some(DOORBELL_VA + 31 * PAGE_BYTES));
        assert_eq!(doorbell_va(1, 0), Some(DOORBELL_VA + 32 * PAGE_BYTES));
        assert_eq!(doorbell_va(0, 32), None);
        assert_eq!(doorbell_va(8, 0), None);
        assert!(TRACE_VA + size_of::<crate::trace::TraceRing>() as u64 <= DOORBELL_VA);
        assert!(ACCOUNT_VA + size_of::<crate::trace::AccountArea>() as u64 <= STATISTICS_VA);
        assert!(STATISTICS_VA + size_of::<crate::statistics::StatisticsArea>() as u64 <= LOG_VA);
    }
}
