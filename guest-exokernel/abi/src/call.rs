//! Kernel calls. The number goes in `rax`, arguments in `rdi`, `rsi`, `rdx`, `r10`, `r8`; back come the status in `rax` (0 or
//! an [`Error`]) and a value in `rdx`. As for a C function, `rcx`, `rsi`, `rdi` and `r8` to `r11` are lost: they come back
//! zero, so that nothing of the kernel's shows. All else is preserved.
//!
//! Where the first argument is an environment, the call is done for it, as if it had called itself: [`Handle::NONE`] is the
//! caller, everybody else takes a capability with [`rights::CONTROL`]. All other handles in such a call are that environment's.
//!
//! A call over a range does bounded work. It answers how many pages it is done with; who gets less than it asked for calls
//! again for the rest.
//!
//! Numbers are grouped by what they bind and never reused: 0x00 environment and CPU, 0x10 memory and DMA grants, 0x20
//! queues, 0x30 flows, 0x40 extents, 0x50 messages and upcalls, 0x60 capabilities and revocation.
//!
//! [`Handle::NONE`]: crate::capability::Handle::NONE
//! [`rights::CONTROL`]: crate::capability::rights::CONTROL

/// Number of a kernel call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Call {
    /// `() -> abi version`. Does nothing else; what a gate costs.
    Version = 0x00,
    /// `(status)`. Ends the environment; does not return.
    Exit = 0x01,
    /// `(deadline_tsc)`. Halts the vCPU until a bound queue signals, or the deadline (0: none) passes. May return early:
    /// every sleeper re-checks. For an environment alone on its vCPU; otherwise it is [`Self::Sleep`].
    Halt = 0x02,
    /// `(deadline_tsc, term, term, term, term)`. Gives the CPU to others until a [`sleep`] term holds, somebody calls
    /// [`Self::Wake`], or the deadline (0: none; 1: the devices' work is done once) passes. May return early. All registers
    /// but `rsp` are lost.
    Sleep = 0x03,
    /// `(to)`. Gives the CPU to the environment of that capability (needs `YIELD`) or, with no handle, to whoever is
    /// next. All registers but `rsp` are lost.
    Yield = 0x04,
    /// `(places, number) -> handle`. Makes an environment in a free place of the range (needs `CREATE`); number
    /// [`ANY`]: in any. It holds nothing and does not run. The handle has all rights that `places` has.
    EnvironmentCreate = 0x05,
    /// `(environment, entry_va, stack_va, argument)`. Lets one that was made begin there, the argument in `rdi`.
    EnvironmentStart = 0x06,
    /// `(environment)`. Ends it (needs `DESTROY`). What it held is taken back in steps, on the time of whoever runs next;
    /// [`Self::EnvironmentStatus`] says when that is done.
    EnvironmentDestroy = 0x07,
    /// `(environment) -> state | exit status << 32`. The state is one of [`state`].
    EnvironmentStatus = 0x08,
    /// `(environment)`. It looks around when it sleeps or waits for a message, or does not fall asleep next time (needs `WAKE`).
    /// A call of its own goes on.
    Wake = 0x09,
    /// `(environment, slices, first, count) -> count`. From slice number `first` on, slices of the range are the environment's
    /// (needs `BIND`), and it runs on the vCPUs where it has some.
    SliceBind = 0x0A,
    /// `(environment, slices, first, count) -> count`. They are nobody's.
    SliceUnbind = 0x0B,
    /// `(environment, memory, va | access, first, pages) -> pages`. Maps pages of the capability, the first of them being
    /// number `first` of its range, from `va` on. `access`: [`map`] bits. Replaces what was mapped there.
    MemoryMap = 0x10,
    /// `(environment, va, pages) -> pages`. Nothing is mapped there any more.
    MemoryUnmap = 0x11,
    /// `(environment, memory, first, pages, rights) -> pages`. What devices may do with these pages for the environment:
    /// `READ`, `WRITE`, both or nothing. When it succeeds with less than there was, no device uses what was taken; while
    /// one does it is [`Error::Unfinished`]: ask again.
    DmaGrant = 0x12,
    /// `(environment, queues, queue, base_gpa, size)`. Binds a queue of the range whose rings lie at `base_gpa` as
    /// [`crate::queue::RingLayout`] says, in pages that devices may read and write for the environment, enables it, and maps its
    /// doorbell.
    QueueBind = 0x20,
    /// `(environment, queues, queue)`. Resets the queue and gives it back; on success the device has let go of its pages and the
    /// doorbell is not mapped. While something on them is still under way it is [`Error::Unfinished`]: ask again.
    QueueUnbind = 0x21,
    /// `(environment, flow, level | prefix_len << 8, field_high, field_low) -> handle`. Carves a child out of a flow (needs
    /// `CARVE`): the frames whose next field, of [`crate::flow::Level`], is this.
    FlowCarve = 0x30,
    /// `(environment, flow, queues, first_pair | pairs << 16, rights)`. The frames of the flow go to these queue pairs, which
    /// the range must hold (needs `DIRECT`). No pairs: to whoever gets the parent's.
    FlowDirect = 0x31,
    /// `(environment, extent)`. Requests of the environment for these blocks are allowed, as the capability says.
    ExtentBind = 0x40,
    /// `(environment, extent)`. They are not; on success none is under way, and while one
    /// is it is [`Error::Unfinished`]: ask again.
    ExtentUnbind = 0x41,
    /// `(to, word, word, word, word)`. Sends the words to an environment (needs `CALL`) and waits for its answer, which comes in
    /// the same registers; see [`crate::message`]. The slice goes with the call. All registers but `rsp` are lost.
    MessageCall = 0x50,
    /// `(to, word, word, word, word)`. Sends the words (needs `CALL`) and does not wait. [`Error::Busy`] while the one before
    /// has not been received; [`Error::Ended`], once, if its receiver ended without having received it.
    MessageSend = 0x51,
    /// `(deadline_tsc)`. Waits for a message, until the deadline (0: none) or [`Self::Wake`]: [`Error::NoMessage`]. May return early
    /// with that, as a sleep may: when an environment has ended, for one. All registers but `rsp` are lost.
    MessageReceive = 0x52,
    /// `(sender, word, word, word, word)`. Answers one who waits for that.
    MessageReply = 0x53,
    /// `(sender, word, word, word, word)`. Answers as [`Self::MessageReply`] does, gives the rest of the slice back with the
    /// answer, and waits for a message as [`Self::MessageReceive`] does without a deadline.
    MessageReplyReceive = 0x54,
    /// `(environment, capability, start, count, rights) -> handle`. A part of the range, with fewer rights.
    CapabilityDerive = 0x60,
    /// `(environment, capability, to, rights) -> handle`. The same range, with fewer rights, in the table of another
    /// environment (needs `GIVE`, and `RECEIVE` for the other). The handle is the other's.
    CapabilityGive = 0x61,
    /// `(environment, capability) -> left`. Takes back everything that was derived from it, wherever it went, and undoes what
    /// was bound with that. 0: done; otherwise there is more, call again. From the first call on nothing new is derived from it.
    CapabilityRevoke = 0x62,
    /// `(environment, capability) -> left`. The same, and the capability itself.
    CapabilityDrop = 0x63,
    /// `(environment, capability, keep) -> left`. Gives the range back but for its first `keep` pages, queues, slices or blocks, with what
    /// was bound with the rest; what was derived from it and reaches into the rest goes as a whole. 0: done; otherwise call
    /// again, and until it is done nothing is bound with the capability or derived from it.
    CapabilityTrim = 0x64,
    /// `(own, environment, capability, keep, grace_tsc) -> left`. Asks that environment to keep no more than `keep` of the range of
    /// its capability, which must come from one's own, within so many ticks; what it has not given back then the kernel takes.
    /// `left`: how many it holds beyond that. Asking again for the same says how far it is and leaves the deadline as it
    /// was; the asker is woken when it is over. See [`crate::revocation`].
    CapabilityAsk = 0x65,
}

/// Numbers end below this.
pub const CALLS: usize = 0x80;

impl Call {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::Version,
        Self::Exit,
        Self::Halt,
        Self::Sleep,
        Self::Yield,
        Self::EnvironmentCreate,
        Self::EnvironmentStart,
        Self::EnvironmentDestroy,
        Self::EnvironmentStatus,
        Self::Wake,
        Self::SliceBind,
        Self::SliceUnbind,
        Self::MemoryMap,
        Self::MemoryUnmap,
        Self::DmaGrant,
        Self::QueueBind,
        Self::QueueUnbind,
        Self::FlowCarve,
        Self::FlowDirect,
        Self::ExtentBind,
        Self::ExtentUnbind,
        Self::MessageCall,
        Self::MessageSend,
        Self::MessageReceive,
        Self::MessageReply,
        Self::MessageReplyReceive,
        Self::CapabilityDerive,
        Self::CapabilityGive,
        Self::CapabilityRevoke,
        Self::CapabilityDrop,
        Self::CapabilityTrim,
        Self::CapabilityAsk,
    ];

    /// The call with this number.
    pub const fn from_number(number: u64) -> Option<Self> {
        match number {
            0x00 => Some(Self::Version),
            0x01 => Some(Self::Exit),
            0x02 => Some(Self::Halt),
            0x03 => Some(Self::Sleep),
            0x04 => Some(Self::Yield),
            0x05 => Some(Self::EnvironmentCreate),
            0x06 => Some(Self::EnvironmentStart),
            0x07 => Some(Self::EnvironmentDestroy),
            0x08 => Some(Self::EnvironmentStatus),
            0x09 => Some(Self::Wake),
            0x0A => Some(Self::SliceBind),
            0x0B => Some(Self::SliceUnbind),
            0x10 => Some(Self::MemoryMap),
            0x11 => Some(Self::MemoryUnmap),
            0x12 => Some(Self::DmaGrant),
            0x20 => Some(Self::QueueBind),
            0x21 => Some(Self::QueueUnbind),
            0x30 => Some(Self::FlowCarve),
            0x31 => Some(Self::FlowDirect),
            0x40 => Some(Self::ExtentBind),
            0x41 => Some(Self::ExtentUnbind),
            0x50 => Some(Self::MessageCall),
            0x51 => Some(Self::MessageSend),
            0x52 => Some(Self::MessageReceive),
            0x53 => Some(Self::MessageReply),
            0x54 => Some(Self::MessageReplyReceive),
            0x60 => Some(Self::CapabilityDerive),
            0x61 => Some(Self::CapabilityGive),
            0x62 => Some(Self::CapabilityRevoke),
            0x63 => Some(Self::CapabilityDrop),
            0x64 => Some(Self::CapabilityTrim),
            0x65 => Some(Self::CapabilityAsk),
            _ => None,
        }
    }
}

/// [`Call::EnvironmentCreate`]: in any free place.
pub const ANY: u64 = u64::MAX;

/// Bits of an address in [`Call::MemoryMap`].
pub mod map {
    /// May be written.
    pub const WRITE: u64 = 1;
    /// May be executed.
    pub const EXECUTE: u64 = 1 << 1;
    /// In large pages: address, pages and counts are multiples of 512 pages.
    pub const LARGE: u64 = 1 << 2;
}

/// Terms of [`Call::Sleep`]: what a sleeper waits for, besides its deadline. They are looked at when it falls asleep, when the
/// device work has done something, and when somebody wakes it.
pub mod sleep {
    /// No term.
    pub const NONE: u64 = 0;
    /// The kind of a term, in its uppermost bits.
    pub const KIND_SHIFT: u32 = 56;
    /// [`queue`].
    pub const QUEUE: u64 = 1;
    /// [`word`].
    pub const WORD: u64 = 2;
    /// [`MESSAGE`].
    pub const MESSAGE_KIND: u64 = 3;
    /// [`queues`].
    pub const QUEUES: u64 = 4;

    /// A message waits to be received.
    pub const MESSAGE: u64 = MESSAGE_KIND << KIND_SHIFT;

    /// The used index of a bound queue, as of [`crate::queue::owner_index`], is not this any more.
    pub const fn queue(owner_index: u32, used: u16) -> u64 {
        QUEUE << KIND_SHIFT | (owner_index as u64 & 0xFFFF) << 16 | used as u64
    }

    /// The same of two queues in one term: an owner index and a used index of each.
    pub const fn queues(one: (u32, u16), other: (u32, u16)) -> u64 {
        QUEUES << KIND_SHIFT
            | (other.0 as u64 & 0xFF) << 40
            | (other.1 as u64) << 24
            | (one.0 as u64 & 0xFF) << 16
            | one.1 as u64
    }

    /// The 16 bits at this offset (a multiple of 2) of a memory capability's range are not this any more.
    pub const fn word(slot: u32, offset_bytes: u64, value: u16) -> u64 {
        WORD << KIND_SHIFT
            | (slot as u64 & 0xFF) << 48
            | ((offset_bytes / 2) & 0xFFFF_FFFF) << 16
            | value as u64
    }
}

/// Answers of [`Call::EnvironmentStatus`].
pub mod state {
    /// The environment that the capability names is gone, everything taken back.
    pub const GONE: u64 = 0;
    /// Made, not started.
    pub const NEW: u64 = 1;
    /// Runs, or could.
    pub const RUNNABLE: u64 = 2;
    /// Sleeps.
    pub const ASLEEP: u64 = 3;
    /// Ended; what it held is being taken back.
    pub const ENDING: u64 = 4;
    /// Waits for the answer to a call.
    pub const CALLING: u64 = 5;
    /// Waits for a message.
    pub const RECEIVING: u64 = 6;
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
    /// The capability is being revoked.
    Revoked = 9,
    /// The environment that should have received or answered ended before.
    Ended = 10,
    /// No message came.
    NoMessage = 11,
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
            9 => Some(Self::Revoked),
            10 => Some(Self::Ended),
            11 => Some(Self::NoMessage),
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
            Self::Revoked => "the capability is being revoked",
            Self::Ended => "the environment that should have received or answered has ended",
            Self::NoMessage => "no message came before the deadline or the wake-up",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_its_number() {
        for call in Call::ALL {
            assert_eq!(Call::from_number(call as u64), Some(call));
        }
        assert_eq!((0..=u64::from(u16::MAX)).filter_map(Call::from_number).count(), Call::ALL.len());
    }
}
