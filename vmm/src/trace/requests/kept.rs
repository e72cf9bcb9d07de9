//! Requests that are kept whole, with the records of that time: the slowest ones, and a fair sample of all. Both have so much memory
//! and no more; what does not fit is left out and said.

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
/// Memory for the slowest, and
const SLOWEST_BYTES_MAX: usize = 256 << 20;
/// for the sample.
const SAMPLE_BYTES_MAX: usize = 64 << 20;

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

/// What there was no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Of the slowest: whole requests. Those that are kept are slower than each of them.
    pub slowest: usize,
    /// Of the slowest that are kept: the records.
    pub records: usize,
    /// Requests that would have been in the sample.
    pub sample: u64,
}

impl Kept {
    /// Memory that it takes.
    fn bytes(&self) -> usize {
        let Request { packets, frames, path, bars, .. } = &self.request;
        let of_request = size_of_val(&packets[..])
            + size_of_val(&frames[..])
            + size_of_val(&path[..])
            + size_of_val(&bars[..]);
        size_of::<Self>() + of_request + self.records_bytes()
    }

    fn records_bytes(&self) -> usize {
        self.records.values().map(|records| size_of_val(&records[..])).sum()
    }

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
    slowest_bytes: usize,
    slowest_bytes_max: usize,
    /// One that took so long had to go for want of room: faster ones are not kept in its place.
    floor_cycles: u64,
    sample_max: usize,
    sample: Vec<Kept>,
    sample_bytes: usize,
    /// Of the sample, for want of room.
    sample_left_out: u64,
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
            slowest_bytes: 0,
            slowest_bytes_max: SLOWEST_BYTES_MAX,
            floor_cycles: 0,
            sample_max: if with_sample { SAMPLE } else { 0 },
            sample: Vec::new(),
            sample_bytes: 0,
            sample_left_out: 0,
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
        if place < self.slowest_max && cycles > self.floor_cycles {
            let kept = self.keep(request, SLOW_RECORDS_MAX);
            self.slowest_bytes += kept.bytes();
            self.slowest.insert(place, kept);
            while self.slowest.len() > self.slowest_max {
                self.drop_fastest();
            }
            self.make_room();
        }
        if self.sample.len() < self.sample_max {
            self.sample_one(request, None);
        } else if self.sample_max > 0 {
            // Algorithm R (Vitter 1985): each request is in the sample with the same probability.
            let place = (self.next_random() % self.seen) as usize;
            if place < self.sample_max {
                self.sample_one(request, Some(place));
            }
        }
    }

    /// Gives up the records of the fastest of the slowest, and where that is not enough these requests themselves.
    fn make_room(&mut self) {
        let mut with_records = self.slowest.len();
        while self.slowest_bytes > self.slowest_bytes_max && with_records > 1 {
            with_records -= 1;
            let kept = &mut self.slowest[with_records];
            self.slowest_bytes -= kept.records_bytes();
            kept.cut |= !kept.records.is_empty();
            kept.records = BTreeMap::new();
        }
        while self.slowest_bytes > self.slowest_bytes_max && self.slowest.len() > 1 {
            self.floor_cycles = self.drop_fastest();
        }
    }

    /// How long that took.
    fn drop_fastest(&mut self) -> u64 {
        let Some(fastest) = self.slowest.pop() else { return 0 };
        self.slowest_bytes -= fastest.bytes();
        fastest.request.cycles()
    }

    /// One for the sample, instead of another or not.
    fn sample_one(&mut self, request: &Request, instead_of: Option<usize>) {
        let kept = self.keep(request, SAMPLE_RECORDS_MAX);
        let freed = instead_of.map_or(0, |place| self.sample[place].bytes());
        let bytes = self.sample_bytes - freed + kept.bytes();
        if bytes > SAMPLE_BYTES_MAX {
            self.sample_left_out += 1;
            return;
        }
        self.sample_bytes = bytes;
        match instead_of {
            Some(place) => self.sample[place] = kept,
            None => self.sample.push(kept),
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

    /// The slowest, the slowest first; the sample, the fastest first; and what there was no room for.
    pub(super) fn finish(self) -> (Vec<Kept>, Vec<Kept>, LeftOut) {
        let mut sample = self.sample;
        sample.sort_by_key(|kept| kept.request.cycles());
        let wanted = self.slowest_max.min(usize::try_from(self.seen).unwrap_or(usize::MAX));
        let left_out = LeftOut {
            slowest: wanted - self.slowest.len(),
            records: self.slowest.iter().filter(|kept| kept.cut && kept.records.is_empty()).count(),
            sample: self.sample_left_out,
        };
        (self.slowest, sample, left_out)
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
        let (slowest, sample, left_out) = keeper.finish();
        assert!(sample.is_empty() && left_out == LeftOut::default());
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
    fn slowest_have_so_much_memory_and_what_does_not_fit_is_counted() {
        let record_bytes = size_of::<Record>();
        let mut keeper = Keeper::new(10, false);
        keeper.slowest_bytes_max = 10 * size_of::<Kept>() + 10 * 8 + 350 * record_bytes;
        keeper.remember(0, &records(0..10_000));
        for n in 0..20 {
            keeper.offer(&request(n * 200, n * 200 + 100 + n));
            let bytes: usize = keeper.slowest.iter().map(Kept::bytes).sum();
            assert_eq!(bytes, keeper.slowest_bytes);
            assert!(bytes <= keeper.slowest_bytes_max);
        }
        let (slowest, _, left_out) = keeper.finish();
        assert_eq!(left_out, LeftOut { slowest: 0, records: 8, sample: 0 });
        let cycles: Vec<_> =
            slowest.iter().map(|kept| (kept.request.cycles(), kept.records.is_empty())).collect();
        assert_eq!(&cycles[..3], [(119, false), (118, false), (117, true)]);
        assert_eq!((cycles.len(), slowest[2].cut, slowest[1].cut), (10, true, false));
    }

    #[test]
    fn where_even_the_requests_do_not_fit_those_that_are_kept_are_the_slowest() {
        let mut keeper = Keeper::new(10, false);
        let long =
            |begin: u64, cycles: u64| Request { frames: vec![0; 1000], ..request(begin, begin + cycles) };
        keeper.slowest_bytes_max = 3 * (size_of::<Kept>() + 8008) + 100;
        for cycles in [50, 40, 30, 20, 35, 10, 60] {
            keeper.offer(&long(0, cycles));
            // Small ones that would fit, but are faster than one that had to go.
            keeper.offer(&request(0, 5));
        }
        let (slowest, _, left_out) = keeper.finish();
        let cycles: Vec<_> = slowest.iter().map(|kept| kept.request.cycles()).collect();
        assert_eq!(cycles, [60, 50, 40]);
        assert_eq!(left_out.slowest, 7);
    }

    #[test]
    fn sample_is_of_all_requests() {
        let mut keeper = Keeper::new(0, true);
        for n in 0..10_000 {
            keeper.offer(&request(n, n + 1));
        }
        let (_, sample, _) = keeper.finish();
        assert_eq!(sample.len(), SAMPLE);
        let late = sample.iter().filter(|kept| kept.request.begin >= 5000).count();
        assert!((30..70).contains(&late), "{late}");
    }

    #[test]
    fn sample_has_so_much_memory_and_what_does_not_fit_is_counted() {
        let mut keeper = Keeper::new(0, true);
        let huge = SAMPLE_BYTES_MAX / 8 / 10;
        for n in 0..50 {
            keeper.offer(&Request { frames: vec![0; huge], ..request(n, n + 1) });
        }
        assert!(keeper.sample.iter().map(Kept::bytes).sum::<usize>() <= SAMPLE_BYTES_MAX);
        let (_, sample, left_out) = keeper.finish();
        assert_eq!((sample.len() as u64 + left_out.sample, sample.len()), (50, 9));
    }
}
