//! What is said of the requests: a table for people, JSON for scripts, the slowest, a page.

use super::distribution::Percentiles;
use super::html;
use super::kept::{Kept, LeftOut};
use super::layers::{Kind, LayerId};
use super::request::Request;
use super::summary::{Incompletes, Summary};
use crate::text::{counted, harmless};
use crate::trace::stream::{Header, Piece};
use abi::trace::subject;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// [`Figures::schema`].
pub const SCHEMA: &str = "exovm-requests/1";
/// Layers of one of the slowest that its line names.
const NAMED: usize = 3;

/// All that is known of the requests when the recording has ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// What the records are of.
    pub header: Header,
    /// All requests together.
    pub summary: Summary,
    /// The slowest, the slowest first.
    pub slowest: Vec<Kept>,
    /// A fair sample of all, the fastest first.
    pub typical: Vec<Kept>,
    /// What there was no room for of both.
    pub left_out: LeftOut,
}

/// The numbers of a report.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The machine.
    pub machine: String,
    /// Its image.
    pub image: String,
    /// Cycles a millisecond.
    pub tsc_khz: u64,
    /// One received frame in so many was recorded.
    pub one_in: u32,
    /// Packets that completed a request and of which everything is known: what the percentiles are of.
    pub complete: u64,
    /// Requests that the guest counted for those.
    pub counted: u64,
    /// Not in the percentiles.
    pub incomplete: Incompletes,
    /// Packets with more than one request.
    pub several_in_packet: u64,
    /// Requests in more than one packet.
    pub in_several_packets: u64,
    /// Answers of more than one frame.
    pub in_several_frames: u64,
    /// Requests with which the guest went on after a disk read or an acknowledgment.
    pub continued: u64,
    /// Records that are missing.
    pub lost_records: u64,
    /// Records that cannot be right, and those of packets for which there was no room.
    pub strange_records: u64,
    /// From the backend's system call for the first packet to the end of the one for the last frame.
    pub end_to_end: Spread,
    /// The same without what the client took.
    pub without_client: Spread,
    /// In the order in which requests reach them.
    pub layers: Vec<LayerFigures>,
}

/// Of one layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerFigures {
    /// Name.
    pub name: String,
    /// Whose time it is.
    pub kind: Kind,
    /// Requests that had any time in it.
    pub requests: u64,
    /// Its part of all requests' end-to-end time.
    pub share: f64,
    /// Over all requests, those without any time in it included.
    #[serde(flatten)]
    pub spread: Spread,
}

/// One of the slowest.
#[derive(Clone, Debug, Serialize)]
pub struct SlowFigures {
    /// Microseconds, end to end.
    pub us: f64,
    /// Cycles.
    pub cycles: u64,
    /// When it began, in seconds since the recording did.
    pub at_s: f64,
    /// Its packets.
    pub packets: Vec<String>,
    /// The frames of its answer.
    pub frames: Vec<String>,
    /// Its layers, in the order in which it reached them, with their cycles.
    pub layers: Vec<(String, u64)>,
}

/// Percentiles in both units.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Cycles.
    pub cycles: Percentiles,
    /// Microseconds.
    pub us: Microseconds,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[expect(missing_docs, reason = "as in `Percentiles`")]
pub struct Microseconds {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
    pub mean: f64,
}

impl Report {
    /// Cycles in microseconds.
    pub fn us(&self, cycles: u64) -> f64 {
        let us = cycles as f64 * 1000.0 / self.header.tsc_khz.max(1) as f64;
        (us * 1000.0).round() / 1000.0
    }

    fn spread(&self, cycles: Percentiles) -> Spread {
        let Percentiles { p50, p90, p99, p99_9, max, mean } = cycles;
        let [p50, p90, p99, p99_9, max, mean] = [p50, p90, p99, p99_9, max, mean].map(|value| self.us(value));
        Spread { cycles, us: Microseconds { p50, p90, p99, p99_9, max, mean } }
    }

    /// Layers that had any time, in the order in which requests reach them.
    pub fn layers(&self) -> Vec<(LayerId, LayerFigures)> {
        let summary = &self.summary;
        let all_cycles = summary.end_to_end.sum().max(1);
        let mut layers: Vec<_> = (0u16..)
            .map(LayerId)
            .zip(&summary.by_layer)
            .filter(|(_, sum)| !sum.cycles.is_empty())
            .map(|(id, sum)| {
                let layer = summary.layers.get(id);
                let requests = sum.cycles.len();
                let figures = LayerFigures {
                    name: layer.name.clone(),
                    kind: layer.kind,
                    requests,
                    share: sum.cycles.sum() as f64 / all_cycles as f64,
                    spread: self.spread(sum.cycles.percentiles(summary.complete - requests)),
                };
                (sum.first_sum / u128::from(requests), id, figures)
            })
            .collect();
        layers.sort_by_key(|(first, id, _)| (*first, *id));
        layers.into_iter().map(|(_, id, figures)| (id, figures)).collect()
    }

    /// All numbers.
    pub fn figures(&self) -> Figures {
        let summary = &self.summary;
        Figures {
            schema: SCHEMA,
            machine: self.header.machine.clone(),
            image: self.header.image.clone(),
            tsc_khz: self.header.tsc_khz,
            one_in: self.header.one_in,
            complete: summary.complete,
            counted: summary.counted,
            incomplete: summary.incomplete,
            several_in_packet: summary.several_in_packet,
            in_several_packets: summary.in_several_packets,
            in_several_frames: summary.in_several_frames,
            continued: summary.continued,
            lost_records: summary.lost_records,
            strange_records: summary.strange_records + summary.crowded,
            end_to_end: self.spread(summary.end_to_end.percentiles(0)),
            without_client: self.spread(summary.here.percentiles(0)),
            layers: self.layers().into_iter().map(|(_, figures)| figures).collect(),
        }
    }

    /// The table of percentiles, in microseconds and in cycles.
    pub fn table(&self) -> String {
        let figures = self.figures();
        let mut text = self.remarks().join("\n");
        if figures.complete == 0 {
            return text;
        }
        let in_us = |spread: &Spread| {
            let Microseconds { p50, p90, p99, p99_9, max, .. } = spread.us;
            [p50, p90, p99, p99_9, max].map(|us| format!("{us:.1}"))
        };
        let in_cycles = |spread: &Spread| {
            let Percentiles { p50, p90, p99, p99_9, max, .. } = spread.cycles;
            [p50, p90, p99, p99_9, max].map(|cycles| cycles.to_string())
        };
        text += "\n\n";
        text += &rows(&figures, "microseconds", in_us);
        text += "\n\n";
        text += &rows(&figures, "cycles", in_cycles);
        text
    }

    /// What a reader has to know about the numbers.
    pub fn remarks(&self) -> Vec<String> {
        let summary = &self.summary;
        let mut lines = Vec::new();
        if !summary.counts_requests {
            lines.push(
                "no requests: this image counts none (exos_trace::counter!(\"requests\", n) while it works on a packet)"
                    .to_owned(),
            );
            return lines;
        }
        let mut first =
            format!("{} with a complete record", counted(summary.complete, "request", "requests"));
        if self.header.one_in > 1 {
            let _ = write!(first, ", of one received frame in {}", self.header.one_in);
        }
        lines.push(first);
        if summary.complete == 0 && summary.incomplete.sum() == 0 {
            lines.push("nobody asked anything meanwhile, or the recording was too short".to_owned());
        }
        let incomplete = summary.incomplete;
        let reasons = [
            (
                incomplete.lost_records,
                "records are missing while they were under way: record less, with --sample",
            ),
            (incomplete.under_way, "under way, or not acknowledged, when the recording ended"),
            (incomplete.begun_before, "their packet's record is missing"),
            (incomplete.unanswered, "nothing was sent for their packet"),
            (incomplete.unacknowledged, "the client never acknowledged all of the answer"),
            (incomplete.too_long, "longer than what is kept of one"),
            (
                incomplete.no_room,
                "too much was under way at once to keep all of it: record less, with --sample",
            ),
        ];
        for (requests, why) in reasons.iter().filter(|(requests, _)| *requests > 0) {
            lines.push(format!("not counted: {} ({why})", counted(*requests, "request", "requests")));
        }
        if summary.lost_records > 0 {
            lines.push(format!("{} missing", counted(summary.lost_records, "record", "records")));
        }
        if summary.strange_records + summary.crowded > 0 {
            let strange = counted(summary.strange_records + summary.crowded, "record", "records");
            lines.push(format!("{strange} left out: times go backwards, or too many packets at once"));
        }
        if summary.several_in_packet > 0 {
            lines.push(format!(
                "{} held several requests, {} together with the others: such a packet counts as one",
                counted(summary.several_in_packet, "packet", "packets"),
                counted(summary.counted, "request", "requests")
            ));
        }
        let LeftOut { slowest, records, sample } = self.left_out;
        let left_out = [
            (slowest as u64, "of the slowest left out: there was no room for more"),
            (records as u64, "of the slowest without records: there was no room for more of them"),
            (sample, "left out of the sample of typical ones: there was no room for more"),
        ];
        for (requests, what) in left_out.iter().filter(|(requests, _)| *requests > 0) {
            lines.push(format!("{} {what}", counted(*requests, "request", "requests")));
        }
        let rest = [
            (summary.in_several_packets, "came in several packets"),
            (summary.in_several_frames, "answered with several frames"),
            (summary.continued, "went on after a disk read or an acknowledgment"),
        ];
        for (requests, what) in rest.iter().filter(|(requests, _)| *requests > 0) {
            lines.push(format!("{} {what}", counted(*requests, "request", "requests")));
        }
        lines
    }

    /// The slowest, a line each.
    pub fn slowest_table(&self) -> String {
        let mut lines = vec![format!(
            "{:>3}  {:>12}  {:>14}  {:>10}  {:<26}  {}",
            "#", "us", "cycles", "at s", "packet", "most of it"
        )];
        for (place, kept) in (1..).zip(&self.slowest) {
            let request = &kept.request;
            let mut named = self.most_of(request).join(", ");
            if kept.cut {
                named += "; not all records of that time are kept";
            }
            lines.push(format!(
                "{place:>3}  {:>12.1}  {:>14}  {:>10.3}  {:<26}  {named}",
                self.us(request.cycles()),
                request.cycles(),
                self.us(request.begin.saturating_sub(self.header.tsc)) / 1e6,
                request.packets.last().map_or_else(String::new, |packet| subject_name(*packet)),
            ));
        }
        lines.join("\n")
    }

    /// The same for scripts.
    pub fn slowest_figures(&self) -> Vec<SlowFigures> {
        let of = |kept: &Kept| {
            let request = &kept.request;
            let layer = |share: super::request::Share| {
                (self.summary.layers.get(share.layer).name.clone(), share.cycles)
            };
            SlowFigures {
                us: self.us(request.cycles()),
                cycles: request.cycles(),
                at_s: self.us(request.begin.saturating_sub(self.header.tsc)) / 1e6,
                packets: request.packets.iter().copied().map(subject_name).collect(),
                frames: request.frames.iter().copied().map(subject_name).collect(),
                layers: request.shares().into_iter().map(layer).collect(),
            }
        };
        self.slowest.iter().map(of).collect()
    }

    /// The layers that have most of a request, with their part.
    pub(super) fn most_of(&self, request: &Request) -> Vec<String> {
        let mut shares = request.shares();
        shares.sort_by_key(|share| std::cmp::Reverse(share.cycles));
        let name = |share: &super::request::Share| {
            let percent = share.cycles as f64 * 100.0 / request.cycles().max(1) as f64;
            format!("{} {percent:.0} %", harmless(&self.summary.layers.get(share.layer).name))
        };
        shares.iter().take(NAMED).map(name).collect()
    }

    /// The records of the slowest, each once and in order, as a stream of nothing else.
    pub fn slowest_pieces(&self) -> Vec<Piece> {
        let mut by_source: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        let mut slowest: Vec<_> = self.slowest.iter().collect();
        slowest.sort_by_key(|kept| kept.request.begin);
        for kept in slowest {
            for (source, records) in &kept.records {
                let all = by_source.entry(*source).or_default();
                let known = all.last().map_or(0, |record: &crate::trace::record::Record| record.tsc);
                // Requests overlap; of records at one moment, those that came before are known.
                let new =
                    if all.is_empty() { 0 } else { records.partition_point(|record| record.tsc <= known) };
                all.extend_from_slice(&records[new..]);
            }
        }
        let piece = |(source, records)| Piece::Records { source, lost: 0, records };
        by_source.into_iter().map(piece).collect()
    }

    /// A page that draws requests end to end: those at the percentiles, and the slowest. It needs nothing but a browser.
    pub fn html(&self) -> String {
        html::page(self)
    }
}

fn rows(figures: &Figures, unit: &str, cells: impl Fn(&Spread) -> [String; 5]) -> String {
    let mut rows: Vec<[String; 8]> = Vec::new();
    let heading = [unit, "share", "requests", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned);
    rows.push(heading);
    let mut row = |name: &str, share: f64, requests: u64, spread: &Spread| {
        let [p50, p90, p99, p99_9, max] = cells(spread);
        let (name, share) = (harmless(name), format!("{:.1} %", share * 100.0));
        rows.push([name, share, requests.to_string(), p50, p90, p99, p99_9, max]);
    };
    for layer in &figures.layers {
        row(&layer.name, layer.share, layer.requests, &layer.spread);
    }
    row("end to end", 1.0, figures.complete, &figures.end_to_end);
    let client: f64 =
        figures.layers.iter().filter(|layer| layer.kind == Kind::Client).map(|layer| layer.share).sum();
    if client > 0.0 {
        row("without the client's part", 1.0 - client, figures.complete, &figures.without_client);
    }
    let widths: [usize; 8] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A frame or disk request, for people.
pub(super) fn subject_name(number: u64) -> String {
    let (kind, device, queue, n) = subject::parts(number);
    let what = match kind {
        subject::RECEIVED => "received",
        subject::SENT => "sent",
        subject::DISK => "disk",
        _ => return format!("{number:#x}"),
    };
    format!("{what} {device}.{queue} #{n}")
}
