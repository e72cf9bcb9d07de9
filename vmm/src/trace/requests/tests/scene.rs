//! A machine's records, made by hand. A tick is a microsecond.

use super::super::report::LayerFigures;
use super::super::{Keep, Report, Requests};
use crate::account::ledger::Bucket;
use crate::trace::record::{Happening, Record};
use crate::trace::stream::{Header, Piece, SCHEMA, Site, Source};
use abi::trace::{RECORD_COUNTER, RECORD_ENTER, RECORD_EVENT, RECORD_LEAVE, pack_what, subject};
use std::collections::BTreeMap;

pub(super) const VCPU: u16 = 0;
pub(super) const IO: u16 = 1;
pub(super) const GUEST: u16 = 2;

pub(super) const LOOP: u32 = 1;
pub(super) const INPUT: u32 = 2;
pub(super) const SERVICE: u32 = 3;
pub(super) const OUTPUT: u32 = 4;
pub(super) const NIC: u32 = 5;
const REQUESTS: u32 = 6;
const QUEUED: u32 = 7;
const DISK_QUEUED: u32 = 8;
const DATA: u32 = 9;
const GOES_ON: u32 = 10;
const ACKNOWLEDGED: u32 = 11;
/// The same name at another place of the code.
const REQUESTS_TOO: u32 = 12;

const SITES: [(&str, &str); 12] = [
    ("event loop", "span"),
    ("tcp input", "span"),
    ("service", "span"),
    ("tcp output", "span"),
    ("nic transmit", "span"),
    ("requests", "counter"),
    ("frame queued", "event"),
    ("disk request queued", "event"),
    ("data received", "event"),
    ("work goes on", "event"),
    ("answer acknowledged", "event"),
    ("requests", "counter"),
];

pub(super) fn packet(n: u64) -> u64 {
    subject::of(subject::RECEIVED, 0, 0, n)
}

pub(super) fn frame(n: u64) -> u64 {
    subject::of(subject::SENT, 0, 1, n)
}

pub(super) fn disk(n: u64) -> u64 {
    subject::of(subject::DISK, 1, 0, n)
}

pub(super) fn header() -> Header {
    let thread = |name: &str| Source::Thread { name: name.to_owned() };
    Header {
        schema: SCHEMA.to_owned(),
        machine: "m".to_owned(),
        image: "i".to_owned(),
        tsc_khz: 1000,
        tsc: 0,
        utc_us: 0,
        one_in: 1,
        sources: vec![thread("vcpu"), thread("io"), Source::Environment { number: 0 }],
        sites: SITES.map(|(name, kind)| Site { name: name.to_owned(), kind: kind.to_owned() }).to_vec(),
        buckets: Bucket::all().map(Bucket::title).collect(),
        happenings: vec![],
        kvm: Default::default(),
    }
}

/// What was recorded.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) header: Header,
    /// By source.
    pub(super) records: [Vec<Record>; 3],
    followed: u64,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self { header: header(), records: Default::default(), followed: 0 }
    }

    fn guest(&mut self, tsc: u64, site: u32, kind: u16, subject: u64, argument: u64) -> &mut Self {
        let subject = if subject == 0 { self.followed } else { subject };
        self.records[usize::from(GUEST)].push(Record {
            tsc,
            what: pack_what(site, kind, 0),
            subject,
            argument,
        });
        self
    }

    pub(super) fn follow(&mut self, subject: u64) -> &mut Self {
        self.followed = subject;
        self
    }

    pub(super) fn enter(&mut self, tsc: u64, site: u32, outer: u32) -> &mut Self {
        self.guest(tsc, site, RECORD_ENTER, 0, outer.into())
    }

    pub(super) fn leave(&mut self, tsc: u64, site: u32, outer: u32) -> &mut Self {
        self.guest(tsc, site, RECORD_LEAVE, 0, outer.into())
    }

    pub(super) fn data(&mut self, tsc: u64, behind: u64) -> &mut Self {
        self.guest(tsc, DATA, RECORD_EVENT, self.followed, behind)
    }

    pub(super) fn goes_on(&mut self, tsc: u64, packet: u64, cause: u64) -> &mut Self {
        self.follow(packet).guest(tsc, GOES_ON, RECORD_EVENT, packet, cause)
    }

    pub(super) fn acknowledged(&mut self, tsc: u64, packet: u64) -> &mut Self {
        self.guest(tsc, ACKNOWLEDGED, RECORD_EVENT, packet, 1)
    }

    pub(super) fn requests(&mut self, tsc: u64, n: u64) -> &mut Self {
        let site = if n.is_multiple_of(2) { REQUESTS } else { REQUESTS_TOO };
        self.guest(tsc, site, RECORD_COUNTER, 0, n)
    }

    pub(super) fn queued(&mut self, tsc: u64, frame: u64) -> &mut Self {
        self.guest(tsc, QUEUED, RECORD_EVENT, frame, self.followed)
    }

    pub(super) fn disk_queued(&mut self, tsc: u64, request: u64) -> &mut Self {
        self.guest(tsc, DISK_QUEUED, RECORD_EVENT, request, self.followed)
    }

    pub(super) fn bucket(&mut self, source: u16, tsc: u64, bucket: Bucket) -> &mut Self {
        self.records[usize::from(source)].push(Record::bucket(tsc, bucket));
        self
    }

    fn happened(&mut self, source: u16, what: Happening, subject: u64, from: u64, to: u64) -> &mut Self {
        self.records[usize::from(source)].push(Record::happening(what, subject, from, to));
        self
    }

    /// The device reads a packet from `from` to `to`; it is published at `published`.
    pub(super) fn receives(
        &mut self,
        source: u16,
        packet: u64,
        [from, to, published]: [u64; 3],
    ) -> &mut Self {
        self.bucket(source, from, Bucket::BackendRead)
            .bucket(source, to, Bucket::NetReceive)
            .happened(source, Happening::Received, packet, from, to)
            .bucket(source, published, Bucket::Poll)
    }

    /// The device takes a frame at `taken` and writes it from `from` to `to`.
    pub(super) fn sends(&mut self, source: u16, frame: u64, [taken, from, to]: [u64; 3]) -> &mut Self {
        self.bucket(source, taken, Bucket::NetTransmit)
            .bucket(source, from, Bucket::BackendWrite)
            .bucket(source, to, Bucket::NetTransmit)
            .happened(source, Happening::Sent, frame, from, to)
            .bucket(source, to, Bucket::Poll)
    }

    pub(super) fn disk_does(&mut self, request: u64, taken: u64, done: u64) -> &mut Self {
        self.happened(VCPU, Happening::DiskDone, request, taken, done)
    }

    /// Time passes, and nothing happens.
    pub(super) fn silence_until(&mut self, tsc: u64) -> &mut Self {
        for step in 0..4 {
            self.bucket(VCPU, tsc + step * 10_000, Bucket::Wait).bucket(
                VCPU,
                tsc + step * 10_000 + 1,
                Bucket::Poll,
            );
        }
        self
    }

    /// A request that takes 100 ticks and is acknowledged: received, 10 ticks in each layer.
    pub(super) fn request(&mut self, begin: u64, n: u64) -> &mut Self {
        let at = |ticks| begin + ticks;
        self.receives(VCPU, packet(n), [at(0), at(10), at(20)]);
        self.follow(0).enter(at(25), LOOP, 0).follow(packet(n));
        self.enter(at(30), INPUT, LOOP).leave(at(40), INPUT, LOOP).data(at(40), 0);
        self.enter(at(40), SERVICE, LOOP).requests(at(45), 1).leave(at(50), SERVICE, LOOP);
        self.enter(at(50), OUTPUT, LOOP).enter(at(60), NIC, OUTPUT).queued(at(70), frame(n));
        self.leave(at(70), NIC, OUTPUT).leave(at(72), OUTPUT, LOOP);
        self.follow(0).leave(at(75), LOOP, 0);
        self.sends(VCPU, frame(n), [at(80), at(90), at(100)]);
        self.acknowledged(at(200), packet(n))
    }

    /// All that was recorded, as it is collected every 10 ms.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        let slice = |record: &Record| record.tsc / 10_000;
        let mut by_slice: BTreeMap<(u64, u16), Vec<Record>> = BTreeMap::new();
        for (source, records) in (0u16..).zip(&self.records) {
            records
                .iter()
                .for_each(|record| by_slice.entry((slice(record), source)).or_default().push(*record));
        }
        by_slice
            .into_iter()
            .map(|((_, source), records)| Piece::Records { source, lost: 0, records })
            .collect()
    }

    /// The report of it.
    pub(super) fn report(&self) -> Report {
        report(&self.header, &self.pieces())
    }
}

pub(super) fn report(header: &Header, pieces: &[Piece]) -> Report {
    let mut requests = Requests::new(header, Keep { slowest: 5, typical: true });
    pieces.iter().for_each(|piece| requests.feed(piece));
    requests.finish()
}

/// The layers of a report with their maxima, those of time that all of its requests had.
pub(super) fn layers(report: &Report) -> Vec<(String, u64)> {
    let max = |layer: LayerFigures| (layer.name, layer.spread.cycles.max);
    report.layers().into_iter().map(|(_, layer)| max(layer)).collect()
}

pub(super) fn max_of(report: &Report, name: &str) -> u64 {
    layers(report).into_iter().find(|(own, _)| own == name).map_or(0, |(_, max)| max)
}
