//! One request as the page draws it: times are cycles since its beginning.

use super::super::Report;
use super::super::kept::Kept;
use super::super::layers::LayerId;
use super::super::report::subject_name;
use super::super::request::{Bar, Lane, Request};
use crate::trace::record::Record;
use crate::trace::stream::Source;
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_LEAVE};
use serde::Serialize;

/// Bars of what else went on, for each lane.
const ELSE_MAX: usize = 2000;

/// A request.
#[derive(Serialize)]
pub(super) struct Drawing {
    title: String,
    cycles: u64,
    /// When it began, in seconds of the recording.
    at_s: f64,
    packets: Vec<String>,
    frames: Vec<String>,
    requests: u64,
    /// Not all records of that time are there.
    cut: bool,
    /// From, to, layer.
    path: Vec<(u64, u64, u16)>,
    /// Lane, layer, from, to, depth, frame or disk request.
    bars: Vec<(u8, u16, u64, u64, u8, String)>,
    /// When, from which lane, to which.
    arrows: Vec<(u64, u8, u8)>,
    /// What else went on: a lane each.
    others: Vec<Other>,
}

/// What somebody did meanwhile.
#[derive(Serialize)]
struct Other {
    name: String,
    /// From, to, what.
    bars: Vec<(u64, u64, String)>,
}

/// Lanes by number, as `draw.js` has them.
fn lane(lane: Lane) -> u8 {
    match lane {
        Lane::Backend => 0,
        Lane::Receive => 1,
        Lane::Environment => 2,
        Lane::Transmit => 3,
        Lane::Disk => 4,
    }
}

impl Drawing {
    pub(super) fn of(report: &Report, title: String, kept: &Kept) -> Self {
        let request = &kept.request;
        let since = |tsc: u64| tsc.saturating_sub(request.begin);
        let bar = |bar: &Bar| {
            let name = if bar.subject == 0 { String::new() } else { subject_name(bar.subject) };
            (lane(bar.lane), bar.layer.0, since(bar.from), since(bar.to), bar.depth, name)
        };
        let shown = |bar: &&Bar| bar.from < request.end;
        Self {
            title,
            cycles: request.cycles(),
            at_s: report.us(request.begin.saturating_sub(report.header.tsc)) / 1e6,
            packets: request.packets.iter().copied().map(subject_name).collect(),
            frames: request.frames.iter().copied().map(subject_name).collect(),
            requests: request.requests,
            cut: kept.cut,
            path: request.path.iter().map(|step| (since(step.from), since(step.to), step.layer.0)).collect(),
            bars: request.bars.iter().filter(shown).map(bar).collect(),
            arrows: arrows(request),
            others: others(report, kept),
        }
    }
}

/// Where the request goes from one lane to another.
fn arrows(request: &Request) -> Vec<(u64, u8, u8)> {
    let mut arrows = Vec::new();
    for (place, bar) in request.bars.iter().enumerate() {
        let (backend, receive, environment, transmit, disk) = (0, 1, 2, 3, 4);
        let follows = |layer: LayerId| {
            request.bars.get(place + 1).is_some_and(|next| next.layer == layer && next.subject == bar.subject)
        };
        let arrow = match bar.layer {
            LayerId::BACKEND_READ => (bar.to, backend, receive),
            LayerId::RECEIVE if follows(LayerId::WAIT_FOR_GUEST) => continue,
            LayerId::RECEIVE | LayerId::WAIT_FOR_GUEST => (bar.to, receive, environment),
            LayerId::WAIT_FOR_DEVICE => (bar.from, environment, transmit),
            LayerId::BACKEND_WRITE => (bar.from, transmit, backend),
            LayerId::WAIT_FOR_DISK => (bar.from, environment, disk),
            LayerId::DISK => (bar.to, disk, environment),
            _ => continue,
        };
        if arrow.0 <= request.end {
            arrows.push((arrow.0.saturating_sub(request.begin), arrow.1, arrow.2));
        }
    }
    arrows
}

/// What threads and the environment did while the request was under way.
fn others(report: &Report, kept: &Kept) -> Vec<Other> {
    let mut others = Vec::new();
    for (source, records) in &kept.records {
        let (name, bars) = match report.header.sources.get(usize::from(*source)) {
            Some(Source::Thread { name }) => (format!("thread {name}"), buckets(report, records, kept)),
            Some(Source::Environment { number }) if *source == kept.request.source => {
                (format!("environment {number}, other work"), elsewhere(report, records, kept))
            }
            Some(Source::Environment { number }) => {
                (format!("environment {number}"), elsewhere(report, records, kept))
            }
            Some(Source::Kvm { .. }) | None => continue,
        };
        if !bars.is_empty() {
            others.push(Other { name, bars });
        }
    }
    others
}

/// Bars of which each begins where a record was written; those with the same name that touch become one.
fn bars(kept: &Kept, stretches: impl Iterator<Item = (u64, u64, Option<String>)>) -> Vec<(u64, u64, String)> {
    let (begin, end) = (kept.request.begin, kept.request.end);
    let mut bars: Vec<(u64, u64, String)> = Vec::new();
    for (from, to, name) in stretches {
        let (from, to) = (from.max(begin), to.min(end));
        let Some(name) = name.filter(|_| from < to) else { continue };
        let (from, to) = (from - begin, to - begin);
        let full = bars.len() >= ELSE_MAX;
        match bars.last_mut() {
            Some((_, until, last)) if *until == from && *last == name => *until = to,
            _ if full => break,
            _ => bars.push((from, to, name)),
        }
    }
    bars
}

fn buckets(report: &Report, records: &[Record], kept: &Kept) -> Vec<(u64, u64, String)> {
    let entered: Vec<_> = records
        .iter()
        .filter_map(|record| match record.parts() {
            (bucket, RECORD_ENTER, _) => Some((record.tsc, report.header.buckets.get(bucket as usize)?)),
            _ => None,
        })
        .collect();
    let ends = entered.iter().skip(1).map(|(tsc, _)| *tsc).chain([kept.request.end]);
    bars(kept, entered.iter().zip(ends).map(|((from, name), to)| (*from, to, Some((*name).clone()))))
}

fn elsewhere(report: &Report, records: &[Record], kept: &Kept) -> Vec<(u64, u64, String)> {
    let mut followed = 0;
    let mut site = 0;
    let ends = records.iter().skip(1).map(|record| record.tsc).chain([kept.request.end]);
    let stretches = records.iter().zip(ends).map(|(record, to)| {
        match record.parts() {
            (entered, RECORD_ENTER, _) => (site, followed) = (entered, record.subject),
            (_, RECORD_LEAVE, _) => (site, followed) = (record.argument as u32, record.subject),
            (_, RECORD_COUNTER, _) => followed = record.subject,
            _ => {}
        }
        let own = kept.request.packets.contains(&followed);
        let name = || report.summary.layers.get(report.summary.layers.of_span(site)).name.clone();
        (record.tsc, to, (!own).then(name))
    });
    bars(kept, stretches)
}
