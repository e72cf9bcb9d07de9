//! Every table of the kernel's, filled to its end by one who holds what can be held, beside a neighbour who goes on: each end has
//! its documented error, the neighbour's share is not touched, and what is given back can be had again.

use super::neighbour;
use crate::child::{Child, Code};
use crate::{BROKEN, HELD};
use abi::boot::DEVICE_BLOCK;
use abi::call::{ANY, Call, Error, state};
use abi::capability::{Handle, rights};
use abi::domain::DOMAINS;
use abi::layout::PAGE_BYTES;
use alloc::vec::Vec;
use exos_runtime::{clock, kernel, pages};

type Arguments<'a> = &'a mut dyn Iterator<Item = &'static str>;

/// Where pages are mapped, a table each.
const VA: u64 = 1 << 41;
/// More than any table has room for.
const MANY: u64 = 1 << 16;
/// How often others run before somebody is given up.
const YIELDS: u32 = 20_000;
/// A child of the root of the flows: one address.
const ADDRESS: u64 = abi::flow::Level::DestinationPrefix as u64 | 128 << 8;

fn call(number: Call, arguments: [u64; 5]) -> Result<u64, Error> {
    kernel::raw(number, arguments)
}

/// Ends it, if it is an environment, and drops it.
pub(super) fn give_back(handle: u64) -> Option<()> {
    if call(Call::EnvironmentStatus, [handle, 0, 0, 0, 0]).is_ok() {
        // Refused if it has ended by itself.
        call(Call::EnvironmentDestroy, [handle, 0, 0, 0, 0]).ok();
        for _ in 0..YIELDS {
            if call(Call::EnvironmentStatus, [handle, 0, 0, 0, 0]).ok()? & 0xFFFF_FFFF == state::GONE {
                break;
            }
            kernel::yield_to(Handle::NONE).ok()?;
        }
    }
    while call(Call::CapabilityDrop, [0, handle, 0, 0, 0]).ok()? != 0 {}
    Some(())
}

fn give_all_back(made: &[u64]) -> Option<()> {
    made.iter().rev().try_for_each(|&handle| give_back(handle))
}

/// Waits until every place is free: who was made by a child ends after it.
pub(super) fn settle() -> Option<()> {
    let places = pages::environment().capabilities.environments.0;
    let mut yields = 0;
    let mut number = 0;
    while number < DOMAINS as u64 {
        match call(Call::EnvironmentCreate, [places, number, 0, 0, 0]) {
            Ok(handle) => give_back(handle)?,
            Err(Error::BadArgument) => {}
            Err(Error::Busy) if yields < YIELDS => {
                yields += 1;
                kernel::yield_to(Handle::NONE).ok()?;
                continue;
            }
            Err(error) => {
                log::error!("probe: place {number}: {error:?}");
                return None;
            }
        }
        number += 1;
    }
    Some(())
}

/// How many there can be, and why no more.
type Full = (u64, Option<Error>);

/// Makes until it is refused.
fn fill(made: &mut Vec<u64>, mut make: impl FnMut(u64) -> Result<u64, Error>) -> Full {
    for count in 0..MANY {
        match make(count) {
            Ok(handle) => made.push(handle),
            Err(error) => return (count, Some(error)),
        }
    }
    (MANY, None)
}

/// What can be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Slots,
    Depth,
    Places,
    PageTables,
    Extents,
    Flows,
}

const TABLES: [Table; 6] =
    [Table::Slots, Table::Depth, Table::Places, Table::PageTables, Table::Extents, Table::Flows];

/// The handle of a disk's blocks, and their first.
fn extent() -> Option<Handle> {
    let environment = pages::environment();
    let disk = environment.devices.iter().position(|device| device.kind == DEVICE_BLOCK)?;
    Some(environment.capabilities.extents[disk]).filter(|handle| *handle != Handle::NONE)
}

/// Fills a table, with the help of so many children where those have shares of their own; `made` is what must be dropped to
/// give it back. `None`: there is no such thing here.
fn fill_table(table: Table, children: u32, made: &mut Vec<u64>) -> Option<Full> {
    let own = &pages::environment().capabilities;
    let first = pages::environment().heap[0].start_gpa / PAGE_BYTES;
    let heap = own.heap[0].0;
    let all = u64::from(rights::READ | rights::GIVE);
    Some(match table {
        Table::Slots => fill(made, |_| call(Call::CapabilityDerive, [0, heap, first, 1, all])),
        Table::Depth => {
            let mut above = heap;
            fill(made, |_| {
                above = call(Call::CapabilityDerive, [0, above, first, 1, all])?;
                Ok(above)
            })
        }
        Table::Places => fill(made, |_| call(Call::EnvironmentCreate, [own.environments.0, ANY, 0, 0, 0])),
        Table::PageTables => by_children(children, made, |child, _| {
            fill(&mut Vec::new(), |count| {
                let va = VA + (count << 21);
                call(Call::MemoryMap, [child.environment.0, child.given.0, va, 1, 1])
            })
        })?,
        Table::Extents => {
            let extent = extent()?;
            let own = fill_extents(0, extent.0, made);
            let others = by_children(children, made, |child, made| {
                match call(Call::CapabilityGive, [0, extent.0, child.environment.0, all, 0]) {
                    Ok(given) => fill_extents(child.environment.0, given, made),
                    Err(error) => (0, Some(error)),
                }
            })?;
            (own.0 + others.0, own.1.filter(|_| own.1 == others.1))
        }
        Table::Flows => {
            let flow = *own.flows.iter().find(|flow| **flow != Handle::NONE)?;
            let carve = |of: u64, flow: u64, first: u64, made: &mut Vec<u64>| {
                fill(made, |count| call(Call::FlowCarve, [of, flow, ADDRESS, 0, first + count]))
            };
            let mut first = 1 << 21;
            let others = by_children(children, made, |child, _| {
                first += 1 << 16;
                let right = u64::from(rights::CARVE);
                match call(Call::CapabilityGive, [0, flow.0, child.environment.0, right, 0]) {
                    // What a child carves goes with it.
                    Ok(given) => carve(child.environment.0, given, first, &mut Vec::new()),
                    Err(error) => (0, Some(error)),
                }
            })?;
            // Last, since all its capabilities go for that.
            let own = carve(0, flow.0, 1 << 20, made);
            (own.0 + others.0, own.1.filter(|_| own.1 == others.1))
        }
    })
}

/// Parts of an extent, each bound, for an environment.
fn fill_extents(of: u64, extent: u64, made: &mut Vec<u64>) -> Full {
    fill(&mut Vec::new(), |_| {
        let part = call(Call::CapabilityDerive, [of, extent, 0, 1, u64::from(rights::READ)])?;
        if of == 0 {
            made.push(part);
        }
        call(Call::ExtentBind, [of, part, 0, 0, 0])
    })
}

/// The same by as many children as there can be; how many there are together, and why no more, if that is the same for all.
fn by_children(
    most: u32,
    made: &mut Vec<u64>,
    mut fill: impl FnMut(&Child, &mut Vec<u64>) -> Full,
) -> Option<Full> {
    let (mut all, mut reason) = (0, Some(Error::NoSpace));
    for _ in 0..most {
        let Ok(child) = Child::new(Code::new(), rights::WRITE) else { break };
        let (count, error) = fill(&child, made);
        made.extend([child.part.0, child.environment.0]);
        all += count;
        reason = reason.filter(|_| reason == error);
    }
    Some((all, reason))
}

/// How much of everything there is.
pub(super) fn capacity() -> Option<[Option<Full>; TABLES.len()]> {
    let mut capacity = [None; TABLES.len()];
    for (table, full) in TABLES.into_iter().zip(&mut capacity) {
        let mut made = Vec::new();
        *full = fill_table(table, 1, &mut made);
        give_all_back(&made)?;
        settle()?;
    }
    Some(capacity)
}

/// `fill-tables`: each table in turn, twice.
pub(super) fn exhaust(_: Arguments<'_>) -> Option<u32> {
    if pages::environment().environment != 0 {
        return neighbour::watch();
    }
    let pause = clock::Scale::new().ticks(100_000_000);
    for table in TABLES {
        let mut twice = [None; 2];
        for full in &mut twice {
            let mut made = Vec::new();
            *full = fill_table(table, u32::MAX, &mut made);
            // The neighbour goes on meanwhile.
            kernel::sleep(clock::tsc() + pause, [0; 4]);
            give_all_back(&made)?;
            settle()?;
        }
        let Some((count, error)) = twice[0] else {
            log::error!("probe: there is nothing to fill for {table:?}");
            return Some(BROKEN);
        };
        log::info!("probe: {table:?}: {count}, then {error:?}; again: {}", twice[0] == twice[1]);
    }
    Some(HELD)
}
