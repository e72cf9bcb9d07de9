//! Each statistic against an observation of its own: what the client got, what a second pair of eyes at the backend saw, what the probe
//! was told to do, what KVM counts.

mod docs;
mod ecn;
mod errors;
mod groups;
mod machine;
mod prometheus;
mod recovery;
mod seen;
mod tcp;
mod udp;

use exovm::stat::StatSnapshot;
use exovm_ci::Guest;
use std::time::{Duration, Instant};

/// How long a guest may take to publish. Long, for hosts that are emulated.
const PATIENCE: Duration = Duration::from_secs(20);

/// The statistics as soon as `is` holds; the guest publishes before it waits.
///
/// # Panics
/// If it never does; `what` says what was waited for.
fn once(guest: &Guest, what: &str, is: impl Fn(&StatSnapshot) -> bool) -> StatSnapshot {
    let start = Instant::now();
    loop {
        let statistics = guest.machine().statistics();
        if is(&statistics) {
            return statistics;
        }
        if start.elapsed() > PATIENCE {
            let tcp: Vec<_> = statistics
                .families
                .iter()
                .filter(|family| {
                    ["tcp", "ip", "http"].contains(&family.layer.as_str()) && family.sum(&[]) > 0
                })
                .map(|family| format!("{} {}", family.name, family.sum(&[])))
                .collect();
            panic!("{what} never came: {tcp:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A statistic of the first environment's TCP.
fn tcp(statistics: &StatSnapshot, name: &str) -> u64 {
    statistics.value("tcp", name).unwrap_or_else(|| panic!("no statistic {name}"))
}

/// Waits until these statistics of a layer have these values, and says which has not.
fn assert_become(guest: &Guest, layer: &str, expected: &[(&str, u64)]) -> StatSnapshot {
    let is = |statistics: &StatSnapshot, (name, value): &(&str, u64)| {
        statistics.value(layer, name) == Some(*value)
    };
    let start = Instant::now();
    loop {
        let statistics = guest.machine().statistics();
        let wrong: Vec<_> = expected.iter().filter(|one| !is(&statistics, one)).collect();
        if wrong.is_empty() {
            return statistics;
        }
        if start.elapsed() > PATIENCE {
            let found: Vec<_> =
                wrong.iter().map(|(name, value)| (*name, *value, statistics.value(layer, name))).collect();
            panic!("{layer}: name, expected, found: {found:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
