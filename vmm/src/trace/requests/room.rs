//! How much memory is taken by what is known of packets at work. A guest writes down as much as it likes of as many packets as it
//! likes, and it is the client's memory that this is remembered in.

use std::collections::BTreeMap;

/// All environments together. At full load (200,000 requests/s, everything recorded) a request takes about 2 KB, and is remembered for
/// some tens of milliseconds.
const BYTES_MAX: usize = 256 << 20;

/// What there is, and what of it each environment has taken.
///
/// An environment may have as much as is left for the others ("dynamic thresholds", Choudhury and Hahne 1998): one that takes all it
/// gets has half of it, and whoever comes next gets half of the rest, so nobody takes everything.
#[derive(Debug)]
pub(super) struct Room {
    max: usize,
    used: usize,
    by_source: BTreeMap<u16, usize>,
}

/// An environment's part of it.
#[derive(Debug)]
pub(super) struct Share<'a> {
    max: usize,
    all: &'a mut usize,
    own: &'a mut usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { max: BYTES_MAX, used: 0, by_source: BTreeMap::new() }
    }
}

impl Room {
    /// For an environment that takes more.
    pub(super) fn of(&mut self, source: u16) -> Share<'_> {
        let own = self.by_source.entry(source).or_default();
        Share { max: self.max, all: &mut self.used, own }
    }

    /// After a look at all that is still there.
    pub(super) fn count_anew(&mut self, bytes: impl Iterator<Item = (u16, usize)>) {
        self.by_source = bytes.collect();
        self.used = self.by_source.values().sum();
    }
}

impl Share<'_> {
    /// Takes so much, or nothing if there is not enough.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = *self.own + bytes <= self.max.saturating_sub(*self.all);
        if fits {
            *self.own += bytes;
            *self.all += bytes;
        }
        fits
    }

    /// One more on a list, whose growth is taken from here. Whether there was room.
    pub(super) fn push<T>(&mut self, list: &mut Vec<T>, part: T) -> bool {
        if list.len() == list.capacity() {
            let more = list.capacity().max(2);
            if !self.take(more * size_of::<T>()) {
                return false;
            }
            list.reserve_exact(more);
        }
        list.push(part);
        true
    }
}

#[cfg(test)]
impl Room {
    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) const fn max() -> usize {
        BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_all_it_gets_leaves_half_to_the_next() {
        let mut room = Room { max: 1 << 20, ..Room::default() };
        let mut taken = Vec::new();
        for source in 0..4 {
            let mut list = Vec::new();
            while room.of(source).push(&mut list, 0u64) {}
            assert_eq!(list.len(), list.capacity());
            taken.push(size_of_val(&list[..]));
        }
        assert_eq!(taken[0], 512 << 10);
        assert!(taken.iter().all(|bytes| *bytes >= 64 << 10), "{taken:?}");
        assert!(room.used <= room.max);
        room.count_anew([(0, 100)].into_iter());
        assert!(room.of(1).take(500 << 10), "what was given back is there again");
    }
}
