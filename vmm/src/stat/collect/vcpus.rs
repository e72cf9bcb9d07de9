//! The vCPUs: their exits as the VMM's threads serve them, and what KVM counts.

use crate::machine::Shared;
use crate::machine::exits::Exit;
use crate::machine::statistics::{KvmKind, KvmStatistic};
use crate::stat::family::{Family, Kind};

pub(super) fn exits(machine: &Shared) -> Vec<Family> {
    let help = "Returns of KVM_RUN to the vCPU's thread, by what the guest wanted.";
    let mut exits = Family::new("vcpu", "exits", Kind::Counter, "exits", help);
    for (vcpu, counts) in machine.exits.iter().enumerate() {
        for exit in Exit::ALL {
            exits.push(&[("vcpu", &vcpu.to_string()), ("reason", exit.name())], counts.read(exit));
        }
    }
    vec![exits]
}

pub(super) fn kvm(machine: &Shared) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for (vcpu, statistics) in machine.kvm.vcpus.iter().enumerate() {
        // A host without them shows none.
        let all = statistics.as_ref().ok().and_then(|file| file.read_all().ok()).unwrap_or_default();
        add(&mut families, &[("vcpu", &vcpu.to_string())], "", &all);
    }
    let all = machine.kvm.vm.as_ref().ok().and_then(|file| file.read_all().ok()).unwrap_or_default();
    add(&mut families, &[], "vm_", &all);
    families
}

fn add(families: &mut Vec<Family>, labels: &[(&str, &str)], prefix: &str, all: &[KvmStatistic]) {
    for one in all {
        let (kind, name) = match one.kind {
            KvmKind::Cumulative => (Kind::Counter, one.name.clone()),
            KvmKind::Instant | KvmKind::Peak => (Kind::Gauge, one.name.clone()),
            KvmKind::LogHistogram => (Kind::Histogram, one.name.clone()),
            KvmKind::Other => continue,
        };
        let name = format!("{prefix}{name}");
        let place = families.iter().position(|family| family.name == name).unwrap_or_else(|| {
            families.push(Family::new("kvm", &name, kind, one.unit, &help(&one.name, prefix)));
            families.len() - 1
        });
        let family = &mut families[place];
        if kind == Kind::Histogram {
            // KVM keeps the sum of what it sorts into NAME_hist as NAME_ns.
            let sum = one.name.strip_suffix("_hist").map(|stem| format!("{stem}_ns"));
            let sum = sum
                .and_then(|name| all.iter().find(|other| other.name == name))
                .map_or(0, KvmStatistic::value);
            let counts = one.values.iter().enumerate().map(|(power, &count)| (1u64 << power.min(63), count));
            family.push_histogram(labels, sum, counts);
        } else {
            family.push(labels, one.value());
        }
    }
}

/// What KVM's own words mean, for those that one looks at first.
fn help(name: &str, prefix: &str) -> String {
    let known = match (prefix, name) {
        ("", "exits") => "Exits from the guest to KVM, also those that KVM serves itself.",
        ("", "mmio_exits") => "Exits to the VMM for an access to a device.",
        ("", "io_exits") => "Exits to the VMM for a port.",
        ("", "halt_exits") => "Halts.",
        ("", "halt_wakeup") => "Halts that were ended by a wake-up.",
        ("", "irq_injections") => "Interrupts delivered.",
        ("", "insn_emulation") => "Instructions that KVM emulated: ring 0's, where it is interpreted.",
        ("", "insn_emulation_fail") => "Instructions that KVM could not emulate.",
        ("", "pf_taken") => "Page faults of the guest that KVM handled.",
        ("", "pf_fixed") => "Page faults after which KVM had mapped a page.",
        ("", "pf_emulate") => "Page faults for which KVM emulated the instruction.",
        ("", "signal_exits") => "Exits because the thread had a signal.",
        ("", "halt_poll_success_hist") => "Times that KVM polled at a halt until the wake-up came.",
        ("", "halt_poll_fail_hist") => "Times that KVM polled at a halt in vain.",
        ("", "halt_wait_hist") => "Times that a halted vCPU slept.",
        _ => return format!("What KVM counts as {name} (KVM_GET_STATS_FD)."),
    };
    known.to_owned()
}
