//! Instructions, addresses and the pages in which the kernel's calls begin: what the processor enforces, by tables of ours.

use super::Removal;

/// By what was removed.
#[rustfmt::skip]
pub(super) const SEEN: &[Removal] = &[
    Removal { what: "pages of the kernel's program given to ring 3, and SYSCALL not tried", got: &[
        ("read", "reads the kernel", "read 0x31"),
        ("read-kernel", "reads the kernel, by its name", "read 0x31"),
        ("execute", "executes the kernel", "let, and a vector 13 in it"),
        ("exec-kernel", "executes the kernel, by its name", "let, and a vector 13 in it"),
        ("stray-syscall", "stray-syscall", "runs the kernel's entry in ring 3, until a page fault reading 0xffff80000006e088"),
    ] },
    Removal { what: "the same, and all pages writable", got: &[
        ("write", "writes the kernel", "written"),
        ("write-kernel", "writes the kernel, by its name", "written"),
    ] },
    Removal { what: "all pages writable", got: &[
        ("write", "writes beside its turn register", "written"),
        ("write", "writes the gate", "let, and then a page fault executing 0x1: not mapped"),
        ("write", "writes the clock", "written"),
        ("write", "writes its environment page", "written"),
        ("write", "writes the host's page", "written"),
        ("write", "writes the kernel's page", "written"),
        ("write", "writes the resume page", "written"),
        ("write-text", "writes its code", "written"),
        ("write-gate-page", "writes the gate page", "let, and then a page fault executing 0x1: not mapped"),
        ("write-time-page", "writes the clock's page", "written"),
        ("write-environment-page", "writes the environment page", "written"),
        ("write-host-page", "writes the host page", "written"),
    ] },
    Removal { what: "no page without the right to execute", got: &[
        ("execute", "executes the clock", "let, and then a page fault reading 0x26: not mapped"),
        ("execute", "executes its log", "let, and then a page fault writing 0x26: not mapped"),
        ("exec-heap", "executes its heap", "executed"),
        ("exec-stack", "executes its stack", "executed"),
    ] },
    Removal { what: "page tables writable for their owner", got: &[
        ("write", "writes its page tables", "written"),
    ] },
    Removal { what: "all of memory in the window", got: &[
        ("read", "reads a page that is not its own", "read 0x0"),
        ("write", "writes a page that is not its own", "written"),
    ] },
    Removal { what: "doorbells mapped from the start", got: &[
        ("write", "rings a doorbell that is not bound", "written"),
    ] },
    Removal { what: "address of the gate not compared", got: &[
        ("stray-int3", "stray-int3", "executed"),
        ("stray-int3-long", "stray-int3-long", "executed"),
    ] },
    Removal { what: "bitmap of ports inside the task's limit", got: &[
        ("port-in", "port-in", "executed"),
        ("port-out", "port-out", "executed"),
        ("port-out-string", "port-out-string", "executed"),
    ] },
    Removal { what: "gates of all vectors open to ring 3, on the emulated SVM host", got: &[
        ("int-divide", "int-divide", "the exception as if it were its own: vector 0"),
        ("int-page-fault", "int-page-fault", "the kernel faults: machine ended"),
        ("int-timer", "int-timer", "executed"),
    ] },
    Removal { what: "ring 3 entered with IOPL 3, on the emulated SVM host", got: &[
        ("cli", "cli", "executed"),
        ("sti", "sti", "executed"),
    ] },
    Removal { what: "direct map given to ring 3, on the emulated SVM host", got: &[
        ("read", "reads all memory", "read 0x0"),
        ("write", "writes all memory", "written"),
        ("write", "writes the VMM's control register", "the machine ends, status 0"),
        ("read-direct-map", "reads the first of all memory", "read 0x0"),
    ] },
];
