//! What kernel calls cost: each case makes one call so often that the rest does not matter. `cost CALL TIMES`: the log says the
//! least and the median cycles; how many ring 0 instructions there were the VMM finds out from outside.

use crate::binding::pages_for;
use crate::child::{Child, Code};
use crate::{BROKEN, Case, HELD};
use abi::call::{Call, map, sleep, state};
use abi::capability::{Handle, rights};
use abi::layout::{PAGE_BYTES, WINDOW_VA};
use abi::queue::RingLayout;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use exos_runtime::upcall::Verdict;
use exos_runtime::{clock, kernel, pages, upcall};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

pub(crate) const CASES: &[Case] = &[("cost", cost)];

/// How many things are made for the calls that take them away, however many do: so that their making is in no difference.
const SETUP: u64 = 220;
/// Children that such calls are about.
const CHILDREN: usize = 12;

/// Where pages are mapped for no other use.
const VA: u64 = 1 << 40;

/// Answers of calls, which must all be successes.
struct Costs {
    cycles: Vec<u64>,
    failed: bool,
}

impl Costs {
    /// One call that counts.
    fn call(&mut self, number: Call, arguments: [u64; 5]) {
        let start = clock::tsc();
        let answer = kernel::raw(number, arguments);
        self.cycles.push(clock::tsc() - start);
        if let Err(error) = answer {
            log::error!("probe: {number:?}: {error:?}");
            self.failed = true;
        }
    }
}

fn cost(arguments: Arguments<'_>) -> Option<u32> {
    let name = arguments.next()?;
    let times = crate::number(arguments.next())?;
    let mut costs = Costs { cycles: Vec::with_capacity(times as usize), failed: false };
    run(name, times, &mut costs)?;
    costs.cycles.sort_unstable();
    let least = costs.cycles.first().copied().unwrap_or(0);
    let median = costs.cycles.get(costs.cycles.len() / 2).copied().unwrap_or(0);
    log::info!("probe: cost {least} {median}");
    Some(if costs.failed { BROKEN } else { HELD })
}

fn derive(start: u64) -> Option<Handle> {
    derive_some(start, 1)
}

/// Longer than a measurement takes.
fn grace() -> u64 {
    clock::Scale::new().ticks(50_000_000_000)
}

/// Length of the instruction that [`read_nothing`] faults at.
const READ_BYTES: u64 = 2;

/// Reads where nothing is mapped.
fn read_nothing() {
    // SAFETY: it faults, and the handler goes on behind it.
    unsafe { core::arch::asm!("mov al, [rdx]", in("rdx") VA, out("al") _, options(nostack)) };
}

fn derive_some(start: u64, count: u64) -> Option<Handle> {
    let own = &pages::environment().capabilities;
    let rights = u64::from(rights::READ | rights::GIVE);
    kernel::raw(Call::CapabilityDerive, [0, own.heap[0].0, start, count, rights]).ok().map(Handle)
}

/// The calls, set up so that each succeeds.
fn run(name: &str, times: u64, costs: &mut Costs) -> Option<()> {
    let own = &pages::environment().capabilities;
    let first = pages::environment().heap[0].start_gpa / PAGE_BYTES;
    let heap = own.heap[0].0;
    match name {
        "version" => (0..times).for_each(|_| costs.call(Call::Version, [0; 5])),
        "derive" => (0..times).for_each(|_| costs.call(Call::CapabilityDerive, [0, heap, first, 1, 1])),
        "drop" => {
            let parts: Option<Vec<Handle>> = (0..SETUP).map(|_| derive(first)).collect();
            parts?
                .iter()
                .take(times as usize)
                .for_each(|part| costs.call(Call::CapabilityDrop, [0, part.0, 0, 0, 0]));
        }
        "give" => {
            let child = Child::new(Code::new(), rights::WRITE).ok()?;
            let part = derive(first)?;
            let give = [0, part.0, child.environment.0, u64::from(rights::READ), 0];
            (0..times).for_each(|_| costs.call(Call::CapabilityGive, give));
        }
        "map" => (0..times).for_each(|page| {
            costs.call(Call::MemoryMap, [0, heap, (VA + page * PAGE_BYTES) | map::WRITE, page, 1]);
        }),
        "unmap" => {
            for page in 0..SETUP {
                kernel::raw(Call::MemoryMap, [0, heap, VA + page * PAGE_BYTES, page, 1]).ok()?;
            }
            (0..times).for_each(|page| costs.call(Call::MemoryUnmap, [0, VA + page * PAGE_BYTES, 1, 0, 0]));
        }
        "grant" => (0..times).for_each(|page| costs.call(Call::DmaGrant, [0, heap, page, 1, 3])),
        "create" => (0..times).for_each(|_| {
            costs.call(Call::EnvironmentCreate, [own.environments.0, abi::call::ANY, 0, 0, 0]);
        }),
        "status" | "wake" | "start" => {
            let children: Result<Vec<Child>, _> =
                (0..CHILDREN).map(|_| Child::new(Code::new().exit(0), rights::WRITE)).collect();
            let children = children.ok()?;
            for time in 0..times {
                let child = children[time as usize % children.len()].environment.0;
                match name {
                    "start" => costs.call(Call::EnvironmentStart, [child, crate::child::CODE_VA, 0, 0, 0]),
                    "wake" => costs.call(Call::Wake, [child, 0, 0, 0, 0]),
                    _ => costs.call(Call::EnvironmentStatus, [child, 0, 0, 0, 0]),
                };
            }
        }
        "trim" => {
            let parts: Option<Vec<Handle>> = (0..SETUP).map(|_| derive_some(first, 2)).collect();
            parts?
                .iter()
                .take(times as usize)
                .for_each(|part| costs.call(Call::CapabilityTrim, [0, part.0, 1, 0, 0]));
        }
        // Each child can be asked for four.
        "ask" => {
            let mut asks = Vec::new();
            for _ in 0..CHILDREN {
                let child = Child::new(Code::new(), rights::WRITE).ok()?;
                for _ in 0..abi::revocation::ASKS {
                    let part = derive_some(first, 2)?;
                    let give = [0, part.0, child.environment.0, u64::from(rights::READ), 0];
                    let given = kernel::raw(Call::CapabilityGive, give).ok()?;
                    asks.push([part.0, child.environment.0, given, 1, grace()]);
                }
            }
            asks.iter().take(times as usize).for_each(|ask| costs.call(Call::CapabilityAsk, *ask));
        }
        "fault" => {
            upcall::on_fault(|_| {
                let rip = &upcall::page().frame[0];
                rip.store(rip.load(Relaxed) + READ_BYTES, Relaxed);
                Verdict::GoOn
            });
            for _ in 0..times {
                let start = clock::tsc();
                read_nothing();
                costs.cycles.push(clock::tsc() - start);
            }
        }
        // To the one other that can run and back: two changes of environment, and two calls.
        "yield" => {
            let code = Code::new().call(Call::Yield, [0; 5]);
            let back = -(code.0.len() as i32 + 5);
            let child = Child::new(code.bytes(&[0xE9]).bytes(&back.to_le_bytes()), rights::WRITE).ok()?;
            child.start(0).ok()?;
            (0..times).for_each(|_| costs.call(Call::Yield, [child.environment.0, 0, 0, 0, 0]));
            // Before we end: what it lives by goes with us, and it would fault.
            kernel::raw(Call::EnvironmentDestroy, [child.environment.0, 0, 0, 0, 0]).ok()?;
            child.wait(abi::call::state::GONE)?;
        }
        // There and back: two calls, two changes of environment, and the other receives again.
        "message" => {
            let server = Child::new(Code::serve(), rights::WRITE).ok()?;
            server.start(0).ok()?;
            server.becomes(state::RECEIVING)?;
            (0..times).for_each(|_| costs.call(Call::MessageCall, [server.environment.0, 1, 2, 3, 4]));
            server.destroy()?;
        }
        // To one who receives; then that one has the CPU, and receives again.
        "send" => {
            let code = Code::new().call(Call::MessageReceive, [0; 5]).for_ever();
            let child = Child::new(code, rights::WRITE).ok()?;
            child.start(0).ok()?;
            child.becomes(state::RECEIVING)?;
            for _ in 0..times {
                costs.call(Call::MessageSend, [child.environment.0, 1, 2, 3, 4]);
                kernel::yield_to(child.environment).ok()?;
            }
            child.destroy()?;
        }
        // A sleep that is over at once, beside one who sleeps: what a look at nothing costs.
        "sleep" => {
            let child = Child::new(Code::new().call(Call::Sleep, [0; 5]).exit(0), rights::WRITE).ok()?;
            child.start(0).ok()?;
            kernel::yield_to(child.environment).ok()?;
            (0..times).for_each(|_| costs.call(Call::Sleep, [2, sleep::NONE, 0, 0, 0]));
        }
        "carve" => (0..times).for_each(|_| {
            let field = [0, own.flows[0].0, 1 | 128 << 8, 0, 0xFFFF_0A00_0000 + costs.cycles.len() as u64];
            costs.call(Call::FlowCarve, field);
        }),
        "direct" => (0..times).for_each(|_| {
            costs.call(
                Call::FlowDirect,
                [0, own.flows[0].0, own.queues[0].0, 1 << 16, u64::from(rights::SEND_ANY)],
            );
        }),
        "bind" | "unbind" => {
            let layout = RingLayout::new(256)?;
            let base = pages_for(layout.len_bytes())?;
            let queues = own.queues[0].0;
            for _ in 0..times {
                let bind = [0, queues, 0, base, 256];
                let unbind = [0, queues, 0, 0, 0];
                if name == "bind" {
                    costs.call(Call::QueueBind, bind);
                    kernel::raw(Call::QueueUnbind, unbind).ok()?;
                } else {
                    kernel::raw(Call::QueueBind, bind).ok()?;
                    costs.call(Call::QueueUnbind, unbind);
                }
            }
        }
        _ => return None,
    }
    Some(())
}

const _: () = assert!(VA < WINDOW_VA);
