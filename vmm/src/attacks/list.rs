//! The list, by what the attacks are against. A row says what is tried and what it must get; what it got when what stands
//! against it had been removed is in [`without`].

mod bindings;
mod environments;
mod processor;
mod without;

use super::trial::MEMORY_BYTES;
use super::{Attack, Equipment, Reading, Trial, Without};
use abi::layout::*;

/// What is tried, what it must get.
type Row = (&'static str, &'static str);
type Rows = &'static [Row];

/// Cases of the image that are no attacks: work, promises and costs, which have tests of their own.
pub const NO_ATTACKS: &[&str] = &[
    "attribution",
    "profile-shares",
    "profile-calls",
    "profile-frames",
    "storm",
    "hanging",
    "arbitrary-calls",
    "fill-tables",
    "revoke-answered",
    "revoke-ignored",
    "revoke-whole",
    "revoke-large",
    "revoke-computes",
    "revoke-partly",
    "revoke-stalls",
    "revoke-refusals",
    "revoke-ends",
    "revoke-queues",
    "revoke-slices",
    "revoke-devices",
    "revoke-losses",
    "self-paging",
    "registers",
    "flags",
    "halt-deadline",
    "exit",
    "panic",
    "heap",
    "log-flood",
    "chatter",
    "fault-at-stop",
    "burn",
    "spans",
    "costs",
    "spin",
    "halt-forever",
    "turns",
    "children-end",
    "child-shares",
    "child-sleeps",
    "child-grant",
    "family-ends",
    "slice-shares",
    "slice-neighbour",
    "vcpus-beside",
    "vcpus-flush",
    "vcpus-wake",
    "vcpus-move",
    "vcpus-move-itself",
    "vcpus-ask",
    "vcpus-end",
    "message-round-trip",
    "message-ends",
    "message-sender-ends",
    "message-loop",
    "message-crowd",
    "message-fair",
    "message-donation",
    "message-accomplices",
    "message-busy",
    "message-stress",
    "message-sleep",
    "message-successor",
    "guarded",
    "disk",
    "cost",
    "compute",
    "child-peeks",
    "channel-echo",
    "channel-bye",
    "channel-flood",
    "channel-blink",
    "channel-nonsense",
    "cases",
];

const ALONE: Equipment =
    Equipment { nic: false, frames_come: false, disk: false, disk_is_slow: false, children: false };
const NIC: Equipment = Equipment { nic: true, ..ALONE };
const RECEIVING: Equipment = Equipment { frames_come: true, ..NIC };
const DISK: Equipment = Equipment { disk: true, ..ALONE };
const SLOW_DISK: Equipment = Equipment { disk_is_slow: true, ..DISK };
const CHILDREN: Equipment = Equipment { children: true, ..ALONE };
const ALL: Equipment = Equipment { nic: true, disk: true, ..CHILDREN };

/// VIRTQ_DESC_F_NEXT, _WRITE, _INDIRECT.
const NEXT: u64 = 1;
const WRITE: u64 = 2;
const INDIRECT: u64 = 4;
/// A page of the image's heap.
const GOOD: u64 = MEMORY_BYTES / 2;

/// All of it.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for row in processor::INSTRUCTIONS {
        trials.push(single("the processor", &[row.0], ALONE, Reading::Fault, *row));
    }
    addresses(&mut trials);
    calls(&mut trials);
    let mut lines = |against, case, equipment, rows: Rows| {
        trials.push(Trial {
            against,
            arguments: vec![str::to_owned(case)],
            equipment,
            reading: Reading::Lines,
            attacks: rows.iter().copied().map(attack).collect(),
        });
    };
    lines("queues", "bad-queue-bind", NIC, bindings::QUEUES);
    lines("flows", "flow-attacks", ALL, bindings::FLOWS);
    lines("flows", "flow-egress", ALL, bindings::FRAMES);
    lines("extents", "extent-attacks", Equipment { nic: false, ..ALL }, bindings::EXTENTS);
    lines("devices", "revoke-in-flight", SLOW_DISK, bindings::IN_FLIGHT);
    lines("environments", "child-attacks", CHILDREN, environments::CHILDREN);
    lines("capabilities", "child-guesses", CHILDREN, environments::GUESSES);
    lines("capabilities", "child-loses", CHILDREN, environments::LOST);
    lines("environments", "child-follows", CHILDREN, environments::FOLLOWS);
    lines("kernel calls", "family-refusals", CHILDREN, environments::REFUSALS);
    lines("kernel calls", "act-for-another", ALL, environments::CONTROL);
    lines("the CPU", "slice-refusals", CHILDREN, environments::SLICES);
    lines("messages", "message-refusals", CHILDREN, environments::MESSAGES);
    lines("tables", "exhaust", ALL, environments::TABLES);
    lines("registers", "registers-of-another", CHILDREN, environments::REGISTERS);
    devices(&mut trials);
    trials.extend([
        lines_of("the CPU", "child-runs-on", CHILDREN, ("the child that ran on", "152")),
        single(
            "the CPU",
            &["turn-beside"],
            CHILDREN,
            Reading::Status,
            ("takes a turn beside others", "status 142"),
        ),
        single(
            "queues",
            &["doorbell-after-unbind"],
            NIC,
            Reading::Fault,
            ("rings a doorbell that was given back", "vector 14"),
        ),
    ]);
    for trial in &mut trials {
        for attack in &mut trial.attacks {
            attack.without = without::of(&trial.arguments[0], attack.what);
        }
    }
    trials
}

fn attack((what, refused): Row) -> Attack {
    Attack { what, refused, without: Without::NotTried }
}

fn single(
    against: &'static str,
    arguments: &[&str],
    equipment: Equipment,
    reading: Reading,
    row: Row,
) -> Trial {
    let arguments = arguments.iter().copied().map(str::to_owned).collect();
    Trial { against, arguments, equipment, reading, attacks: vec![attack(row)] }
}

fn lines_of(against: &'static str, case: &str, equipment: Equipment, row: Row) -> Trial {
    single(against, &[case], equipment, Reading::Lines, row)
}

/// Addresses that ring 3 may not read, write or execute.
fn addresses(trials: &mut Vec<Trial>) {
    #[rustfmt::skip]
    let rows: &[(&str, u64, Row)] = &[
        ("read", KERNEL_VA, ("reads the kernel", "vector 14")),
        ("write", KERNEL_VA, ("writes the kernel", "vector 14")),
        ("execute", KERNEL_VA, ("executes the kernel", "vector 14")),
        ("read", DIRECT_MAP_VA + 0x1000, ("reads all memory", "vector 14")),
        ("write", DIRECT_MAP_VA + 0x1000, ("writes all memory", "vector 14")),
        ("write", DIRECT_MAP_VA + crate::machine::boot::CONTROL_GPA, ("writes the VMM's control register", "vector 14")),
        ("write", TURN_VA + PAGE_BYTES, ("writes beside its turn register", "vector 14")),
        ("write", GATE_VA, ("writes the gate", "vector 14")),
        ("write", TIME_VA, ("writes the clock", "vector 14")),
        ("write", ENVIRONMENT_VA, ("writes its environment page", "vector 14")),
        ("write", HOST_VA, ("writes the host's page", "vector 14")),
        ("write", KERNEL_PAGE_VA, ("writes the kernel's page", "vector 14")),
        ("write", RESUME_VA, ("writes the resume page", "vector 14")),
        ("write", PAGE_TABLES_VA + (IMAGE_VA >> 12) * 8, ("writes its page tables", "vector 14")),
        ("execute", TIME_VA, ("executes the clock", "vector 14")),
        ("execute", LOG_VA, ("executes its log", "vector 14")),
        ("write", DOORBELL_VA, ("rings a doorbell that is not bound", "vector 14")),
        ("read", WINDOW_VA, ("reads a page that is not its own", "vector 14")),
        ("write", WINDOW_VA + 0x1000, ("writes a page that is not its own", "vector 14")),
        ("read", WINDOW_VA + MEMORY_BYTES, ("reads behind the end of memory", "vector 14")),
        ("read", 0, ("reads null", "vector 14")),
        ("read", 1 << 47, ("reads an address that cannot be", "vector 13")),
    ];
    for (verb, va, row) in rows {
        trials.push(single("addresses", &[verb, &format!("{va:#x}")], ALONE, Reading::Fault, *row));
    }
    for (case, row) in [
        ("read-kernel", ("reads the kernel, by its name", "vector 14")),
        ("write-kernel", ("writes the kernel, by its name", "vector 14")),
        ("exec-kernel", ("executes the kernel, by its name", "vector 14")),
        ("read-direct-map", ("reads the first of all memory", "vector 14")),
        ("write-text", ("writes its code", "vector 14")),
        ("exec-heap", ("executes its heap", "vector 14")),
        ("exec-stack", ("executes its stack", "vector 14")),
        ("write-gate-page", ("writes the gate page", "vector 14")),
        ("write-time-page", ("writes the clock's page", "vector 14")),
        ("write-environment-page", ("writes the environment page", "vector 14")),
        ("write-host-page", ("writes the host page", "vector 14")),
        ("null", ("reads nothing", "vector 14")),
        ("stack-overflow", ("grows its stack without end", "vector 14")),
    ] {
        trials.push(single("addresses", &[case], ALONE, Reading::Fault, row));
    }
}

/// Kernel calls with bad numbers and stacks.
fn calls(trials: &mut Vec<Trial>) {
    for (number, what) in [
        ("0xf", "call 0xf"),
        ("0xffff", "call 0xffff"),
        ("0x100000000", "call 0x100000000"),
        ("0x8000000000000020", "call 0x8000000000000020"),
        ("0xffffffffffffffff", "call 0xffffffffffffffff"),
    ] {
        let row = (what, "Err(NoSuchCall)");
        trials.push(single("kernel calls", &["bad-call", number], ALONE, Reading::Lines, row));
    }
    for (stack, row) in [
        ("null", ("calls with no stack", "vector 14")),
        ("kernel", ("calls with the kernel's memory as its stack", "vector 14")),
        ("non-canonical", ("calls with a stack that cannot be", "vector 12|vector 13")),
    ] {
        trials.push(single("kernel calls", &["bad-stack", stack], ALONE, Reading::Fault, row));
    }
    for (offset, row) in [
        ("3", ("enters behind the gate", "vector 14")),
        ("0xffe", ("enters at the end of the gate page", "vector 14")),
    ] {
        trials.push(single("kernel calls", &["call-fault", offset], ALONE, Reading::Fault, row));
    }
    let row = ("fills the pages that the VMM reads with nonsense", "status 0");
    trials.push(single("the VMM", &["scribble", "100000000"], ALONE, Reading::Status, row));
}

/// Descriptors of one's own choice.
fn devices(trials: &mut Vec<Trial>) {
    const END: u64 = MEMORY_BYTES;
    #[rustfmt::skip]
    let rows: &[([u64; 6], &str, &str)] = &[
        ([0, 128, 0, 0, 0, 1], "sends the first page", "receives into the first page"),
        ([0x1000, 128, 0, 0, 0, 1], "sends the kernel's memory", "receives into the kernel's memory"),
        ([END - 64, 128, 0, 0, 0, 1], "sends across the end of memory", "receives across the end of memory"),
        ([END, 128, 0, 0, 0, 1], "sends from behind memory", "receives behind memory"),
        ([GOOD, 0xFFFF_FFFF, 0, 0, 0, 1], "sends four gigabytes", "receives into four gigabytes"),
        ([MMIO_GPA, 128, 0, 0, 0, 1], "sends device registers", "receives into device registers"),
        ([crate::machine::boot::CONTROL_GPA, 128, 0, 0, 0, 1], "sends the VMM's control register", "receives into the VMM's control register"),
        ([DIRECT_MAP_VA, 128, 0, 0, 0, 1], "sends from a virtual address", "receives at a virtual address"),
        ([u64::MAX - 63, 128, 0, 0, 0, 1], "sends around the end of addresses", "receives around the end of addresses"),
        ([GOOD, 0, 0, 0, 0, 1], "sends nothing", "receives into nothing"),
        ([GOOD, 128, NEXT, 0, 0, 1], "sends in a loop", "receives in a loop"),
        ([GOOD, 128, NEXT, 64, 0, 1], "sends a next that is not there", "receives into a next that is not there"),
        ([GOOD, 128, 0, 0, 64, 1], "sends a head that is not there", "receives into a head that is not there"),
        ([GOOD, 128, 0, 0, 0, 65], "sends more chains than entries", "receives into more chains than entries"),
        ([GOOD, 128, 0, 0, 0, 0xFFFF], "steps back when it sends", "steps back when it receives"),
        ([GOOD, 128, INDIRECT | NEXT, 0, 0, 1], "sends a table and a next", "receives into a table and a next"),
        ([0, 128, INDIRECT, 0, 0, 1], "sends a table of somebody's", "receives into a table of somebody's"),
    ];
    let words = |offer: [u64; 6]| offer.map(|word| format!("{word:#x}"));
    let mut push = |case: &str, offer: [u64; 6], equipment, what| {
        let arguments = std::iter::once(case.to_owned()).chain(words(offer)).collect();
        let attacks = vec![attack((what, "queue stopped"))];
        trials.push(Trial { against: "devices", arguments, equipment, reading: Reading::Stop, attacks });
    };
    for &(offer, sends, receives) in rows {
        push("send", offer, NIC, sends);
        let [gpa, len, flags, next, head, index] = offer;
        push("receive", [gpa, len, flags | WRITE, next, head, index], RECEIVING, receives);
    }
    push("send", [GOOD, 128, WRITE, 0, 0, 1], NIC, "sends what the device should write");
    push("receive", [GOOD, 128, 0, 0, 0, 1], RECEIVING, "receives into what the device should read");
    for (request, what) in [
        ([0, 0x1000, 4096, WRITE, 16, WRITE], "reads blocks into the kernel's memory"),
        ([1, 0x1000, 4096, 0, 16, WRITE], "writes the kernel's memory to the disk"),
        ([0, END - 512, 4096, WRITE, 16, WRITE], "reads blocks across the end of memory"),
        ([0, MMIO_GPA, 4096, WRITE, 16, WRITE], "reads blocks into device registers"),
        ([4, GOOD, 4096, WRITE, 15, WRITE], "asks the disk with a header cut short"),
        ([0, GOOD, 4096, WRITE, 16, 0], "asks the disk without a place for the answer"),
        ([1, GOOD, 0, 0, 16, WRITE], "writes nothing to the disk"),
    ] {
        push("disk-request", request, DISK, what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attacks of which nobody has seen what they get without what stands against them. Never more; whoever adds one tries it.
    const NOT_TRIED: usize = 6;

    fn attacks() -> Vec<(String, Attack)> {
        let trials = trials();
        let of = |trial: &Trial| trial.arguments[0].clone();
        trials.iter().flat_map(|trial| trial.attacks.iter().map(move |attack| (of(trial), *attack))).collect()
    }

    #[test]
    fn what_was_seen_is_of_attacks_in_the_list_and_said_once() {
        let attacks = attacks();
        let mut said = std::collections::BTreeSet::new();
        for (case, what) in without::all() {
            assert!(
                attacks.iter().any(|it| it.0 == case && it.1.what == what),
                "not in the list: {case}: {what}"
            );
            assert!(said.insert((case, what)), "twice: {case}: {what}");
        }
    }

    #[test]
    fn what_an_attack_got_is_not_what_it_must_get() {
        for (case, attack) in attacks() {
            if let Without::Seen { removed, got } = attack.without {
                assert!(!attack.refused.split('|').any(|refused| refused == got), "{case}: {}", attack.what);
                assert!(!removed.is_empty() && !got.is_empty(), "{case}: {}", attack.what);
            }
        }
    }

    #[test]
    fn attacks_that_nobody_has_tried_without_their_check_do_not_become_more() {
        let attacks = attacks();
        let left: Vec<_> = attacks.iter().filter(|it| it.1.without == Without::NotTried).collect();
        assert_eq!(left.len(), NOT_TRIED, "{left:#?}");
    }
}
