//! A token bucket: so many answers a second, and so many at once after a pause. It is kept as the time at which the bucket
//! would be full again, so that it needs no timer.

use crate::config::Rate;
use crate::time::Instant;

#[derive(Debug)]
pub(crate) struct TokenBucket {
    /// With every token that is taken this moves on by the time that a token takes to come.
    full_at: Instant,
}

impl TokenBucket {
    pub(crate) fn new() -> Self {
        Self { full_at: Instant::ZERO }
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&mut self, now: Instant, rate: Rate) -> bool {
        let Some(interval) = 1_000_000_000u64.checked_div(u64::from(rate.per_second)) else { return false };
        let missing = self.full_at.since(now).as_nanos();
        if missing + interval > interval * u64::from(rate.burst) {
            return false;
        }
        self.full_at = Instant::from_nanos(now.as_nanos().saturating_add(missing + interval));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    #[test]
    fn bucket_gives_a_burst_then_its_rate() {
        let mut bucket = TokenBucket::new();
        let start = Instant::from_millis(5_000);
        assert_eq!([0; 5].map(|_| bucket.take(start, RATE)), [true, true, true, false, false]);
        assert!(!bucket.take(Instant::from_millis(5_099), RATE));
        assert!(bucket.take(Instant::from_millis(5_100), RATE));
        assert!(!bucket.take(Instant::from_millis(5_100), RATE));
        let given = (0..1_000).filter(|ms| bucket.take(Instant::from_millis(6_000 + ms), RATE)).count();
        assert!((10..=13).contains(&given), "{given}");
    }

    #[test]
    fn bucket_without_rate_or_burst_gives_nothing() {
        for rate in [Rate { per_second: 0, burst: 9 }, Rate { per_second: 9, burst: 0 }] {
            assert!(!TokenBucket::new().take(Instant::from_millis(1), rate));
        }
    }
}
