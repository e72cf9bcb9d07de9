//! Kernel calls, capabilities and the CPU: environments against the kernel and against each other.

use super::Removal;

/// By what was removed.
#[rustfmt::skip]
pub(super) const SEEN: &[Removal] = &[
    Removal { what: "pages of the kernel's program given to ring 3, and SYSCALL not tried", got: &[
        ("child-attacks", "a child that reads the kernel", "0"),
        ("child-attacks", "a child that reads the kernel's page tables", "0"),
    ] },
    Removal { what: "all pages writable", got: &[
        ("child-attacks", "a child that writes the environment page", "0"),
        ("child-attacks", "a child that writes the kernel's page", "0"),
        ("child-attacks", "a child that writes the gate", "0"),
        ("child-attacks", "a child that writes the resume page", "0"),
    ] },
    Removal { what: "no page without the right to execute", got: &[
        ("child-attacks", "a child that executes its data", "0"),
    ] },
    Removal { what: "page tables writable for their owner", got: &[
        ("child-attacks", "a child that writes its page tables", "0"),
    ] },
    Removal { what: "doorbells mapped from the start", got: &[
        ("child-attacks", "a child that rings a doorbell that is not bound", "0"),
    ] },
    Removal { what: "turn register left mapped", got: &[
        ("child-attacks", "a child that takes a turn beside others", "0"),
        ("turn-beside", "takes a turn beside others", "goes on"),
    ] },
    Removal { what: "address of the gate not compared", got: &[
        ("child-attacks", "a child that enters the kernel elsewhere", "0"),
    ] },
    Removal { what: "gate instructions all over the page, and their address not compared", got: &[
        ("call-fault", "enters behind the gate", "returned"),
        ("call-fault", "enters at the end of the gate page", "returned"),
    ] },
    Removal { what: "number of the call not compared", got: &[
        ("bad-call", "call 0xffff", "the kernel faults: machine ended"),
        ("bad-call", "call 0x100000000", "the kernel faults: machine ended"),
        ("bad-call", "call 0x8000000000000020", "Err(NotFound)"),
        ("bad-call", "call 0xffffffffffffffff", "the kernel faults: machine ended"),
    ] },
    Removal { what: "no entry for a number without a call", got: &[
        ("bad-call", "call 0xf", "the kernel jumps to null: machine ended"),
    ] },
    Removal { what: "\"alone\" not looked at", got: &[
        ("act-for-another", "halt beside others", "Ok(0)"),
    ] },
    Removal { what: "nobody ended for running on", got: &[
        ("child-runs-on", "the child that ran on", "runs on until the machine is stopped"),
    ] },
    Removal { what: "resume page without XRSTOR and selectors", got: &[
        ("registers-of-another", "registers of one that sleeps", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that yields", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that yields at the end of its slice", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that runs on", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that faults", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that yields in its fault upcall", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
        ("registers-of-another", "registers of one that exits", "x87 mxcsr xmm ymm ds es fs gs fs-base gs-base"),
    ] },
    Removal { what: "generations not compared", got: &[
        ("child-guesses", "derive from guessed handles", "3 not refused as unknown"),
        ("message-refusals", "to another generation", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to an earlier one in its place", "[Ok(0), Err(NotFound)]"),
    ] },
    Removal { what: "handles looked up in everybody's tables", got: &[
        ("child-guesses", "status of guessed handles", "4 not refused as unknown"),
        ("family-refusals", "map the child's handle as one's own", "Ok(1)"),
    ] },
    Removal { what: "handles not compared: the first of the kind", got: &[
        ("family-refusals", "create with memory", "a handle"),
        ("slice-refusals", "unbind with memory", "Ok(1)"),
    ] },
    Removal { what: "kinds not compared", got: &[
        ("family-refusals", "give to memory", "a handle"),
        ("family-refusals", "act for a stranger", "Ok(1)"),
    ] },
    Removal { what: "rights not compared", got: &[
        ("family-refusals", "derive more rights", "a handle"),
        ("family-refusals", "derive all rights", "a handle"),
        ("family-refusals", "give without the right", "a handle"),
        ("family-refusals", "map writable what is read-only", "Ok(1)"),
        ("family-refusals", "map executable what is not", "Ok(1)"),
        ("family-refusals", "let devices have what they may not", "Ok(1)"),
        ("family-refusals", "let devices write what is read-only", "Ok(1)"),
        ("family-refusals", "destroy without the right", "Ok(0)"),
        ("act-for-another", "wake without the right", "Ok(0)"),
        ("act-for-another", "yield without the right", "Ok(0)"),
        ("act-for-another", "give without the right to", "a handle"),
        ("act-for-another", "destroy without the right", "Ok(0)"),
        ("act-for-another", "act for another, EnvironmentStart", "Ok(())"),
        ("act-for-another", "act for another, SliceBind", "Ok(())"),
        ("act-for-another", "act for another, SliceUnbind", "Ok(())"),
        ("act-for-another", "act for another, MemoryMap", "Ok(())"),
        ("act-for-another", "act for another, MemoryUnmap", "Ok(())"),
        ("act-for-another", "act for another, DmaGrant", "Ok(())"),
        ("act-for-another", "act for another, QueueBind", "Ok(())"),
        ("act-for-another", "act for another, QueueUnbind", "Ok(())"),
        ("act-for-another", "act for another, FlowCarve", "Ok(())"),
        ("act-for-another", "act for another, FlowDirect", "Ok(())"),
        ("act-for-another", "act for another, ExtentBind", "Ok(())"),
        ("act-for-another", "act for another, ExtentUnbind", "Ok(())"),
        ("act-for-another", "act for another, CapabilityDerive", "Ok(())"),
        ("act-for-another", "act for another, CapabilityGive", "Ok(())"),
        ("act-for-another", "act for another, CapabilityRevoke", "Ok(())"),
        ("act-for-another", "act for another, CapabilityDrop", "Ok(())"),
        ("act-for-another", "act for another, CapabilityTrim", "Ok(())"),
        ("act-for-another", "create without the right", "a handle"),
        ("message-refusals", "to one without the right", "[Ok(0), Ok(0)]"),
        ("slice-refusals", "bind without the right", "Ok(1)"),
    ] },
    Removal { what: "rights not compared, nor by which capability it is bound", got: &[
        ("slice-refusals", "unbind without the right", "Ok(1)"),
    ] },
    Removal { what: "ranges of parts not compared", got: &[
        ("family-refusals", "derive before the range", "a handle"),
        ("family-refusals", "derive behind the range", "a handle"),
        ("family-refusals", "derive nothing", "a handle"),
        ("family-refusals", "derive around the end", "a handle"),
    ] },
    Removal { what: "whether it lives not looked at", got: &[
        ("child-loses", "destroy what is gone", "Ok(0)"),
        ("child-loses", "wake what is gone", "Ok(0)"),
        ("child-follows", "wake by the old handle", "Ok(0)"),
        ("child-follows", "destroy by the old handle", "Ok(0)"),
        ("family-refusals", "start the places", "Ok(0)"),
        ("family-refusals", "give to the places", "a handle"),
        ("message-refusals", "to the places", "[Ok(0), Ok(0)]"),
        ("message-refusals", "to who is gone", "calls it for ever: machine stands still"),
    ] },
    Removal { what: "whether it lives not looked at, nor whether it is new", got: &[
        ("child-loses", "start what is gone", "Ok(0)"),
    ] },
    Removal { what: "handles not compared: the first of the kind, and whether it lives not looked at", got: &[
        ("message-refusals", "to nobody", "[Ok(0), Ok(0)]"),
        ("message-refusals", "to a number that was guessed", "[Ok(0), Ok(0)]"),
        ("message-refusals", "to memory", "[Ok(0), Ok(0)]"),
        ("message-refusals", "to what was dropped", "[Ok(0), Ok(0)]"),
    ] },
    Removal { what: "handles not compared: the first of the kind, a place or not", got: &[
        ("child-loses", "status of what was dropped", "Ok(0)"),
        ("act-for-another", "status by a number", "Ok(0)"),
    ] },
    Removal { what: "generation of the place not compared", got: &[
        ("child-follows", "its state", "false"),
    ] },
    Removal { what: "pages of a place not cleared", got: &[
        ("child-follows", "the successor found", "77"),
    ] },
    Removal { what: "mappings left", got: &[
        ("child-loses", "after its memory was revoked", "runs on: its parent waits in vain"),
    ] },
    Removal { what: "its own end not looked at", got: &[
        ("child-loses", "ended itself", "goes on: its parent waits in vain"),
    ] },
    Removal { what: "range of places not compared", got: &[
        ("act-for-another", "create beside one's places", "a handle"),
    ] },
    Removal { what: "range of places not compared, nor whether they are free", got: &[
        ("family-refusals", "create outside of the range", "a handle"),
        ("family-refusals", "create far outside", "a handle"),
    ] },
    Removal { what: "whether a place is free not looked at", got: &[
        ("family-refusals", "create where one is", "a handle"),
    ] },
    Removal { what: "rights, kind of places and their range not compared", got: &[
        ("family-refusals", "create with an environment's", "a handle"),
    ] },
    Removal { what: "addresses not looked at", got: &[
        ("family-refusals", "start at an address that cannot be", "Ok(0)"),
    ] },
    Removal { what: "addresses not looked at, nor whether it is new", got: &[
        ("family-refusals", "start with a stack that cannot be", "Ok(0)"),
    ] },
    Removal { what: "whether it is a place not looked at", got: &[
        ("family-refusals", "status of the places", "Ok(0)"),
    ] },
    Removal { what: "range of pages not compared", got: &[
        ("family-refusals", "map behind the range", "Ok(1)"),
        ("family-refusals", "map across its end", "Ok(2)"),
        ("family-refusals", "let devices have what is behind", "Ok(1)"),
    ] },
    Removal { what: "range of addresses not compared", got: &[
        ("family-refusals", "map at null", "Ok(1)"),
        ("family-refusals", "map over the fixed pages", "the gate is gone: machine ended"),
        ("family-refusals", "map over the page tables", "Ok(1)"),
        ("family-refusals", "map over the kernel", "the kernel is gone: machine stands still"),
        ("family-refusals", "unmap the fixed pages", "the gate is gone: machine ended"),
    ] },
    Removal { what: "range of addresses not compared, nor what is mapped there", got: &[
        ("family-refusals", "map over the direct map", "Ok(1)"),
    ] },
    Removal { what: "bits not looked at", got: &[
        ("family-refusals", "map with bits that mean nothing", "Ok(1)"),
        ("family-refusals", "let devices do what means nothing", "Ok(1)"),
    ] },
    Removal { what: "alignment of large pages not looked at", got: &[
        ("family-refusals", "map a large page of small ones", "Ok(512)"),
    ] },
    Removal { what: "what is mapped there not looked at", got: &[
        ("family-refusals", "map inside a large page", "Ok(1)"),
    ] },
    Removal { what: "size of the page not looked at", got: &[
        ("family-refusals", "unmap half of a large page", "Ok(512)"),
    ] },
    Removal { what: "range of slices not compared", got: &[
        ("slice-refusals", "unbind nothing", "Ok(0)"),
        ("slice-refusals", "unbind behind the range", "Ok(16)"),
        ("slice-refusals", "unbind more than there is", "Ok(15)"),
        ("slice-refusals", "bind before the range", "Ok(2)"),
    ] },
    Removal { what: "range of slices not compared, nor by which capability they are bound", got: &[
        ("slice-refusals", "unbind far behind", "Ok(1)"),
    ] },
    Removal { what: "whether it is bound not looked at", got: &[
        ("slice-refusals", "bind what is bound", "Ok(1)"),
    ] },
    Removal { what: "by which capability it is bound not looked at", got: &[
        ("slice-refusals", "unbind what another capability bound", "Ok(1)"),
        ("slice-refusals", "unbind all again", "Ok(32)"),
    ] },
    Removal { what: "that it is itself not looked at", got: &[
        ("message-refusals", "to itself", "calls itself for ever: machine stands still"),
    ] },
    Removal { what: "whether the call was received not looked at", got: &[
        ("message-refusals", "reply to one that was not received", "refused 6 times"),
    ] },
    Removal { what: "number not compared", got: &[
        ("message-refusals", "reply to a number that cannot be", "[Ok(0), Err(NotFound)]"),
    ] },
    Removal { what: "whether it calls not looked at", got: &[
        ("message-refusals", "reply to the same again", "[Ok(0), Err(NoMessage)]"),
    ] },
    Removal { what: "whom it calls not compared", got: &[
        ("message-refusals", "reply to one that calls another", "1 taken"),
    ] },
    Removal { what: "state and generation not looked at", got: &[
        ("message-refusals", "reply to a later one in its place", "[Ok(0), Err(NoMessage)]"),
    ] },
    Removal { what: "state, generation, number and whether it was received not looked at", got: &[
        ("message-refusals", "reply to nobody", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to oneself", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to one that does not call", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to a large number", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to one that only sent", "[Ok(0), Ok(0)]"),
        ("message-refusals", "reply to who is gone", "[Ok(0), Ok(0)]"),
    ] },
    Removal { what: "slots not counted", got: &[
        ("exhaust", "exhaust capabilities", "machine stands still"),
        ("exhaust", "exhaust extents", "some, then Err(NotFound), given back Ok(())"),
    ] },
    Removal { what: "depth not counted", got: &[
        ("exhaust", "exhaust depth", "some, then Err(NoSpace), given back Err(NoSpace)"),
    ] },
    Removal { what: "places not counted", got: &[
        ("exhaust", "exhaust places", "ends the first environment: machine ended"),
    ] },
    Removal { what: "share and end of the pool of page tables not looked at", got: &[
        ("exhaust", "exhaust page tables", "takes others' memory: machine ended"),
    ] },
    Removal { what: "ring 3 entered with IOPL 3, on the emulated SVM host", got: &[
        ("child-attacks", "a child that forbids interrupts", "0"),
    ] },
    Removal { what: "direct map given to ring 3, on the emulated SVM host", got: &[
        ("child-attacks", "a child that reads all memory", "0"),
    ] },
    Removal { what: "slots not counted, nor nodes of the flow table", got: &[
        ("exhaust", "exhaust flows", "some, then Err(NoSpace), given back Err(Busy)"),
    ] },
];
