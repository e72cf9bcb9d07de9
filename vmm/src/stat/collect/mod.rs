//! Reads the layers. Each has a room of its own and takes its numbers under the lock that its owner counts behind, for as long as a copy
//! takes; nothing here is called unless somebody asks.

mod account;
mod devices;
mod guest;
mod host;
mod machine;
mod vcpus;

use super::family::{Family, Kind};
use super::metrics::Metric;
use crate::machine::Shared;

/// All families of the wanted layers.
pub(super) fn all(machine: &Shared, wanted: &dyn Fn(&str) -> bool) -> Vec<Family> {
    let mut families = Vec::new();
    let mut add = |layer: &str, read: &dyn Fn(&Shared) -> Vec<Family>| {
        if wanted(layer) {
            families.extend(read(machine));
        }
    };
    add("machine", &machine::machine);
    add("nic", &devices::nic);
    add("flow", &devices::flows);
    add("backend", &devices::backend);
    add("ip", &guest::link);
    add("tcp", &guest::tcp);
    add("udp", &guest::udp);
    add("http", &guest::http);
    add("cache", &guest::cache);
    add("forward", &guest::forward);
    add("disk", &devices::disks);
    add("channel", &devices::channel);
    add("kernel", &guest::kernel);
    add("vcpu", &vcpus::exits);
    add("kvm", &vcpus::kvm);
    add("account", &account::threads);
    add("guest", &account::sites);
    add("host", &host::process);
    families
}

/// What a name says about the unit.
fn unit_of(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("bytes") => "bytes",
        Some("frames") => "frames",
        Some("batches") => "batches",
        _ => "",
    }
}

/// Counters of a device as families; `labels` say which of several.
fn counters(families: &mut Vec<Family>, layer: &str, labels: &[(&str, &str)], metrics: Vec<Metric>) {
    for Metric { name, help, value } in metrics {
        match families.iter_mut().find(|family| family.layer == layer && family.name == name) {
            Some(family) => family.push(labels, value),
            None => {
                let family = Family::new(layer, name, Kind::Counter, unit_of(name), help);
                families.push(family.with(labels, value));
            }
        }
    }
}
