//! The retransmission timeout (RFC 6298): smoothed round-trip time, its variation, exponential backoff.

use crate::time::{Duration, Span};

/// RFC 6298 (2.1): before the first measurement.
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// RFC 6298 (5.7): for data, if the SYN was lost.
const RTO_AFTER_LOST_SYN: Duration = Duration::from_secs(3);
/// RFC 6298 (2.5): the upper bound, at least 60 seconds.
pub(crate) const MAX_RTO: Duration = Duration::from_secs(60);
/// Beyond this the upper bound has been reached from any RTO.
pub(crate) const MAX_BACKOFF: u8 = 16;

/// The state of one connection's timeout.
#[derive(Debug)]
pub(crate) struct Rto {
    /// `NOT_MEASURED` before the first measurement.
    smoothed: Span,
    variation: Span,
    base: Span,
    backoff: u8,
}

const NOT_MEASURED: Span = Span::MAX;

impl Rto {
    pub(crate) fn new(min: Duration) -> Self {
        Self {
            smoothed: NOT_MEASURED,
            variation: Span::ZERO,
            base: Span::ceil(INITIAL_RTO.max(min)),
            backoff: 0,
        }
    }

    /// A round-trip time was measured, on a segment that was sent once only (Karn's algorithm is the caller's part). Returns the
    /// smoothed one.
    pub(crate) fn sample(&mut self, rtt: Duration, min: Duration) -> Duration {
        let sample = rtt.as_nanos();
        let (smoothed, variation) = match self.smoothed {
            NOT_MEASURED => (sample, sample / 2),
            smoothed => {
                let smoothed = smoothed.duration().as_nanos();
                let deviation = smoothed.abs_diff(sample);
                // (2.3) with alpha = 1/8 and beta = 1/4.
                let variation = self.variation.duration().as_nanos();
                (smoothed - smoothed / 8 + sample / 8, variation - variation / 4 + deviation / 4)
            }
        };
        self.smoothed = Span::nearest(Duration::from_nanos(smoothed));
        self.variation = Span::nearest(Duration::from_nanos(variation));
        let rto = smoothed.saturating_add(variation.saturating_mul(4));
        self.base = Span::ceil(Duration::from_nanos(rto).max(min).min(MAX_RTO));
        Duration::from_nanos(smoothed)
    }

    /// RFC 6298 (5.7): our SYN was sent again and there is no measurement, so data begins with three seconds.
    pub(crate) fn syn_was_repeated(&mut self) {
        self.base = self.base.max(Span::ceil(RTO_AFTER_LOST_SYN));
    }

    /// The smoothed round-trip time, once there was a measurement.
    #[inline]
    pub(crate) fn smoothed(&self) -> Option<Duration> {
        (self.smoothed != NOT_MEASURED).then(|| self.smoothed.duration())
    }

    /// The timeout to arm a timer with.
    #[inline]
    pub(crate) fn timeout(&self) -> Duration {
        if self.backoff == 0 {
            return self.base.duration();
        }
        Duration::from_nanos(self.base.duration().as_nanos().saturating_mul(1 << self.backoff)).min(MAX_RTO)
    }

    /// The timer expired: double the timeout (5.5).
    pub(crate) fn back_off(&mut self) {
        self.backoff = (self.backoff + 1).min(MAX_BACKOFF);
    }

    /// A round trip was measured, on which (5.7) the next timeout is based; or the wait was for something else.
    #[inline]
    pub(crate) fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Consecutive expirations without progress.
    pub(crate) fn backoff(&self) -> u8 {
        self.backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);

    #[test]
    fn rto_before_a_sample_is_one_second_and_doubles_to_sixty() {
        let mut rto = Rto::new(MIN);
        assert_eq!(rto.timeout(), Duration::from_secs(1));
        rto.back_off();
        assert_eq!(rto.timeout(), Duration::from_secs(2));
        for _ in 0..40 {
            rto.back_off();
        }
        assert_eq!(rto.timeout(), Duration::from_secs(60));
    }

    #[test]
    fn rto_first_sample_sets_rtt_and_half_of_it() {
        let mut rto = Rto::new(MIN);
        rto.sample(Duration::from_millis(100), MIN);
        // SRTT + 4 * RTTVAR = 100 + 4 * 50.
        assert_eq!(rto.timeout(), Duration::from_millis(300));
    }

    #[test]
    fn rto_later_samples_are_smoothed() {
        let mut rto = Rto::new(MIN);
        rto.sample(Duration::from_millis(800), MIN);
        rto.sample(Duration::from_millis(1600), MIN);
        // SRTT = 7/8 * 800 + 1/8 * 1600 = 900; RTTVAR = 3/4 * 400 + 1/4 * 800 = 500.
        assert_eq!(rto.timeout(), Duration::from_millis(2900));
    }

    #[test]
    fn rto_of_a_fast_link_is_the_minimum() {
        let mut rto = Rto::new(MIN);
        rto.sample(Duration::from_micros(20), MIN);
        assert_eq!(rto.timeout(), MIN);
    }
}
