//! Environments against each other, and against the kernel.

use super::Rows;

/// What children try with addresses and instructions; 128 and the vector of the exception that ends them.
#[rustfmt::skip]
pub(super) const CHILDREN: Rows = &[
    ("a child that reads the kernel", "142"),
    ("a child that reads all memory", "142"),
    ("a child that writes its page tables", "142"),
    ("a child that reads the kernel's page tables", "142"),
    ("a child that reads its parent's heap", "142"),
    ("a child that reads its parent's stack", "142"),
    ("a child that writes the environment page", "142"),
    ("a child that writes the kernel's page", "142"),
    ("a child that writes the gate", "142"),
    ("a child that writes the resume page", "142"),
    ("a child that takes a turn beside others", "142"),
    ("a child that rings a doorbell that is not bound", "142"),
    ("a child that rings the last doorbell", "142"),
    ("a child that executes its data", "142"),
    ("a child that halts", "141"),
    ("a child that changes its page tables' root", "141"),
    ("a child that forbids interrupts", "141"),
    ("a child that sets a breakpoint", "141"),
    ("a child that single-steps", "129"),
    ("a child that single-steps into the kernel", "129"),
    ("a child that executes nothing known", "134"),
    ("a child that enters the kernel elsewhere", "131"),
    ("a child that goes on at an address that cannot be", "141"),
];

/// Handles that were guessed, all of the first generations. One is its own.
#[rustfmt::skip]
pub(super) const GUESSES: Rows = &[
    ("derive from guessed handles", "1 not refused as unknown"),
    ("status of guessed handles", "0 not refused as unknown"),
];

/// What was given and is taken back while it is used, and what is gone.
#[rustfmt::skip]
pub(super) const LOST: Rows = &[
    ("before", "true"),
    ("after its memory was revoked", "142"),
    ("the parent maps it", "Ok(1)"),
    ("destroyed", "137"),
    ("destroy what is gone", "Err(NotFound)"),
    ("start what is gone", "Err(NotFound)"),
    ("wake what is gone", "Err(NotFound)"),
    ("status of what was dropped", "Err(NotFound)"),
    ("its part is taken back", "true"),
    ("ended itself", "137"),
    ("and the next", "5"),
    ("and the next", "5"),
    ("and the next", "5"),
];

/// Who gets the place of one that is gone.
#[rustfmt::skip]
pub(super) const FOLLOWS: Rows = &[
    ("wake by the old handle", "Err(NotFound)"),
    ("destroy by the old handle", "Err(NotFound)"),
    ("its state", "true"),
    ("the successor found", "0"),
];

/// What a parent is refused.
#[rustfmt::skip]
pub(super) const REFUSALS: Rows = &[
    ("create outside of the range", "Err(BadArgument)"),
    ("create far outside", "Err(BadArgument)"),
    ("create where one is", "Err(Busy)"),
    ("create with an environment's", "Err(NotPermitted)"),
    ("create with memory", "Err(NotFound)"),
    ("start at an address that cannot be", "Err(BadArgument)"),
    ("start with a stack that cannot be", "Err(BadArgument)"),
    ("start the places", "Err(NotFound)"),
    ("status of the places", "Err(BadArgument)"),
    ("derive more rights", "Err(NotPermitted)"),
    ("derive all rights", "Err(NotPermitted)"),
    ("derive before the range", "Err(BadArgument)"),
    ("derive behind the range", "Err(BadArgument)"),
    ("derive nothing", "Err(BadArgument)"),
    ("derive around the end", "Err(BadArgument)"),
    ("give without the right", "Err(NotPermitted)"),
    ("give to memory", "Err(NotFound)"),
    ("give to the places", "Err(NotFound)"),
    ("map the child's handle as one's own", "Err(NotFound)"),
    ("map writable what is read-only", "Err(NotPermitted)"),
    ("map executable what is not", "Err(NotPermitted)"),
    ("map behind the range", "Err(BadArgument)"),
    ("map across its end", "Err(BadArgument)"),
    ("map at null", "Err(BadArgument)"),
    ("map over the fixed pages", "Err(BadArgument)"),
    ("map over the page tables", "Err(BadArgument)"),
    ("map over the kernel", "Err(BadArgument)"),
    ("map over the direct map", "Err(BadArgument)"),
    ("map with bits that mean nothing", "Err(BadArgument)"),
    ("map a large page of small ones", "Err(BadArgument)"),
    ("map inside a large page", "Err(Busy)"),
    ("map", "Ok(4)"),
    ("unmap half of a large page", "Err(BadArgument)"),
    ("unmap the fixed pages", "Err(BadArgument)"),
    ("unmap", "Ok(4)"),
    ("unmap what is not mapped", "Ok(4)"),
    ("let devices have what they may not", "Err(NotPermitted)"),
    ("let devices write what is read-only", "Err(NotPermitted)"),
    ("let devices do what means nothing", "Err(BadArgument)"),
    ("let devices have what is behind", "Err(BadArgument)"),
    ("act for a stranger", "Err(NotFound)"),
    ("destroy without the right", "Err(NotPermitted)"),
];

/// Acting for another without the right to.
#[rustfmt::skip]
pub(super) const CONTROL: Rows = &[
    ("wake without the right", "Err(NotPermitted)"),
    ("yield without the right", "Err(NotPermitted)"),
    ("give without the right to", "Err(NotPermitted)"),
    ("destroy without the right", "Err(NotPermitted)"),
    ("act for another, EnvironmentStart", "Err(NotPermitted)"),
    ("act for another, SliceBind", "Err(NotPermitted)"),
    ("act for another, SliceUnbind", "Err(NotPermitted)"),
    ("act for another, MemoryMap", "Err(NotPermitted)"),
    ("act for another, MemoryUnmap", "Err(NotPermitted)"),
    ("act for another, DmaGrant", "Err(NotPermitted)"),
    ("act for another, QueueBind", "Err(NotPermitted)"),
    ("act for another, QueueUnbind", "Err(NotPermitted)"),
    ("act for another, FlowCarve", "Err(NotPermitted)"),
    ("act for another, FlowDirect", "Err(NotPermitted)"),
    ("act for another, ExtentBind", "Err(NotPermitted)"),
    ("act for another, ExtentUnbind", "Err(NotPermitted)"),
    ("act for another, CapabilityDerive", "Err(NotPermitted)"),
    ("act for another, CapabilityGive", "Err(NotPermitted)"),
    ("act for another, CapabilityRevoke", "Err(NotPermitted)"),
    ("act for another, CapabilityDrop", "Err(NotPermitted)"),
    ("act for another, CapabilityTrim", "Err(NotPermitted)"),
    ("status by a number", "Err(NotFound)"),
    ("halt beside others", "Err(NotPermitted)"),
    ("create without the right", "Err(NotPermitted)"),
    ("create beside one's places", "Err(BadArgument)"),
];

/// Everything of which there is a table, to its end.
#[rustfmt::skip]
pub(super) const TABLES: Rows = &[
    ("exhaust places", "some, then Err(NoSpace), given back Ok(())"),
    ("exhaust page tables", "some, then Err(NoSpace), given back Ok(())"),
    ("exhaust flows", "some, then Err(NoSpace), given back Ok(())"),
    ("exhaust extents", "some, then Err(NoSpace), given back Ok(())"),
    ("exhaust capabilities", "some, then Err(NoSpace), given back Ok(())"),
    ("exhaust depth", "some, then Err(NoSpace), given back Ok(())"),
];

/// What is left in a register when another gets the CPU.
#[rustfmt::skip]
pub(super) const REGISTERS: Rows = &[
    ("ring 3 may set the bases of fs and gs", "true|false"),
    ("registers of one that sleeps", "nothing"),
    ("registers of one that yields", "nothing"),
    ("registers of one that yields at the end of its slice", "nothing"),
    ("registers of one that runs on", "nothing"),
    ("registers of one that faults", "nothing"),
    ("registers of one that yields in its fault upcall", "nothing"),
    ("registers of one that exits", "nothing"),
];

/// Messages to whom one may not send, and answers to who does not wait.
#[rustfmt::skip]
pub(super) const MESSAGES: Rows = &[
    ("to nobody", "[Err(NotFound), Err(NotFound)]"),
    ("to a number that was guessed", "[Err(NotFound), Err(NotFound)]"),
    ("to another generation", "[Err(NotFound), Err(NotFound)]"),
    ("to memory", "[Err(NotFound), Err(NotFound)]"),
    ("to the places", "[Err(NotFound), Err(NotFound)]"),
    ("to one without the right", "[Err(NotPermitted), Err(NotPermitted)]"),
    ("to what was dropped", "[Err(NotFound), Err(NotFound)]"),
    ("to who is gone", "[Err(NotFound), Err(NotFound)]"),
    ("to itself", "[Err(BadArgument), Err(BadArgument)]"),
    ("reply to one that was not received", "refused 7 times"),
    ("it is who one thought", "true"),
    ("reply to nobody", "[Err(NotFound), Err(NotFound)]"),
    ("reply to oneself", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that does not call", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a number that cannot be", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a large number", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that only sent", "[Err(NotFound), Err(NotFound)]"),
    ("reply to an earlier one in its place", "[Err(NotFound), Err(NotFound)]"),
    ("reply to a later one in its place", "[Err(NotFound), Err(NotFound)]"),
    ("reply", "Ok(())"),
    ("reply to the same again", "[Err(NotFound), Err(NotFound)]"),
    ("reply to who is gone", "[Err(NotFound), Err(NotFound)]"),
    ("reply to one that calls another", "0 taken"),
];

/// Slices that are another's, or more than there are.
#[rustfmt::skip]
pub(super) const SLICES: Rows = &[
    ("bind what is bound", "Err(Busy)"),
    ("unbind what another capability bound", "Err(NotFound)"),
    ("unbind without the right", "Err(NotPermitted)"),
    ("unbind with memory", "Err(NotFound)"),
    ("unbind nothing", "Err(BadArgument)"),
    ("unbind behind the range", "Err(BadArgument)"),
    ("unbind far behind", "Err(BadArgument)"),
    ("unbind more than there is", "Err(BadArgument)"),
    ("unbind all", "Ok(32)"),
    ("unbind all again", "Err(NotFound)"),
    ("bind without the right", "Err(NotPermitted)"),
    ("bind before the range", "Err(BadArgument)"),
    ("bind a part", "Ok(16)"),
    ("bind all", "Ok(16)"),
    ("drop the part", "Ok(0)"),
    ("bind what it had", "Ok(16)"),
];
