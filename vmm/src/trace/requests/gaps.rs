//! Where records are missing: a request that was under way then is not shown, for it would look faster than it was.

use std::collections::{HashMap, VecDeque};

/// Gaps of a source that are kept apart; beyond, the oldest become one.
const GAPS_MAX: usize = 4096;

/// A stretch of time without some of its records.
#[derive(Clone, Copy, Debug)]
struct Gap {
    from: u64,
    to: u64,
}

/// The gaps of all sources.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// Each source's last record.
    last: HashMap<u16, u64>,
    /// Gaps whose end is not known yet, by source: their beginning.
    open: HashMap<u16, u64>,
    closed: HashMap<u16, VecDeque<Gap>>,
    /// Records that are missing.
    pub(super) records: u64,
}

impl Gaps {
    /// Records of this source are missing before those that come next.
    pub(super) fn lost(&mut self, source: u16, records: u64) {
        self.records = self.records.saturating_add(records);
        let from = self.last.get(&source).copied().unwrap_or(0);
        self.open.entry(source).or_insert(from);
    }

    /// The next records of this source are from then on, until then.
    pub(super) fn seen(&mut self, source: u16, first: u64, last: u64) {
        if let Some(from) = self.open.remove(&source) {
            let closed = self.closed.entry(source).or_default();
            closed.push_back(Gap { from, to: first });
            if closed.len() > GAPS_MAX
                && let (Some(one), Some(other)) = (closed.pop_front(), closed.pop_front())
            {
                closed.push_front(Gap { from: one.from.min(other.from), to: one.to.max(other.to) });
            }
        }
        self.last.insert(source, last);
    }

    /// Forgets what ended before.
    pub(super) fn forget(&mut self, before: u64) {
        self.closed.values_mut().for_each(|closed| closed.retain(|gap| gap.to >= before));
    }

    /// Whether something is missing between two moments, of a source of which `matters` says so.
    pub(super) fn cross(&self, begin: u64, end: u64, matters: impl Fn(u16) -> bool) -> bool {
        let open = self.open.iter().any(|(source, from)| *from <= end && matters(*source));
        let crosses = |gap: &Gap| gap.from <= end && begin <= gap.to;
        let mut closed = self.closed.iter().filter(|(source, _)| matters(**source));
        let closed = closed.any(|(_, gaps)| gaps.iter().any(crosses));
        open || closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gap_is_between_the_records_around_it_and_only_of_its_source() {
        let mut gaps = Gaps::default();
        gaps.seen(1, 10, 20);
        gaps.lost(1, 5);
        assert!(gaps.cross(25, 26, |source| source == 1), "nobody knows how far it goes");
        assert!(!gaps.cross(25, 26, |source| source == 2));
        gaps.seen(1, 30, 40);
        assert!(gaps.cross(5, 20, |_| true) && gaps.cross(29, 50, |_| true));
        assert!(!gaps.cross(5, 19, |_| true) && !gaps.cross(31, 50, |_| true));
        gaps.forget(31);
        assert!(!gaps.cross(0, 100, |_| true));
        assert_eq!(gaps.records, 5);
    }

    #[test]
    fn many_gaps_become_one_and_none_is_forgotten() {
        let mut gaps = Gaps::default();
        for n in 0..GAPS_MAX as u64 * 2 {
            gaps.lost(0, 1);
            gaps.seen(0, n * 10 + 5, n * 10 + 8);
        }
        assert!(gaps.closed[&0].len() <= GAPS_MAX);
        assert!(!gaps.cross(0, u64::MAX, |source| source == 1), "another source's are its own");
        assert!(
            gaps.cross(12, 13, |_| true)
                && gaps.cross(GAPS_MAX as u64 * 19, GAPS_MAX as u64 * 19 + 9, |_| true)
        );
    }
}
