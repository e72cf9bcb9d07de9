//! The functions that took most, for terminals and as JSON.

use super::collect::{Profile, Stack};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// Version of the JSON form.
pub const SCHEMA: &str = "exovm-profile/1";

/// One function, as one environment ran it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Name.
    pub function: String,
    /// Thread of the machine.
    pub thread: String,
    /// In the guest: the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<u32>,
    /// In the guest: the ring that its code runs in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring: Option<u8>,
    /// Samples in the function itself.
    #[serde(rename = "self")]
    pub own: u64,
    /// Samples in it or in what it called.
    pub total: u64,
}

/// Whose row it is: the thread, environment, ring, name.
type Place<'a> = (u32, Option<u32>, Option<u8>, &'a str);

/// All functions, those with most samples of their own first.
pub fn rows(profile: &Profile) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<Place<'_>, usize> = HashMap::new();
    for (stack, &count) in &profile.stacks {
        // A function that is on the stack twice is counted once.
        let mut counted = BTreeSet::new();
        for (depth, &id) in stack.frames.iter().enumerate() {
            let name = profile.frame(id).name.as_str();
            let ring = ring_of(profile, stack, id);
            let place = *places.entry((stack.thread, stack.environment, ring, name)).or_insert_with(|| {
                rows.push(Row {
                    function: name.to_owned(),
                    thread: profile.thread(stack).to_owned(),
                    environment: stack.environment,
                    ring,
                    own: 0,
                    total: 0,
                });
                rows.len() - 1
            });
            rows[place].own += if depth == 0 { count } else { 0 };
            rows[place].total += if counted.insert(place) { count } else { 0 };
        }
    }
    rows.sort_by(|a, b| (b.own, b.total, &a.function).cmp(&(a.own, a.total, &b.function)));
    rows
}

/// A stack of ring 0 goes on in ring 3.
fn ring_of(profile: &Profile, stack: &Stack, id: u32) -> Option<u8> {
    stack.ring.map(|_| if profile.frame(id).is_kernel() { 0 } else { 3 })
}

/// Everything as JSON.
pub fn json(profile: &Profile, machine: &str) -> serde_json::Value {
    let counts = &profile.counts;
    let threads: Vec<_> = profile
        .begin
        .threads
        .iter()
        .zip(&counts.threads)
        .map(|(name, counts)| {
            serde_json::json!({ "name": name, "moments": counts.moments, "samples": counts.samples,
                "idle": counts.idle, "missed": counts.missed })
        })
        .collect();
    serde_json::json!({
        "schema": SCHEMA,
        "machine": machine,
        "image": profile.begin.image,
        "hz": profile.begin.hz,
        "elapsed_us": counts.elapsed_us,
        "has_symbols": profile.begin.has_symbols,
        "samples": profile.samples(),
        "left_out": profile.left_out,
        "threads": threads,
        "cost": { "looks": counts.looks, "looking_cycles": counts.looking_cycles,
            "asking_cycles": counts.asking_cycles, "sampler_ns": counts.sampler_ns, "unsent": counts.unsent,
            "tsc_khz": profile.begin.tsc_khz },
        "functions": rows(profile),
    })
}

/// A part of all, in percent.
pub fn percent(part: u64, all: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::collect::example;

    #[test]
    fn functions_have_what_they_took_themselves_and_with_what_they_called() {
        let rows = rows(&example());
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.function.as_str(), row.environment, row.ring, row.own, row.total))
            .collect();
        assert_eq!(
            found,
            [
                ("<[u8; 4] as app::Leaf>::leaf", Some(0), Some(3), 2, 2),
                ("[vmm] net receive", None, None, 1, 1),
                ("app::main", Some(1), Some(3), 1, 1),
                ("xok::call", Some(0), Some(0), 1, 1),
                ("app::main", Some(0), Some(3), 0, 3),
            ]
        );
    }

    #[test]
    fn function_that_calls_itself_is_counted_once_a_sample() {
        let mut profile = example();
        profile.stacks.clear();
        let stack = Stack { environment: Some(0), ring: Some(3), frames: vec![1, 0, 1], ..Stack::default() };
        profile.stacks.insert(stack, 7);
        let rows = rows(&profile);
        assert_eq!(rows.iter().map(|row| (row.own, row.total)).collect::<Vec<_>>(), [(7, 7), (0, 7)]);
    }

    #[test]
    fn json_has_the_counts_and_the_functions() {
        let json = json(&example(), "m");
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["threads"][0]["missed"], 1);
        assert_eq!(json["functions"][0]["self"], 2);
    }
}
