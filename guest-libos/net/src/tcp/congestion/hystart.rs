//! HyStart++ (RFC 9406): round trips that get longer say that a queue fills, and end the first slow start before it
//! overflows. A round is what was sent when its predecessor was acknowledged; its shortest round trip is compared with its
//! predecessor's. A rise leads to conservative slow start, which goes back if it was a mistake.

use super::super::Seq;
use super::Ack;

/// RFC 9406 4.3, in microseconds.
const MIN_RTT_THRESH_US: u32 = 4_000;
const MAX_RTT_THRESH_US: u32 = 16_000;
const MIN_RTT_DIVISOR: u32 = 8;
/// So few round trips say nothing.
const N_RTT_SAMPLE: u8 = 8;
/// Conservative slow start grows by this fraction of slow start.
pub(super) const CSS_GROWTH_DIVISOR: u32 = 4;
/// Conservative slow start lasts for so many rounds.
const CSS_ROUNDS: u8 = 5;

/// No round trip was measured.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct HyStart {
    /// windowEnd.
    round_end: Seq,
    /// lastRoundMinRTT, in microseconds.
    last_min_us: u32,
    /// currentRoundMinRTT, in microseconds.
    current_min_us: u32,
    /// cssBaselineMinRtt, in microseconds.
    css_baseline_us: u32,
    /// rttSampleCount, no further than is asked for.
    samples: u8,
    /// Rounds of conservative slow start, the present one included; 0 in slow start.
    css_rounds: u8,
}

/// How the window grows by this acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    SlowStart,
    /// By [`CSS_GROWTH_DIVISOR`] less.
    Conservative,
    /// Slow start is over.
    Avoidance,
}

impl HyStart {
    pub(super) fn new(isn: Seq) -> Self {
        Self {
            round_end: isn,
            last_min_us: NONE,
            current_min_us: NONE,
            css_baseline_us: NONE,
            samples: 0,
            css_rounds: 0,
        }
    }

    #[inline]
    pub(super) fn on_ack(&mut self, ack: &Ack) -> Next {
        if let Some(rtt) = ack.rtt {
            self.sample(rtt.as_micros().min(u64::from(NONE - 1)) as u32);
        }
        // A round that ends beyond what was sent is one of before a long time in which nobody looked.
        if self.round_end.is_at_or_before(ack.number) || self.round_end.is_after(ack.sent) {
            self.end_round(ack.sent);
        }
        match self.css_rounds {
            0 => Next::SlowStart,
            1..=CSS_ROUNDS => Next::Conservative,
            _ => Next::Avoidance,
        }
    }

    fn sample(&mut self, rtt_us: u32) {
        self.current_min_us = self.current_min_us.min(rtt_us);
        self.samples = (self.samples + 1).min(N_RTT_SAMPLE);
        if self.samples < N_RTT_SAMPLE {
            return;
        }
        if self.css_rounds > 0 {
            if self.current_min_us < self.css_baseline_us {
                // The rise was jitter.
                (self.css_rounds, self.css_baseline_us) = (0, NONE);
            }
        } else if self.last_min_us != NONE {
            let threshold = (self.last_min_us / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH_US, MAX_RTT_THRESH_US);
            if self.current_min_us >= self.last_min_us.saturating_add(threshold) {
                (self.css_rounds, self.css_baseline_us) = (1, self.current_min_us);
            }
        }
    }

    fn end_round(&mut self, sent: Seq) {
        self.round_end = sent;
        self.last_min_us = self.current_min_us;
        (self.current_min_us, self.samples) = (NONE, 0);
        if self.css_rounds > 0 {
            self.css_rounds += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::ack;
    use super::*;
    use crate::time::Duration;

    /// One round of as many samples as are needed, one after another from `rtt_ms` on.
    struct Rounds(HyStart, u32);

    impl Rounds {
        fn new() -> Self {
            Self(HyStart::new(Seq::new(0)), 0)
        }

        /// What the round's acknowledgments, the last of which ends it, said.
        fn round(&mut self, rtt_ms: u64, samples: u32) -> [Next; 2] {
            let begin = self.1;
            self.1 += samples;
            let mut said = [Next::SlowStart; 2];
            for number in 1..=samples {
                let sample = Ack {
                    number: Seq::new(begin + number),
                    sent: Seq::new(self.1 + samples),
                    rtt: Some(Duration::from_millis(rtt_ms)),
                    ..ack(1)
                };
                said = [said[1], self.0.on_ack(&sample)];
            }
            said
        }
    }

    /// The first acknowledgment ends the round that the handshake was.
    fn begun() -> Rounds {
        let mut rounds = Rounds::new();
        rounds.0.on_ack(&Ack { sent: Seq::new(0), ..ack(0) });
        rounds.0.round_end = Seq::new(20);
        rounds
    }

    #[test]
    fn rise_by_an_eighth_leads_to_five_rounds_of_conservative_slow_start() {
        let mut rounds = begun();
        assert_eq!(rounds.round(80, 20), [Next::SlowStart; 2]);
        assert_eq!(rounds.round(89, 20), [Next::SlowStart; 2]);
        // 10 ms is an eighth of 80, 11.1 one of 89.
        assert_eq!(rounds.round(101, 20), [Next::Conservative; 2]);
        for _ in 0..3 {
            assert_eq!(rounds.round(110, 20), [Next::Conservative; 2]);
        }
        assert_eq!(rounds.round(110, 20), [Next::Conservative, Next::Avoidance]);
    }

    #[test]
    fn rise_has_a_lower_and_an_upper_bound() {
        for (before, not_yet, enough) in [(1, 4, 5), (400, 415, 416)] {
            let mut rounds = begun();
            rounds.round(before, 20);
            assert_eq!(rounds.round(not_yet, 20)[0], Next::SlowStart);
            let mut rounds = begun();
            rounds.round(before, 20);
            assert_eq!(rounds.round(enough, 20)[0], Next::Conservative);
        }
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut rounds = begun();
        rounds.0.round_end = Seq::new(7);
        rounds.round(50, 7);
        assert_eq!(rounds.round(100, 7), [Next::SlowStart; 2]);
    }

    #[test]
    fn round_of_before_two_gigabytes_that_nobody_looked_at_is_over() {
        let mut rounds = begun();
        rounds.round(50, 20);
        rounds.0.round_end = Seq::new(rounds.1 + 1_000_000);
        rounds.round(50, 20);
        assert_eq!(rounds.0.round_end, Seq::new(rounds.1 + 20));
    }

    #[test]
    fn shorter_round_trip_ends_conservative_slow_start() {
        let mut rounds = begun();
        rounds.round(50, 20);
        assert_eq!(rounds.round(60, 20), [Next::Conservative; 2]);
        assert_eq!(rounds.round(59, 20), [Next::SlowStart; 2]);
        // And the rise can be found again.
        assert_eq!(rounds.round(70, 20), [Next::Conservative; 2]);
    }
}
