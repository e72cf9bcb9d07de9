//! What the attacks got. Serialised as it is; README.md documents the JSON, and [`SCHEMA`] changes with its meaning.

use super::honest::{Latencies, Outcome};
use super::{Attack, AttackOptions};
use crate::{Machine, unix_time_s};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Name and version of the JSON's shape.
pub const SCHEMA: &str = "exovm-bench-attack/1";

/// What honest clients got.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Requests a second that were answered.
    pub requests_per_s: f64,
    /// Median time from when a request was due to its answer.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
    /// Connections that ended before their answer.
    pub broken: u64,
}

impl Load {
    fn of(latencies: &Latencies) -> Self {
        let us = |share| latencies.quantile(share).as_micros() as u64;
        let (requests_per_s, broken) = (latencies.rate(), latencies.broken);
        Self { requests_per_s, p50_us: us(0.5), p99_us: us(0.99), max_us: us(1.0), broken }
    }
}

/// One attack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackReport {
    /// Which.
    pub attack: Attack,
    /// Frames of the attacker's a second.
    pub attack_frames_per_s: f64,
    /// Bytes of data that the guest sent a second, to attackers and to the honest load, what was sent again included.
    pub drawn_bytes_per_s: f64,
    /// Requests on one connection that stays: without the attack, with it, and after it.
    pub kept: [Load; 3],
    /// On a connection for each request.
    pub new: [Load; 3],
    /// The most connections at once, half-open ones included.
    pub most_connections: u64,
    /// By which the memory of guest and VMM grew.
    pub grown_kib: i64,
    /// Whether a statistic said that it happens.
    pub noticed: bool,
    /// Statistics that grew, by `layer.name`.
    pub counted: BTreeMap<String, u64>,
}

impl AttackReport {
    pub(super) fn new(attack: Attack, before: &Outcome, during: &Outcome, after: &Outcome) -> Self {
        let a_second = |count: u64| count as f64 / during.seconds.max(0.001);
        let counted = during.counted.iter().filter(|count| count.count > 0);
        Self {
            attack,
            attack_frames_per_s: a_second(during.attack_frames),
            drawn_bytes_per_s: a_second(during.count("tcp", "data_octets_out")),
            kept: [before, during, after].map(|outcome| Load::of(&outcome.kept)),
            new: [before, during, after].map(|outcome| Load::of(&outcome.new)),
            most_connections: during.connections,
            grown_kib: during.grown_kib,
            noticed: attack.named_by().iter().any(|(layer, name)| during.count(layer, name) > 0),
            counted: counted.map(|count| (format!("{}.{}", count.layer, count.name), count.count)).collect(),
        }
    }

    /// Whether the connection that stood was served and not harmed, new ones were served, and the guest noticed.
    pub fn survived(&self) -> bool {
        let [_, kept, kept_after] = &self.kept;
        let [_, new, new_after] = &self.new;
        let served = [kept, new, kept_after, new_after].iter().all(|load| load.requests_per_s > 0.0);
        served && kept.broken == 0 && self.noticed
    }

    pub(super) fn summary(&self) -> String {
        let [_, kept, _] = self.kept;
        format!(
            "{}: {:.1} thousand frames/s, {:.0} requests/s answered beside it",
            self.attack,
            self.attack_frames_per_s / 1e3,
            kept.requests_per_s + self.new[1].requests_per_s
        )
    }
}

/// What [`run_attack`](crate::run_attack) returns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// When it was finished, in seconds since 1970 UTC.
    pub created_unix_s: u64,
    /// What was asked for.
    pub options: AttackOptions,
    /// Where.
    pub machine: Machine,
    /// What was found.
    pub attacks: Vec<AttackReport>,
}

impl Report {
    pub(super) fn new(options: AttackOptions, machine: Machine, attacks: Vec<AttackReport>) -> Self {
        Self { schema: SCHEMA.to_owned(), created_unix_s: unix_time_s(), options, machine, attacks }
    }

    /// Whether all of them were survived.
    pub fn survived(&self) -> bool {
        self.attacks.iter().all(AttackReport::survived)
    }
}

/// A block an attack.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = format!("{:>6} {:>7} {:>8} {:>8} {:>5}", "1/s", "p50 ms", "p99 ms", "max ms", "lost");
        writeln!(
            f,
            "{:<28} | {:^38} | {:^38}",
            "", "one connection, 200 a second", "a connection each, 50 a second"
        )?;
        writeln!(f, "{:<28} | {heading} | {heading}", "")?;
        for report in &self.attacks {
            write_attack(report, f)?;
        }
        Ok(())
    }
}

fn write_attack(report: &AttackReport, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let verdict = if report.survived() { "survived" } else { "NOT SURVIVED" };
    let (offered, drawn) = (report.attack_frames_per_s / 1e3, report.drawn_bytes_per_s / 1e6);
    writeln!(f, "{}: {verdict}; {offered:.1} thousand frames/s draw {drawn:.1} MB/s", report.attack)?;
    for (place, when) in ["before", "during", "after"].into_iter().enumerate() {
        writeln!(f, "  {when:<26} | {} | {}", columns(&report.kept[place]), columns(&report.new[place]))?;
    }
    let (most, grown) = (report.most_connections, report.grown_kib);
    writeln!(f, "  at most {most} connections, {grown} KiB more")?;
    let named = report.attack.named_by().iter().map(|(layer, name)| format!("{layer}.{name}"));
    let counted = named.map(|name| format!("{name} {}", report.counted.get(&name).copied().unwrap_or(0)));
    writeln!(f, "  noticed by: {}", counted.collect::<Vec<_>>().join(", "))
}

fn columns(load: &Load) -> String {
    let ms = |us: u64| us as f64 / 1e3;
    format!(
        "{:>6.0} {:>7.2} {:>8.2} {:>8.1} {:>5}",
        load.requests_per_s,
        ms(load.p50_us),
        ms(load.p99_us),
        ms(load.max_us),
        load.broken
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> AttackReport {
        let load = Load { requests_per_s: 50.0, p50_us: 100, p99_us: 200, max_us: 300, broken: 0 };
        AttackReport {
            attack: Attack::OptimisticAcks,
            attack_frames_per_s: 12_345.0,
            drawn_bytes_per_s: 9e6,
            kept: [load; 3],
            new: [load; 3],
            most_connections: 7,
            grown_kib: -4,
            noticed: true,
            counted: [("tcp.optimistic_acks".to_owned(), 3)].into(),
        }
    }

    #[test]
    fn attack_is_survived_if_everybody_is_served_and_somebody_noticed() {
        assert!(report().survived());
        assert!(!AttackReport { noticed: false, ..report() }.survived());
        for place in [1, 2] {
            let mut starved = report();
            starved.new[place].requests_per_s = 0.0;
            assert!(!starved.survived());
        }
        let mut harmed = report();
        harmed.kept[1].broken = 1;
        assert!(!harmed.survived());
    }

    #[test]
    fn table_says_what_was_offered_and_who_noticed() {
        let report = Report::new(AttackOptions::quick(), Machine::describe(&[]), vec![report()]);
        let text = report.to_string();
        for words in ["survived; 12.3 thousand frames/s draw 9.0 MB/s", "tcp.optimistic_acks 3", "at most 7"]
        {
            assert!(text.contains(words), "{text}");
        }
    }
}
