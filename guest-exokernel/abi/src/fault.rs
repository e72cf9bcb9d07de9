//! What the kernel leaves behind when something ends for good. The VMM reads it and does all the formatting: symbols,
//! registers, back trace. And what it shows of an exception that a debugger may have asked for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// [`FaultRecord::kind`]: ring 3 raised an exception that nobody handles.
pub const KIND_ENVIRONMENT: u32 = 1;
/// [`FaultRecord::kind`]: ring 0 raised an exception; always a defect of the kernel.
pub const KIND_KERNEL: u32 = 2;
/// [`FaultRecord::kind`]: the kernel gave up; the message says why.
pub const KIND_PANIC: u32 = 3;
/// [`FaultRecord::kind`]: ring 3 executed a gate instruction outside the gate page.
pub const KIND_STRAY_GATE: u32 = 4;

/// [`FaultRecord::kind`]: the environment did not give the CPU away at the end of its slice.
pub const KIND_SLICE_OVERRUN: u32 = 5;

/// Order of [`FaultRecord::registers`].
pub const REGISTER_NAMES: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// What lies on the kernel's stack of whoever an exception interrupted, from the lowest address up.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TrapFrame {
    /// General registers, in the order of [`REGISTER_NAMES`].
    pub registers: [u64; 15],
    /// Exception vector; [`GO_ON`] once a debugger has seen to it.
    pub vector: u64,
    /// Error code, or 0.
    pub error_code: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code selector.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack selector.
    pub ss: u64,
}

/// [`TrapFrame::vector`]: the exception was a debugger's, and it goes on with what the frame holds.
pub const GO_ON: u64 = u64::MAX;

/// The record. Everything in it may be wrong if the kernel itself went wrong.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FaultRecord {
    /// One of the `KIND_` constants; 0: nothing happened.
    pub kind: u32,
    /// Environment that ran.
    pub environment: u32,
    /// Exception vector.
    pub vector: u64,
    /// Error code, or 0.
    pub error_code: u64,
    /// CR2: the address, for a page fault.
    pub address: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code selector.
    pub cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack selector.
    pub ss: u64,
    /// General registers, in the order of [`REGISTER_NAMES`].
    pub registers: [u64; 15],
    /// Bytes of [`Self::message`].
    pub message_len: u64,
    /// The kernel's last words.
    pub message: [u8; 512],
}
