//! The machine as a whole.

use crate::machine::Shared;
use crate::stat::family::{Family, Kind};
use abi::capability::{CAPABILITIES, Capability};
use vm_memory::{Bytes, GuestAddress};

pub(super) fn machine(machine: &Shared) -> Vec<Family> {
    let family = |name, kind, unit, help| Family::new("machine", name, kind, unit, help);
    let gauge = |name, unit, help, value| family(name, Kind::Gauge, unit, help).with(&[], value);
    let counter = |name, unit, help, value| family(name, Kind::Counter, unit, help).with(&[], value);
    let placement = &machine.placement;
    let mode = format!("{:?}", placement.mode()).to_lowercase();
    vec![
        gauge("uptime", "nanoseconds", "How long the machine exists.", machine.uptime_ms() * 1_000_000),
        gauge("tsc_hertz", "hertz", "Rate of the clock that cycles are counted by.", machine.tsc_khz * 1000),
        gauge("vcpus", "", "vCPUs.", u64::from(machine.vcpus())),
        gauge(
            "ready",
            "",
            "1 when all environments that run from the start serve.",
            u64::from(machine.is_ready()),
        ),
        gauge(
            "environments",
            "environments",
            "Environments that hold capabilities: those that live, and none that has ended.",
            environments(machine),
        ),
        gauge("places", "environments", "Places for environments.", machine.pages.len() as u64),
        family("io", Kind::Gauge, "", "Where device work is done: 1 for the mode in force.")
            .with(&[("mode", &mode)], 1),
        counter(
            "turns",
            "",
            "Turns in which a vCPU's thread did the device work or waited for it.",
            placement.turns(),
        ),
        counter(
            "changes_of_place",
            "",
            "Times that device work moved between turns and the I/O thread.",
            placement.changes(),
        ),
    ]
}

/// How many environments the kernel keeps capabilities for. It clears the table of one that has ended.
fn environments(machine: &Shared) -> u64 {
    let start = machine.tables_at().capabilities_gpa;
    let holds_some = |place: usize| {
        (0..CAPABILITIES).any(|slot| {
            let at = start + ((place * CAPABILITIES + slot) * size_of::<Capability>()) as u64;
            machine.memory.read_obj::<u8>(GuestAddress(at)).is_ok_and(|kind| kind != 0)
        })
    };
    (0..machine.pages.len()).filter(|&place| holds_some(place)).count() as u64
}

const _: () = assert!(std::mem::offset_of!(Capability, kind) == 0);
