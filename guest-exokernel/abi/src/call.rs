//! Kernel calls. The number goes in `rax`, arguments in `rdi`, `rsi`, `rdx`, `r10`; back come the status in `rax` (0 or
//! an [`Error`]) and a value in `rdx`. As for a C function, `rcx`, `rsi`, `rdi` and `r8` to `r11` are lost: they come back
//! zero, so that nothing of the kernel's shows. All else is preserved.
//!
//! Numbers are grouped by what they bind and never reused: 0x00 environment and CPU, 0x10 memory and DMA grants, 0x20
//! queues, 0x30 flows, 0x40 extents, 0x50 messages and upcalls, 0x60 capabilities and revocation.

/// Number of a kernel call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Call {
    /// `() -> abi version`. Does nothing else; what a gate costs.
    Version = 0x00,
    /// `(status)`. Ends the environment; does not return.
    Exit = 0x01,
    /// `(deadline_tsc)`. Halts the vCPU until a bound queue signals, or the deadline (0: none) passes. May return early:
    /// every sleeper re-checks.
    Halt = 0x02,
    /// `(device, queue, base_gpa, size)`. Binds a queue whose rings lie at `base_gpa` as [`crate::queue::RingLayout`]
    /// says, in pages of the caller's DMA domain that the device may read and write, and enables it.
    QueueBind = 0x20,
    /// `(device, queue)`. Resets the queue and gives it back; on success the device has let go of its pages. While something
    /// on them is still under way it is [`Error::Unfinished`]: ask again.
    QueueUnbind = 0x21,
}

impl Call {
    /// The call with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0x00 => Some(Self::Version),
            0x01 => Some(Self::Exit),
            0x02 => Some(Self::Halt),
            0x20 => Some(Self::QueueBind),
            0x21 => Some(Self::QueueUnbind),
            _ => None,
        }
    }
}

/// Why a kernel call was refused. The same number means the same thing in every call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Error {
    /// No such call.
    NoSuchCall = 1,
    /// An argument is outside its range or not aligned.
    BadArgument = 2,
    /// No such device, queue, page or object.
    NotFound = 3,
    /// It exists and belongs to someone else, or the right is missing.
    NotPermitted = 4,
    /// It is bound already.
    Busy = 5,
    /// A table is full.
    NoSpace = 6,
    /// The device did not do what it should.
    DeviceFailed = 7,
    /// It was begun and goes on: ask again.
    Unfinished = 8,
}

impl Error {
    /// The error that a status stands for; `None` for 0 (success) and for numbers of a newer kernel.
    pub const fn from_status(status: u64) -> Option<Self> {
        match status {
            1 => Some(Self::NoSuchCall),
            2 => Some(Self::BadArgument),
            3 => Some(Self::NotFound),
            4 => Some(Self::NotPermitted),
            5 => Some(Self::Busy),
            6 => Some(Self::NoSpace),
            7 => Some(Self::DeviceFailed),
            8 => Some(Self::Unfinished),
            _ => None,
        }
    }

    /// A sentence for a person.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoSuchCall => "no such kernel call; kernel and image are of different versions",
            Self::BadArgument => "an argument is out of range or not aligned",
            Self::NotFound => "no such device, queue, page or object",
            Self::NotPermitted => "it belongs to another environment or the right is missing",
            Self::Busy => "it is bound already; unbind it first",
            Self::NoSpace => "the kernel's table is full",
            Self::DeviceFailed => "the device did not accept it; see the VMM's log",
            Self::Unfinished => "it is still under way; ask again",
        }
    }
}

/// Bytes of the two gate instructions; the page holds one of them at offset 0, followed by `ret`.
pub mod gate {
    /// `int3; ret`: a trap, works wherever exceptions do. The trap frame's `rip` is `GATE_VA + 1`.
    pub const INT3: [u8; 3] = [0xCC, 0xC3, 0xCC];
    /// `syscall; ret`: where SYSCALL raises the privilege. `rcx` at the entry is `GATE_VA + 2`.
    pub const SYSCALL: [u8; 3] = [0x0F, 0x05, 0xC3];
    /// Number for [`crate::boot::StatusPage::gate`].
    pub const KIND_INT3: u32 = 1;
    /// Number for [`crate::boot::StatusPage::gate`].
    pub const KIND_SYSCALL: u32 = 2;
}
