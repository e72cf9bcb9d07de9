//! The accounts as statistics: cycles of the VMM's threads by bucket, spans, events and counters of the guest.

use crate::account::snapshot::SiteSum;
use crate::machine::Shared;
use crate::stat::family::{Family, Kind};

pub(super) fn threads(machine: &Shared) -> Vec<Family> {
    let family = |name, unit, help| Family::new("account", name, Kind::Counter, unit, help);
    let mut cycles = family("cycles", "cycles", "Cycles of the VMM's threads, by what they were at.");
    let mut entries = family("entries", "", "How often a thread of the VMM began with each of these.");
    for thread in machine.account().threads {
        for bucket in &thread.buckets {
            let labels = [("thread", thread.name.as_str()), ("bucket", bucket.name.as_str())];
            cycles.push(&labels, bucket.cycles);
            entries.push(&labels, bucket.entries);
        }
    }
    vec![cycles, entries]
}

pub(super) fn sites(machine: &Shared) -> Vec<Family> {
    let family = |name, unit, help| Family::new("guest", name, Kind::Counter, unit, help);
    let mut cycles =
        family("span_cycles", "cycles", "Cycles that a span has taken by itself, as the guest says.");
    let mut entries = family("span_entries", "", "How often a span was entered, as the guest says.");
    let mut counters = family("counter", "", "What an image has counted by names of its own.");
    let mut events = family("events", "", "Events of the guest by name.");
    for SiteSum { name, kind, count, total, environment } in machine.account().sites {
        let environment = environment.unwrap_or(0).to_string();
        let labels = |what: &'static str| [("environment", environment.as_str()), (what, name.as_str())];
        match kind.as_str() {
            "span" => {
                cycles.push(&labels("span"), total);
                entries.push(&labels("span"), count);
            }
            "counter" => counters.push(&labels("counter"), total),
            _ => events.push(&labels("event"), count),
        }
    }
    vec![cycles, entries, counters, events]
}
