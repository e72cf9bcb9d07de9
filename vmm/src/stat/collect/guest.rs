//! What the guest has counted, from its statistics areas, and what the kernel says on its page. The areas are the environments' own:
//! shown, not believed.

use crate::machine::Shared;
use crate::machine::boot::pages::SharedPages;
use crate::stat::family::{Family, Kind};
use abi::call::Call;
use abi::statistics::{
    BUCKETS, CacheStatistics, CallTally, Description, ForwardStatistics, Histogram, HttpStatistics,
    LinkStatistics, StatisticsArea, TcpStatistics, UdpStatistics,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The places of environments that run from the start, or have counted something.
fn places(machine: &Shared) -> impl Iterator<Item = (String, &SharedPages)> {
    let runs = |place: usize, pages: &SharedPages| {
        let calls = || pages.statistics.calls.iter().any(|tally| tally.calls.load(Relaxed) > 0);
        place < machine.environments() || calls()
    };
    let places = machine.pages.iter().enumerate();
    places.filter(move |&(place, pages)| runs(place, pages)).map(|(place, pages)| (place.to_string(), pages))
}

/// A group of words as families, a sample for each environment.
fn group<'m>(
    machine: &'m Shared,
    descriptions: &[Description],
    words: impl Fn(&'m StatisticsArea) -> Vec<&'m AtomicU64>,
) -> Vec<Family> {
    let family = |one: &Description| {
        let kind = match one.kind {
            abi::statistics::Kind::Counter => Kind::Counter,
            abi::statistics::Kind::Gauge => Kind::Gauge,
        };
        Family::new(one.layer, one.name, kind, one.unit, one.help)
    };
    let mut families: Vec<Family> = descriptions.iter().map(family).collect();
    for (environment, pages) in places(machine) {
        for (family, word) in families.iter_mut().zip(words(&pages.statistics)) {
            family.push(&[("environment", &environment)], word.load(Relaxed));
        }
    }
    families
}

/// A histogram of the area as a family.
fn histogram<'m>(
    machine: &'m Shared,
    mut family: Family,
    of: impl Fn(&'m StatisticsArea) -> &'m Histogram,
) -> Family {
    for (environment, pages) in places(machine) {
        let histogram = of(&pages.statistics);
        let counts = (0..BUCKETS).map(|power| (1 << power, histogram.buckets[power].load(Relaxed)));
        family.push_histogram(&[("environment", &environment)], histogram.sum.load(Relaxed), counts);
    }
    family
}

pub(super) fn tcp(machine: &Shared) -> Vec<Family> {
    let mut families = group(machine, TcpStatistics::DESCRIPTIONS, |area| area.tcp.words().collect());
    let help =
        "Smoothed round-trip times at each measurement, all connections together (tcpEStatsPathSmoothedRTT).";
    let family = Family::new("tcp", "smoothed_rtt", Kind::Histogram, "nanoseconds", help);
    families.push(histogram(machine, family, |area| &area.smoothed_rtt_ns));
    let help = "Congestion windows at the same moments (tcpEStatsPerfCurCwnd).";
    let family = Family::new("tcp", "congestion_window", Kind::Histogram, "bytes", help);
    families.push(histogram(machine, family, |area| &area.congestion_window_bytes));
    families
}

pub(super) fn link(machine: &Shared) -> Vec<Family> {
    group(machine, LinkStatistics::DESCRIPTIONS, |area| area.link.words().collect())
}

pub(super) fn udp(machine: &Shared) -> Vec<Family> {
    group(machine, UdpStatistics::DESCRIPTIONS, |area| area.udp.words().collect())
}

pub(super) fn http(machine: &Shared) -> Vec<Family> {
    group(machine, HttpStatistics::DESCRIPTIONS, |area| area.http.words().collect())
}

pub(super) fn cache(machine: &Shared) -> Vec<Family> {
    group(machine, CacheStatistics::DESCRIPTIONS, |area| area.cache.words().collect())
}

pub(super) fn forward(machine: &Shared) -> Vec<Family> {
    group(machine, ForwardStatistics::DESCRIPTIONS, |area| area.forward.words().collect())
}

/// A call's name as it stands in statistics: "queue_bind".
fn name_of(call: Call) -> String {
    let mut name = String::new();
    for letter in format!("{call:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

pub(super) fn kernel(machine: &Shared) -> Vec<Family> {
    let family = |name, kind, unit, help| Family::new("kernel", name, kind, unit, help);
    let mut calls =
        family("calls", Kind::Counter, "calls", "Kernel calls, counted in ring 3 where they are made.");
    let mut errors =
        family("call_errors", Kind::Counter, "calls", "Kernel calls that came back with an error.");
    let mut waiting = family(
        "messages_waiting",
        Kind::Gauge,
        "messages",
        "Messages that the environment has not received yet.",
    );
    let mut lost = family("taken", Kind::Counter, "", "Times that something was taken from the environment.");
    for (environment, pages) in places(machine) {
        let own = [("environment", environment.as_str())];
        for call in Call::ALL {
            let tally: &CallTally = &pages.statistics.calls[call as usize];
            let (made, failed) = (tally.calls.load(Relaxed), tally.errors.load(Relaxed));
            if made == 0 && failed == 0 {
                continue;
            }
            let name = name_of(call);
            let labels = [("environment", environment.as_str()), ("call", name.as_str())];
            calls.push(&labels, made);
            errors.push(&labels, failed);
        }
        waiting.push(&own, u64::from(pages.kernel.waiting.load(Relaxed).count_ones()));
        lost.push(&own, pages.kernel.lost.load(Relaxed));
    }
    vec![calls, errors, waiting, lost]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names_in_words() {
        assert_eq!(name_of(Call::MessageReplyReceive), "message_reply_receive");
        assert_eq!(name_of(Call::Halt), "halt");
    }
}
