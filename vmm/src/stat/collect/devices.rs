//! The devices as the VMM plays them.

use super::counters;
use crate::machine::Shared;
use crate::stat::family::{Family, Kind};

pub(super) fn nic(machine: &Shared) -> Vec<Family> {
    let mut families = Vec::new();
    let Some(nic) = machine.placement.nic() else { return families };
    let (metrics, pairs) = (nic.metrics(), nic.pair_metrics());
    drop(nic);
    counters(&mut families, "nic", &[], metrics.entries());
    for (number, pair) in pairs.iter().enumerate() {
        counters(&mut families, "nic", &[("queue", &number.to_string())], pair.entries());
    }
    families
}

pub(super) fn flows(machine: &Shared) -> Vec<Family> {
    let mut families = Vec::new();
    let Some(nic) = machine.placement.nic() else { return families };
    let metrics = nic.flow_metrics();
    drop(nic);
    counters(&mut families, "flow", &[], metrics.counters.entries());
    let help =
        "Frames that the flow table gave to an environment. While the flows are undivided nobody looks.";
    let mut hits = Family::new("flow", "hits", Kind::Counter, "frames", help);
    for (environment, &count) in
        metrics.hits.iter().enumerate().filter(|&(number, &count)| number == 0 || count > 0)
    {
        hits.push(&[("environment", &environment.to_string())], count);
    }
    families.push(hits);
    families
}

pub(super) fn backend(machine: &Shared) -> Vec<Family> {
    let mut families = Vec::new();
    if let Some(nic) = machine.placement.nic() {
        counters(&mut families, "backend", &[], nic.backend_counters());
    }
    families
}

pub(super) fn disks(machine: &Shared) -> Vec<Family> {
    let mut families = Vec::new();
    let help = "Times from taking a request to giving it back, of requests that succeeded.";
    let mut times = Family::new("disk", "request_time", Kind::Histogram, "nanoseconds", help);
    for (number, disk) in machine.placement.disks().enumerate() {
        let (metrics, latencies) = (disk.metrics(), *disk.latencies());
        drop(disk);
        let number = number.to_string();
        counters(&mut families, "disk", &[("disk", &number)], metrics.entries());
        for (kind, histogram) in latencies.by_kind() {
            let (sum, counts) = histogram.nanoseconds(machine.tsc_khz);
            times.push_histogram(&[("disk", &number), ("kind", kind)], sum, counts);
        }
    }
    families.push(times);
    families
}

pub(super) fn channel(machine: &Shared) -> Vec<Family> {
    let mut families = Vec::new();
    let metrics = machine.placement.channel().metrics();
    counters(&mut families, "channel", &[], metrics.entries());
    families
}
