//! What attacks got when what stands against them had been removed, as it was seen: in a kernel or a VMM that was made for that and
//! is nowhere else. Where several checks stand behind each other all of them were removed, and are named. What is not here nobody
//! has tried, or it was tried and refused all the same.

mod addresses;
mod bindings;
mod calls;

use crate::attacks::Without;

/// One removal, and what attacks got by it.
struct Removal {
    /// What was removed.
    what: &'static str,
    /// Case, what is tried and what it got.
    got: &'static [(&'static str, &'static str, &'static str)],
}

/// What the processor refuses alone: why, and which cases and attacks.
#[rustfmt::skip]
const PROCESSOR: &[(&str, &[(&str, &str)])] = &[
    ("ring 0 only", &[
        ("sysret", "sysret"), ("swapgs", "swapgs"), ("hlt", "hlt"), ("rdmsr", "rdmsr"), ("wrmsr", "wrmsr"), ("lgdt", "lgdt"),
        ("lidt", "lidt"), ("ltr", "ltr"), ("lldt", "lldt"), ("mov-from-cr3", "mov-from-cr3"), ("mov-cr0", "mov-cr0"),
        ("mov-cr3", "mov-cr3"), ("mov-cr4", "mov-cr4"), ("mov-dr7", "mov-dr7"), ("mov-dr0", "mov-dr0"), ("mov-dr3", "mov-dr3"),
        ("mov-dr6", "mov-dr6"), ("mov-from-dr0", "mov-from-dr0"), ("mov-from-dr6", "mov-from-dr6"),
        ("mov-from-dr7", "mov-from-dr7"), ("xsetbv", "xsetbv"), ("clts", "clts"), ("invlpg", "invlpg"), ("wbinvd", "wbinvd"),
        ("child-attacks", "a child that halts"), ("child-attacks", "a child that changes its page tables' root"),
        ("child-attacks", "a child that sets a breakpoint"),
    ]),
    ("a selector of ring 0", &[
        ("iret-ring0", "iret-ring0"), ("far-return-ring0", "far-return-ring0"), ("load-kernel-data", "load-kernel-data"),
    ]),
    ("an exception of its own", &[
        ("divide", "divide"), ("invalid-opcode", "invalid-opcode"), ("child-attacks", "a child that executes nothing known"),
    ]),
    ("the trap flag", &[
        ("single-step", "single-step"), ("child-attacks", "a child that single-steps"),
        ("child-attacks", "a child that single-steps into the kernel"),
    ]),
    ("no address", &[
        ("child-attacks", "a child that goes on at an address that cannot be"), ("read", "reads an address that cannot be"),
    ]),
    ("nothing is mapped there", &[
        ("read", "reads behind the end of memory"), ("read", "reads null"), ("null", "reads nothing"),
        ("stack-overflow", "grows its stack without end"), ("child-attacks", "a child that reads its parent's heap"),
        ("child-attacks", "a child that reads its parent's stack"), ("child-attacks", "a child that rings the last doorbell"),
    ]),
    ("ring 0 has a stack of its own; the return is what faults", &[
        ("bad-stack", "calls with no stack"), ("bad-stack", "calls with the kernel's memory as its stack"),
        ("bad-stack", "calls with a stack that cannot be"),
    ]),
    ("there is no such gate", &[
        ("int-unused", "int-unused"),
    ]),
];

/// What is no attack but must work: cases and what they do.
#[rustfmt::skip]
const WORKS: &[(&str, &[&str])] = &[
    ("bad-queue-bind", &[
        "bind good", "unbind bound", "bind after unbind",
    ]),
    ("flow-attacks", &[
        "carve the next port", "direct to one's own pair",
    ]),
    ("flow-egress", &[
        "sent as one's own",
    ]),
    ("extent-attacks", &[
        "bind one's extent", "read one's block", "read one's last block", "unbind it", "bind it once more", "read once more",
    ]),
    ("child-loses", &[
        "before", "the parent maps it", "destroyed", "its part is taken back", "and the next",
    ]),
    ("family-refusals", &[
        "map", "unmap", "unmap what is not mapped",
    ]),
    ("slice-refusals", &[
        "unbind all", "bind a part", "bind all", "drop the part", "bind what it had",
    ]),
    ("message-refusals", &[
        "it is who one thought", "reply",
    ]),
    ("registers-of-another", &[
        "ring 3 may set the bases of fs and gs",
    ]),
];

fn seen() -> impl Iterator<Item = &'static Removal> {
    [addresses::SEEN, bindings::SEEN, calls::SEEN].into_iter().flatten()
}

/// What is known of this one.
pub(super) fn of(case: &str, what: &str) -> Without {
    let seen = seen().find_map(|removal| {
        let row = removal.got.iter().find(|row| (row.0, row.1) == (case, what))?;
        Some(Without::Seen { removed: removal.what, got: row.2 })
    });
    let alone = || {
        let row = PROCESSOR.iter().find(|row| row.1.contains(&(case, what)))?;
        Some(Without::Processor(row.0))
    };
    let works = || WORKS.iter().any(|row| row.0 == case && row.1.contains(&what)).then_some(Without::Works);
    seen.or_else(alone).or_else(works).unwrap_or(Without::NotTried)
}

/// Every case and attack of which something is known.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    let seen = seen().flat_map(|removal| removal.got.iter().map(|row| (row.0, row.1)));
    let alone = PROCESSOR.iter().flat_map(|row| row.1.iter().copied());
    let works = WORKS.iter().flat_map(|row| row.1.iter().map(|what| (row.0, *what)));
    seen.chain(alone).chain(works)
}
