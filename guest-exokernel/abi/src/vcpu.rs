//! What is known of a vCPU's time by those who have it when no environment does: the host, the VMM, the kernel. From it an
//! environment tells which cycles of a span were not its own.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// One for each vCPU, at [`crate::layout::VCPUS_VA`], read-only in ring 3. All numbers only grow.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct VcpuTime {
    /// How long the vCPU could have run and its thread had no CPU, in nanoseconds. This and the next words are KVM's: `struct
    /// kvm_steal_time` (Linux, Documentation/virt/kvm/x86/msr.rst, MSR_KVM_STEAL_TIME), brought up to date whenever the guest is
    /// entered. 0 for good where the host does not offer it.
    pub steal_ns: AtomicU64,
    /// KVM's; odd while it writes.
    pub steal_version: AtomicU32,
    /// KVM's.
    pub steal_flags: AtomicU32,
    /// KVM's.
    pub preempted: AtomicU32,
    /// KVM's.
    pub steal_reserved: [AtomicU32; 11],

    /// The VMM's: cycles between a return from KVM_RUN and the next entry, without those in which its thread had no CPU.
    pub outside_cycles: AtomicU64,
    /// The VMM's: TSC of the last return from KVM_RUN.
    pub exit_tsc: AtomicU64,
    /// The VMM's: TSC of the last entry.
    pub entry_tsc: AtomicU64,
    /// The VMM's: [`Self::outside_cycles`] at [`crate::trace::Wanted::since_tsc`].
    pub since_outside_cycles: AtomicU64,
    /// The VMM's: [`Self::steal_ns`] then.
    pub since_steal_ns: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 3],

    /// The kernel's: TSC when an environment left the vCPU and the kernel began to look for another one.
    pub left_tsc: AtomicU64,
    /// The kernel's: TSC when it gave the vCPU to an environment, after a search.
    pub entered_tsc: AtomicU64,
    /// The kernel's: cycles from leaving to entering, halts and turns included.
    pub between_cycles: AtomicU64,
    /// The kernel's: how much [`Self::outside_cycles`] has grown in them.
    pub between_outside_cycles: AtomicU64,
    /// The kernel's: how much [`Self::steal_ns`] has grown in them.
    pub between_steal_ns: AtomicU64,
    /// The kernel's: [`Self::outside_cycles`] at [`Self::left_tsc`].
    pub left_outside_cycles: AtomicU64,
    /// The kernel's: [`Self::steal_ns`] then.
    pub left_steal_ns: AtomicU64,
    /// The kernel's: the lower half of the TSC when it gave the vCPU to an environment, in whatever way. See [`full_tsc`].
    pub entered_low: AtomicU32,
    /// Zero.
    pub reserved_kernel: AtomicU32,
    /// The kernel's: [`Self::outside_cycles`] at [`Self::entered_tsc`].
    pub entered_outside_cycles: AtomicU64,
    /// The kernel's: [`Self::steal_ns`] then.
    pub entered_steal_ns: AtomicU64,
    /// Zero.
    pub reserved_end: [AtomicU64; 6],
}

/// The last moment up to `now` whose lower half is that. Right if it was no more than 2^32 ticks ago, which is more than a second.
pub const fn full_tsc(low: u32, now: u64) -> u64 {
    now.wrapping_sub((now as u32).wrapping_sub(low) as u64)
}

/// The register that tells KVM where a [`VcpuTime`] lies; its lowest bit switches it on.
pub const MSR_KVM_STEAL_TIME: u32 = 0x4B56_4D03;

const _: () = assert!(size_of::<VcpuTime>() == 256);
const _: () = assert!(full_tsc(0xFFFF_FFFF, 0x5_0000_0001) == 0x4_FFFF_FFFF);
const _: () = assert!(full_tsc(1, 0x5_0000_0001) == 0x5_0000_0001);
const _: () = assert!(size_of::<VcpuTime>() * crate::boot::VCPUS_MAX <= 4096);
