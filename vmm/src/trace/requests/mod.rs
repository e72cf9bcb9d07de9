//! Requests, put together from the records of a machine as they come: where the time of each went, percentiles of each layer, the
//! slowest ones. Pure code over a [`Header`] and [`Piece`]s.
//!
//! A request is a received packet for which the guest counted `requests`. Pieces of different sources come out of order, so a
//! request is put together some milliseconds after the client has acknowledged its answer; what is older is forgotten.
//!
//! | module | what |
//! | --- | --- |
//! | [`guest`] | what an environment did for each packet |
//! | [`device`] | what the VMM's threads did with each frame and disk request |
//! | [`room`] | how much memory that may take |
//! | [`gaps`] | where records are missing |
//! | [`request`] | one request from all of that |
//! | [`path`] | whose each moment of it is |
//! | [`layers`] | the layers |
//! | [`distribution`] | percentiles |
//! | [`summary`] | of all requests together |
//! | [`kept`] | those that are kept whole |
//! | [`report`], [`html`] | for people and scripts |

mod device;
pub mod distribution;
mod gaps;
mod guest;
mod html;
pub mod kept;
pub mod layers;
pub mod path;
pub mod report;
pub mod request;
mod room;
pub mod summary;
#[cfg(test)]
mod tests;

use super::stream::{Header, Piece, Source};
use device::Devices;
use gaps::Gaps;
use guest::{Clock, Environment, Meanings, Work};
use kept::{Keeper, RECENT_MS};
use layers::Layers;
pub use report::Report;
use request::{Incomplete, Request};
use room::Room;
use std::collections::BTreeMap;
use summary::Summary;

/// How often it is looked for requests that are over.
const SWEEP_MS: u64 = 5;
/// A request is over when its answer is acknowledged and nothing has been heard of it for so long.
const SETTLED_MS: u64 = 20;
/// The same, where the image does not say when an answer is acknowledged.
const SILENT_MS: u64 = 50;
/// What is not said of an acknowledged request by then is lost.
const LOST_MS: u64 = 500;
/// A client that acknowledges nothing for so long does not count as having the answer.
const PATIENCE_MS: u64 = 3000;
/// How long the first packet of a request is remembered.
const PARTIAL_MS: u64 = 10_000;
/// Packets that one request may come in.
const PACKETS_MAX: usize = 1000;

/// What of the requests is wanted besides their percentiles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// So many of the slowest, with their records.
    pub slowest: usize,
    /// Some that are typical, for [`Report::html`].
    pub typical: bool,
}

/// Requests as they become known.
#[derive(Debug)]
pub struct Requests {
    header: Header,
    meanings: Meanings,
    devices: Devices,
    /// By source.
    environments: BTreeMap<u16, Environment>,
    room: Room,
    gaps: Gaps,
    summary: Summary,
    keeper: Keeper,
    each: Each,
    swept_at: Clock,
}

/// Who is told of each request.
struct Each(Box<dyn FnMut(&Request) + Send>);

impl std::fmt::Debug for Each {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Each")
    }
}

impl Requests {
    /// None yet.
    pub fn new(header: &Header, keep: Keep) -> Self {
        Self {
            meanings: Meanings::new(header),
            devices: Devices::new(header),
            environments: BTreeMap::new(),
            room: Room::default(),
            gaps: Gaps::default(),
            summary: Summary::new(Layers::new(header)),
            keeper: Keeper::new(keep.slowest, keep.typical),
            each: Each(Box::new(|_| {})),
            swept_at: Clock { tsc: header.tsc, looks: 0 },
            header: header.clone(),
        }
    }

    /// Has somebody told of each request as it becomes known.
    pub fn tell(&mut self, each: impl FnMut(&Request) + Send + 'static) {
        self.each = Each(Box::new(each));
    }

    /// The next piece of the stream.
    pub fn feed(&mut self, piece: &Piece) {
        let Piece::Records { source, lost, records } = piece else { return };
        let source = *source;
        if is_kvm(&self.header, source) {
            return;
        }
        let is_thread = is_thread(&self.header, source);
        if *lost > 0 {
            self.gaps.lost(source, *lost);
            if is_thread {
                self.devices.gap(source);
            } else {
                self.environments.entry(source).or_default().gap();
            }
        }
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.gaps.seen(source, first.tsc, last.tsc);
        }
        if is_thread {
            for record in records {
                self.devices.record(source, record, self.header.buckets.len());
            }
        } else {
            let environment = self.environments.entry(source).or_default();
            let now = Clock { tsc: self.devices.now, looks: self.swept_at.looks };
            let mut room = self.room.of(source);
            for record in records {
                environment.record(&self.meanings, now, &mut room, record);
            }
        }
        self.keeper.remember(source, records);
        if self.devices.now - self.swept_at.tsc >= SWEEP_MS * self.header.tsc_khz {
            self.swept_at = Clock { tsc: self.devices.now, looks: self.swept_at.looks + 1 };
            self.sweep(Sweep::Running);
        }
    }

    /// So many requests are known so far.
    pub fn complete(&self) -> u64 {
        self.summary.complete
    }

    /// Nothing more comes.
    pub fn finish(mut self) -> Report {
        self.devices.end();
        self.sweep(Sweep::Last);
        let strange: u64 = self.environments.values().map(|environment| environment.garbled).sum();
        let crowded: u64 = self.environments.values().map(|environment| environment.crowded).sum();
        let (slowest, typical, left_out) = self.keeper.finish();
        self.summary.lost_records = self.gaps.records;
        self.summary.strange_records = strange;
        self.summary.crowded += crowded;
        self.summary.counts_requests = self.meanings.count_requests();
        Report { header: self.header, summary: self.summary, slowest, typical, left_out }
    }

    /// Looks for requests that are over, and forgets what is old.
    fn sweep(&mut self, sweep: Sweep) {
        let (now, khz) = (self.devices.now, self.header.tsc_khz);
        let mut environments = std::mem::take(&mut self.environments);
        for (source, environment) in &mut environments {
            let mut over = Vec::new();
            environment.works.retain(|packet, work| {
                work.take(*packet, &self.devices);
                let silent_ms = if self.swept_at.looks > work.heard.looks + 1 {
                    now.saturating_sub(work.heard.tsc) / khz.max(1)
                } else {
                    0
                };
                match judge(work, silent_ms, sweep, self.meanings.tell_acknowledged()) {
                    Judgment::Keep => true,
                    Judgment::Forget => false,
                    Judgment::Over(how) => {
                        over.push((work.first, *packet, how));
                        true
                    }
                }
            });
            // In their order: the first packets of one request are not those of the next.
            over.sort_unstable_by_key(|(first, ..)| *first);
            for (_, packet, how) in over {
                self.put_together(*source, environment, packet, how);
            }
        }
        self.room.count_anew(environments.iter_mut().map(|(source, own)| (*source, own.bytes())));
        self.environments = environments;
        self.devices.forget(khz);
        self.gaps.forget(now.saturating_sub(3 * PARTIAL_MS * khz));
        self.keeper.forget(now.saturating_sub(RECENT_MS * khz));
    }

    fn put_together(
        &mut self,
        source: u16,
        environment: &mut Environment,
        packet: u64,
        how: Result<(), Incomplete>,
    ) {
        let Some(work) = environment.works.remove(&packet) else { return };
        let works = with_earlier(environment, packet, work);
        let request = how.and_then(|()| Request::assemble(&self.summary.layers, source, &works));
        let request = request.and_then(|request| {
            let matters = |other| other == source || is_thread(&self.header, other);
            match self.gaps.cross(request.begin, request.end, matters) {
                true => Err(Incomplete::Lost),
                false => Ok(request),
            }
        });
        match request {
            Ok(request) => {
                self.summary.add(&request);
                self.keeper.offer(&request);
                (self.each.0)(&request);
            }
            // What is missing may be why it looks as it does.
            Err(why) => {
                let (begin, end) = works.first().zip(works.last()).map_or((0, 0), |(first, last)| {
                    (first.1.received.map_or(first.1.first, |received| received.from), last.1.last)
                });
                let matters = |other| other == source || is_thread(&self.header, other);
                let lost = why != Incomplete::UnderWay && self.gaps.cross(begin, end, matters);
                self.summary.incomplete(if lost { Incomplete::Lost } else { why });
            }
        }
    }
}

/// What KVM says is of no request.
fn is_kvm(header: &Header, source: u16) -> bool {
    matches!(header.sources.get(usize::from(source)), Some(Source::Kvm { .. }))
}

fn is_thread(header: &Header, source: u16) -> bool {
    matches!(header.sources.get(usize::from(source)), Some(Source::Thread { .. }))
}

/// When it is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sweep {
    /// More will come.
    Running,
    /// That was all.
    Last,
}

/// What becomes of a packet's work.
enum Judgment {
    Keep,
    Forget,
    /// It is a request, and no more of it will come.
    Over(Result<(), Incomplete>),
}

fn judge(work: &Work, silent_ms: u64, sweep: Sweep, tells_acknowledged: bool) -> Judgment {
    let last = sweep == Sweep::Last;
    if work.requests == 0 {
        let patience_ms = if work.data_behind.is_some() { PARTIAL_MS } else { SILENT_MS };
        // At the end it may still be the beginning of a request.
        return if silent_ms < patience_ms || last { Judgment::Keep } else { Judgment::Forget };
    }
    let acknowledged = work.acknowledged.is_some();
    let settled_ms = if tells_acknowledged { SETTLED_MS } else { SILENT_MS };
    match () {
        () if (acknowledged || !tells_acknowledged)
            && work.is_whole()
            && (silent_ms >= settled_ms || last) =>
        {
            Judgment::Over(Ok(()))
        }
        // Devices may have more to say.
        () if last => Judgment::Over(Err(Incomplete::UnderWay)),
        () if acknowledged && silent_ms >= LOST_MS => Judgment::Over(Ok(())),
        () if silent_ms >= PATIENCE_MS => Judgment::Over(Err(Incomplete::Unacknowledged)),
        () => Judgment::Keep,
    }
}

/// The packet's work, behind that of the packets before it that brought the beginning of the same request.
fn with_earlier(environment: &mut Environment, packet: u64, work: Work) -> Vec<(u64, Work)> {
    let mut works = vec![(packet, work)];
    while let Some(behind) = works.last().and_then(|(_, work)| work.data_behind).filter(|behind| *behind != 0)
        && works.len() < PACKETS_MAX
        && environment.works.get(&behind).is_some_and(|work| work.requests == 0)
        && let Some(work) = environment.works.remove(&behind)
    {
        works.push((behind, work));
    }
    works.reverse();
    works
}
