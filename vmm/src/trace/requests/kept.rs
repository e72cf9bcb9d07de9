//! Requests that are kept whole, with the records of that time: the slowest ones, and a fair sample of all.

use super::request::Request;
use crate::trace::record::Record;
use crate::trace::stream::Piece;
use std::collections::{BTreeMap, VecDeque};

/// Records that are remembered at most, of all sources together: 96 MB.
const RECENT_MAX: usize = 3 << 20;
/// How old they are at most.
pub(super) const RECENT_MS: u64 = 4000;
/// Records kept with one of the slowest.
const SLOW_RECORDS_MAX: usize = 100_000;
/// Records kept with one of the sample.
const SAMPLE_RECORDS_MAX: usize = 4000;
/// The sample.
const SAMPLE: usize = 100;

/// A request and what was recorded while it was under way.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The request.
    pub request: Request,
    /// By source, also of other requests.
    pub records: BTreeMap<u16, Vec<Record>>,
    /// Not all of that time's records are there.
    pub cut: bool,
}

impl Kept {
    /// As a stream of nothing else.
    pub fn pieces(&self) -> Vec<Piece> {
        let piece = |(source, records): (&u16, &Vec<Record>)| Piece::Records {
            source: *source,
            lost: 0,
            records: records.clone(),
        };
        self.records.iter().map(piece).collect()
    }
}

/// The latest records, and the requests that are kept.
#[derive(Debug)]
pub(super) struct Keeper {
    recent: BTreeMap<u16, VecDeque<Record>>,
    remembered: usize,
    slowest_max: usize,
    /// The slowest first.
    slowest: Vec<Kept>,
    sample_max: usize,
    sample: Vec<Kept>,
    seen: u64,
    random: u64,
}

impl Keeper {
    /// Keeps so many of the slowest, and a sample if asked to.
    pub(super) fn new(slowest_max: usize, with_sample: bool) -> Self {
        Self {
            recent: BTreeMap::new(),
            remembered: 0,
            slowest_max,
            slowest: Vec::new(),
            sample_max: if with_sample { SAMPLE } else { 0 },
            sample: Vec::new(),
            seen: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    fn keeps(&self) -> bool {
        self.slowest_max > 0 || self.sample_max > 0
    }

    /// Remembers what came.
    pub(super) fn remember(&mut self, source: u16, records: &[Record]) {
        if !self.keeps() {
            return;
        }
        self.recent.entry(source).or_default().extend(records);
        self.remembered += records.len();
        while self.remembered > RECENT_MAX {
            let Some(longest) = self.recent.values_mut().max_by_key(|records| records.len()) else { return };
            let out = (longest.len() / 4).max(1);
            longest.drain(..out);
            self.remembered -= out;
        }
    }

    /// Forgets records from before.
    pub(super) fn forget(&mut self, before: u64) {
        for records in self.recent.values_mut() {
            let old = records.partition_point(|record| record.tsc < before);
            records.drain(..old);
            self.remembered -= old;
        }
    }

    /// Keeps a request, or not.
    pub(super) fn offer(&mut self, request: &Request) {
        self.seen += 1;
        let cycles = request.cycles();
        let place = self.slowest.partition_point(|slow| slow.request.cycles() >= cycles);
        if place < self.slowest_max {
            let kept = self.keep(request, SLOW_RECORDS_MAX);
            self.slowest.insert(place, kept);
            self.slowest.truncate(self.slowest_max);
        }
        if self.sample.len() < self.sample_max {
            let kept = self.keep(request, SAMPLE_RECORDS_MAX);
            self.sample.push(kept);
        } else if self.sample_max > 0 {
            // Algorithm R (Vitter 1985): each request is in the sample with the same probability.
            let place = (self.next_random() % self.seen) as usize;
            if place < self.sample_max {
                self.sample[place] = self.keep(request, SAMPLE_RECORDS_MAX);
            }
        }
    }

    /// xorshift64: which requests are in the sample need not be a secret.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    fn keep(&self, request: &Request, max: usize) -> Kept {
        let (mut records, mut left, mut cut) = (BTreeMap::new(), max, false);
        for (source, recent) in &self.recent {
            let from = recent.partition_point(|record| record.tsc < request.begin);
            let to = recent.partition_point(|record| record.tsc <= request.end).max(from);
            // What was done at its beginning had begun before.
            let from = from.saturating_sub(1);
            cut |= from == 0 && recent.front().is_some_and(|record| record.tsc > request.begin);
            let taken = (to - from).min(left);
            cut |= taken < to - from;
            left -= taken;
            if taken > 0 {
                records.insert(*source, recent.range(from..from + taken).copied().collect());
            }
        }
        Kept { request: request.clone(), records, cut }
    }

    /// The slowest, the slowest first; and the sample, the fastest first.
    pub(super) fn finish(self) -> (Vec<Kept>, Vec<Kept>) {
        let mut sample = self.sample;
        sample.sort_by_key(|kept| kept.request.cycles());
        (self.slowest, sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(begin: u64, end: u64) -> Request {
        Request {
            source: 0,
            packets: vec![begin],
            requests: 1,
            frames: vec![],
            continued: 0,
            begin,
            end,
            path: vec![],
            bars: vec![],
        }
    }

    fn records(range: std::ops::Range<u64>) -> Vec<Record> {
        range.map(|tsc| Record { tsc, ..Record::default() }).collect()
    }

    #[test]
    fn slowest_are_kept_in_order_with_the_records_of_their_time() {
        let mut keeper = Keeper::new(2, false);
        keeper.remember(3, &records(0..100));
        for (begin, end) in [(0, 5), (10, 30), (40, 45), (50, 59), (60, 90)] {
            keeper.offer(&request(begin, end));
        }
        let (slowest, sample) = keeper.finish();
        assert!(sample.is_empty());
        let ends: Vec<_> = slowest.iter().map(|kept| (kept.request.end, kept.cut)).collect();
        assert_eq!(ends, [(90, false), (30, false)]);
        let own = &slowest[1].records[&3];
        assert_eq!((own.first().unwrap().tsc, own.last().unwrap().tsc), (9, 30));
    }

    #[test]
    fn records_are_forgotten_by_age_and_number_and_what_is_missing_is_said() {
        let mut keeper = Keeper::new(1, false);
        keeper.remember(0, &records(0..RECENT_MAX as u64 + 1));
        assert!(keeper.remembered <= RECENT_MAX);
        keeper.offer(&request(5, 2_000_000));
        assert!(keeper.slowest[0].cut);
        keeper.forget(RECENT_MAX as u64);
        assert_eq!(keeper.remembered, 1);
    }

    #[test]
    fn sample_is_of_all_requests() {
        let mut keeper = Keeper::new(0, true);
        for n in 0..10_000 {
            keeper.offer(&request(n, n + 1));
        }
        let (_, sample) = keeper.finish();
        assert_eq!(sample.len(), SAMPLE);
        let late = sample.iter().filter(|kept| kept.request.begin >= 5000).count();
        assert!((30..70).contains(&late), "{late}");
    }
}
