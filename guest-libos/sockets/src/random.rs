//! Random numbers for ports and identifiers that nobody outside can guess: a keyed hash of a counter. The key is made of the
//! stack's secret, and so fresh at every boot.

use core::hash::Hasher;
use core::ops::RangeInclusive;
use siphasher::sip::SipHasher24;

/// Makes random numbers.
#[derive(Debug)]
pub(crate) struct Random {
    secret: [u8; 16],
    count: u64,
}

impl Random {
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self { secret, count: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(b"sockets");
        hasher.write_u64(self.count);
        hasher.finish()
    }

    /// A port of `range` that `is_free`, or `None` if there is none (RFC 6056 3.3.1).
    pub(crate) fn port(&mut self, range: &RangeInclusive<u16>, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let first = u64::from(*range.start());
        let count = (u64::from(*range.end()) + 1).checked_sub(first).filter(|&count| count > 0)?;
        let begin = self.next() % count;
        (0..count).map(|step| (first + (begin + step) % count) as u16).find(|&port| is_free(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn ports_are_free_and_of_the_range_and_none_is_left_when_all_are_taken() {
        let mut random = Random::new([1; 16]);
        let mut taken = BTreeSet::new();
        for _ in 0..100 {
            let port = random.port(&(65_436..=65_535), |port| !taken.contains(&port)).expect("one is left");
            assert!(port >= 65_436 && taken.insert(port));
        }
        assert_eq!(random.port(&(65_436..=65_535), |port| !taken.contains(&port)), None);
    }

    #[test]
    fn ports_do_not_follow_each_other_and_differ_by_secret() {
        let ports = |secret| {
            let mut random = Random::new([secret; 16]);
            [(); 50].map(|()| random.port(&(32_768..=60_999), |_| true).expect("all are free"))
        };
        let drawn = ports(1);
        let near = drawn.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 100).count();
        assert!(near < 5, "{drawn:?}");
        assert_ne!(drawn, ports(2));
    }
}
