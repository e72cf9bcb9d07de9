//! What an ELF file of ours carries so that the VMM can prepare everything natively before the first instruction.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Section of the kernel that holds one [`KernelHeader`].
pub const KERNEL_SECTION: &str = ".exovm.kernel";
/// Section of an image that holds one [`ImageHeader`].
pub const IMAGE_SECTION: &str = ".exovm.image";
/// Section of an image with its [`crate::trace::Site`]s.
pub const SITES_SECTION: &str = "exovm_sites";

/// "xokkern1", little endian.
pub const KERNEL_MAGIC: u64 = u64::from_le_bytes(*b"xokkern1");
/// "exosapp1", little endian.
pub const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"exosapp1");

/// One gate of the interrupt descriptor table.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Vector {
    /// Address of the handler; 0 ends the list.
    pub handler_va: u64,
    /// Vector number.
    pub vector: u8,
    /// Ring from which the instruction `int n` or `int3` may use it.
    pub dpl: u8,
    /// Interrupt stack table slot, 0: none.
    pub ist: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// How many [`Vector`]s a kernel may have.
pub const VECTORS: usize = 40;

/// What the VMM needs to know of the kernel.
///
/// # How vCPUs begin
/// All vCPUs of a machine begin at once, at [`Self::entry_va`], in ring 0 with interrupts off:
///
/// | register | vCPU `n` |
/// | --- | --- |
/// | `rdi` | guest-physical address of the [boot page](crate::boot::BootPage) |
/// | `rsi` | `n` |
/// | `rsp` | top of its stack: [`Self::stack_top_va`] and `n` times [`Self::stack_stride_bytes`] |
/// | CR3 | root of the first place's page tables |
/// | TR | a TSS of its own ([`crate::layout::tss_selector`]): RSP0 its stack, IST1 its fault stack |
/// | IA32_KERNEL_GS_BASE | lowest address of its stack, for SWAPGS in the entry of SYSCALL |
/// | LSTAR | [`Self::syscall_va`], for all of them |
/// | x2APIC id | `n`; the APIC itself is as after power-on |
///
/// A stack is [`Self::stack_stride_bytes`] long, which is a power of two, and begins at a multiple of that. So whoever runs on
/// one finds the stack's lowest address by masking `rsp`; the words there are the vCPU's own.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KernelHeader {
    /// [`KERNEL_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`] it was built with.
    pub abi_version: u32,
    /// Zero.
    pub reserved: u32,
    /// First instruction.
    pub entry_va: u64,
    /// Top of vCPU 0's stack, on which it begins and its exceptions and kernel calls run (TSS.RSP0).
    pub stack_top_va: u64,
    /// Top of vCPU 0's stack for double faults and NMIs (TSS.IST1).
    pub fault_stack_top_va: u64,
    /// Bytes of a stack, and from each vCPU's stacks to the next one's; there are [`crate::boot::VCPUS_MAX`] of each kind.
    pub stack_stride_bytes: u64,
    /// Where SYSCALL enters (LSTAR).
    pub syscall_va: u64,
    /// The interrupt descriptor table.
    pub vectors: [Vector; VECTORS],
}

/// What the VMM needs to know of an image.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ImageHeader {
    /// [`IMAGE_MAGIC`].
    pub magic: u64,
    /// [`crate::VERSION`] it was built with.
    pub abi_version: u32,
    /// Zero.
    pub reserved: u32,
}

impl ImageHeader {
    /// The header of an image built with this version of the crate.
    pub const CURRENT: ImageHeader =
        ImageHeader { magic: IMAGE_MAGIC, abi_version: crate::VERSION, reserved: 0 };
}
