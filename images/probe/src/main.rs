//! An environment that misbehaves on request: its first argument names one thing that ring 3 must not be able to do, or
//! one promise of the kernel to check. The integration tests (ci/tests/protection) run it and look at how the machine
//! ends: with a fault report, or with status 0 and lines in the log that say what was seen.
//!
//! | module | arguments |
//! | --- | --- |
//! | [`forbidden`] | instructions that ring 3 may not execute |
//! | [`memory`] | addresses that ring 3 may not read, write or execute |
//! | [`calls`] | kernel calls: registers, errors, the halt |
//! | [`binding`] | what a queue must not be bound to |
//! | [`disk`] | operations on a disk, through its driver |
//! | [`queue`] | no arguments: queues without a driver |
//! | [`dma`] | what a device must not be made to read or write |
//! | [`channel`] | the host channel, used and misused |
//! | [`child`] | no arguments: how other environments are made |
//! | [`family`] | other environments: making, giving, taking back |
//! | [`attacks`] | what environments try against those that they run beside |
//! | [`flows`] | flows and frames that are another's |
//! | [`extents`] | blocks that are another's, and requests under way |
//! | [`control`] | acting for others without the right to, and taking more than there is |
//! | [`registers`] | what is left in a register for somebody else |
//! | [`sharing`] | environments that do not give the CPU away by themselves |
//! | [`vcpus`] | slices, and several vCPUs |
//! | [`messages`] | messages between environments |
//! | [`guarded`] | a guardian and its clients, on one NIC |
//! | [`paging`] | more data than frames: faults, a policy, the extent |
//! | [`offspring`] | children that run functions of this program |
//! | [`revocation`] | what is asked back, given back and taken |
//! | [`costs`] | what kernel calls cost |
//! | [`arbitrary`] | every call with arbitrary arguments, and every table filled |
//! | [`storm`] | sleeping and being woken, many times |
//! | [`profile`] | no arguments: what a profiler should see |
//! | [`attribution`] | cycles burnt in known places |
//! | [`load`] | work: heap, log, spans, endless loops |
//!
//! Whoever adds a case adds it to its module's table; an argument that no table knows ends with [`NO_SUCH_CASE`].
#![no_std]
#![no_main]

extern crate alloc;

mod arbitrary;
mod attacks;
mod attribution;
mod binding;
mod calls;
mod channel;
mod child;
mod control;
mod costs;
mod disk;
mod dma;
mod extents;
mod family;
mod flows;
mod forbidden;
mod guarded;
mod load;
mod memory;
mod messages;
mod offspring;
mod paging;
mod profile;
mod queue;
mod registers;
mod revocation;
mod sharing;
mod storm;
mod vcpus;

exos_runtime::entry!(main);

/// Status: what was promised held.
const HELD: u32 = 0;
/// Status: what must not happen happened; the log says what.
const BROKEN: u32 = 1;
/// Status: no such case, or its own arguments are missing.
const NO_SUCH_CASE: u32 = 2;

/// One case: its name, and what it does with the arguments behind it. The status that it returns is the machine's.
type Case = (&'static str, fn(&mut dyn Iterator<Item = &'static str>) -> Option<u32>);

const TABLES: &[&[Case]] = &[
    memory::CASES,
    calls::CASES,
    binding::CASES,
    dma::CASES,
    disk::CASES,
    channel::CASES,
    load::CASES,
    family::CASES,
    attacks::CASES,
    registers::CASES,
    flows::CASES,
    extents::CASES,
    control::CASES,
    LISTING,
    sharing::CASES,
    vcpus::CASES,
    messages::TABLES[0],
    messages::TABLES[1],
    messages::TABLES[2],
    guarded::CASES,
    costs::CASES,
    storm::CASES,
    arbitrary::CASES,
    revocation::CASES,
    paging::CASES,
    profile::CASES,
    attribution::CASES,
];

/// Says all cases, so that a test knows them all.
const LISTING: &[Case] = &[("cases", |_| {
    let instructions = forbidden::INSTRUCTIONS.iter().map(|(name, _)| *name);
    let others = TABLES.iter().copied().flatten().map(|(name, _)| *name);
    instructions.chain(others).for_each(|name| log::info!("probe: case {name}"));
    Some(HELD)
})];

fn main() -> u32 {
    let mut arguments = exos_runtime::pages::arguments();
    let Some(name) = arguments.next() else {
        log::error!("probe: say what to try");
        return NO_SUCH_CASE;
    };
    if let Some((_, instruction)) = forbidden::INSTRUCTIONS.iter().find(|(known, _)| *known == name) {
        log::info!("probe: {name}");
        // SAFETY: the instruction faults, which ends the environment; if it does not, it returns and the test fails.
        unsafe { instruction() };
        log::error!("probe: {name} was executed");
        return BROKEN;
    }
    let case = TABLES.iter().copied().flatten().find(|(known, _)| *known == name);
    let status = case.and_then(|(_, run)| run(&mut arguments));
    status.unwrap_or_else(|| {
        log::error!("probe: no case {name:?}, or arguments are missing");
        NO_SUCH_CASE
    })
}

/// A number, decimal or with `0x`.
fn number(word: Option<&str>) -> Option<u64> {
    let word = word?;
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}
