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
//! | [`dma`] | what a device must not be made to read or write |
//! | [`channel`] | the host channel, used and misused |
//! | [`family`] | other environments: making, giving, taking back, and what they try |
//! | [`sharing`] | environments that do not give the CPU away by themselves |
//! | [`vcpus`] | slices, and several vCPUs |
//! | [`messages`] | messages between environments |
//! | [`costs`] | what kernel calls cost |
//! | [`load`] | work: heap, log, spans, endless loops |
//!
//! Whoever adds a case adds it to its module's table; an argument that no table knows ends with [`NO_SUCH_CASE`].
#![no_std]
#![no_main]

extern crate alloc;

mod binding;
mod calls;
mod channel;
mod costs;
mod disk;
mod dma;
mod family;
mod forbidden;
mod load;
mod memory;
mod messages;
mod sharing;
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

const TABLES: [&[Case]; 12] = [
    memory::CASES,
    calls::CASES,
    binding::CASES,
    dma::CASES,
    disk::CASES,
    channel::CASES,
    load::CASES,
    family::CASES,
    sharing::CASES,
    messages::CASES,
    vcpus::CASES,
    costs::CASES,
];

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
